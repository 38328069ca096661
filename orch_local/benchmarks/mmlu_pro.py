"""MMLU-Pro in the columns of `TIGER-Lab/MMLU-Pro`: three to ten options, the answer as letter and index."""

from __future__ import annotations

import re
from typing import Any

from orch_local.benchmarks.rows import (
    Layout,
    Row,
    RowError,
    checked_label,
    clean_choices,
    clean_text,
    field,
    is_hidden,
    label_at,
    small_columns,
)
from orch_local.records import LABELS, Question, question_id

_COLUMNS = ("question", "options", "answer", "answer_index", "category")
_NOT_META = ("question", "options", "answer", "answer_index", "category", "cot_content")
_OPENING = "A: Let's think step by step."
_CONCLUSION = re.compile(r"\b(?:(?:So|Thus|Hence|Therefore),? the|The) answer is \(?[A-J]\)?\.?$")


def convert(row: Row) -> Question:
    """One row as a question."""
    text = clean_text(field(row, "question"), "`question`")
    choices = clean_choices(_without_padding(field(row, "options")), fewest=3)
    return Question(
        id=question_id(text, choices),
        text=text,
        choices=choices,
        gold=_gold(row, choices),
        category=clean_text(field(row, "category"), "`category`"),
        meta=small_columns(row, _NOT_META),
    )


def _without_padding(options: Any) -> Any:
    """Some copies fill each question up to ten options with `N/A`; those are no choices."""
    if not isinstance(options, list) or len(options) != len(LABELS):
        return options
    end = len(options)
    while end and options[end - 1] == "N/A":
        end -= 1
    return options[:end]


def _gold(row: Row, choices: tuple[str, ...]) -> str | None:
    answer, index = field(row, "answer"), field(row, "answer_index")
    by_letter = None if answer in (None, "") else checked_label(answer, choices)
    by_index = None if is_hidden(index) else label_at(index, choices)
    if by_letter and by_index and by_letter != by_index:
        raise RowError(f"`answer` is {by_letter}, but `answer_index` {index} is {by_index}")
    return by_letter or by_index


def rationale(row: Row) -> str:
    """``cot_content`` without its fixed opening and without a last sentence that names the label."""
    written = row.get("cot_content")
    if written in (None, ""):
        return ""
    steps = clean_text(written, "`cot_content`").removeprefix(_OPENING)
    return _CONCLUSION.sub("", steps).strip()


LAYOUT = Layout(_COLUMNS, convert, few_shot_split="validation", rationale=rationale)
