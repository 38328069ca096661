"""Loaders: question files of a benchmark into questions, from local files only.

One small module per benchmark says how its columns become a question (``LAYOUT``); what is shared is here
and in `files.py` (which files), `reading.py` (rows out of files), `rows.py` (checks) and `fewshot.py`.
"""

from __future__ import annotations

import difflib
import hashlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from orch_local.benchmarks import arc, gsm8k, jsonl, mmlu, mmlu_pro
from orch_local.benchmarks.fewshot import add_examples
from orch_local.benchmarks.files import find_few_shot, find_split
from orch_local.benchmarks.reading import read_rows
from orch_local.benchmarks.rows import BadRow, Layout, RowError
from orch_local.config import BenchmarkConfig
from orch_local.errors import BenchmarkError
from orch_local.questions import Pile
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

    questions: Sequence[Question]
    bad_rows: list[BadRow]


class _Read(NamedTuple):
    """All good questions of some files on a pile, and what is needed to choose among them."""

    pile: Pile
    ids: list[str]
    categories: list[str]
    bad_rows: list[BadRow]


def load_questions(config: BenchmarkConfig) -> Loaded:
    """Load, filter by category, shuffle, limit, add few-shot examples; in this order.

    Raises
    ------
    BenchmarkError
        If files are missing or unreadable, a row is bad and may not be skipped, or no question is left.
    """
    layout = _LAYOUTS[config.name]
    read = _read(find_split(config.path, config.split, configs_together=layout.configs_together), layout)
    _check(read, config)
    order = _in_categories(read.categories, config.categories)
    if config.shuffle_seed is not None:
        order = _shuffled(order, read.ids, config.shuffle_seed)
    questions = read.pile.picked(order[: config.limit])
    if not config.few_shot:
        return Loaded(questions, read.bad_rows)
    solved = _solved(layout, config)
    with_examples = Pile()
    for question in add_examples(questions, solved.pile, config.few_shot):
        with_examples.add(question)
    return Loaded(with_examples, read.bad_rows + solved.bad_rows)


def _read(files: Iterable[Path], layout: Layout, *, repeats: bool = False) -> _Read:
    """Convert all rows. Where a question may not come twice, its second row is a bad one."""
    read = _Read(Pile(), [], [], [])
    places: dict[str, tuple[str, int]] = {}
    for file in files:
        name = str(file)
        for number, row in read_rows(file, layout):
            try:
                if isinstance(row, RowError):
                    raise row
                question = layout.convert(row)
                if not repeats and question.id in places:
                    first = BadRow(*places[question.id], "")
                    raise RowError(f"the same question and choices as {first.place}")
            except RowError as error:
                read.bad_rows.append(BadRow(name, number, str(error)))
                continue
            if question.id not in places:
                places[question.id] = (name, number)
                read.pile.add(question)
                read.ids.append(question.id)
                read.categories.append(sys.intern(question.category))
    return read


def _check(read: _Read, config: BenchmarkConfig) -> None:
    if read.bad_rows and not (config.skip_bad_rows and read.ids):
        first, several = read.bad_rows[0], len(read.bad_rows) > 1
        count = f"the first of {len(read.bad_rows)} bad rows" if several else "the only bad row"
        hint = "`--skip-bad-rows` leaves them out, counted" if read.ids else "no good row is left"
        raise BenchmarkError(f"{first.reason} ({count})", where=first.place, hint=hint)
    if not read.ids:
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


def _solved(layout: Layout, config: BenchmarkConfig) -> _Read:
    split = config.few_shot_split or layout.few_shot_split
    files = find_few_shot(config.path, split, configs_together=layout.configs_together)
    # The same example twice does no harm; published training splits have some.
    solved = _read(files, layout, repeats=True)
    _check(solved, config)
    if all(question.gold is None for question in solved.pile):
        raise BenchmarkError(f"no example of the split {split!r} has an answer", where=str(files[0]))
    return solved
