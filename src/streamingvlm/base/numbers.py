"""Numbers as text and as flat tables, how the ledger, the page and the sweeps write and name them; and how sure a share is."""

from __future__ import annotations

import math


def number(value: float) -> str:
    """Three digits at least, never 1e+04: 0.0123, 1.25, 24,607."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def flat(value, name: str = "") -> dict[str, float | None]:
    """Nested numbers -> {a.b.c: number}."""
    if not isinstance(value, dict):
        return {name: value}
    return {key: number for part, inner in value.items() for key, number in flat(inner, f"{name}.{part}" if name else part).items()}


def wilson(share: float, count: int, z: float) -> tuple[float, float]:
    """Wilson's interval of a share that was seen of `count` cases, `z` standard deviations wide on each side. Not cut off at 0 and 1."""
    middle, reach = share + z**2 / (2 * count), z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return (middle - reach) / (1 + z**2 / count), (middle + reach) / (1 + z**2 / count)
