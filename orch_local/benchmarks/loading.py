"""Loaders: question files of a benchmark into questions, from local files only.

One small module per benchmark says how its columns become a question (``LAYOUT``); what is shared is here
and in `files.py` (which files), `reading.py` (rows out of files), `store/rows.py` (checks) and `fewshot.py`.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from orch_local.benchmarks import arc, gsm8k, jsonl, mmlu, mmlu_pro
from orch_local.benchmarks.fewshot import Examples
from orch_local.benchmarks.files import find_few_shot, find_split
from orch_local.benchmarks.reading import read_rows
from orch_local.benchmarks.rows import BadRow, Layout, Row, RowError
from orch_local.config.blocks import BenchmarkConfig
from orch_local.errors import BenchmarkError
from orch_local.records import Question
from orch_local.store.questions import Pile

__all__ = ["BadRow", "Loaded", "load_questions"]

_LAYOUTS: dict[str, Layout] = {
    "mmlu": mmlu.LAYOUT,
    "mmlu_pro": mmlu_pro.LAYOUT,
    "gsm8k": gsm8k.LAYOUT,
    "arc": arc.LAYOUT,
    "jsonl": jsonl.LAYOUT,
}


_T = TypeVar("_T")


class Loaded(NamedTuple):
    """The questions in the order they are asked, and the rows that were left out."""

    questions: Sequence[Question]
    bad_rows: list[BadRow]
    categories: int
    """Categories that could be asked: those of the files, or what of them `benchmark.categories` names."""


class _Read(NamedTuple):
    """All good questions of some files on a pile, and what is needed to choose among them."""

    pile: Pile
    ids: list[str]
    categories: list[str]
    bad_rows: list[BadRow]


def load_questions(config: BenchmarkConfig) -> Loaded:
    """Load, filter by category, shuffle, take some of each category, limit, add few-shot examples.

    Raises
    ------
    BenchmarkError
        If files are missing or unreadable, a row is bad and may not be skipped, or no question is left.
    """
    layout = _LAYOUTS[config.name]
    read = _read(find_split(config.path, config.split, configs_together=layout.configs_together), layout)
    _check(read.bad_rows, config, any_good=bool(read.ids))
    order = _in_categories(read.categories, config.categories)
    if config.shuffle_seed is not None:
        order = _shuffled(order, read.ids, config.shuffle_seed)
    if config.per_category is not None:
        order = _first_of_each(order, read.categories, config.per_category)
    questions = read.pile.picked(order[: config.limit])
    categories = len(set(config.categories or read.categories))
    if not config.few_shot:
        return Loaded(questions, read.bad_rows, categories)
    examples, bad_rows = _examples(layout, config)
    with_examples = Pile()
    for question in questions:
        with_examples.add(dataclasses.replace(question, examples=examples.of(question)))
    return Loaded(with_examples, read.bad_rows + bad_rows, categories)


def _read(files: Iterable[Path], layout: Layout) -> _Read:
    """Convert all rows; the second row of a question is a bad one."""
    read = _Read(Pile(), [], [], [])
    places: dict[str, tuple[str, int]] = {}
    for file, number, question in _converted(files, layout, layout.convert, read.bad_rows):
        if question.id in places:
            first = BadRow(*places[question.id], "")
            reason = f"the same question and choices as {first.place}"
            read.bad_rows.append(BadRow(file, number, reason))
            continue
        places[question.id] = (file, number)
        read.pile.add(question)
        read.ids.append(question.id)
        read.categories.append(sys.intern(question.category))
    return read


def _converted(
    files: Iterable[Path], layout: Layout, convert: Callable[[Row], _T], bad_rows: list[BadRow]
) -> Iterator[tuple[str, int, _T]]:
    """All rows that can be converted, with file and number; the others are put to the bad rows."""
    for file in files:
        name = str(file)
        for number, row in read_rows(file, layout):
            try:
                if isinstance(row, RowError):
                    raise row
                converted = convert(row)
            except RowError as error:
                bad_rows.append(BadRow(name, number, str(error)))
                continue
            yield name, number, converted


def _check(bad_rows: Sequence[BadRow], config: BenchmarkConfig, *, any_good: bool) -> None:
    if bad_rows and not (config.skip_bad_rows and any_good):
        first, several = bad_rows[0], len(bad_rows) > 1
        count = f"the first of {len(bad_rows)} bad rows" if several else "the only bad row"
        hint = "`--skip-bad-rows` leaves them out, counted" if any_good else "no good row is left"
        raise BenchmarkError(f"{first.reason} ({count})", where=first.place, hint=hint)
    if not any_good:
        raise BenchmarkError("holds no questions", where=str(config.path))


def _in_categories(found: Sequence[str], wanted: tuple[str, ...] | None) -> list[int]:
    """Numbers of the questions whose category is wanted."""
    if wanted is None:
        return list(range(len(found)))
    valid = sorted(set(found))
    unknown = next((name for name in wanted if name not in valid), None)
    if unknown is not None or not wanted:
        close = difflib.get_close_matches(unknown or "", valid, n=1)
        message = f"no question is of the category {unknown!r}" if unknown else "no category is given"
        raise BenchmarkError(
            message + (f" (did you mean {close[0]!r}?)" if close else ""),
            where="benchmark.categories",
            hint=f"valid: {', '.join(valid)}",
        )
    return [number for number, category in enumerate(found) if category in wanted]


def _shuffled(order: Iterable[int], ids: Sequence[str], seed: int) -> list[int]:
    """Sorted by a hash of seed and id: the same order in every Python, whatever the order of the file."""
    return sorted(order, key=lambda number: hashlib.sha256(f"{seed}:{ids[number]}".encode()).digest())


def _first_of_each(order: Iterable[int], categories: Sequence[str], count: int) -> list[int]:
    """Numbers of the first questions of each category, in their order."""
    taken = Counter[str]()
    kept = []
    for number in order:
        category = categories[number]
        if taken[category] < count:
            taken[category] += 1
            kept.append(number)
    return kept


def _examples(layout: Layout, config: BenchmarkConfig) -> tuple[Examples, list[BadRow]]:
    """The solved questions to show, and the bad rows of their split. A question may be there twice."""
    split = config.few_shot_split or layout.few_shot_split
    files = find_few_shot(config.path, split, configs_together=layout.configs_together)
    examples, bad_rows, good = Examples(config.few_shot), list[BadRow](), 0
    for _, _, (question, rationale) in _converted(files, layout, layout.solved, bad_rows):
        examples.add(question, rationale)
        good += 1
    _check(bad_rows, config, any_good=good > 0)
    if not examples:
        raise BenchmarkError(f"no example of the split {split!r} has an answer", where=str(files[0]))
    return examples, bad_rows
