"""A sweep file in Weights & Biases' format -> the runs it asks for, each a dict of section.key -> value.

Reads `method` (grid, random), `parameters` (nested or with dotted names), `metric` and `run_cap`; every run is checked against params.yaml
before the first one starts. Knows the format; knows nothing of how a run is run. The rules are those of W&B's own engine (the `sweeps`
package, MIT): the same order of a grid, the same meaning of each distribution.

    sweep = read(Path("sweeps/window.yaml"))
    runs(sweep, params)      # [{"cache.text_window": 16, ...}, ...]
"""

from __future__ import annotations

import itertools
import math
import random
import re
import typing
from dataclasses import asdict, dataclass
from pathlib import Path

from streamingvlm.base import config
from streamingvlm.base.errors import UserError

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
COUNT = 8  # runs of a random sweep, where neither --count nor run_cap says
DRAWS = {"uniform": lambda s, rng: rng.uniform(s["min"], s["max"]),
         "int_uniform": lambda s, rng: rng.randint(s["min"], s["max"]),
         "log_uniform": lambda s, rng: math.exp(rng.uniform(s["min"], s["max"])),
         "log_uniform_values": lambda s, rng: math.exp(rng.uniform(math.log(s["min"]), math.log(s["max"]))),
         "inv_log_uniform": lambda s, rng: math.exp(-rng.uniform(s["min"], s["max"])),
         "inv_log_uniform_values": lambda s, rng: math.exp(-rng.uniform(-math.log(s["max"]), -math.log(s["min"]))),
         "normal": lambda s, rng: rng.gauss(s.get("mu", 0), s.get("sigma", 1)),
         "log_normal": lambda s, rng: math.exp(rng.gauss(s.get("mu", 0), s.get("sigma", 1))),
         "beta": lambda s, rng: rng.betavariate(s.get("a", 1), s.get("b", 1))}


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says; `space`: section.key -> its entry, in W&B's order, which is the alphabet's."""

    path: Path
    method: str
    space: dict[str, dict]
    metric: str | None
    goal: str
    run_cap: int | None
    stops_early: bool

    @property
    def varied(self) -> list[str]:
        """The names that differ between runs."""
        return [name for name, spec in self.space.items() if "value" not in spec and len(spec.get("values", (1, 2))) > 1]


def read(path: Path) -> Sweep:
    """The file, or a `UserError` of one sentence."""
    body = _read_yaml(path)
    if not isinstance(body, dict) or not isinstance(body.get("parameters"), dict) or not body["parameters"]:
        raise UserError(f"{path} must hold `method` and `parameters`, as W&B's sweep files do; see the others in sweeps/.")
    method = body.get("method")
    if method == "bayes":
        raise UserError(f"{path}: `method: bayes` needs W&B's server, which chooses each run by the results so far: "
                        f"`wandb sweep {path}`, then the `wandb agent` line that it prints; here `grid` and `random` work.")
    if method not in ("grid", "random"):
        raise UserError(f"{path}: `method` must be grid or random (or bayes, on W&B's server), not {method!r}.")
    space = {name: _checked(path, name, spec, method) for name, spec in sorted(_flat(path, body["parameters"]).items())}
    metric, cap = body.get("metric") or {}, body.get("run_cap")
    if not isinstance(metric, dict):
        raise UserError(f"{path}: `metric` must be {{name: ..., goal: maximize or minimize}}, not {metric!r}.")
    if cap is not None and (type(cap) is not int or cap < 1):
        raise UserError(f"{path}: `run_cap` must be a whole number above 0, not {cap!r}.")
    return Sweep(path, method, space, metric.get("name"), metric.get("goal", "minimize"), cap, "early_terminate" in body)


def _read_yaml(path: Path):
    import yaml  # what W&B reads it with: to this reader `1e-3` is a string, see `number`

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no {path}: name a sweep file, such as sweeps/quick.yaml.") from None
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path} cannot be read as text: name a sweep file, such as sweeps/quick.yaml.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path} is not valid YAML{f', see line {mark.line + 1}' if mark else ''}: mend it.") from None


def _flat(path: Path, parameters: dict, above: str = "") -> dict[str, dict]:
    found = {}
    for name, spec in parameters.items():
        if not isinstance(spec, dict) or not isinstance(spec.get("parameters") or {}, dict):
            raise UserError(f"{path}: `{above}{name}` must hold `value`, `values`, `min` and `max`, or `parameters`, not {spec!r}.")
        if "parameters" in spec:
            found |= _flat(path, spec["parameters"] or {}, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = spec
    return found


def _checked(path: Path, name: str, spec: dict, method: str) -> dict:
    """One parameter's entry with its distribution named, if it can be drawn from."""
    where = f"{path}: `{name}`"
    if "value" in spec:
        return spec
    if "values" in spec:
        weights = spec.get("probabilities")
        if not isinstance(spec["values"], list) or not spec["values"]:
            raise UserError(f"{where} has no values to try: list at least one under `values`.")
        fits = weights is None or (isinstance(weights, list) and len(weights) == len(spec["values"]) and all(_is_number(w, 0) for w in weights))
        if not fits or (weights is not None and (method == "grid" or not sum(weights))):
            raise UserError(f"{where}: `probabilities` wants `method: random` and one number for each of the `values`, not all of them 0.")
        return spec
    spec = {key: number(value) for key, value in spec.items()}
    whole = all(type(spec.get(end)) is int for end in ("min", "max"))
    kind = spec.get("distribution", "int_uniform" if whole else "uniform")
    bare = str(kind).removeprefix("q_")
    if bare not in DRAWS or (bare == "int_uniform" and kind != bare):
        raise UserError(f"{where}: unknown distribution `{kind}`; there are {', '.join(DRAWS)}, and most with q_ before.")
    if method == "grid" and kind not in {"int_uniform", "q_uniform"}:
        raise UserError(f"{where}: a grid needs `values` (or int_uniform or q_uniform), and `{kind}` has no end of them: use `method: random`.")
    ends = [spec.get(end) for end in ("min", "max")]
    for key in {"q", "mu", "sigma", "a", "b"} & spec.keys():
        if not _is_number(spec[key]) or (key != "mu" and spec[key] <= 0):
            raise UserError(f"{where}: `{key}` must be a number{'' if key == 'mu' else ' above 0'}, not {spec[key]!r}.")
    if "uniform" in kind and not (all(_is_number(end) for end in ends) and ends[0] < ends[1]):
        raise UserError(f"{where}: `{kind}` needs two numbers, `min` below `max`.")
    if kind == "int_uniform" and not whole:
        raise UserError(f"{where}: `int_uniform` needs whole numbers for `min` and `max`.")
    if kind.endswith("_values") and ends[0] <= 0:
        raise UserError(f"{where}: `{kind}` needs a `min` above 0.")
    return {**spec, "distribution": kind}


def _is_number(value, least: float = -math.inf) -> bool:
    return type(value) in {int, float} and math.isfinite(value) and value >= least


def runs(sweep: Sweep, params: dict, count: int | None = None, seed: int = 0) -> list[dict]:
    """Every run of the sweep: section.key -> value, none twice. `params`: params.yaml as it stands, of which each run is a change.

    A random sweep's k-th run hangs only on `seed` and k: a restart draws the same, a larger `count` adds to them."""
    if sweep.method == "grid":
        choices = [_choices(spec) for spec in sweep.space.values()]
        drawn = [dict(zip(sweep.space, values, strict=True)) for values in itertools.islice(itertools.product(*choices), count or sweep.run_cap)]
    else:
        rngs = [random.Random(f"{seed} {k}") for k in range(count or sweep.run_cap or COUNT)]
        drawn = [{name: _draw(spec, rng) for name, spec in sweep.space.items()} for rng in rngs]
    found = {}
    for one in drawn:
        whole, changes = settled(one, params, str(sweep.path))
        found.setdefault(repr(whole), changes)
    return list(found.values())


def settled(one: dict, params: dict, source: str) -> tuple[dict, dict]:
    """-> (all params of a run, its changes), checked and with numbers of the right type; an unknown name or a wrong type is a `UserError`."""
    sections = {name: dict(body) for name, body in params.items()}
    for name, given in one.items():
        section, dot, key = name.partition(".")
        if not dot:
            raise UserError(f"{source}: `{name}` must be section.key, such as cache.text_window.")
        was, value = sections.get(section, {}).get(key), number(given) if _wants_number(section, key) else given
        if type(was) is int and isinstance(value, float) and value.is_integer():  # W&B's server turns 4 into 4.0 at times
            sections[section][key] = int(value)
        else:
            sections.setdefault(section, {})[key] = value
    whole = as_dict(config.from_dict(sections, source))
    return whole, {name: whole[name.partition(".")[0]][name.partition(".")[2]] for name in one}


def _wants_number(section: str, key: str) -> bool:
    return section in config.SECTIONS and typing.get_type_hints(config.SECTIONS[section]).get(key) in {int, float}


def number(value):
    """`1e-4`, which W&B's YAML takes for text, as the number that it is to DVC, here and where W&B's agent hands it on. Other things as given."""
    return float(value) if isinstance(value, str) and NUMBER.fullmatch(value.strip()) else value


def as_dict(cfg: config.Config) -> dict:
    """A config as params.yaml would say it: section -> key -> value."""
    return {name: asdict(section) for name, section in vars(cfg).items()}


def _choices(spec: dict) -> list:
    if "value" in spec:
        return [spec["value"]]
    if "values" in spec:
        return spec["values"]
    step = 1 if spec["distribution"] == "int_uniform" else spec.get("q", 1.0)
    top = spec["max"] + 1 if spec["distribution"] == "int_uniform" else spec["max"]  # W&B leaves the upper end of q_uniform out
    return [_tidy(spec["min"] + step * k) for k in range(math.ceil(round((top - spec["min"]) / step, 9)))]


def _draw(spec: dict, rng: random.Random):
    if "value" in spec:
        return spec["value"]
    if "values" in spec:
        return rng.choices(spec["values"], spec.get("probabilities"))[0]
    kind = spec["distribution"]
    try:
        drawn = DRAWS[kind.removeprefix("q_")](spec, rng)
    except OverflowError:
        raise UserError(f"A sweep: `{kind}` of {spec} is more than a number can hold; log_uniform_values takes the numbers themselves.") from None
    return _tidy(round(drawn / spec.get("q", 1)) * spec.get("q", 1)) if kind.startswith("q_") else _tidy(drawn)


def _tidy(number):
    """0.30000000000000004 -> 0.3: what is drawn is also read, typed and named."""
    return number if isinstance(number, int) else float(f"{number:.6g}")
