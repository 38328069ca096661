r"""The answer schema, its decoding grammar and its parser, in one place.

An answer is JSON with its fields in this order, each present or not as configured::

    {"reasoning": "...", "answer": "B", "eliminated": ["A", "C"], "confidence": 85}
    {"reasoning": "...", "answer": "3,600", "confidence": 85}

The *grammar* is one regular expression that both engines execute: bounded strings and bounded white space,
numbers by a pattern (Outlines ignores the bounds of a schema's integers), ``eliminated`` in label order,
without repeats and without the answer. Because everything is bounded, so is the number of tokens: every token
holds at least one byte, so a budget of as many tokens as the longest string has bytes never cuts an answer.

A grammar can also spoil an answer: where it forbids what the model writes next, the model goes on with what
is allowed. The places where that could do harm are closed:

- A number stands in quotes and may have thousands separators, so ``3,600`` cannot end as ``3``.
- A confidence may be written as a share, so ``0.95`` cannot end as ``0``; it is read as 95.
- ``reasoning`` does not end in white space, so the quotation mark that opens a quotation cannot end it.
- White space is allowed where models put it. Their token for the end of a string is often one with the comma
  and the line break behind it; without that token they write on until the bound (docs/real-models.md).

A ``reasoning`` that reached its bound is no error, but it is marked (:attr:`ParsedAnswer.cut`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple

from orch_local.config.blocks import AnswerConfig
from orch_local.config.numerals import NUMBER_BYTES, NUMBER_PATTERN, canonical_number

Charset = Literal["ascii", "unicode"]
# Printable ASCII and three escapes; "/" needs no escape, and control characters cannot occur at all.
_CHARACTER = {
    "ascii": r'(?:[ !#-\[\]-~]|\\["\\n])',
    "unicode": r'(?:[^\x00-\x1F"\\\x7F-\x9F]|\\["\\n])',
}
_LAST_CHARACTER = {
    "ascii": r'(?:[!#-\[\]-~]|\\["\\])',
    "unicode": r'(?:[^\x00-\x20"\\\x7F-\xA0\u3000]|\\["\\])',
}
_BYTES_PER_CHARACTER = {"ascii": 2, "unicode": 4}
_GAP = r"(?:\n {0,8}| )?"
"""White space before a key or a label: none, one blank, or a line break with indentation."""
_SPACE, _END = " ?", r"\n?"
_GAP_BYTES = 9
_CONFIDENCE = r"(?:100|[1-9]?[0-9]|0\.[0-9]{1,4}|1\.00?)"
_CONFIDENCE_BYTES = 6

_NEAR_BOUND = 16
"""So close to its bound a text may end because the next word no longer fits: longer tokens are rare."""
_SENTENCE_ENDS = (".", "!", "?", "\u3002")

EXACT_MASS = 0.9999
"""How much of the probability at the answer position must fall on labels for it to be called exact."""


class AnswerError(ValueError):
    """A text is not an answer of the schema."""


class ParsedAnswer(NamedTuple):
    """A parsed answer."""

    answer: str
    """Label, or canonical number."""
    reasoning: str = ""
    cut: bool = False
    """Whether the reasoning ends where its bound is, perhaps in mid-word."""
    eliminated: tuple[str, ...] = ()
    confidence: int | None = None
    """0..100."""


@dataclass(frozen=True)
class AnswerSchema:
    """The answer to one question: which fields, which labels, which bounds."""

    labels: str
    """All labels of the question; empty for a numeric one."""
    config: AnswerConfig
    candidates: tuple[str, ...] | None = None
    """What may be answered, where that is less than everything (merge of nominated choices)."""
    charset: Charset = "ascii"
    """Characters of the reasoning."""

    @cached_property
    def pattern(self) -> str:
        """The grammar: a regular expression for the whole answer, without groups or anchors."""
        if "eliminated" not in self.fields:
            return self._head + self._answer_value + self._tail
        one_each = (
            rf'"{label}",{_GAP}"eliminated":{_SPACE}{_subset_pattern(self.labels.replace(label, ""))}'
            for label in self._candidates
        )
        return f"{self._head}(?:{'|'.join(one_each)}){self._tail}"

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """JSON schema of the answer, for people and tools; the grammar is stricter (order, white space)."""
        properties = {
            "reasoning": {"type": "string", "maxLength": self.config.reasoning_chars},
            "answer": {"enum": list(self._candidates)} if self.labels else {"type": "string"},
            "eliminated": {
                "type": "array",
                "items": {"enum": list(self.labels)},
                "uniqueItems": True,
                "maxItems": max(0, len(self.labels) - 1),
            },
            "confidence": {"type": "number", "minimum": 0, "maximum": 100},
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
        return self._budget(_BYTES_PER_CHARACTER[self.charset])

    @cached_property
    def enough_tokens(self) -> int:
        """Token budget that must fit the context: ``max_tokens``, or less where the charset is chosen.

        A charset that is chosen for a question (``auto``) needs the budget of ASCII. Otherwise a few letters
        with accents in a question would leave it without an answer where the context is short. An answer that
        does not fit is ``truncated``.
        """
        return self._budget(_BYTES_PER_CHARACTER["ascii" if self.config.charset == "auto" else self.charset])

    def parse(self, text: str) -> ParsedAnswer:
        """Read an answer.

        Raises
        ------
        AnswerError
            If ``text`` is not a sentence of the grammar, whatever the engine promised.
        """
        if self._parser.fullmatch(text) is None:
            raise AnswerError("the text does not match the answer schema")
        fields = json.loads(text, parse_float=str, parse_int=str)
        answer = fields["answer"]
        if not self.labels:
            answer = canonical_number(answer)
        reasoning = fields.get("reasoning", "")
        confidence = fields.get("confidence")
        return ParsedAnswer(
            answer=answer,
            reasoning=reasoning,
            cut=self._is_cut(reasoning),
            eliminated=tuple(fields.get("eliminated", ())),
            confidence=None if confidence is None else _per_cent(confidence),
        )

    def answer_offset(self, text: str) -> int:
        """Index in ``text`` of the label or number (the character after the quote).

        Raises
        ------
        AnswerError
            As :meth:`parse`.
        """
        match = self._parser.fullmatch(text) and self._head_parser.match(text)
        if match is None:
            raise AnswerError("the text does not match the answer schema")
        return match.end() + 1

    def _is_cut(self, reasoning: str) -> bool:
        room = self.config.reasoning_chars - len(reasoning)
        if not reasoning or room >= _NEAR_BOUND:
            return False
        return room <= 0 or not reasoning.endswith(_SENTENCE_ENDS)

    @property
    def fields(self) -> list[str]:
        """Names of the fields, in order."""
        config = self.config
        wanted = {
            "reasoning": config.reasoning_chars > 0,
            "answer": True,
            # After the answer: a model that lists all labels in turn would be left with the last one.
            "eliminated": bool(config.eliminated and self.labels),
            "confidence": config.confidence,
        }
        return [name for name, present in wanted.items() if present]

    @property
    def _candidates(self) -> tuple[str, ...]:
        return tuple(self.labels) if self.candidates is None else self.candidates

    @cached_property
    def _parser(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    @cached_property
    def _head_parser(self) -> re.Pattern[str]:
        return re.compile(self._head)

    @property
    def _head(self) -> str:
        """All that stands before the value of the answer."""
        bound = self.config.reasoning_chars
        if not bound:
            return rf'\{{{_GAP}"answer":{_SPACE}'
        text = f"{_CHARACTER[self.charset]}{{0,{bound - 1}}}{_LAST_CHARACTER[self.charset]}"
        return rf'\{{{_GAP}"reasoning":{_SPACE}"(?:{text})?",{_GAP}"answer":{_SPACE}'

    @property
    def _answer_value(self) -> str:
        if self.labels:
            return f'"[{"".join(self._candidates)}]"'
        if self.candidates:
            return f'"(?:{"|".join(map(_either_spelling, self.candidates))})"'
        return f'"{NUMBER_PATTERN}"'

    @property
    def _tail(self) -> str:
        confidence = rf',{_GAP}"confidence":{_SPACE}{_CONFIDENCE}'
        return rf"{confidence if self.config.confidence else ''}{_END}\}}"

    def _budget(self, bytes_per_character: int) -> int:
        longest = {
            "reasoning": 2 + self.config.reasoning_chars * bytes_per_character,
            "answer": 3 if self.labels else 2 + NUMBER_BYTES,
            "eliminated": 2 + (4 + _GAP_BYTES) * len(self.labels),
            "confidence": _CONFIDENCE_BYTES,
        }
        frame = sum(len(f',"{name}": ') + _GAP_BYTES for name in self.fields) + len("{\n}")
        return frame + sum(longest[name] for name in self.fields) + 1


def schema_for(
    labels: str, config: AnswerConfig, candidates: tuple[str, ...] | None = None, texts: Iterable[str] = ()
) -> AnswerSchema:
    """The schema of a kind of question; the same object for all of a kind, whose patterns it caches.

    Parameters
    ----------
    texts:
        The question and its choices, from which the charset is chosen where the config says ``auto``: a
        question with letters outside ASCII may be answered in all of Unicode.
    """
    charset = config.charset
    if charset == "auto":
        charset = "unicode" if any(map(_has_foreign_letter, texts)) else "ascii"
    return _schema(labels, config, candidates, charset)


@lru_cache(maxsize=4096)
def _schema(
    labels: str, config: AnswerConfig, candidates: tuple[str, ...] | None, charset: Charset
) -> AnswerSchema:
    return AnswerSchema(labels, config, candidates, charset)


def _has_foreign_letter(text: str) -> bool:
    return not text.isascii() and any(ord(character) > 127 and character.isalpha() for character in text)


def _subset_pattern(labels: str) -> str:
    """Arrays of labels in order, each at most once: ``[]``, ``["A"]``, ``["A", "C"]`` ..."""
    starts = []
    for index, label in enumerate(labels):
        rest = "".join(f'(?:,{_GAP}"{later}")?' for later in labels[index + 1 :])
        starts.append(f'"{label}"{rest}')
    return rf"\[(?:{_GAP}(?:{'|'.join(starts)}){_GAP})?\]" if starts else r"\[\]"


def _either_spelling(number: str) -> str:
    """A pattern of a canonical number, with thousands separators or without."""
    sign, whole, fraction = re.fullmatch(r"(-?)(\d+)(.*)", number).groups()  # type: ignore[union-attr]
    spellings = dict.fromkeys((number, f"{sign}{int(whole):,}{fraction}"))
    return "|".join(map(re.escape, spellings))


def _per_cent(written: str) -> int:
    """A confidence as a whole number of per cent; one with a decimal point is a share."""
    return round(100 * float(written)) if "." in written else int(written)


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
