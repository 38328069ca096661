"""GSM8K in the columns of `openai/gsm8k`: a worked solution whose last line is `#### 42`."""

from __future__ import annotations

import re
from typing import Any

from orch_local.benchmarks.rows import (
    DEFAULT_CATEGORY,
    Layout,
    Row,
    RowError,
    checked_number,
    clean_text,
    describe,
    field,
    small_columns,
)
from orch_local.records import Question, question_id

_COLUMNS = ("question", "answer")
_ANNOTATION = re.compile(r"<<[^<>]*>>")
"""A note for a calculator, ``<<48/2=24>>``; its result stands behind it as well."""


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
    _, mark, number = _split(answer)
    gold = checked_number(number)
    if not mark or gold is None:
        raise RowError(f"`answer` does not end in `#### number` but in {describe(number.strip()[-30:])}")
    return gold


def rationale(row: Row) -> str:
    """The worked solution without the calculator's annotations."""
    answer = field(row, "answer")
    return "" if answer is None else _ANNOTATION.sub("", _split(answer)[0]).strip()


def _split(answer: Any) -> tuple[str, str, str]:
    """The worked solution, the mark ``####``, and the text of the number."""
    return clean_text(answer, "`answer`").rpartition("####")


LAYOUT = Layout(_COLUMNS, convert, few_shot_split="train", rationale=rationale)
