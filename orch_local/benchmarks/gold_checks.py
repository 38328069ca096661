"""What the gold answers of a set of questions say before a run: how many there are, and how they are spread.

Pure functions over questions, which are read once and not kept: memory grows with the number of labels and
categories, not of questions. How a finding is worded is for `report/questions.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orch_local.config.blocks import BenchmarkConfig
from orch_local.config.numerals import canonical_number, is_writable
from orch_local.records import LABELS, Question
from orch_local.stats import binomial_excess

FREQUENT_P = 1e-6
"""A label is too frequent where chance gives so many golds of it less often than this."""
LEAST_GOLDS = 5
"""Fewer golds may well be of one label by chance."""
DOUBLE_DIGITS = 15
"""Digits that a number of 64 bits always keeps; a gold with more of them may hold an error of rounding."""
_SAMPLE = 200
_LIKE_A_GOLD = re.compile(r"answer|gold|target|label|solution|result|correct", re.IGNORECASE)
_LIKE_AN_ID = re.compile(r"(?:^|[_ -])(?:id|idx|index|row|no|number)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MetaColumn:
    """A column of `meta`."""

    name: str
    example: str


@dataclass(frozen=True, slots=True)
class LabelGolds:
    """How often one label is the gold answer."""

    label: str
    count: int
    possible: int
    """Questions with gold that have this label."""
    expected: float
    """The count where every choice of a question is equally likely to be right."""
    p: float
    """Probability of this count or a higher one, were every choice equally likely."""


@dataclass(frozen=True, slots=True)
class GoldFacts:
    """The gold answers of a set of questions."""

    questions: int
    golds: int
    labels: tuple[LabelGolds, ...]
    """In label order; empty where no multiple-choice question has a gold."""
    categories: int
    long_numbers: int
    """Numeric golds with more significant digits than :data:`DOUBLE_DIGITS`."""
    column: MetaColumn | None
    """Where no question has a gold: a column of `meta` that looks like it holds them."""

    @property
    def labelled(self) -> int:
        """Multiple-choice questions with gold."""
        return sum(one.count for one in self.labels)

    @property
    def majority(self) -> LabelGolds | None:
        """The label that is most often right, the first of equals."""
        return max(self.labels, key=lambda one: one.count, default=None)

    @property
    def chance(self) -> float | None:
        """Share that a guess among the choices gets right on average."""
        return self.labels[0].expected / self.labelled if self.labels else None  # every question has an A


def gold_facts(questions: Sequence[Question]) -> GoldFacts:
    """Count the golds of questions, in one pass."""
    golds = long_numbers = 0
    labels, shapes, categories = Counter[str](), Counter[int](), set[str]()
    for question in questions:
        categories.add(question.category)
        if question.gold is None:
            continue
        golds += 1
        if question.is_numeric:
            long_numbers += _significant_digits(question.gold) > DOUBLE_DIGITS
        else:
            labels[question.gold] += 1
            shapes[len(question.choices)] += 1
    return GoldFacts(
        questions=len(questions),
        golds=golds,
        labels=_label_golds(labels, shapes),
        categories=len(categories),
        long_numbers=long_numbers,
        column=None if golds else _gold_column(questions),
    )


def frequent_labels(facts: GoldFacts) -> tuple[LabelGolds, ...]:
    """Labels that are the gold far more often than chance gives."""
    return tuple(one for one in facts.labels if one.p < FREQUENT_P)


def only_label(facts: GoldFacts) -> LabelGolds | None:
    """The label that all golds are, where there are enough of them to wonder."""
    most = facts.majority
    return most if most and most.count == facts.labelled >= LEAST_GOLDS else None


def narrowed_by_limit(facts: GoldFacts, benchmark: BenchmarkConfig, held: int) -> bool:
    """Whether `limit`, in the order of the files, leaves at most half of the categories that it could ask.

    ``held`` is how many categories there are without it.
    """
    if benchmark.limit is None or benchmark.shuffle_seed is not None:
        return False
    return 2 * facts.categories <= min(held, facts.questions)


def _significant_digits(number: str) -> int:
    return len(number.replace("-", "").replace(".", "").strip("0"))


def _label_golds(counts: Mapping[str, int], shapes: Mapping[int, int]) -> tuple[LabelGolds, ...]:
    """``counts`` are golds by label; ``shapes`` are questions by number of choices."""
    return tuple(_label_gold(label, counts, shapes) for label in LABELS[: max(shapes, default=0)])


def _label_gold(label: str, counts: Mapping[str, int], shapes: Mapping[int, int]) -> LabelGolds:
    count, place = counts.get(label, 0), LABELS.index(label)
    having = {size: number for size, number in shapes.items() if size > place}
    possible = sum(having.values())
    expected = sum(number / size for size, number in having.items())
    # Where numbers of choices differ, the binomial with the mean share has the heavier tail (Hoeffding 1956,
    # Annals of Mathematical Statistics 27:713), so p is too large rather than too small.
    return LabelGolds(label, count, possible, expected, binomial_excess(count, possible, expected / possible))


def _gold_column(questions: Sequence[Question]) -> MetaColumn | None:
    """The column whose values would be valid golds for most questions of a sample.

    One whose name speaks of answers goes first. A number may be anything, so the place of a choice counts
    under such a name only, and a column of numbers that is named like an identifier never.
    """
    sample = questions[:: max(1, len(questions) // _SAMPLE)][:_SAMPLE]
    valid, examples = Counter[str](), dict[str, str]()
    for question in sample:
        for name, value in question.meta.items():
            if _would_be_gold(value, name, question):
                valid[name] += 1
                examples.setdefault(name, str(value))
    found = [name for name, count in valid.items() if 2 * count > len(sample)]
    found.sort(key=lambda name: _LIKE_A_GOLD.search(name) is None)
    return MetaColumn(found[0], examples[found[0]]) if found else None


def _would_be_gold(value: Any, name: str, question: Question) -> bool:
    named = _LIKE_A_GOLD.search(name) is not None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    if question.is_numeric:
        number = canonical_number(str(value))
        return number is not None and is_writable(number) and (named or not _LIKE_AN_ID.search(name))
    if isinstance(value, str):
        return value.strip() in (*question.labels, *question.choices)
    return named and value in range(len(question.choices))
