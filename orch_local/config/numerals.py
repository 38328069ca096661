r"""Numbers: how one is written in an answer, and its canonical form.

Golds and the numbers of answers both pass through :func:`canonical_number`, so that they are compared as text
and no float ever rounds: two texts are the same number exactly when their canonical forms are equal.

:data:`NUMBER_PATTERN` is the grammar of a number in an answer, which stands there in quotes. Where a grammar
ends a number too early, the rest is lost without a sign. So three digits must follow a comma, and a minus
may stand on either side of the dollar sign. These are still cut, and no gold of the sets below has one:

- exponents (``1e6``): the number may be too long to be offered to the merge agent in plain digits;
- fractions (``1/3``), mixed numbers, products: they have no canonical form. Of 48 answers that a model with
  0.5B parameters wrote without a grammar three were such, all to questions about fractions or products;
- thousands in groups by spaces or underscores, decimal commas, leading zeros: rare in JSON, or ambiguous.

A percent sign, a unit and a leading plus are dropped without harm: golds are bare numbers.

Bounds: none of 15,272 golds (GSM8K, GSM-Hard, SVAMP, ASDiv, MAWPS) has more than 13 digits before the point
or 10 behind it; 24 and 20 also hold every 64-bit integer and every float that is printed without exponent.
"""

from __future__ import annotations

import re
from decimal import Decimal

MAX_CHARS = 1000
"""Longest number read or written; it keeps `1e9999` from becoming ten thousand digits."""
INTEGER_DIGITS, FRACTION_DIGITS = 24, 20
BOUNDS = f"at most {INTEGER_DIGITS} digits before the point and {FRACTION_DIGITS} behind it"
_PLAIN = rf"0|[1-9][0-9]{{0,{INTEGER_DIGITS - 1}}}"
_GROUPED = rf"[1-9][0-9]{{0,2}}(?:,[0-9]{{3}}){{1,{INTEGER_DIGITS // 3 - 1}}}"
NUMBER_PATTERN = rf"(?:-\$?|\$-?)?(?:{_PLAIN}|{_GROUPED})(?:\.[0-9]{{1,{FRACTION_DIGITS}}})?"
"""A number in an answer, as a regular expression that Python, llguidance and outlines_core execute alike."""
NUMBER_BYTES = len("-$") + INTEGER_DIGITS + (INTEGER_DIGITS // 3 - 1) + len(".") + FRACTION_DIGITS
"""Length of the longest number of the pattern; all its characters are ASCII."""

_WRITTEN = re.compile(NUMBER_PATTERN)
_SIGN = r"(?:[+-]?\$?|\$[+-])"
_NUMBER = re.compile(
    rf"{_SIGN}(?:(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{{1,4}})?", re.ASCII
)


def is_writable(canonical: str) -> bool:
    """Whether an answer can hold a number that is given in its canonical form."""
    return _WRITTEN.fullmatch(canonical) is not None


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
