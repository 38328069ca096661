r"""The answer schema, its decoding grammar and its parser, in one place.

An answer is compact JSON with its fields in this order, each present or not as configured::

    {"reasoning":"...","eliminated":["A","C"],"answer":"B","confidence":85}

The *grammar* is one regular expression that both engines execute: no free white space, bounded strings,
integers by a pattern (Outlines ignores the bounds of a schema's integers), ``eliminated`` in label order
without repeats. Because everything is bounded, so is the number of tokens: every token holds at least one
byte, so a budget of as many tokens as the longest string has bytes can never cut an answer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from orch_local.config import AnswerConfig
from orch_local.numbers import canonical_number

_CHARACTER = {
    # Printable ASCII and three escapes; "/" needs none, and control characters cannot occur at all.
    "ascii": r'(?:[ !#-\[\]-~]|\\["\\n])',
    "unicode": r'(?:[^\x00-\x1F"\\\x7F-\x9F]|\\["\\n])',
}
_BYTES_PER_CHARACTER = {"ascii": 2, "unicode": 4}
_INTEGER_DIGITS, _FRACTION_DIGITS = 15, 6
_NUMBER = rf"-?(?:0|[1-9][0-9]{{0,{_INTEGER_DIGITS - 1}}})(?:\.[0-9]{{1,{_FRACTION_DIGITS}}})?"
_NUMBER_BYTES = 1 + _INTEGER_DIGITS + 1 + _FRACTION_DIGITS
_CONFIDENCE = r"(?:100|[1-9]?[0-9])"

EXACT_MASS = 0.9999
"""How much of the probability at the answer position must fall on labels for it to be called exact."""


class AnswerError(ValueError):
    """A text is not an answer of the schema."""


class Answer(NamedTuple):
    """A parsed answer."""

    answer: str
    """Label, or canonical number."""
    reasoning: str = ""
    eliminated: tuple[str, ...] = ()
    confidence: int | None = None


@dataclass(frozen=True)
class AnswerSchema:
    """The answer to one question: which fields, which labels, which bounds."""

    labels: str
    """All labels of the question; empty for a numeric one."""
    config: AnswerConfig
    candidates: tuple[str, ...] | None = None
    """What may be answered, where that is less than everything (merge of nominated choices)."""

    @cached_property
    def pattern(self) -> str:
        """The grammar: a regular expression for the whole answer, without groups or anchors."""
        return self._join(lambda _, pattern: pattern)

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """JSON schema of the answer, for people and tools; the grammar is stricter (order, white space)."""
        properties = {
            "reasoning": {"type": "string", "maxLength": self.config.reasoning_chars},
            "eliminated": {"type": "array", "items": {"enum": list(self.labels)}, "uniqueItems": True},
            "answer": {"enum": self._candidate_values} if self._candidates else {"type": "number"},
            "confidence": {"type": "integer", "minimum": 0, "maximum": 100},
        }
        kept = {name: properties[name] for name in self.fields}
        return {
            "type": "object",
            "properties": kept,
            "required": list(kept),
            "additionalProperties": False,
        }

    @cached_property
    def max_tokens(self) -> int:
        """Token budget that no answer can exceed, end-of-sequence included."""
        longest = {
            "reasoning": 2 + self.config.reasoning_chars * _BYTES_PER_CHARACTER[self.config.charset],
            "eliminated": 2 + 4 * len(self.labels),
            "answer": _NUMBER_BYTES if not self.labels else 3,
            "confidence": 3,
        }
        return sum(longest[name] + len(f',"{name}":') for name in self.fields) + len("{}") + 1

    def parse(self, text: str) -> Answer:
        """Read an answer.

        Raises
        ------
        AnswerError
            If ``text`` is not a sentence of the grammar, whatever the engine promised.
        """
        match = self._parser.fullmatch(text)
        if match is None:
            raise AnswerError("the text does not match the answer schema")
        fields = json.loads(text, parse_float=str, parse_int=str)
        answer = fields["answer"]
        if not self.labels:
            answer = canonical_number(answer)
        confidence = fields.get("confidence")
        return Answer(
            answer=answer,
            reasoning=fields.get("reasoning", ""),
            eliminated=tuple(fields.get("eliminated", ())),
            confidence=None if confidence is None else int(confidence),
        )

    def answer_offset(self, text: str) -> int:
        """Index in ``text`` of the label (the character after the quote).

        Raises
        ------
        AnswerError
            As :meth:`parse`.
        """
        match = self._parser.fullmatch(text)
        if match is None:
            raise AnswerError("the text does not match the answer schema")
        return match.start("answer") + (1 if self.labels else 0)

    @property
    def fields(self) -> list[str]:
        """Names of the fields, in order."""
        config = self.config
        wanted = {
            "reasoning": config.reasoning_chars > 0,
            "eliminated": config.eliminated and bool(self.labels),
            "answer": True,
            "confidence": config.confidence,
        }
        return [name for name, present in wanted.items() if present]

    @property
    def _candidates(self) -> tuple[str, ...]:
        return tuple(self.labels) if self.candidates is None else self.candidates

    @property
    def _candidate_values(self) -> list[Any]:
        """The candidates as they stand in JSON: labels are strings, numbers are not."""
        return list(self._candidates) if self.labels else [json.loads(number) for number in self._candidates]

    @cached_property
    def _parser(self) -> re.Pattern[str]:
        return re.compile(self._join(lambda name, pattern: f"(?P<{name}>{pattern})"))

    def _join(self, wrap: Callable[[str, str], str]) -> str:
        values = {
            "reasoning": f'"{_CHARACTER[self.config.charset]}{{0,{self.config.reasoning_chars}}}"',
            "eliminated": _subset_pattern(self.labels),
            "answer": self._answer_pattern(),
            "confidence": _CONFIDENCE,
        }
        parts = (f'"{name}":{wrap(name, values[name])}' for name in self.fields)
        return rf"\{{{','.join(parts)}\}}"

    def _answer_pattern(self) -> str:
        if self.labels:
            return f'"[{"".join(self._candidates)}]"'
        if self.candidates:
            return f"(?:{'|'.join(re.escape(number) for number in self.candidates)})"
        return _NUMBER


@lru_cache(maxsize=4096)
def schema_for(labels: str, config: AnswerConfig, candidates: tuple[str, ...] | None = None) -> AnswerSchema:
    """The schema of a kind of question; the same object for all of a kind, whose patterns it caches."""
    return AnswerSchema(labels, config, candidates)


def _subset_pattern(labels: str) -> str:
    """Arrays of labels in order, each at most once: ``[]``, ``["A"]``, ``["A","C"]`` ..."""
    starts = []
    for index, label in enumerate(labels):
        rest = "".join(f'(?:,"{later}")?' for later in labels[index + 1 :])
        starts.append(f'"{label}"{rest}')
    return rf"\[(?:{'|'.join(starts)})?\]"


def label_probabilities(
    tail: Sequence[tuple[str, Mapping[str, float]]], distance: int, labels: Sequence[str]
) -> dict[str, float] | None:
    """Probability of each label at the answer position, from the log-probabilities there.

    Tokens that run on behind the label (``B"``) count for their label; see the vLLM note on merged tokens
    in the docs. The grammar mask was applied before, so the labels' shares sum to 1.

    Parameters
    ----------
    tail:
        The generated tokens, each as its text and its alternatives (text -> natural log-probability). From
        the answer on the grammar is pure ASCII, so a token's vocabulary entry is its text there.
    distance:
        Characters from the label to the end of the text.
    labels:
        The labels that may be answered.

    Returns
    -------
    dict or None
        Label -> probability, summing to 1; ``None`` where less than ``EXACT_MASS`` fell on labels, which
        happens when the label is not decided in one step.
    """
    remaining = distance
    for text, alternatives in reversed(tail):
        if remaining <= len(text):
            return _shares(text[: len(text) - remaining], alternatives, labels)
        remaining -= len(text)
    return None


def _shares(before: str, alternatives: Mapping[str, float], labels: Sequence[str]) -> dict[str, float] | None:
    shares = dict.fromkeys(labels, 0.0)
    for text, logprob in alternatives.items():
        label = text[len(before) : len(before) + 1]
        if text.startswith(before) and label in shares:
            # No probability has such a logarithm, and `exp` of a larger one would overflow.
            shares[label] += math.exp(logprob) if logprob < 1 else math.inf
    total = sum(shares.values())
    if not EXACT_MASS <= total <= 2 - EXACT_MASS:
        return None
    return {label: share / total for label, share in shares.items()}
