"""Weights & Biases: off unless `WANDB_MODE` is `online` or `offline` (or its agent runs this). Never needed, and never a reason for a run to stop.

    with tracking.run("evaluate", params) as log:
        log({"score": 0.9})               # a point of a curve; the last one is the run's number
        log.table("said", rows)           # rows of one kind
        log.figures(paths.figures)        # every PNG, and every page that needs only plotly
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class Log:
    """What a stage has to say. Without a session, or after the first failure of one, it drops what it is given."""

    def __init__(self, start: Callable[[], object] | None = None):
        self._session = None
        self._session = self._safe("start", start) if start else None

    def __call__(self, row: dict) -> None:
        """One step: name -> number. None is left out."""
        self._log(lambda: {name: value for name, value in row.items() if value is not None})

    def table(self, name: str, rows: Sequence[dict]) -> None:
        """Rows with the same keys."""
        def made():
            import wandb

            return {name: wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])}
        if rows:
            self._log(made)

    def figures(self, folder: Path) -> None:
        """PNGs as images, pages as HTML. Whoever looks at W&B has a network: there plotly comes from its own server, 5 MB once."""
        def made():
            import wandb
            from plotly.offline import get_plotlyjs_version

            url = f"https://cdn.plot.ly/plotly-{get_plotlyjs_version()}.min.js"
            pages = {f"{path.stem}/interactive": wandb.Html(path.read_text(encoding="utf-8").replace("plotly.min.js", url), inject=False)
                     for path in sorted(Path(folder).glob("*.html"))}
            return {path.stem: wandb.Image(str(path)) for path in sorted(Path(folder).glob("*.png"))} | pages
        self._log(made)

    def finish(self, failed: bool) -> None:
        if self._session:
            self._safe("finish", lambda: self._session.finish(exit_code=int(failed)))

    def _log(self, made: Callable[[], dict]) -> None:
        if self._session:
            self._safe("log", lambda: self._session.log(made()))

    def _safe(self, what: str, do: Callable[[], object]):
        try:
            return do()
        except Exception as error:  # whatever its server, its login or its files do, the run goes on and says so, once
            self._session = None
            print(f"W&B could not {what} ({' '.join(str(error).split()) or type(error).__name__}); going on without it.", file=sys.stderr, flush=True)
            return None


def mode() -> str:
    """WANDB_MODE, where it says something; else off, but online within a run of W&B's agent."""
    return os.environ.get("WANDB_MODE") or ("online" if "WANDB_SWEEP_ID" in os.environ else "disabled")


@contextmanager
def run(stage: str, params: dict, name: str | None = None) -> Iterator[Log]:
    """A `Log` for one stage, shown as `name` (default: the stage). All stages of one commit with one params.yaml share a group,
    unless WANDB_RUN_GROUP names it."""
    log = Log(None if mode() == "disabled" else lambda: _start(stage, params, name or stage))
    failed = True
    try:
        yield log
        failed = False
    finally:
        log.finish(failed)


def _start(stage: str, params: dict, name: str):
    import wandb

    from streamingvlm.base import files, machine
    from streamingvlm.base.paths import repository_root

    root = repository_root()
    facts = machine.provenance(params)
    group = os.environ.get("WANDB_RUN_GROUP") or f"{facts['git']['revision']}-{files.fingerprint(root / 'params.yaml')[:8]}"
    with _nobody_to_ask():
        # Half a minute for a server that does not answer, one to send the rest: a pipeline starts several runs, and what was not sent stays on disk.
        return wandb.init(project=os.environ.get("WANDB_PROJECT", "streamingvlm"), group=group, job_type=stage, name=name,
                          dir=os.environ.get("WANDB_DIR", str(root)), config={**params, "provenance": facts},
                          settings=wandb.Settings(init_timeout=30, finish_timeout=60))


@contextmanager
def _nobody_to_ask() -> Iterator[None]:
    """Without a key W&B asks the terminal for one, and waits for ever; where no terminal listens it says what is missing."""
    asked = sys.stdin
    with open(os.devnull, encoding="utf-8") as nobody:
        sys.stdin = nobody
        try:
            yield
        finally:
            sys.stdin = asked
