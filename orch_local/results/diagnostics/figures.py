"""The figures as they stand under ``diagnostics`` in ``metrics.json`` and ``report.json``: counts of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

ENOUGH = 20
"""Fewer rows show nothing: with 20, chance alone moves a share of one in four by 19 points (2 s.d.)."""
CONSTANT_SHARE = 0.95
"""A signal with one value in so many rows orders at most one row in twenty."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How far a signal (stated confidence, probability) varies over its rows, in whole per cent."""

    rows: int
    distinct: int
    """Different values."""
    value: int
    """The most frequent one; the lowest of equals."""
    with_value: int
    """Rows with it."""

    @property
    def is_constant(self) -> bool:
        """Whether (nearly) all rows have the same value."""
        return self.rows >= ENOUGH and self.with_value >= CONSTANT_SHARE * self.rows

    @property
    def is_flat(self) -> bool:
        """Whether it says next to nothing: it is constant, or has two values such as 0 and 100."""
        return self.is_constant or (self.rows >= ENOUGH and self.distinct <= 2)


def spread_of(counts: Counter[int]) -> Spread | None:
    """The spread of a signal from how often each value occurs; ``None`` where no row has it."""
    if not counts:
        return None
    value, rows = min(counts.items(), key=lambda one: (-one[1], one[0]))
    return Spread(counts.total(), len(counts), value, rows)


@dataclass(frozen=True, slots=True)
class AgentDiagnostics:
    """How one agent, or the merge agent, answered. Only usable rows count."""

    answers: int
    labels: Mapping[str, int]
    """Its answers to multiple-choice questions, by label."""
    gold: Mapping[str, int]
    """Gold of the same questions, by label; less where questions have none."""
    reasoning_chars: int
    """Bound of a reasoning in characters; 0 where none is asked for."""
    reasonings: int
    """Answers that a reasoning was asked for; those of the next eight that are no texts count among them."""
    empty: int
    cut: int
    """Reached the bound, so they may end in mid-word."""
    copied: int
    """Hold a part of the prompt's instructions or of its answer form."""
    identical: int
    """Are the same text as another reasoning of this agent. Exact for up to 32,768 different texts."""
    alike: int
    """Begin and end like another one, or are identical with it."""
    contradicted: int
    """Their last explicit statement names another answer than the row does."""
    undecided: int
    """Their last explicit statement names several labels."""
    confidence: Spread | None
    """As stated; ``None`` where no row states one."""
    probability: Spread | None
    """Of the own answer, multiple-choice questions only."""


@dataclass(frozen=True, slots=True)
class AgainstLabel:
    """A system against always answering the most frequent gold label, on the questions that it answered."""

    questions: int
    right: int
    label_right: int
    """How many of the same questions that label has right."""
    p: float
    """Two-sided exact McNemar."""


@dataclass(frozen=True, slots=True)
class Baselines:
    """What an accuracy needs no model for; multiple-choice questions with gold only."""

    questions: int
    gold: Mapping[str, int]
    """By label."""
    label: str | None
    """The most frequent gold, the first of equals; ``None`` without questions."""
    label_accuracy: float | None
    """Of always answering it. It is chosen on the same questions, so it looks a little better than it is."""
    chance: float | None
    """Mean of 1 / number of choices."""
    against: Mapping[str, AgainstLabel]
    """By system that answered any: the agents, ORCH."""


@dataclass(frozen=True, slots=True)
class NeverDiffer:
    """Two agents that gave the same answer to each question that both answered: ``ENOUGH`` or more."""

    first: str
    second: str
    questions: int


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """How all agents answered, and what their accuracy is to be held against."""

    baselines: Baselines
    agents: Mapping[str, AgentDiagnostics]
    """In agent order, the merge agent last."""
    never_differ: tuple[NeverDiffer, ...]
