"""Few-shot examples: the first solved questions of the same category, never the question itself."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator

from orch_local.records import Example, Question

_Pool = dict[str, Example]


def add_examples(questions: Iterable[Question], solved: Iterable[Question], count: int) -> Iterator[Question]:
    """Give each question up to ``count`` of the ``solved`` ones, in their order.

    A category without any takes them from all categories. ``solved`` must have gold answers.
    """
    everything: _Pool = {}
    by_category: defaultdict[str, _Pool] = defaultdict(dict)
    for one in solved:
        for pool in (everything, by_category[one.category]):
            # One more than asked for, since one of them may be the question itself.
            if len(pool) <= count and one.gold is not None:
                pool[one.id] = Example(one.text, one.choices, one.gold)
    for question in questions:
        examples = _first(by_category.get(question.category, {}), question.id, count)
        examples = examples or _first(everything, question.id, count)
        yield dataclasses.replace(question, examples=examples)


def _first(pool: _Pool, own_id: str, count: int) -> tuple[Example, ...]:
    return tuple(example for id_, example in pool.items() if id_ != own_id)[:count]
