"""The project's own format: one JSON object a line; see docs/questions.md."""

from __future__ import annotations

import difflib
import math
from typing import Any

from orch_local.benchmarks.rows import (
    DEFAULT_CATEGORY,
    Layout,
    LossyFloat,
    Row,
    RowError,
    checked_label,
    checked_number,
    clean_choices,
    clean_text,
    describe,
    field,
)
from orch_local.records import Question, question_id

KEYS = ("question", "choices", "answer", "category", "meta")
_DEEPEST_META = 32


def convert(row: Row) -> Question:
    """One row as a question; without choices its answer is a number."""
    _refuse_unknown(row)
    text = clean_text(field(row, "question"), "`question`")
    choices = _choices(row.get("choices"))
    category, meta = row.get("category"), row.get("meta")
    if meta is not None and not isinstance(meta, dict):
        raise RowError(f"`meta` is {describe(meta)}, not an object")
    _check_meta(meta, _DEEPEST_META)
    return Question(
        id=question_id(text, choices),
        text=text,
        choices=choices,
        gold=_gold(row.get("answer"), choices),
        category=DEFAULT_CATEGORY if category is None else clean_text(category, "`category`"),
        meta=meta or {},
    )


def _refuse_unknown(row: Row) -> None:
    unknown = next((key for key in row if key not in KEYS), None)
    if unknown is not None:
        close = difflib.get_close_matches(unknown[:50], KEYS, n=1, cutoff=0.5)
        hint = f"did you mean `{close[0]}`?" if close else f"valid: {', '.join(KEYS)}"
        raise RowError(f"unknown key {unknown[:40]!r} ({hint}); further facts belong in `meta`")


def _check_meta(value: Any, levels: int) -> None:
    """Refuse what the run folder could not hold; a table has more kinds of value than JSON."""
    if not levels:
        raise RowError("`meta` is nested too deeply")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_meta(item, levels - 1)
    elif value is not None and not isinstance(value, str | int | float):
        raise RowError(f"`meta` holds {describe(value)}, which JSON does not have")
    elif isinstance(value, float) and not math.isfinite(value):
        raise RowError(f"`meta` holds {value}, which JSON does not have")


def _choices(value: Any) -> tuple[str, ...]:
    return () if value is None or value == [] else clean_choices(value, fewest=2)


def _gold(answer: Any, choices: tuple[str, ...]) -> str | None:
    if answer is None:
        return None
    if choices:
        return checked_label(answer, choices)
    if isinstance(answer, LossyFloat):
        raise RowError("`answer` has more digits than a number of JSON keeps; write it as text, in quotes")
    is_number = isinstance(answer, str | int | float) and not isinstance(answer, bool)
    gold = checked_number(str(answer)) if is_number else None
    if gold is None:
        raise RowError(f"`answer` is {describe(answer)}; a question without choices needs a number")
    return gold


LAYOUT = Layout(("question",), convert, few_shot_split="dev")
