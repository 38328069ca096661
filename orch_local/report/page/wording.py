"""Numbers and foreign text as the page shows them; the templates use these as filters."""

from __future__ import annotations

import math

from orch_local.report.formatting import NBSP, counted, p_value, percent, points
from orch_local.report.safe import visible
from orch_local.results.summary import Estimate

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
CUT = " \N{HORIZONTAL ELLIPSIS} "
LONGEST_NAME = 60

__all__ = ["counted", "percent", "points"]


def shown(text: str) -> str:
    """Text of a model or data set with what cannot be seen as escapes; line breaks stay.

    Most text has nothing of the kind, and is not gone through character by character.
    """
    if text.replace("\n", "").isprintable():
        return text
    return visible(text, newlines=True)


def clipped(text: str, most: int) -> str:
    """At most so many characters of a text, with a mark that says how long it was."""
    if len(text) <= most:
        return shown(text)
    return f"{shown(text[:most])}{CUT}[cut: {most:,} of {len(text):,} characters]"


def name(text: str, most: int = LONGEST_NAME) -> str:
    """A name on one line, cut in the middle: long names often differ at the end only."""
    if len(text) > most:
        half = (most - 1) // 2
        text = f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"
    return text if text.isprintable() else visible(text)


def signed(share: float | None) -> str:
    """A difference in points with its sign, e.g. ``+51.6``; ``0.0`` has none."""
    if share is None:
        return NONE
    size = f"{abs(100 * share):.1f}"
    if size == "0.0":
        return size
    return f"{'+' if share > 0 else MINUS}{size}"


def span(estimate: Estimate | None) -> str:
    """The ends of an interval in per cent."""
    if estimate is None:
        return NONE
    return f"{points(estimate.low)} to {points(estimate.high)}".replace(" ", NBSP)


def signed_span(estimate: Estimate | None) -> str:
    """The ends of an interval of a difference, in points."""
    if estimate is None:
        return NONE
    return f"{signed(estimate.low)} to {signed(estimate.high)}".replace(" ", NBSP)


def p_text(p: float | None) -> str:
    """A p-value."""
    return NONE if p is None else _unbroken(p_value(p))


def p_sentence(p: float | None) -> str:
    """``p = 0.031``, or ``p < 1e-20``."""
    return "" if p is None else _unbroken(f"p {p_value(p, '= ')}")


def _unbroken(text: str) -> str:
    """A number that stays on one line; a browser would break ``1e-20`` at its hyphen."""
    return text.replace(" ", NBSP).replace("-", MINUS)


def plain(number: float | None, digits: int = 2) -> str:
    """A number that may be absent or infinite."""
    if number is None:
        return NONE
    if math.isinf(number):
        return "\N{INFINITY}"
    return f"{number:.{digits}f}".replace("-", MINUS)


def odds(estimate: Estimate | None) -> str:
    """An odds ratio with its interval."""
    if estimate is None:
        return NONE
    return f"{_ratio(estimate.value)} ({_ratio(estimate.low)} to {_ratio(estimate.high)})"


def _ratio(value: float) -> str:
    if math.isinf(value):
        return "\N{INFINITY}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def number(value: int) -> str:
    """A whole number with commas."""
    return f"{value:,}"


def seconds(value: float) -> str:
    """Seconds, or hours where there are many."""
    if value >= 36_000:
        return f"{value / 3600:,.1f}{NBSP}h"
    return f"{value:,.0f}{NBSP}s" if value >= 100 else f"{value:,.1f}{NBSP}s"


FILTERS = {
    "clipped": clipped,
    "counted": counted,
    "name": name,
    "number": number,
    "odds": odds,
    "p": p_text,
    "percent": percent,
    "plain": plain,
    "points": points,
    "seconds": seconds,
    "signed": signed,
    "signed_span": signed_span,
    "span": span,
}
