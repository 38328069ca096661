"""MMLU in the columns of `cais/mmlu`: question, subject, choices, answer (an index)."""

from __future__ import annotations

from orch_local.benchmarks.rows import (
    DEFAULT_CATEGORY,
    Layout,
    Row,
    clean_choices,
    clean_text,
    field,
    is_hidden,
    label_at,
    small_columns,
)
from orch_local.records import Question, question_id

_COLUMNS = ("question", "subject", "choices", "answer")


def convert(row: Row) -> Question:
    """One row as a question; its category is the subject."""
    text = clean_text(field(row, "question"), "`question`")
    choices = clean_choices(field(row, "choices"), fewest=4, most=4)
    answer, subject = field(row, "answer"), field(row, "subject")
    return Question(
        id=question_id(text, choices),
        text=text,
        choices=choices,
        gold=None if is_hidden(answer) else label_at(answer, choices),
        # The split auxiliary_train has no subjects: its column is there, and empty.
        category=DEFAULT_CATEGORY if subject == "" else clean_text(subject, "`subject`"),
        meta=small_columns(row, ("question", "choices", "answer")),
    )


LAYOUT = Layout(_COLUMNS, convert, few_shot_split="dev", configs_together=True)
