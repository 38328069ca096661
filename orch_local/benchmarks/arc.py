"""ARC in the columns of `allenai/ai2_arc`: choices as {text, label}, labelled A to E or 1 to 4."""

from __future__ import annotations

from typing import Any

from orch_local.benchmarks.rows import (
    DEFAULT_CATEGORY,
    Layout,
    Row,
    RowError,
    clean_choices,
    clean_text,
    describe,
    field,
    small_columns,
)
from orch_local.records import LABELS, Question, question_id

_COLUMNS = ("question", "choices", "answerKey")


def convert(row: Row) -> Question:
    """One row as a question, its labels made ours: A, B, C in the order of the row."""
    text = clean_text(field(row, "question"), "`question`")
    pairs = field(row, "choices")
    if not isinstance(pairs, dict):
        raise RowError(f"`choices` is {describe(pairs)}, not a pair of `text` and `label`")
    choices = clean_choices(field(pairs, "text"), fewest=2)
    return Question(
        id=question_id(text, choices),
        text=text,
        choices=choices,
        gold=_gold(field(row, "answerKey"), _labels(pairs, len(choices))),
        category=DEFAULT_CATEGORY,
        meta=small_columns(row, _COLUMNS),
    )


def _labels(pairs: Row, count: int) -> list[str]:
    labels = field(pairs, "label")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise RowError("`choices.label` is not a list of texts")
    if len(labels) != count or len(set(labels)) != count:
        raise RowError(f"`choices.label` does not name the {count} choices: {describe(' '.join(labels))}")
    return labels


def _gold(key: Any, labels: list[str]) -> str | None:
    if key in (None, ""):
        return None
    if key not in labels:
        raise RowError(f"`answerKey` is {describe(key)}, not one of {', '.join(labels)}")
    return LABELS[labels.index(key)]


LAYOUT = Layout(_COLUMNS, convert, few_shot_split="train")
