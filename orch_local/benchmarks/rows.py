"""From a raw row to a question: the checks that all benchmarks share.

A row that cannot be used raises :class:`RowError` with a reason; the loader adds the file and the row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orch_local.config.numerals import BOUNDS, canonical_number, is_writable
from orch_local.records import LABELS, Question

Row = Mapping[str, Any]
MAX_CHARS = 1_000_000
"""Longest text of a question or choice; a longer one is a broken file, not a question."""
MAX_META_CHARS = 1000
DEFAULT_CATEGORY = "all"
_SHOWN = 40


class RowError(Exception):
    """Why a row is refused."""


class LossyFloat(float):
    """A number that was written with more digits than a float keeps."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was refused: where it is, and why."""

    file: str
    row: int
    """Counted from 1: the line of a JSONL file, the row of a table."""
    reason: str

    @property
    def place(self) -> str:
        """File and row in words."""
        return f"{self.file}, {'line' if Path(self.file).suffix == '.jsonl' else 'row'} {self.row}"


@dataclass(frozen=True)
class Layout:
    """How the files of one benchmark are laid out."""

    columns: tuple[str, ...]
    """Columns a table must have."""
    convert: Callable[[Row], Question]
    few_shot_split: str
    """Split the solved examples usually come from."""
    configs_together: bool = False
    """Whether the folders of a hub copy are parts of one benchmark, as the subjects of MMLU are."""
    rationale: Callable[[Row], str] | None = None
    """Reads the worked solution without its final statement of the answer; empty where a row has none."""

    def solved(self, row: Row) -> tuple[Question, str]:
        """A row as a question and its rationale, for few-shot examples."""
        return self.convert(row), self.rationale(row) if self.rationale else ""


def field(row: Row, key: str) -> Any:
    """The value of a column that must be there; it may be ``None``."""
    try:
        return row[key]
    except KeyError:
        found = ", ".join(row)[:200] or "nothing"
        raise RowError(f"`{key}` is missing (found: {found})") from None


def clean_text(value: Any, name: str) -> str:
    """Outer white space stripped, CRLF made LF; everything else stays as it is."""
    if not isinstance(value, str):
        raise RowError(f"{name} is {describe(value)}, not text")
    text = value.replace("\r\n", "\n").strip()
    if not text:
        raise RowError(f"{name} is empty")
    if len(text) > MAX_CHARS:
        raise RowError(f"{name} has {len(text):,} characters, more than {MAX_CHARS:,}")
    return text


def describe(value: Any) -> str:
    """A short name of a value for a message: its text where that is short, else its type."""
    if value is None:
        return "missing"
    shown = repr(value) if isinstance(value, str | int | float) else ""
    return shown if 0 < len(shown) <= 40 else f"a {type(value).__name__}"


def clean_choices(value: Any, fewest: int, most: int = len(LABELS)) -> tuple[str, ...]:
    """The choices of a row: of the right number, none empty, no two alike."""
    if not isinstance(value, list):
        raise RowError(f"the choices are {describe(value)}, not a list")
    if not fewest <= len(value) <= most:
        wanted = str(most) if fewest == most else f"{fewest} to {most}"
        raise RowError(f"{len(value)} choices instead of {wanted}")
    choices = tuple(clean_text(choice, f"choice {LABELS[i]}") for i, choice in enumerate(value))
    if len(set(choices)) < len(choices):
        second = next(i for i, choice in enumerate(choices) if choice in choices[:i])
        raise RowError(f"choices {LABELS[choices.index(choices[second])]} and {LABELS[second]} are the same")
    return choices


def label_at(index: Any, choices: Collection[str]) -> str:
    """The label of a gold answer that is given as an index counted from 0."""
    if not isinstance(index, int) or isinstance(index, bool):
        raise RowError(f"the answer is {describe(index)}, not an index")
    if not 0 <= index < len(choices):
        raise RowError(f"the answer {index} is not one of 0 to {len(choices) - 1}")
    return LABELS[index]


def is_hidden(index: Any) -> bool:
    """Whether an index says that the gold is not published; `datasets` writes -1 for a missing label."""
    return index is None or (type(index) is int and index == -1)


def checked_label(value: Any, choices: Collection[str]) -> str:
    """The label of a gold answer that is given as a letter."""
    labels = LABELS[: len(choices)]
    label = value.strip() if isinstance(value, str) else value
    if not isinstance(label, str) or len(label) != 1 or label not in labels:
        raise RowError(f"the answer is {describe(value)}, not one of the labels {labels[0]} to {labels[-1]}")
    return label


def checked_number(text: str) -> str | None:
    """The canonical form of a gold answer, ``None`` where the text is no number.

    A gold that no answer can be written as would make every answer wrong, so it is refused.
    """
    gold = canonical_number(text)
    if gold is not None and not is_writable(gold):
        shown = text.strip() if len(text) <= _SHOWN else f"{text.strip()[:_SHOWN]}..."
        raise RowError(f"the answer {shown} is a number that an answer cannot hold: it has {BOUNDS}")
    return gold


def small_columns(row: Row, used: Collection[str]) -> dict[str, Any]:
    """The other columns, for `meta`: short text and finite numbers alone, for they are copied around."""
    return {key: value for key, value in row.items() if key not in used and _is_small(value)}


def _is_small(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= MAX_META_CHARS)
