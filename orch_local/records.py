"""The frozen types that pass through the files: Question, Analysis, Decision and their JSON form.

All text that enters a digest goes through :func:`canonical_json`, so that a digest depends on content
alone: sorted keys, no white space, no NaN, UTF-8.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

LABELS = "ABCDEFGHIJ"
"""Labels of the choices in order; a question has at most ten."""


def canonical_json(value: Any) -> str:
    """Serialise ``value`` so that equal content gives equal bytes.

    Raises
    ------
    ValueError
        For NaN or infinity, which JSON cannot carry.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of ``value``; lone surrogates are kept, not refused."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def _shallow(record: Any) -> dict[str, Any]:
    """Fields by name. ``dataclasses.asdict`` copies deeply, at several times the cost for each row."""
    # Not `dataclasses.fields`, which costs as much again as all the rest.
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


class Outcome(StrEnum):
    """What became of one generation. Only ``OK`` is usable; the others are unscored, never wrong."""

    OK = "ok"
    TRUNCATED = "truncated"
    """The token budget ended before the answer did (only where a user set a smaller budget)."""
    INVALID = "invalid"
    """The text does not parse as the answer schema."""
    TOO_LONG = "too_long"
    """The prompt does not fit the context together with its answer; nothing was generated."""
    FAILED = "failed"
    """The engine refused the prompt or died of it."""


@dataclass(frozen=True, slots=True)
class Example:
    """One solved question shown before the real one (few-shot)."""

    text: str
    choices: tuple[str, ...]
    answer: str
    rationale: str = ""
    """How the answer is reached; empty where the dataset does not say."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Example:
        """An entry of ``examples`` in ``questions.jsonl``; earlier versions wrote no ``rationale``."""
        return cls(**{**row, "choices": tuple(row["choices"])})


@dataclass(frozen=True, slots=True)
class Question:
    """One question. ``choices`` is empty for a numeric question, whose gold is a canonical number."""

    id: str
    """Content hash of text and choices: 16 hex digits (see :func:`question_id`)."""
    text: str
    choices: tuple[str, ...]
    gold: str | None
    category: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()

    @property
    def labels(self) -> str:
        """The labels in use, e.g. ``"ABCD"``; empty for a numeric question."""
        return LABELS[: len(self.choices)]

    @property
    def texts(self) -> tuple[str, ...]:
        """The question and its choices."""
        return (self.text, *self.choices)

    @property
    def is_numeric(self) -> bool:
        """Whether the answer is a number rather than a label."""
        return not self.choices

    @property
    def key(self) -> str:
        """Content hash of everything of this question that reaches a prompt."""
        if not self.examples:
            return self.id
        return digest([self.id, [dataclasses.astuple(e) for e in self.examples]])[:16]

    def to_row(self) -> dict[str, Any]:
        """The row of ``questions.jsonl``."""
        return _shallow(self) | {"examples": [_shallow(example) for example in self.examples]}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Question:
        """Inverse of :meth:`to_row`."""
        examples = tuple(map(Example.from_row, row["examples"]))
        return cls(**{**row, "choices": tuple(row["choices"]), "examples": examples})


def question_id(text: str, choices: tuple[str, ...]) -> str:
    """Content hash of a question: 16 hex digits of SHA-256 over text and choices in order."""
    return digest([text, list(choices)])[:16]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one generation."""

    prompt: int = 0
    cached: int = 0
    generated: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt + other.prompt, self.cached + other.cached, self.generated + other.generated)


@dataclass(frozen=True, slots=True)
class Analysis:
    """What one agent (or the merge agent) wrote about one question, parsed, with what it cost."""

    key: str
    """Key of the row in its spec's folder of the store."""
    outcome: Outcome
    answer: str | None = None
    """Label, or canonical number; ``None`` unless the outcome is OK."""
    confidence: int | None = None
    """0..100 as stated by the model; ``None`` where the schema has no such field."""
    reasoning: str = ""
    cut: bool = False
    """Whether the reasoning ends where its bound is, perhaps in mid-word."""
    eliminated: tuple[str, ...] = ()
    probabilities: Mapping[str, float] | None = None
    """Probability of every label at the answer position (sums to 1), or ``None`` where not exact."""
    thought: str = ""
    """What a reasoning model thought before the analysis."""
    thought_cut: bool = False
    """Whether the thought reached its bound and was closed for it."""
    text: str = ""
    """The raw output, kept so that every parse can be done again."""
    error: str = ""
    """Why the outcome is not OK."""
    usage: Usage = Usage()
    seconds: float = 0.0
    """Wall time from submission to completion; recorded only, never part of a decision or digest."""

    @property
    def usable(self) -> bool:
        """Whether the analysis counts towards the quorum and is read by the merge."""
        return self.outcome is Outcome.OK

    def content(self) -> dict[str, Any]:
        """The part that must be the same whenever the row is generated again."""
        row = self.to_row()
        for volatile in ("usage", "seconds", "error"):
            row.pop(volatile)
        return row

    def to_row(self) -> dict[str, Any]:
        """The row as it is stored, one JSON object."""
        row = _shallow(self)
        row["outcome"] = str(self.outcome)
        row["eliminated"] = list(self.eliminated)
        row["usage"] = _shallow(self.usage)
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Analysis:
        """Inverse of :meth:`to_row`."""
        values = dict(row)
        values["outcome"] = Outcome(values["outcome"])
        values["eliminated"] = tuple(values["eliminated"])
        values["usage"] = Usage(**values["usage"])
        return cls(**values)


class How(StrEnum):
    """How a decision was reached."""

    MERGE = "merge"
    """By the merge agent."""
    UNANIMOUS = "unanimous"
    """All usable analyses agreed and ``when: disagreement`` skipped the merge agent."""
    MAJORITY = "majority"
    CONFIDENCE = "confidence"
    PROBABILITY = "probability"
    UNSCORED = "unscored"


@dataclass(frozen=True, slots=True)
class Decision:
    """The final answer to one question and what it was made from."""

    question_id: str
    category: str
    gold: str | None
    answers: Mapping[str, str | None]
    """Agent name -> its answer, ``None`` where unusable; in agent order."""
    confidences: Mapping[str, int | None]
    outcomes: Mapping[str, str]
    answer: str | None
    """Final label or number; ``None`` where unscored."""
    how: How
    reason: str = ""
    """Why the question is unscored; empty otherwise."""
    majority: str | None = None
    """The plain majority vote over the same panel, for comparison."""
    probabilities: Mapping[str, float | None] = field(default_factory=dict)
    """Agent name -> probability of its own answer, ``None`` where not exact."""
    confidence: int | None = None
    """0..100 as the merge agent stated it; ``None`` where it did not decide."""
    probability: float | None = None
    """Probability of the merge agent's answer."""
    cluster: str = ""
    """Questions of one cluster share a source (`benchmark.cluster`); empty where none is known."""

    def to_row(self) -> dict[str, Any]:
        """The row of ``decisions.jsonl``."""
        row = _shallow(self)
        row["how"] = str(self.how)
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Decision:
        """Inverse of :meth:`to_row`."""
        return cls(**{**row, "how": How(row["how"])})


class Level(StrEnum):
    """How far a run's answers are promised to come again, from the weakest; see `results/levels.py`."""

    RULES = "rules"
    VERIFIED = "verified"
    BITWISE = "bitwise"


@dataclass(frozen=True, slots=True)
class LevelAssessment:
    """The level of a run and what it rests on."""

    level: Level
    generated_again: int
    """Rows that were generated again in other batches, over all agents."""
    same: int
    """Those of them that came to the same bytes."""
    reasons: tuple[str, ...]
    """Why the level is no higher, an agent each; empty for ``bitwise``."""
    declared: bool = False
    """Whether batch invariance is in part vLLM's word, as on a GPU; measured are then the rows alone."""
