"""Numbers as canonical text: two texts are the same number exactly when their canonical forms are equal.

Numeric gold answers and numeric answers of models both pass through :func:`canonical_number`, so that they
are compared as text and no float ever rounds.
"""

from __future__ import annotations

import re
from decimal import Decimal

MAX_CHARS = 1000
"""Longest number read or written; it keeps `1e9999` from becoming ten thousand digits."""

_NUMBER = re.compile(r"[+-]?\$?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)


def canonical_number(text: str) -> str | None:
    """Write a number in plain digits, e.g. ``$1,234.0`` as ``1234``; ``None`` where it is no number.

    A dollar sign, commas between thousands and a small exponent are understood; NaN, infinity and anything
    longer than ``MAX_CHARS`` in plain digits are not.
    """
    text = text.strip()
    if len(text) > MAX_CHARS or not _NUMBER.fullmatch(text):
        return None
    value = Decimal(text.replace(",", "").replace("$", ""))
    if not value:
        return "0"
    if abs(value.adjusted()) > MAX_CHARS:
        return None
    plain = format(value, "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    plain = plain.removeprefix("+")
    return plain if len(plain) <= MAX_CHARS else None
