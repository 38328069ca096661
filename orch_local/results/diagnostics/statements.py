"""What a reasoning itself says the answer is: its last explicit statement, such as ``so the answer is (B)``.

The rules favour precision. A statement counts only if it is plain: what is reported of others, conditional,
negated, hedged, a question or followed by anything unforeseen says nothing, and neither do earlier ones then.
"""

from __future__ import annotations

import re
from decimal import Decimal
from enum import Enum, auto
from typing import NamedTuple

from orch_local.config.numerals import canonical_number
from orch_local.records import Analysis, Question


class Verdict(Enum):
    """How the answer of a row goes with its reasoning."""

    NOTHING = auto()
    """The reasoning names the same answer, or none plainly."""
    CONTRADICTED = auto()
    """It names another answer."""
    UNDECIDED = auto()
    """It names several labels."""


class _StatementStart(NamedTuple):
    """Where a statement begins, and where what it names should begin."""

    start: int
    named: int


class _NamedLabels(NamedTuple):
    """The labels that a statement names, distinct and in order, with where it begins and ends."""

    start: int
    labels: str
    end: int


_CUT = "\N{HORIZONTAL ELLIPSIS}"
"""Stands for what a cut text would have gone on with: a label or number at the cut may not be whole."""

# Behind one of these words: "answer is", "choice to this question is therefore", "Answer:".
_WORDS = ("nswer", "NSWER", "choice", "option", "label", "letter")
_ANNOUNCES = re.compile(
    r"""\w+ (?:\s(?:to|for)\s(?:the|this)\s(?:question|problem))? ["'*]*\s*
    (?: is\b:? | must\sbe\b | should\sbe\b | [:=] )
    (?:\s(?:therefore|thus|then|hence|clearly|indeed|simply|option|choice|letter|label)\b)*""",
    re.VERBOSE,
)
_ADJECTIVE = re.compile(r"\b(?:correct|right|best|final)\s$", re.IGNORECASE)

_OPEN, _CLOSE = r"""[\s"'*(\[{$\\]*(?:boxed\{)?""", r"""["'*)\]}$]*"""
_ONE = r"[A-J](?!\w|'\w|[+=])"
_AND = r"(?:\s*[,/&]\s*(?:and\s|or\s)?|\s+(?:and|or)\s+)"
_LABEL = re.compile(
    rf"""{_OPEN}(?:(?:option|choice|letter|label)\s)?[("'*]*
    (?P<first>{_ONE}){_CLOSE} (?P<more>(?:{_AND}[("'*]*{_ONE}{_CLOSE})*)
    (?=\s*(?: $ | [.,;:!)\n(] | [-\u2013\u2014]\s
    | (?:because|since|as|due|for|which|rather|not|instead)\b ))""",
    re.VERBOSE,
)
_BEFORE_TEXT = re.compile(r"[\s\"'*(]*(?:(?:the|an?)\s)?", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:the|an?)\s")
_TEXT_END = re.compile(r"[\"'*)]*(?:$|[.;!\n](?!\w)|,\s(?:because|since|as|which|so|not)\b)")
_SHORTEST_CHOICE, _LONGEST_CHOICE = 3, 200
"""Characters of a choice that is looked for by its text."""
_LIST_END = re.compile(r"\s*(?:$|[.;:!)\n])")

# Around a label that stands alone: "so option B is correct", "Therefore, B.", "(B) is the correct answer".
_ALONE = re.compile(_ONE)
_MARKS = " \"'*(["
_CONCLUDES = re.compile(
    r"""\b(?:so|thus|therefore|hence|consequently),?\s
    (?:(?:the\s)?(?:correct\s)?(?:answer|option|choice|letter|label)\s)?["'*(\[]*$""",
    re.VERBOSE | re.IGNORECASE,
)
_IS_CONCLUDED = re.compile(
    r"""["'*)\]]*(?: \sis\s(?:the\s)?(?:correct|right|best|answer)\b | [.!]?\s*$ | [.!]\s )""", re.VERBOSE
)
_CALLS = re.compile(  # in front of a clause, so that "vitamin C is the correct answer" does not count
    r"""(?:^|[.;:,!\n]|\b(?:option|choice|letter|label|answer|that|and|but|only))\s*["'*(\[]*$""",
    re.VERBOSE | re.IGNORECASE,
)
_IS_CALLED = re.compile(
    r"""["'*)\]]*\sis\s(?:the|our|my)\s(?:only\s)?(?:correct|right|best|final)
    \s(?:answer|choice|option)\b""",
    re.VERBOSE,
)
_NEAR = 40
"""Characters before a label that decide what is stated of it."""

_SENTENCE_ENDS = (". ", "! ", "? ", "\n")
_CONNECTOR = re.compile(r"\b(?:so|therefore|thus|hence|consequently)\b", re.IGNORECASE)
_REPORTED = re.compile(
    r"""\b(?: agents?|analys[ie]s|analysts?|panel|majority|others?|experts?|someone|students?|examples?
    | says?|said|claims?|claimed|argues?|argued|suggests?|suggested|concludes?|states?|stated|thinks?
    | believes?|according )\b""",
    re.VERBOSE | re.IGNORECASE,
)
_HEDGED = re.compile(
    r"""\b(?: if|whether|unless|when|why|how|suppose|supposing|assum\w+|hypothetical|not|never|cannot
    | neither|either|might|may|could|would|perhaps|possibl[ey]|probabl[ey]|plausible|likely|maybe
    | false|wrong|incorrect|another|other|first|initial|previous|tempting|obvious )\b | n't\b""",
    re.VERBOSE | re.IGNORECASE,
)

_NUMBER = rf"{_OPEN}(?P<number>-?\$?\d+(?:,\d{{3}})*(?:\.\d+)?){_CLOSE}"
_NO_UNIT = r"and|or|to|times|plus|minus|dozen|hundred|thousand|[mb]illion|percent"
"""Words behind a number that make it another one."""
_UNIT = rf"(?:\s(?!(?:{_NO_UNIT})\b)[A-Za-z]+){{0,2}}"
_PLAIN_NUMBER = re.compile(rf"{_NUMBER}{_UNIT}\s*(?:$|[.!;](?!\d)|\n|,\s(?!\d))")
_EQUATION_AT_END = re.compile(rf"={_NUMBER}{_UNIT}\s*[.!]?\s*$")
_UNKNOWN = re.compile(r"(?<![A-Za-z])[b-zB-Z](?![A-Za-z'])|\d[a-z]\b")
"""Of an equation that is still to be solved, such as ``3x + 1 = 33``."""
_ANY_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_CONVERSIONS = frozenset(map(Decimal, (7, 12, 24, 60, 100, 365, 3600)))
"""Days of a week, per cent, ...: the same quantity in another unit is no other answer."""


def verdict(question: Question, row: Analysis) -> Verdict:
    """Hold the answer of a usable row against its own reasoning."""
    if row.answer is None or not row.reasoning:
        return Verdict.NOTHING
    if question.choices:
        # Most reasonings end here: nothing but the answer can be named.
        alone = _ALONE.findall(row.reasoning)
        if alone.count(row.answer) == len(alone) and "nswer" not in row.reasoning:
            return Verdict.NOTHING
        return _choice_verdict(question, row, row.answer)
    other = _other_number(_text(row), row.answer)
    return Verdict.CONTRADICTED if other else Verdict.NOTHING


def _text(row: Analysis) -> str:
    return f"{row.reasoning}{_CUT}" if row.cut else row.reasoning


def _choice_verdict(question: Question, row: Analysis, answer: str) -> Verdict:
    text = _text(row)
    named = _named(text, question)
    if named is None or named.labels == answer or not _is_plain(text, named.start):
        return Verdict.NOTHING
    if len(named.labels) > 1:
        return Verdict.UNDECIDED
    # It may have been put right in words that no rule here knows.
    rest, chosen = text[named.end :], question.choices[question.labels.index(answer)]
    put_right = re.search(rf"\b{answer}\b", rest) or chosen.lower() in rest.lower()
    return Verdict.NOTHING if put_right else Verdict.CONTRADICTED


def _named(text: str, question: Question) -> _NamedLabels | None:
    """What the last statement names, plain or not; ``None`` where it names no choice."""
    place = _last_place(text)
    if place is None:
        return None
    named = _named_by_label(text, place)
    if named is None:
        return _named_by_text(text, place, question)
    known = set(named.labels) <= set(question.labels) and not _choices_name_labels(question)
    return named if known else None


def _named_by_label(text: str, place: _StatementStart) -> _NamedLabels | None:
    found = _LABEL.match(text, place.named)
    if found is None:  # a label that stands alone was looked at already
        return (
            _NamedLabels(place.start, text[place.named], place.named + 1)
            if place.start == place.named
            else None
        )
    more = _ALONE.findall(found["more"])
    if more and not _LIST_END.match(text, found.end()):
        more = []  # "B, A is too small"
    return _NamedLabels(place.start, "".join(dict.fromkeys([found["first"], *more])), found.end())


def _named_by_text(text: str, place: _StatementStart, question: Question) -> _NamedLabels | None:
    """The choice whose whole text follows, the longest of several: "the answer is sedimentary rock."."""
    begin = _BEFORE_TEXT.match(text, place.named)
    at = begin.end() if begin else place.named
    rest = text[at : at + _LONGEST_CHOICE].lower()
    fitting = {
        label: len(plain)
        for label, choice in zip(question.labels, question.choices, strict=True)
        if len(plain := _ARTICLE.sub("", choice.lower().strip(" ."))) >= _SHORTEST_CHOICE
        and rest.startswith(plain)
        and _TEXT_END.match(rest, len(plain))
    }
    longest = max(fitting.values(), default=0)
    labels = [label for label, length in fitting.items() if length == longest]
    return _NamedLabels(place.start, labels[0], at + longest) if len(labels) == 1 else None


def _choices_name_labels(question: Question) -> bool:
    """Whether a label may be meant as the text of a choice: "Both A and C", or "A" for a blood type."""
    # In front of a word it is the article: "A decrease in pressure".
    named = re.compile(rf"(?<![\w.])[{question.labels}](?![\w'])(?!\s(?!and\b|or\b)[a-z])")
    return any(named.search(choice) for choice in question.choices)


def _last_place(text: str) -> _StatementStart | None:
    """Where something is named as the answer for the last time."""
    announced: _StatementStart | None = None
    for word in _WORDS:
        place = _last_announced(text, word)
        if place and (announced is None or place > announced):
            announced = place
    alone = [found.start() for found in _ALONE.finditer(text, announced.named if announced else 0)]
    at = next((at for at in reversed(alone) if _is_named(text, at)), None)
    return announced if at is None else _StatementStart(at, at)


def _last_announced(text: str, word: str) -> _StatementStart | None:
    """Where a form of ``the answer is`` with this word stands for the last time."""
    at = text.rfind(word)
    while at >= 0:
        found = _ANNOUNCES.match(text, at)
        if found and (word in _WORDS[:2] or _ADJECTIVE.search(text, max(0, at - _NEAR), at)):
            return _StatementStart(at, found.end())
        at = text.rfind(word, 0, at)
    return None


def _is_named(text: str, at: int) -> bool:
    """Whether the label at this place is called the answer where no such word announces it."""
    if at and text[at - 1] not in _MARKS and text[at - 1] != "\n":
        return False
    before = max(0, at - _NEAR)
    if _IS_CALLED.match(text, at + 1) and _CALLS.search(text, before, at):
        return True
    return bool(_IS_CONCLUDED.match(text, at + 1) and _CONCLUDES.search(text, before, at))


def _is_plain(text: str, start: int) -> bool:
    """Whether the sentence up to a statement reports, conditions, negates or hedges nothing."""
    begin = max(text.rfind(end, 0, start) for end in _SENTENCE_ENDS) + 1
    sentence = text[begin:start]
    clause = _CONNECTOR.split(sentence)[-1]
    return not _HEDGED.search(clause) and not _REPORTED.search(sentence)


def _other_number(text: str, answer: str) -> str | None:
    """The number that the text computes at its very end, or announces, where it is not the answer."""
    computed = _computed_number(text)
    if computed and answer not in map(canonical_number, _ANY_NUMBER.findall(text)):
        return _unless_same(computed, answer)
    announced = _last_announced(text, "nswer")
    found = _PLAIN_NUMBER.match(text, announced.named) if announced else None
    if found is None or announced is None:
        return None
    other = _unless_same(found["number"], answer)
    return other if other and _is_plain(text, announced.start) else None


def _computed_number(text: str) -> str | None:
    """The right side of an equation that ends the text."""
    equals = text.rfind("=", max(0, len(text) - _NEAR))
    found = _EQUATION_AT_END.match(text, equals) if equals >= 0 else None
    if found is None or _UNKNOWN.search(text, max(0, equals - _NEAR), equals):
        return None
    return found["number"]


def _unless_same(number: str, answer: str) -> str | None:
    """The number in canonical form, unless it is the answer, but for rounding or its unit."""
    stated = canonical_number(number)
    if stated is None or stated == answer or _same_quantity(Decimal(stated), Decimal(answer)):
        return None
    return stated


def _same_quantity(one: Decimal, other: Decimal) -> bool:
    """Whether two numbers are equal but for rounding, or for the unit they are given in."""
    last_place = max(int(one.as_tuple().exponent), int(other.as_tuple().exponent))
    if abs(one - other) <= Decimal(5).scaleb(last_place - 1):
        return True
    small, large = sorted((abs(one), abs(other)))
    return bool(small) and large / small in _CONVERSIONS


def labels_stated(question: Question, row: Analysis) -> str:
    """The labels that the last plain statement of a reasoning names, e.g. ``B``; empty without one."""
    text = _text(row)
    named = _named(text, question)
    return named.labels if named and _is_plain(text, named.start) else ""
