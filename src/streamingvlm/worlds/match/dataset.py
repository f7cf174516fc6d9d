"""The matches of the subset: which there are, each rendered to H.264, each a stream row."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path

from streamingvlm.base import config, workers
from streamingvlm.media import writer
from streamingvlm.worlds.match import rendering
from streamingvlm.worlds.match.game import FPS, Match, Rules

LONG = "long"
SPLITS = ("train", "clean", "eval", LONG)  # of matches; real clips are a split of their own


def matches(data: config.Data) -> list[tuple[str, str, Match]]:
    """(split, name, match) of every match the params ask for; evaluation plays with team pairs that training never sees."""
    rules = Rules(data.goals_a_game, data.reveal_s, data.noise)
    train = [("train", f"match-{i:03d}", Match(data.seed * 10_000 + i, data.train_s, rules=rules)) for i in range(data.train_matches)]
    clean = [("clean", f"clean-{i:03d}", Match(data.seed * 10_000 + 3_000 + i, data.train_s, plain=True, rules=rules))
             for i in range(data.clean_matches)]
    held = [("eval", f"eval-{i:03d}", Match(data.seed * 10_000 + i, data.eval_s, True, rules=rules)) for i in range(data.eval_matches)]
    met = {frozenset(match.teams) for _, _, match in held}
    longs = [Match(data.seed * 10_000 + 5_000 + i, data.long_s, True, rules=rules) for i in range(100)]
    fresh = next((match for match in longs if frozenset(match.teams) not in met), longs[0])  # a pair of its own while there is one
    return [*train, *clean, *held, (LONG, LONG, fresh)]


def render(match: Match, path: Path) -> None:
    """Write a match as a real H.264 file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.write_h264(path, rendering.draw(match), FPS)


def match_rows(data: config.Data, folder: Path, root: Path, splits: Container[str] = SPLITS) -> Iterator[dict]:
    """Render every match of these splits below `folder`, on every core, yielding its row."""
    wanted = [(split, name, match, folder / f"{name}.mp4", root) for split, name, match in matches(data) if split in splits]
    return workers.ordered(_rendered_row, wanted)


def _rendered_row(split: str, name: str, match: Match, path: Path, root: Path) -> dict:
    render(match, path)
    return match.row(name, str(path.relative_to(root))) | {"split": split}
