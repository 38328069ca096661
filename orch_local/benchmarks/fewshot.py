"""Few-shot examples: the first solved questions of the same category, never the question itself."""

from __future__ import annotations

from collections import defaultdict

from orch_local.records import Example, Question

_Pool = dict[str, Example]


class Examples:
    """Solved questions to choose from; no more are kept than can be shown."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._everything: _Pool = {}
        self._by_category: defaultdict[str, _Pool] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._everything)

    def add(self, question: Question, rationale: str) -> None:
        """Keep a question if it is solved, and one of the first of its category or of all."""
        if question.gold is None:
            return
        example = Example(question.text, question.choices, question.gold, rationale)
        for pool in (self._everything, self._by_category[question.category]):
            # One more than asked for, since one of them may be the question itself.
            if len(pool) <= self._count:
                pool.setdefault(question.id, example)

    def of(self, question: Question) -> tuple[Example, ...]:
        """The examples of a question, in the order of the file; from all categories if its own has none."""
        return self._first(self._by_category.get(question.category, {}), question.id) or self._first(
            self._everything, question.id
        )

    def _first(self, pool: _Pool, own_id: str) -> tuple[Example, ...]:
        return tuple(example for id_, example in pool.items() if id_ != own_id)[: self._count]
