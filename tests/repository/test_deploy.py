"""What deploy/ describes could be read by those it is for, and fits the image, the command line and the lock. Nothing is run."""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from streamingvlm.cli.main import parser
from streamingvlm.serving import cameras
from streamingvlm.serving.access.gate import required

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SCHEMAS = yaml.safe_load((Path(__file__).parent / "deploy_schemas.yaml").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUBERNETES = {row["kind"]: row for row in yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text())}
JOB = KUBERNETES["RayJob"]["spec"]
HEAD = JOB["rayClusterSpec"]["headGroupSpec"]["template"]
SERVICE = COMPOSE["services"]["service"]


def checked(name: str, told: dict) -> None:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": SCHEMAS["$defs"]} | SCHEMAS[name]
    jsonschema_rs.Draft202012Validator(schema).validate(told)


def test_the_schemas_know_every_key():
    checked("compose", COMPOSE)
    for row in KUBERNETES.values():
        assert row.keys() == {"apiVersion", "kind", "metadata", "spec"}
        checked(f"{row['apiVersion']} {row['kind']}", row["spec"])
        jsonschema_rs.validate({"$defs": SCHEMAS["$defs"], "$ref": "#/$defs/metadata"}, row["metadata"])


@pytest.mark.parametrize("spoilt", ["key", "type", "missing"])
def test_the_schemas_refuse_what_is_wrong(spoilt):
    told = copy.deepcopy(JOB)
    group = told["rayClusterSpec"]["workerGroupSpecs"][0]
    if spoilt == "key":
        group["replica"] = group.pop("replicas")
    elif spoilt == "type":
        told["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    else:
        del group["template"]
    with pytest.raises(jsonschema_rs.ValidationError):
        checked("ray.io/v1 RayJob", told)


@pytest.mark.parametrize("name", ["compose.yaml", "kuberay.yaml"])
def test_the_first_line_says_that_nobody_ran_it(name):
    assert (DEPLOY / name).read_text().startswith("# NEVER RUN by us")


@pytest.mark.parametrize("command", [SERVICE["command"], shlex.split(JOB["entrypoint"])], ids=["compose", "kuberay"])
def test_the_command_is_one_and_its_cameras_are_let_in(command):
    args = parser().parse_args(command[1:])
    assert (args.command, args.host, str(args.file)) == ("serve", "0.0.0.0", "/config/cameras.yaml")
    told = cameras.parse(yaml.safe_load((DEPLOY / "cameras.yaml").read_text()), "cameras.yaml")
    required(told.service.model_copy(update={"host": args.host}))
    ports = {told.service.port}
    assert {int(port.split(":")[1]) for port in SERVICE["ports"]} == ports == {port["port"] for port in KUBERNETES["Service"]["spec"]["ports"]}
    assert ports <= {port["containerPort"] for port in HEAD["spec"]["containers"][0]["ports"]}
    places = {SERVICE["volumes"][k]["target"] for k in range(2)}
    assert places == {mount["mountPath"] for mount in HEAD["spec"]["containers"][0]["volumeMounts"]} == {"/config", "/records"}


def test_names_within_a_file_are_the_same():
    assert {one["source"] for one in SERVICE["volumes"] if one["type"] == "volume"} == COMPOSE["volumes"].keys()
    assert KUBERNETES["Service"]["spec"]["selector"].items() <= HEAD["metadata"]["labels"].items()
    volumes = {one["name"]: one for one in HEAD["spec"]["volumes"]}
    assert {one["name"] for one in HEAD["spec"]["containers"][0]["volumeMounts"]} == volumes.keys()
    assert volumes["records"]["persistentVolumeClaim"]["claimName"] == KUBERNETES["PersistentVolumeClaim"]["metadata"]["name"]
    labels = KUBERNETES["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    pods = [HEAD, *(group["template"] for group in JOB["rayClusterSpec"]["workerGroupSpecs"])]
    assert all(labels.items() <= pod["metadata"]["labels"].items() for pod in pods)


def test_the_image_has_what_is_asked_of_it():
    dockerfile = (ROOT / "Dockerfile").read_text()
    targets = set(re.findall(r"^FROM \S+ AS (\w+)", dockerfile, re.MULTILINE))
    assert {SERVICE["build"]["target"], "ray"} <= targets and (DEPLOY / SERVICE["build"]["context"]).resolve() == ROOT
    ray = dockerfile.partition("AS ray")[2]
    assert "-r requirements-ray.txt" in ray.partition("\nFROM")[0]
    assert "/records" in dockerfile, "a volume has the owner that its place has in the image"


def versions(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


def test_the_extras_lock_is_the_lock_and_more():
    lock, extra = versions("requirements.txt"), versions("requirements-ray.txt")
    assert lock.items() <= extra.items(), "run `make lock`"
    assert extra["ray"] == JOB["rayClusterSpec"]["rayVersion"] and "ray" not in lock
