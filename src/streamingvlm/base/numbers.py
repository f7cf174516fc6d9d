"""Numbers as text and as flat tables: how the ledger, the page and the sweeps write and name them."""

from __future__ import annotations


def number(value: float) -> str:
    """Three digits at least, never 1e+04: 0.0123, 1.25, 24,607."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def flat(value, name: str = "") -> dict[str, float | None]:
    """Nested numbers -> {a.b.c: number}."""
    if not isinstance(value, dict):
        return {name: value}
    return {key: number for part, inner in value.items() for key, number in flat(inner, f"{name}.{part}" if name else part).items()}
