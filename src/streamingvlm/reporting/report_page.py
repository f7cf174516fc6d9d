"""One page for a reviewer: the ledger, figures, tables and provenance of the last run, and its executed notebooks as HTML.

    python -m streamingvlm.reporting.report_page      # reports/index.html and reports/notebooks/*.html: open them from disk, no network needed

Computes nothing and believes nothing: what DVC tracks must be what dvc.lock says, the ledger must follow from the numbers on disk, a figure
must not be older than what it draws. Else one sentence, and no page. The same reports give the same bytes. The pages' looks are in templates/.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from streamingvlm.base import config, files, machine
from streamingvlm.base.errors import UserError
from streamingvlm.base.files import fingerprint
from streamingvlm.base.numbers import number
from streamingvlm.base.paths import Paths, repository_root
from streamingvlm.evaluation import claims, ledger_inputs, ledger_text
from streamingvlm.streaming import captions

if TYPE_CHECKING:
    from nbconvert import HTMLExporter

# Event F1 stands last: nearly every cache has it at 1, so it tells little apart.
QUALITIES = {"who": "right names", "score": "exact scores", "increment": "score given the last", "event_f1": "event F1"}
ASKED = {"side": "side", "last": "last event", "who_scored": "last scorer", "score": "score", "teams": "teams", "first_scorer": "first scorer",
         "goals": "goals"}  # what is asked, and its column
BASELINES = {"ablation": ("streaming", "overlapped"), "compress": ("float32",)}  # whose time another's is held against, noise or not
# Below reports/, in the order of the page, and what each shows; one sentence with its numbers is its title.
FIGURES = {
    "figures/ablation": "What each part of the cache carries. One match, watched under every policy by the model trained to stream; beside each "
                        "bar what was taken away (-) or added (+). “Sink” means here the first words, where the team names stand.",
    "figures/filmstrip": "Eight seconds of the held-out match, and below each what the model said and what was true. Blue: right. Orange: wrong.",
    "figures/quality": "Minute by minute (running mean of five): a method that forgets what it needs decays. full, whose cache only grows, leaves "
                       "the lengths it was trained on within half a minute; that it fails does not say that forgetting is better than remembering.",
    "timings/latency": "Time for each second of video, from the frames to the words: each chunk a dot, the lines running medians of 31.",
    "timings/memory": "What the cache holds, and what the whole process holds.",
    "timings/stages": "Where the time of a chunk goes.",
    "figures/training": "Supervised fine-tuning on overlapped windows, on top of the base model.",
    "figures/compress": "Int8 weights and pruning, on held-out matches.",
    "city/wall": "The second document's system: eight cameras of a city it never saw, what it found (boxes) and what it holds to be wrong (orange).",
    "city/attention": "Who looks at whom across these cameras at a clone: a row and a column a person.",
    "live/buffer": "A jitter buffer at work: what a bad network does to the frames of a camera, and when they leave the buffer.",
    "live/capacity": "How many live cameras a machine takes, by recorded run times, in virtual time: the model and its baseline, one scheduler.",
    "live/load": "Frames skipped on slower and slower machines, and what is lost: truth at each moment against the newest decision then.",
}
STILL = {"figures/filmstrip", "city/wall", "city/attention"}  # pictures without an interactive twin
SLACK_S = 60  # a copied tree has its files in any order; a run takes minutes
AGAIN = "`make repro` sets it right"
TIMED_AGAIN = "`make repro ARGS=\"-f -s compress stream many_streams live evaluate\"` sets it right"  # DVC does not watch timings and the ledger


# --- what belongs to this run -------------------------------------------------------------------------------------------------

def tracked(root: Path) -> list[dict]:
    """What the pipeline read and wrote, by dvc.lock: {stage, path, md5, bytes}. UserError where the files, the code or the params differ from it."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(root) as repo:
            stages = [stage for stage in repo.index.stages if stage.addressing != "strip"]
            parts = [out for stage in stages for out in stage.outs] + [dep for stage in stages for dep in stage.deps]
            differ = {path: how for part in parts for path, how in part.workspace_status().items()}
            outs = [{"stage": stage.addressing, "path": out.def_path, "md5": out.hash_info.value, "bytes": out.meta.size}
                    for stage in stages for out in stage.outs]
    except DvcException as error:
        raise UserError(f"DVC cannot say what the last run wrote ({error}): `make repro` first.") from None
    if differ:
        path, how = next(iter(differ.items()))
        path = f"{path} ({', '.join(how)})" if isinstance(how, dict) else path  # params: {key: how}
        more = f" (and {len(differ) - 1} more)" if len(differ) > 1 else ""
        raise UserError(f"{path} {'is missing' if how == 'deleted' else 'is not that of the last whole run'}{more}: {AGAIN}.")
    return outs


def _existing(path: Path, root: Path, remedy: str = AGAIN) -> Path:
    if not path.is_file():
        raise UserError(f"{path.relative_to(root)} is missing: {remedy}.")
    return path


def _load(path: Path, root: Path, remedy: str = AGAIN):
    """A JSON file, or the rows of one with JSON lines."""
    try:
        return captions.read(_existing(path, root, remedy)) if path.suffix == ".jsonl" else json.loads(_existing(path, root, remedy).read_bytes())
    except ValueError:
        raise UserError(f"{path.relative_to(root)} cannot be read: {remedy}.") from None


def ledger(paths: Paths, numbers: dict) -> list[dict]:
    """The rows of claims.json. UserError unless the numbers and timings beside it give the same values and verdicts."""
    rows = _load(paths.reports / "claims.json", paths.root, TIMED_AGAIN)
    lines = _load(paths.timings / "stream.jsonl", paths.root, TIMED_AGAIN)
    compress_ms = _load(paths.timings / "compress.json", paths.root, TIMED_AGAIN)
    measured = ledger_inputs.measured(numbers, lines, compress_ms, config.load(paths.root / "params.yaml")) | ledger_inputs.times(paths.timings)
    reference = paths.reports / "reference"
    fresh = claims.ledger(measured | ledger_inputs.apart(reference)[0], {}, ledger_inputs.repeats(reference))
    for old, new in zip(rows, fresh, strict=False):
        if any(old[key] != new[key] for key in ("id", "values", "verdict")):
            raise UserError(f"reports/claims.json is of another run: {old['id']} does not follow from the numbers beside it; {TIMED_AGAIN}.")
    if len(rows) != len(fresh):
        raise UserError(f"reports/claims.json has {len(rows)} claims, claims.yaml {len(fresh)}: {TIMED_AGAIN}.")
    return rows


def figure(paths: Paths, name: str, caption: str) -> dict:
    """{id, png (data URI), alt, html (or None), caption} of one figure. UserError where it is missing or older than what it draws."""
    timed = name.startswith("timings/")
    remedy = TIMED_AGAIN if timed else AGAIN
    png, page = (paths.reports / f"{name}.{ending}" for ending in ("png", "html"))
    if name not in STILL:
        _existing(page, paths.root, remedy)
    made = min(path.stat().st_mtime for path in (_existing(png, paths.root, remedy), page) if path.exists())
    if timed and made < (paths.timings / "stream.jsonl").stat().st_mtime - SLACK_S:
        raise UserError(f"{png.relative_to(paths.root)} is older than reports/timings/stream.jsonl, which it should show: {remedy}.")
    return {"id": png.stem, "png": files.data_uri(png.read_bytes()), "caption": caption,
            "alt": _title(page) or caption, "html": f"{name}.html" if page.exists() else None, "path": f"reports/{name}.png"}


def band(paths: Paths) -> dict:
    """{png, alt} of the picture the page opens with. UserError where it is missing or older than the ledger it shows."""
    png, text = (_existing(paths.timings / f"band.{ending}", paths.root, TIMED_AGAIN) for ending in ("png", "txt"))
    if png.stat().st_mtime < (paths.reports / "claims.json").stat().st_mtime - SLACK_S:
        raise UserError(f"reports/timings/band.png is older than reports/claims.json, which it should show: {TIMED_AGAIN}.")
    return {"png": files.data_uri(png.read_bytes()), "alt": text.read_text(encoding="utf-8").strip()}


def _title(page: Path) -> str:
    """The title of an interactive figure: the facts it was drawn to show."""
    titles = re.findall(r'"title":\{"text":("(?:[^"\\]|\\.)*")', page.read_text(encoding="utf-8")) if page.exists() else []
    return json.loads(titles[-1]).replace("<br>", " ") if titles else ""


# --- what the page says ----------------------------------------------------------------------------------------------------------

def _optional(path: Path, root: Path):
    return _load(path, root, TIMED_AGAIN) if path.is_file() else {}


def versions(root: Path) -> list[dict]:
    """{name, locked, installed} of Python's packages that requirements.in names."""
    from packaging.utils import canonicalize_name

    named = re.findall(r"^[\w-]+", (root / "requirements.in").read_text(), re.MULTILINE)
    locked = dict(re.findall(r"^([\w-]+)==([^\s;]+)", (root / "requirements.txt").read_text(), re.MULTILINE))
    installed = {canonicalize_name(found.name): found.version for found in metadata.distributions()}
    return [{"name": name, "locked": locked.get(name), "installed": installed.get(name)} for name in named]


def gather(root: Path) -> dict:
    """All that the page shows."""
    paths = Paths(root)
    outs = tracked(root)
    numbers = _load(paths.reports / "metrics.json", root)
    rows = ledger(paths, numbers)
    figures = [figure(paths, name, caption) for name, caption in FIGURES.items()]
    for row in rows:
        for shown in filter(None, (row["notebook"] and f"reports/{row['notebook']}", row["figure"])):
            _existing(root / shown, root, TIMED_AGAIN)
    cfg, ms = config.load(root / "params.yaml"), _optional(paths.reports / "timings.json", root)
    return {
        **_verdicts(rows), **_provenance(root, outs), "figures": figures, "shown": {one["path"]: one["id"] for one in figures}, "band": band(paths),
        "numbers": numbers, "qualities": QUALITIES, "question_kinds": ASKED,
        "ms": ms, "noisy": _noisy(ms), "windows": round(cfg.data.long_s / cfg.sft.window_s),
        "seeds": _optional(paths.reports / "reference" / "ablation_seeds.json", root), "compared": ledger_inputs.compare(root).splitlines(),
        "notebooks": [path.stem for path in sorted((paths.reports / "notebooks").glob("*.ipynb"))],
    }


def _verdicts(rows: list[dict]) -> dict:
    """The ledger's rows, each with its kind, its decisive number and the number of the conditions it was measured under; how many of each kind in
    each source (ours apart); and those conditions."""
    where = list(dict.fromkeys(_conditions(row) for row in rows if row["measured"]))
    shown = [{**row, "kind": claims.kind(row["verdict"]), "where": where.index(_conditions(row)) + 1 if row["measured"] else None,
              "decisive": ledger_text.one_number(row),
              "numbers": [{**one, "said": claims.said(one)} for one in row["numbers"] if one["value"] is not None]}
             for row in rows]
    sources = {name: {**about, "counted": ledger_text.counted([row for row in rows if row["source"] == name and not row["ours"]])}
               for name, about in claims.claims()["sources"].items()}
    return {"rows": shown, "kinds": claims.counts(rows), "where": [dict(one) for one in where], "sources": sources, "preface": ledger_text.PREFACE,
            "ours": ledger_text.counted([row for row in rows if row["ours"]]), "date": next((row["date"] for row in rows if row["id"] == "P1"), None)}


def _noisy(ms: dict) -> set[tuple[str, ...]]:
    """What takes as long as its baseline, as far as this machine can tell: (part of timings.json, names...)."""
    floor, found = ms.get("noise"), set()
    for part, baseline in BASELINES.items():
        times = {key: value for key, value in _leaves(ms.get(part, {}))}
        if floor and times.get(baseline):
            found |= {(part, *key) for key, value in times.items() if key != baseline and 1 / floor <= value / times[baseline] <= floor}
    return found


def _leaves(tree: dict, *names: str):
    for name, inner in tree.items():
        yield from [((*names, name), inner[claims.TIME])] if claims.TIME in inner else _leaves(inner, *names, name)


def _conditions(row: dict) -> tuple:
    return tuple((key, row[key]) for key in claims.CONDITIONS)


def _provenance(root: Path, outs: list[dict]) -> dict:
    wall_s = _optional(Paths(root).timings / "wall.json", root)
    stages = {out["stage"]: wall_s.get(out["stage"]) for out in outs if not out["stage"].endswith(".dvc")}
    return {"outs": outs, "stages": stages, "total_s": None if None in stages.values() else sum(stages.values()), "revision": machine.revision(),
            "python": machine.versions()["python"], "versions": versions(root), "params_hash": fingerprint(root / "params.yaml")[:12]}


# --- HTML ------------------------------------------------------------------------------------------------------------------------

def templates():
    import jinja2

    env = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, trim_blocks=True,
                             lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    env.filters |= {"number": number, "share": lambda value: "–" if value is None else f"{value:.3f}",
                    "percent": lambda value: "–" if value is None else f"{value:.1%}"}
    return env


def rendered(notebook: Path, alts: dict[str, str], exporter: HTMLExporter) -> tuple[str, str]:
    """-> (title, body) of an executed notebook. `alts`: alternative texts by a picture's data."""
    from streamingvlm.base.notebook_file import read

    nb, heading = read(notebook), ""
    for cell in nb.cells:
        heading = next((line.lstrip("# ") for line in cell.source.splitlines() if cell.cell_type == "markdown" and line.startswith("#")), heading)
        for output in cell.get("outputs", []):
            png = output.get("data", {}).get("image/png", "").replace("\n", "")
            if png:
                output.metadata["alt"] = alts.get(png, f"Picture: {heading}")
    first = next((cell.source for cell in nb.cells if cell.cell_type == "markdown"), notebook.stem)
    return first.partition("\n")[0].lstrip("# "), exporter.from_notebook_node(nb)[0]


def build(root: Path) -> dict[Path, str]:
    """File -> text of every page. Writes nothing."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="basic", exclude_anchor_links=True, exclude_input_prompt=True, exclude_output_prompt=True)
    facts, folder, env = gather(root), root / "reports" / "notebooks", templates()
    alts = {one["png"].partition(",")[2]: one["alt"] for one in facts["figures"]}
    bodies = {name: rendered(folder / f"{name}.ipynb", alts, exporter) for name in facts["notebooks"]}
    for link in sorted(set(re.findall(r'(?:src|href)="\.\./([^"#]+)"', "".join(body for _, body in bodies.values())))):
        _existing(root / "reports" / link, root, TIMED_AGAIN)
    titles = {name: title for name, (title, _) in bodies.items()}
    pages = {folder / f"{name}.html": env.get_template("notebook.html.j2").render(
        name=name, title=title, titles=titles, body=body) for name, (title, body) in bodies.items()}
    return pages | {root / "reports" / "index.html": env.get_template("index.html.j2").render(**facts, titles=titles)}


def main() -> int:
    root = None
    try:
        root = repository_root()
        for path, text in build(root).items():
            files.write(path, text)
    except UserError as error:
        for page in () if root is None else ((root / "reports" / "index.html"), *(root / "reports" / "notebooks").glob("*.html")):
            page.unlink(missing_ok=True)  # an older page beside newer numbers would be believed
        print(error, file=sys.stderr)
        return 2
    print("The report: reports/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
