"""The grammar of a number in an answer: each text is the number that it looks like, and none is cut."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orch_local.config.numerals import (
    FRACTION_DIGITS,
    INTEGER_DIGITS,
    NUMBER_BYTES,
    NUMBER_PATTERN,
    canonical_number,
    is_writable,
)


def is_sentence(text: str) -> bool:
    return re.fullmatch(NUMBER_PATTERN, text) is not None


@given(st.from_regex(NUMBER_PATTERN, fullmatch=True))
def test_a_written_number_has_a_canonical_form_of_its_value(text: str) -> None:
    canonical = canonical_number(text)
    assert canonical is not None
    assert Decimal(canonical) == Decimal(text.replace(",", "").replace("$", ""))
    assert is_writable(canonical)
    assert len(text.encode()) <= NUMBER_BYTES


@given(
    integer=st.text("0123456789", min_size=1, max_size=INTEGER_DIGITS),
    fraction=st.text("0123456789", max_size=FRACTION_DIGITS),
    negative=st.booleans(),
)
def test_every_canonical_number_within_the_bounds_can_be_written(
    integer: str, fraction: str, negative: bool
) -> None:
    canonical = canonical_number(f"{'-' if negative else ''}{integer}.{fraction}")
    assert canonical is not None
    assert is_writable(canonical)


def test_the_bound_in_bytes_is_reached() -> None:
    longest = "-$" + ",".join(["999"] * (INTEGER_DIGITS // 3)) + "." + "9" * FRACTION_DIGITS
    assert is_sentence(longest)
    assert len(longest) == NUMBER_BYTES


@given(st.integers(1, 10**INTEGER_DIGITS - 1), st.data())
def test_a_separator_of_thousands_never_ends_a_number(number: int, data: st.DataObject) -> None:
    grouped = f"{number:,}"
    end = data.draw(st.integers(1, len(grouped)))
    beginning = grouped[:end]
    complete = end == len(grouped) or grouped[end] == ","
    assert is_sentence(beginning) == (complete or "," not in beginning)


@pytest.mark.parametrize("text", ["1,", "1,2", "1,23", "1,234,", "1,234,5", "1,234,56", "$3,", "-3,6"])
def test_a_begun_group_is_no_number(text: str) -> None:
    assert not is_sentence(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        *[("3,600", "3600"), ("$1,234,567.50", "1234567.5"), ("-$5", "-5"), ("$-5.00", "-5"), ("-0", "0")],
        *[("-0.0", "0"), ("$0.10", "0.1"), ("1.3333333333333333", "1.3333333333333333")],
        *[("0.0000004", "0.0000004"), ("2,340,000,000,000,000,000,000", "2340000000000000000000")],
    ],
)
def test_what_models_write(text: str, canonical: str) -> None:
    assert is_sentence(text)
    assert canonical_number(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        *["", "-", "$", "1.", ".5", "+1", "007", "1 000", "1_000", "5%", "1/2", "12,34", "1234,567", "--1"],
        *["1" * (INTEGER_DIGITS + 1), "0." + "1" * (FRACTION_DIGITS + 1), "1,000.", "0,123", "\u0664"],
    ],
)
def test_what_cannot_be_written(text: str) -> None:
    assert not is_sentence(text)


@pytest.mark.parametrize(
    "gold", ["-9867630.0", "1.3333333333333333", "4e-07", "2.34e21", "123456789012345.5", "12345678901234567"]
)
def test_golds_as_programs_compute_them_can_be_written(gold: str) -> None:
    canonical = canonical_number(gold)
    assert canonical is not None
    assert is_writable(canonical)


@pytest.mark.parametrize("gold", ["1e-30", "1e24", "1" * 25, "0.123456789012345678901"])
def test_golds_out_of_bounds_cannot(gold: str) -> None:
    canonical = canonical_number(gold)
    assert canonical is not None
    assert not is_writable(canonical)
