"""Loaders: question files of a benchmark into questions, from local files only.

One small module per benchmark says how its columns become a question (``LAYOUT``); what is shared is here
and in `files.py` (which files), `reading.py` (rows out of files), `rows.py` (checks) and `fewshot.py`.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from orch_local.benchmarks import arc, gsm8k, jsonl, mmlu, mmlu_pro
from orch_local.benchmarks.fewshot import add_examples
from orch_local.benchmarks.files import find_few_shot, find_split
from orch_local.benchmarks.reading import read_rows
from orch_local.benchmarks.rows import BadRow, Layout, RowError
from orch_local.config import BenchmarkConfig
from orch_local.errors import BenchmarkError
from orch_local.records import Question

__all__ = ["BadRow", "Loaded", "load_questions"]

_LAYOUTS: dict[str, Layout] = {
    "mmlu": mmlu.LAYOUT,
    "mmlu_pro": mmlu_pro.LAYOUT,
    "gsm8k": gsm8k.LAYOUT,
    "arc": arc.LAYOUT,
    "jsonl": jsonl.LAYOUT,
}


class Loaded(NamedTuple):
    """The questions in the order they are asked, and the rows that were left out."""

    questions: list[Question]
    bad_rows: list[BadRow]


def load_questions(config: BenchmarkConfig) -> Loaded:
    """Load, filter by category, shuffle, limit, add few-shot examples; in this order.

    Raises
    ------
    BenchmarkError
        If files are missing or unreadable, a row is bad and may not be skipped, or no question is left.
    """
    layout = _LAYOUTS[config.name]
    files = find_split(config.path, config.split, configs_together=layout.configs_together)
    questions, bad_rows = _read(files, layout)
    _check(questions, bad_rows, config)
    questions = _in_categories(questions, config.categories)
    if config.shuffle_seed is not None:
        questions = _shuffled(questions, config.shuffle_seed)
    questions = questions[: config.limit]
    if config.few_shot:
        solved, bad_solved = _solved(layout, config)
        questions, bad_rows = add_examples(questions, solved, config.few_shot), bad_rows + bad_solved
    return Loaded(questions, bad_rows)


def _read(files: Iterable[Path], layout: Layout, *, repeats: bool = False) -> Loaded:
    """Convert all rows. Where a question may not come twice, its second row is a bad one."""
    questions: dict[str, Question] = {}
    places: dict[str, BadRow] = {}
    bad_rows = []
    for file in files:
        name = str(file)
        for number, row in read_rows(file, layout):
            place = BadRow(name, number, "")
            try:
                if isinstance(row, RowError):
                    raise row
                question = layout.convert(row)
                if not repeats and question.id in questions:
                    raise RowError(f"the same question and choices as {places[question.id].place}")
            except RowError as error:
                bad_rows.append(BadRow(name, number, str(error)))
            else:
                places.setdefault(question.id, place)
                questions.setdefault(question.id, question)
    return Loaded(list(questions.values()), bad_rows)


def _check(questions: list[Question], bad_rows: list[BadRow], config: BenchmarkConfig) -> None:
    if bad_rows and not (config.skip_bad_rows and questions):
        first = bad_rows[0]
        count = f"the first of {len(bad_rows)} bad rows" if len(bad_rows) > 1 else "the only bad row"
        hint = "`--skip-bad-rows` leaves them out, counted" if questions else "no good row is left"
        raise BenchmarkError(f"{first.reason} ({count})", where=first.place, hint=hint)
    if not questions:
        raise BenchmarkError("holds no questions", where=str(config.path))


def _in_categories(questions: list[Question], categories: tuple[str, ...] | None) -> list[Question]:
    if categories is None:
        return questions
    valid = sorted({question.category for question in questions})
    unknown = next((name for name in categories if name not in valid), None)
    if unknown is not None or not categories:
        close = difflib.get_close_matches(unknown or "", valid, n=1)
        message = f"no question is of the category {unknown!r}" if unknown else "no category is given"
        raise BenchmarkError(
            message + (f" (did you mean {close[0]!r}?)" if close else ""), hint=f"valid: {', '.join(valid)}"
        )
    return [question for question in questions if question.category in categories]


def _shuffled(questions: list[Question], seed: int) -> list[Question]:
    """Sorted by a hash of seed and id: the same order in every Python, whatever the order of the file."""
    return sorted(questions, key=lambda q: hashlib.sha256(f"{seed}:{q.id}".encode()).digest())


def _solved(layout: Layout, config: BenchmarkConfig) -> Loaded:
    split = config.few_shot_split or layout.few_shot_split
    files = find_few_shot(config.path, split, configs_together=layout.configs_together)
    # The same example twice does no harm; published training splits have some.
    solved, bad_rows = _read(files, layout, repeats=True)
    _check(solved, bad_rows, config)
    if all(question.gold is None for question in solved):
        raise BenchmarkError(f"no example of the split {split!r} has an answer", where=str(files[0]))
    return Loaded(solved, bad_rows)
