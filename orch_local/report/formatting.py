"""Figures as text: shares, p-values, counts and intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orch_local.results.scoring import System

CHANCE_P = 0.05
"""From this p-value on a difference is called within chance."""
NBSP = "\N{NO-BREAK SPACE}"
"""A space at which a sentence is not wrapped, so that "78.3 %" stays on one line; printed as a space."""
_NEGLIGIBLE_P = 1e-20


def percent(share: float | None) -> str:
    """A share as a percentage with its sign, e.g. ``78.3 %``."""
    return f"{points(share)}{NBSP}%"


def points(share: float | None) -> str:
    """A share as a percentage without its sign; ``-`` where there is none."""
    return "-" if share is None else f"{100 * share:.1f}"


def p_value(p: float | None, equals: str = "") -> str:
    """A p-value, ``-`` where there is none; ``equals`` stands before all but the negligible ones."""
    if p is None:
        return "-"
    if p < _NEGLIGIBLE_P:
        return f"< {_NEGLIGIBLE_P:.0e}"
    return f"{equals}{p:.3f}" if p >= 0.001 else f"{equals}{p:.1e}"


def counted(n: int, noun: str) -> str:
    """A number with its noun, e.g. ``1 question``, ``1,000 questions``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def rough_count(n: int) -> str:
    """Exact below 100,000, then in thousands or millions: costs are read for their size."""
    if n < 100_000:
        return f"{n:,}"
    return f"{n / 1e3:,.0f}k" if n < 10_000_000 else f"{n / 1e6:,.1f}M"


def interval(system: System, between: str) -> str:
    """The interval of an accuracy in per cent; ``-`` where there is none."""
    return "-" if system.low is None else f"{points(system.low)}{between}{points(system.high)}"
