"""Mappings over the keys of very many questions, at 8 to 28 bytes a question instead of some 200.

A key is 16 hex digits, so it is held as the number that it is.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView

import numpy as np

from orch_local.errors import StoreError
from orch_local.records import Question
from orch_local.store.questions import Questions, as_key, as_number


class _Places:
    """Finds the place of a number in an array."""

    def __init__(self, numbers: array[int]) -> None:
        held = np.frombuffer(numbers, np.uint64)
        order = np.argsort(held, kind="stable").astype(np.uint32)
        self._sorted, self._order = held[order].data, order.data

    def of(self, key: str) -> int:
        """The place of the first that has this key.

        Raises
        ------
        KeyError
            If there is none.
        """
        try:
            wanted = as_number(key)
        except ValueError:
            raise KeyError(key) from None
        at = bisect_left(self._sorted, wanted)
        if at == len(self._sorted) or self._sorted[at] != wanted:
            raise KeyError(key)
        return int(self._order[at])


class RowKeys(Mapping[str, str]):
    """Question key -> row key, in order. Without ``rows`` the row of a question has the question's key."""

    def __init__(self, questions: array[int], rows: array[int] | None = None) -> None:
        first = np.unique(np.frombuffer(questions, np.uint64), return_index=True)[1]
        if len(first) < len(questions):  # a question that was asked twice has one row
            kept = np.sort(first).tolist()
            questions = array("Q", (questions[place] for place in kept))
            rows = None if rows is None else array("Q", (rows[place] for place in kept))
        self._questions = questions
        self._rows = questions if rows is None else rows
        self._places: _Places | None = None

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> RowKeys:
        """Those of pairs of question key and row key."""
        questions, rows = array("Q"), array("Q")
        for question, row in pairs:
            questions.append(as_number(question))
            rows.append(as_number(row))
        return cls(questions, None if questions == rows else rows)

    def __getitem__(self, key: str) -> str:
        if self._places is None:
            self._places = _Places(self._questions)
        return as_key(self._rows[self._places.of(key)])

    def __iter__(self) -> Iterator[str]:
        return map(as_key, self._questions)

    def __len__(self) -> int:
        return len(self._questions)

    def items(self) -> ItemsView[str, str]:
        """Pairs of question key and row key, in order."""
        return _Items(self)

    def values(self) -> ValuesView[str]:
        """Row keys, in order."""
        return _Values(self)

    def picked(self, places: Iterable[int]) -> RowKeys:
        """Some of them, in this order."""
        chosen = array("I", places)
        questions = array("Q", (self._questions[place] for place in chosen))
        if self._rows is self._questions:
            return RowKeys(questions)
        return RowKeys(questions, array("Q", (self._rows[place] for place in chosen)))


class _Items(ItemsView[str, str]):
    """Goes through the pairs without looking up each."""

    _mapping: RowKeys

    def __iter__(self) -> Iterator[tuple[str, str]]:
        pairs = self._mapping
        return zip(map(as_key, pairs._questions), map(as_key, pairs._rows), strict=True)


class _Values(ValuesView[str]):
    _mapping: RowKeys

    def __iter__(self) -> Iterator[str]:
        return map(as_key, self._mapping._rows)


class QuestionsByKey(Mapping[str, Question]):
    """Questions by key, read from their file when they are asked for."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._keys = array("Q", map(as_number, questions.keys()))
        self._places = _Places(self._keys)

    def __getitem__(self, key: str) -> Question:
        question = self._questions[self._places.of(key)]
        if question.key != key:
            hint = "the file was changed after it was written: start again with another --out"
            raise StoreError(f"the question {key} has become {question.key}", hint=hint)
        return question

    def __iter__(self) -> Iterator[str]:
        return map(as_key, self._keys)

    def __len__(self) -> int:
        return len(self._keys)
