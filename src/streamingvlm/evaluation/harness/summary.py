"""Marks -> numbers: means by task, by group and overall as the benchmark forms them, standard errors clustered by video, and a table. Knows no rule.

Questions on one video are not independent: what one of them needs, the others need too. A standard error over questions is then too small; here a
video counts once, and it is None where there is one video only.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from streamingvlm.evaluation.harness.protocol import Benchmark, Item, Mark

Value = Callable[[Mark], float | None]
KINDS = ("own", "strict")


def mean(marks: Sequence[Mark], value: Value, over: str = "items") -> tuple[float | None, float | None]:
    """(mean, standard error clustered by video) in per cent. `over`: the mean of items, of tasks, or of groups of tasks; marks without a value are
    left out."""
    counted = [mark for mark in marks if value(mark) is not None]
    if not counted:
        return None, None
    share = _shares(counted, over)
    total = sum(weight * value(mark) for mark, weight in zip(counted, share, strict=True))
    sums, sizes = defaultdict(float), Counter(_stratum(mark, over) for mark in counted)
    for mark in counted:
        sums[_stratum(mark, over)] += value(mark)
    clusters: dict[str, float] = defaultdict(float)
    for mark, weight in zip(counted, share, strict=True):
        stratum = _stratum(mark, over)
        clusters[mark.video] += weight * (value(mark) - sums[stratum] / sizes[stratum])
    n = len(clusters)
    error = math.sqrt(n / (n - 1) * sum(part**2 for part in clusters.values())) if n > 1 else None
    return 100 * total, None if error is None else 100 * error


def _stratum(mark: Mark, over: str) -> tuple[str, ...]:
    return () if over == "items" else (mark.group, mark.task)


def _shares(marks: Sequence[Mark], over: str) -> list[float]:
    """What each mark weighs; the sum is 1."""
    sizes = Counter(_stratum(mark, over) for mark in marks)
    tasks = Counter(group for group, *_ in sizes) if over != "items" else Counter()
    groups = len(tasks)

    def share(mark: Mark) -> float:
        stratum = 1 / sizes[_stratum(mark, over)]
        if over == "items":
            return stratum
        return stratum / len(sizes) if over == "tasks" else stratum / tasks[mark.group] / groups

    return [share(mark) for mark in marks]


def numbers(marks: Sequence[Mark], over: str = "items") -> dict[str, float | int | None]:
    """Both scores with their errors, and how many answers there are, by what became of them."""
    found: dict[str, float | int | None] = {}
    for kind in KINDS:
        value, error = mean(marks, lambda mark, kind=kind: getattr(mark, kind), over)
        found |= {kind: _rounded(value), f"{kind}_se": _rounded(error)}
    states = Counter(mark.state for mark in marks)
    return found | {"questions": len(marks), "videos": len({mark.video for mark in marks}), "empty": states["empty"], "unparsed": states["unparsed"],
                    "left_out_by_own_rule": sum(mark.own is None for mark in marks)}


def summarise(benchmark: Benchmark, marks: Sequence[Mark]) -> dict:
    """{overall, groups: {name}, tasks: {name}}, each with `numbers`."""
    tasks, groups = (dict.fromkeys(getattr(mark, key) for mark in marks) for key in ("task", "group"))
    inside = "items" if benchmark.overall == "items" else "tasks"
    return {"overall": numbers(marks, benchmark.overall),
            "groups": {name: numbers([mark for mark in marks if mark.group == name], inside) for name in groups},
            "tasks": {name: numbers([mark for mark in marks if mark.task == name]) for name in tasks}}


def with_lost(benchmark: Benchmark, marks: Sequence[Mark], lost: Sequence[Item]) -> dict[str, float | int | None]:
    """The overall numbers if what could not be asked counts as wrong."""
    wrong = [Mark(item.id, item.video, item.task, item.group, 0.0, 0.0, "lost") for item in lost]
    return numbers([*marks, *wrong], benchmark.overall)


def table(summaries: dict[str, dict]) -> str:
    """A table in text: a line a task, a group, and overall, of one or more ways of asking side by side."""
    first = next(iter(summaries.values()))
    names = [("tasks", name) for name in first["tasks"]] + [("groups", name) for name in first["groups"] if len(first["groups"]) > 1]
    wide = max(len(name) for _, name in [*names, ("", "overall")])
    lines = [f"{'':<{wide}}       {''.join(f'  {way:^42}' for way in summaries)}".rstrip(),
             f"{'':<{wide}} {'n':>6}" + f"  {'own rule':>13} {'strict':>13} {'empty':>6} {'unread':>7}" * len(summaries)]
    for part, name in [*names, ("", "overall")]:
        rows = [each["overall"] if not part else each[part].get(name) for each in summaries.values()]
        cells = "".join(f"  {_cell(row, 'own'):>13} {_cell(row, 'strict'):>13} {_count(row, 'empty'):>6} {_count(row, 'unparsed'):>7}"
                        for row in rows)
        lines.append(f"{name:<{wide}} {_count(rows[0], 'questions'):>6}{cells}")
    return "\n".join(lines)


def _cell(row: dict | None, kind: str) -> str:
    if row is None or row[kind] is None:
        return "-"
    error = row[f"{kind}_se"]
    return f"{row[kind]:.2f}" + ("" if error is None else f" ±{error:.2f}")


def _count(row: dict | None, key: str) -> str:
    return "-" if row is None else str(row[key])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
