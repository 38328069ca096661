"""GSM8K in the columns of `openai/gsm8k`: a worked solution whose last line is `#### 42`."""

from __future__ import annotations

from typing import Any

from orch_local.benchmarks.rows import (
    DEFAULT_CATEGORY,
    Layout,
    Row,
    RowError,
    clean_text,
    describe,
    field,
    small_columns,
)
from orch_local.numbers import canonical_number
from orch_local.records import Question, question_id

_COLUMNS = ("question", "answer")


def convert(row: Row) -> Question:
    """One row as a numeric question; the worked solution is left behind, for it gives the gold away."""
    text = clean_text(field(row, "question"), "`question`")
    return Question(
        id=question_id(text, ()),
        text=text,
        choices=(),
        gold=_gold(field(row, "answer")),
        category=DEFAULT_CATEGORY,
        meta=small_columns(row, _COLUMNS),
    )


def _gold(answer: Any) -> str | None:
    if answer is None:
        return None
    _, mark, number = clean_text(answer, "`answer`").rpartition("####")
    gold = canonical_number(number)
    if not mark or gold is None:
        raise RowError(f"`answer` does not end in `#### number` but in {describe(number.strip()[-30:])}")
    return gold


LAYOUT = Layout(_COLUMNS, convert, few_shot_split="train")
