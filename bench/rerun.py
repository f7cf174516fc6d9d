"""Did a second run of the pipeline give the same bytes? Compares the MD5s that two versions of dvc.lock hold.

    cp dvc.lock /tmp/before.lock && make repro ARGS=-f && python bench/rerun.py /tmp/before.lock
    python bench/rerun.py BEFORE.lock [AFTER.lock] [--save reports/reference/rerun.json]      # which the ledger reads (claim P0R)

AFTER.lock is the folder's own dvc.lock if it is not given. Medians of timings (reports/timings.json) are left out: no two runs agree on them. Prints
each output whose bytes differ. Exits with 0 if none does, 1 if any does, 2 if the two are not of the same stages, params and code.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from streamingvlm.base import files
from streamingvlm.base.errors import UserError, exit_status
from streamingvlm.base.machine import provenance
from streamingvlm.base.paths import repository_root

TIMED = "reports/timings.json"


def read(path: Path) -> tuple[dict[str, str], dict]:
    """-> (output -> its MD5, what decides them: the params of each stage and the MD5s of what it read that no stage wrote)."""
    from ruamel.yaml import YAML

    try:
        stages = YAML(typ="safe").load(path.read_text(encoding="utf-8"))["stages"]
        outs = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"] if out["path"] != TIMED}
        given = {name: (stage.get("params"), {dep["path"]: dep["md5"] for dep in stage["deps"] if dep["path"] not in outs})
                 for name, stage in stages.items()}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a dvc.lock ({type(error).__name__}: {error}).") from None
    return outs, given


def compare(before: Path, after: Path) -> dict:
    """Outputs of both, how many have the same bytes, and those that have not."""
    (old, was), (new, now) = read(before), read(after)
    if was != now or old.keys() != new.keys():
        raise UserError(f"{before} and {after} are of other code, data or params: run the same commit twice.")
    differ = sorted(path for path in old if old[path] != new[path])
    return {"bench": "rerun", "outputs": len(old), "same": len(old) - len(differ), "differ": differ}


@exit_status
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, metavar="BEFORE.lock")
    parser.add_argument("after", type=Path, nargs="?", metavar="AFTER.lock")
    parser.add_argument("--save", type=Path, metavar="FILE.json")
    parser.add_argument("--data", default="the pipeline as params.yaml has it", help="what was run twice, in words")
    args = parser.parse_args(argv)
    found = compare(args.before, args.after or repository_root() / "dvc.lock")
    if args.save:
        where = provenance({"argv": [str(args.before), str(args.after)]})
        files.write_json(found | {"date": datetime.date.today().isoformat(), "command": "make repro ARGS=-f", "data": args.data,
                                  "model": "all that the stages write: videos, weights, words, scores, figures, notebooks", **where}, args.save)
    print("\n".join([f"{found['same']} of {found['outputs']} outputs have the same bytes", *(f"differs: {path}" for path in found["differ"])]))
    return int(bool(found["differ"]))


if __name__ == "__main__":
    raise SystemExit(main())
