"""Answers: the grammar, the budget, the JSON schema and the parser agree, and nothing else gets through."""

from __future__ import annotations

import json
import math
import re
from random import Random
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orch_local.config.answers import AnswerError, AnswerSchema, ParsedAnswer, label_probabilities, schema_for
from orch_local.config.blocks import AnswerConfig
from orch_local.config.numerals import canonical_number
from orch_local.records import LABELS

ASCII = st.characters(min_codepoint=32, max_codepoint=126) | st.just("\n")
UNICODE = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]) | st.just("\n")
BLANKS = " \n\xa0\u3000"
"""What a reasoning cannot end with."""
SIZES = [0, *range(2, 11)]
"""Numbers of choices; 0 is a numeric question."""

configs = st.builds(
    AnswerConfig,
    reasoning_chars=st.integers(0, 80),
    eliminated=st.booleans(),
    confidence=st.booleans(),
)
charsets = st.sampled_from(["ascii", "unicode"])
numbers = st.from_regex(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,6})?", fullmatch=True, alphabet=ASCII)


@st.composite
def schemas(draw: st.DrawFn) -> AnswerSchema:
    labels = LABELS[: draw(st.sampled_from(SIZES))]
    pool = st.sampled_from(labels) if labels else numbers.map(canonical)
    candidates = draw(st.none() | st.lists(pool, min_size=1, max_size=4, unique=True).map(sorted).map(tuple))
    return AnswerSchema(labels, draw(configs), candidates, draw(charsets))


def canonical(number: str) -> str:
    text = canonical_number(number)
    assert text is not None
    return text


def canonical_or_label(answer: str) -> str:
    return answer if answer.isalpha() else canonical(answer)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


@st.composite
def written(draw: st.DrawFn, schema: AnswerSchema) -> tuple[str, dict[str, Any]]:
    """A valid answer, written without the grammar under test, and its fields."""
    config = schema.config
    characters = ASCII if schema.charset == "ascii" else UNICODE
    fields: dict[str, Any] = {}
    parts = []
    if config.reasoning_chars:
        fields["reasoning"] = draw(st.text(characters, max_size=config.reasoning_chars)).rstrip(BLANKS)
        parts.append('"reasoning":' + quoted(fields["reasoning"]))
    pool = (
        st.sampled_from(schema.candidates or tuple(schema.labels))
        if schema.labels or schema.candidates
        else numbers
    )
    fields["answer"] = draw(pool)
    parts.append(f'"answer":"{fields["answer"]}"')
    if config.eliminated and schema.labels:
        others = schema.labels.replace(fields["answer"], "")
        fields["eliminated"] = [label for label in others if draw(st.booleans())]
        parts.append('"eliminated":[' + ",".join(f'"{label}"' for label in fields["eliminated"]) + "]")
    if config.confidence:
        fields["confidence"] = draw(st.integers(0, 100))
        parts.append(f'"confidence":{fields["confidence"]}')
    return "{" + ",".join(parts) + "}", fields


def strict_json(text: str) -> Any:
    """JSON without repeated keys or NaN."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({name for name, _ in pairs}) == len(pairs)
        return dict(pairs)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(text, object_pairs_hook=once, parse_constant=refuse)


def expected(schema: AnswerSchema, fields: dict[str, Any]) -> ParsedAnswer:
    return ParsedAnswer(
        answer=fields["answer"] if schema.labels else canonical(fields["answer"]),
        reasoning=fields.get("reasoning", ""),
        cut=ends_at_its_bound(fields.get("reasoning", ""), schema.config.reasoning_chars),
        eliminated=tuple(fields.get("eliminated", ())),
        confidence=per_cent(fields["confidence"]) if "confidence" in fields else None,
    )


def ends_at_its_bound(reasoning: str, bound: int) -> bool:
    """A text that fills its bound, or stops short of it without the end of a sentence."""
    if not reasoning:
        return False
    return len(reasoning) >= bound or (len(reasoning) > bound - 16 and reasoning[-1] not in ".!?\u3002")


def per_cent(value: int | float | str) -> int:
    return round(100 * float(value)) if "." in str(value) else int(value)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_valid_answer(data: st.DataObject) -> None:
    schema = data.draw(schemas())
    text, fields = data.draw(written(schema))
    assert schema.parse(text) == expected(schema, fields)
    assert list(strict_json(text)) == list(fields) == schema.fields == list(schema.json_schema["properties"])
    assert re.fullmatch(schema.pattern, text)
    assert len(text.encode()) + 1 <= schema.max_tokens
    jsonschema.validate(json.loads(text), schema.json_schema)
    answer = f"{fields['answer']}"
    assert text[schema.answer_offset(text) :].startswith(answer)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_every_sentence_of_the_grammar_is_read(data: st.DataObject) -> None:
    schema = data.draw(schemas())
    text = data.draw(st.from_regex(schema.pattern, fullmatch=True))
    assume(not any("\ud800" <= c <= "\udfff" for c in text))
    fields = strict_json(text)
    parsed = schema.parse(text)
    assert parsed == expected(schema, json.loads(text, parse_float=str, parse_int=str))
    assert parsed.answer not in parsed.eliminated
    assert len(text.encode()) + 1 <= schema.max_tokens
    allowed = schema.candidates or tuple(schema.labels) or (parsed.answer,)
    assert parsed.answer in map(canonical_or_label, allowed)
    jsonschema.validate(fields, schema.json_schema)


@pytest.mark.parametrize("charset", ["ascii", "unicode"])
@pytest.mark.parametrize("size", SIZES)
def test_the_longest_answer_fits_the_budget(charset: Any, size: int) -> None:
    labels = LABELS[:size]
    schema = AnswerSchema(labels, AnswerConfig(reasoning_chars=80, eliminated=True), None, charset)
    for character in ("a", '\\"', "\\\\", "\\n", *("\U0001f600\u6f22" if charset == "unicode" else "")):
        last = "." if character == "\\n" else character
        eliminated = json.dumps(list(labels[1:]), separators=(",", ":"))
        middle = f'"answer":"A","eliminated":{eliminated}' if labels else f'"answer":"{LONGEST_NUMBER}"'
        text = f'{{"reasoning":"{character * 79}{last}",{middle},"confidence":0.1234}}'
        schema.parse(text)
        assert len(text.encode()) + 1 <= schema.max_tokens
        with pytest.raises(AnswerError):
            schema.parse(text.replace(character, character * 2, 1))


LONGEST_NUMBER = f"-{'9' * 15}.{'9' * 6}"

FULL = AnswerSchema("ABCD", AnswerConfig(reasoning_chars=40, eliminated=True))
GOOD = '{"reasoning":"because","answer":"B","eliminated":["A","C"],"confidence":85}'


def test_the_example_is_good() -> None:
    assert FULL.parse(GOOD) == ParsedAnswer("B", "because", eliminated=("A", "C"), confidence=85)


@pytest.mark.parametrize("layout", [{}, {"separators": (",", ":")}, {"indent": 2}, {"indent": 4}])
def test_json_may_be_laid_out_as_models_do_it(layout: dict[str, Any]) -> None:
    text = json.dumps(json.loads(GOOD), **layout)
    assert FULL.parse(text) == FULL.parse(GOOD)
    assert text[FULL.answer_offset(text) :].startswith('B"')
    assert len(text) + 1 <= FULL.max_tokens


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{", " {"),
        ("}", "}\n"),
        ("}", "\n\n}"),
        (",", ",  "),
        (",", " ,"),
        (",", ",\t"),
        (",", ",\n\n"),
        (":", ":  "),
        (":", ":\n"),
        (":", " :"),
        ('["A"', '[  "A"'),
        ('"A","C"', '"C","A"'),
        ('"A","C"', '"A","A"'),
        ('"A","C"', '"A","E"'),
        ('"A","C"', '"A",'),
        ('"A","C"', '"A","B"'),
        ('"A","C"', '"B"'),
        ('"A","C"', '"A","B","C","D"'),
        ('"B"', '"E"'),
        ('"B"', '"b"'),
        ('"B"', '"AB"'),
        ('"B"', '""'),
        ('"B"', "null"),
        ('"B"', '"\\u0042"'),
        ('"B"', '["B"]'),
        ("85", "101"),
        ("85", "-1"),
        ("85", "085"),
        ("85", "85.0"),
        ("85", "0."),
        ("85", "1.1"),
        ("85", "0.12345"),
        ("85", '"85"'),
        ("85", "NaN"),
        ("85", "1e1"),
        ("85", "true"),
        ("85", "\u0668\u0665"),
        ("because", "a\nb"),
        ("because", "a\tb"),
        ("because", "a\x00b"),
        ("because", "a\x7fb"),
        ("because", "\u00e9"),
        ("because", "a" * 41),
        ("because", "\\u0041"),
        ("because", "\\/"),
        ("because", 'say "no"'),
        ("because", "because "),
        ("because", "because\\n"),
        ("because", " "),
        ("because", "open\\"),
        ('"reasoning":"because",', ""),
        (',"confidence":85', ""),
        ('"confidence":85', '"confidence":85,"confidence":85'),
        ('"answer":"B"', '"answer":"B","answer":"C"'),
        ('"answer":"B"', '"Answer":"B"'),
        ('"confidence":85', '"confidence":85,"more":1'),
        ("{", "```json\n{"),
        ("}", "} Done."),
        (GOOD, ""),
        (GOOD, "[" + GOOD + "]"),
        (GOOD, "null"),
        (GOOD, GOOD + GOOD),
        (GOOD, GOOD[:-1]),
    ],
)
def test_a_spoilt_answer_is_refused(old: str, new: str) -> None:
    text = GOOD.replace(old, new)
    assert text != GOOD
    with pytest.raises(AnswerError):
        FULL.parse(text)
    with pytest.raises(AnswerError):
        FULL.answer_offset(text)


FUZZED = {
    GOOD: FULL,
    '{"reasoning":"\u00e9\\n.","answer":"B","confidence":0}': AnswerSchema(
        "AB", AnswerConfig(reasoning_chars=8, eliminated=False), None, "unicode"
    ),
    '{"answer":"-12.50","confidence":100}': AnswerSchema("", AnswerConfig(reasoning_chars=0)),
    '{"reasoning":"","answer":"1,200.25"}': AnswerSchema(
        "", AnswerConfig(reasoning_chars=5, confidence=False), ("-0.5", "0", "12", "1200.25")
    ),
    '{"answer":"J","eliminated":["A","I"],"confidence":0.9}': AnswerSchema(
        LABELS, AnswerConfig(reasoning_chars=0, eliminated=True), ("B", "J")
    ),
}
NOISE = (
    *(
        '"reasoning":"',
        '"eliminated":[',
        '"answer":',
        '"confidence":',
        '"A"',
        '"B"',
        ',"J"',
        "\\n",
        "\\\\",
        '\\"',
    ),
    *(
        "0",
        "-0",
        "1",
        "12",
        "100",
        ".50",
        "NaN",
        "Infinity",
        "1e999",
        "null",
        "\u0663",
        "\ud800",
        "\U0001f600",
    ),
    *'{}[]",:\\ \n\t\x00\x7f\x85ABCJ0159-.e\u2028',
)


@pytest.mark.parametrize("text", FUZZED)
def test_any_text_is_refused_or_read_right(text: str) -> None:
    """A thousand texts each: noise, and the good answer with some of its text replaced by noise."""
    schema, random = FUZZED[text], Random(0)
    assert check(schema, text)
    read = 0
    for _ in range(1000):
        spoilt = text if random.random() < 0.9 else ""
        for _ in range(random.choice((1, 1, 1, 2, 5))):
            start = random.randint(0, len(spoilt))
            noise = "".join(random.choices(NOISE, k=random.choice((0, 1, 1, 2))))
            spoilt = spoilt[:start] + noise + spoilt[start + random.choice((0, 1, 1, 2)) :]
        read += check(schema, spoilt)
    assert 0 < read < 500


@settings(max_examples=150, deadline=None)
@given(schema=st.sampled_from(list(FUZZED.values())), text=st.text())
def test_noise_is_refused(schema: AnswerSchema, text: str) -> None:
    assert not check(schema, text)


def check(schema: AnswerSchema, text: str) -> bool:
    """Whether the text was read; it was then read right."""
    try:
        answer = schema.parse(text)
    except AnswerError:
        assert not re.fullmatch(schema.pattern, text)
        return False
    fields = strict_json(text)
    assert list(fields) == schema.fields
    jsonschema.validate(fields, schema.json_schema)
    assert answer == expected(schema, json.loads(text, parse_float=str, parse_int=str))
    return True


@pytest.mark.parametrize(
    ("number", "read"),
    [
        ("0", "0"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("1.50", "1.5"),
        ("1.000000", "1"),
        ("-12.5", "-12.5"),
        ("1200", "1200"),
        ("999999999999999.999999", "999999999999999.999999"),
        ("0.000001", "0.000001"),
    ],
)
def test_numbers_are_canonical(number: str, read: str) -> None:
    schema = AnswerSchema("", AnswerConfig(reasoning_chars=0, confidence=False))
    assert schema.parse(f'{{"answer":"{number}"}}').answer == read


@pytest.mark.parametrize("number", ["", "-", "01", "1.", ".5", "+1", "0x1", "NaN", '"1"', "1 ", "1" * 40])
def test_what_is_no_number_is_refused(number: str) -> None:
    schema = AnswerSchema("", AnswerConfig(reasoning_chars=0, confidence=False))
    with pytest.raises(AnswerError):
        schema.parse(f'{{"answer":"{number}"}}')


def test_only_candidates_may_be_answered() -> None:
    schema = AnswerSchema(
        "ABCD", AnswerConfig(reasoning_chars=0, confidence=False, eliminated=False), ("A", "C")
    )
    assert schema.parse('{"answer":"C"}').answer == "C"
    with pytest.raises(AnswerError):
        schema.parse('{"answer":"B"}')
    numeric = AnswerSchema("", schema.config, ("1", "1.5", "-15"))
    for number in ("1", "1.5", "-15"):
        assert numeric.parse(f'{{"answer":"{number}"}}').answer == number
    for number in ("15", "105", "1.50", "-1"):
        with pytest.raises(AnswerError):
            numeric.parse(f'{{"answer":"{number}"}}')


def test_a_candidate_may_have_thousands_separators() -> None:
    numeric = AnswerSchema("", AnswerConfig(reasoning_chars=0, confidence=False), ("1", "-1234567.5"))
    assert numeric.parse('{"answer":"-1,234,567.5"}').answer == "-1234567.5"
    with pytest.raises(AnswerError):
        numeric.parse('{"answer":"-1,234567.5"}')


@pytest.mark.parametrize(
    ("written", "read"), [("0.95", 95), ("0.9", 90), ("1.0", 100), ("0.004", 0), ("1", 1), ("100", 100)]
)
def test_a_confidence_may_be_a_share(written: str, read: int) -> None:
    schema = AnswerSchema("AB", AnswerConfig(reasoning_chars=0, eliminated=False))
    assert schema.parse(f'{{"answer":"A","confidence":{written}}}').confidence == read


@pytest.mark.parametrize(
    ("reasoning", "cut"),
    [
        ("", False),
        ("It is B.", False),
        ("x" * 40, True),
        ("x" * 39 + ".", True),
        ("x" * 30, True),
        ("x" * 30 + ".", False),
        ("x" * 24, False),
    ],
)
def test_a_reasoning_that_ends_at_its_bound_is_marked(reasoning: str, cut: bool) -> None:
    text = GOOD.replace("because", reasoning)
    assert FULL.parse(text).cut is cut


@pytest.mark.parametrize(
    ("text", "charset"),
    [
        ("Why?", "ascii"),
        ("It\u2019s 5 \u00b0C \u2013 why?", "ascii"),
        ("Wie gro\u00df?", "unicode"),
        ("\u4e3a\u4ec0\u4e48", "unicode"),
    ],
)
def test_the_charset_is_chosen_for_each_question(text: str, charset: str) -> None:
    """Typographic marks can be written in ASCII; letters of another language cannot."""
    assert schema_for("AB", AnswerConfig(), texts=["Is it?", text]).charset == charset
    assert schema_for("AB", AnswerConfig(charset="ascii"), texts=[text]).charset == "ascii"
    assert schema_for("AB", AnswerConfig(charset="unicode"), texts=["Why?"]).charset == "unicode"


def test_a_chosen_charset_needs_no_longer_context() -> None:
    ascii_, chosen = (schema_for("AB", AnswerConfig(), texts=[text]) for text in ("Why?", "Wof\u00fcr?"))
    assert ascii_.max_tokens == ascii_.enough_tokens == chosen.enough_tokens < chosen.max_tokens
    asked = schema_for("AB", AnswerConfig(charset="unicode"))
    assert asked.enough_tokens == asked.max_tokens == chosen.max_tokens


@pytest.mark.parametrize("labels", ["AB", "ABCD", LABELS])
def test_what_makes_no_sense_cannot_be_ruled_out(labels: str) -> None:
    """The answer itself, all labels, one twice, or labels out of order."""
    schema = AnswerSchema(labels, AnswerConfig(reasoning_chars=0, eliminated=True, confidence=False))
    for answer in labels:
        others = labels.replace(answer, "")
        assert schema.parse(ruled_out(answer, others)).eliminated == tuple(others)
        for wrong in (answer, labels, others[::-1] if len(others) > 1 else others * 2, others + others[-1]):
            with pytest.raises(AnswerError):
                schema.parse(ruled_out(answer, wrong))


def ruled_out(answer: str, labels: str) -> str:
    listed = ",".join(f'"{label}"' for label in labels)
    return f'{{"answer":"{answer}","eliminated":[{listed}]}}'


@pytest.mark.parametrize("charset", ["ascii", "unicode"])
def test_long_and_hostile_texts_are_read_or_refused(charset: Any) -> None:
    schema = AnswerSchema("ABCD", AnswerConfig(reasoning_chars=8000, eliminated=True), None, charset)
    tail = '.","answer":"B","eliminated":["A"],"confidence":1}'
    for unit in ("a", "\\n", '\\"', "\\\\", '\\",\\"answer\\":\\"C'):
        count = 7999 // len(unit.replace("\\n", "n").replace('\\"', '"').replace("\\\\", "b"))
        text = '{"reasoning":"' + unit * count + tail
        assert schema.parse(text).answer == "B"
        assert text[schema.answer_offset(text)] == "B"
        for spoilt in (text[:-1], text + "}", text[:-50], text.replace(tail, "")):
            with pytest.raises(AnswerError):
                schema.parse(spoilt)


@given(inside=st.text(ASCII, max_size=20), label=st.sampled_from("ABCD"))
def test_answers_quoted_in_the_reasoning_are_no_answers(inside: str, label: str) -> None:
    schema = AnswerSchema("ABCD", AnswerConfig(reasoning_chars=80, eliminated=True))
    reasoning = f'{inside}"answer":"C"{inside}","answer":"D".'
    text = f'{{"reasoning":{quoted(reasoning)},"answer":"{label}","eliminated":[],"confidence":7}}'
    assert schema.parse(text)._replace(cut=False) == ParsedAnswer(label, reasoning, confidence=7)
    assert schema.answer_offset(text) == len(text) - len(f'{label}","eliminated":[],"confidence":7}}')


def logs(**shares: float) -> dict[str, float]:
    return {text: math.log(share) for text, share in shares.items()}


HALVES = {"A": 0.25, "B": 0.5, "C": 0.125, "D": 0.125}


@pytest.mark.parametrize(
    ("tokens", "position"),
    [
        (['"', "B", '"', ',"', "confidence", '":', "7", "}"], 1),
        (['":"', "B", '","', "confidence", '":', "7}"], 1),
        (['"', 'B"', ',"confidence":7}'], 1),
        (['":"B', '","confidence":7}'], 0),
        (['answer":"B","confidence":7}'], 0),
    ],
)
def test_probabilities_in_any_cut_into_tokens(tokens: list[str], position: int) -> None:
    label_at = "".join(tokens).index('B"')
    before = label_at - sum(len(token) for token in tokens[:position])
    chosen = tokens[position]
    alternatives = {
        chosen[:before] + label + chosen[before + 1 :]: math.log(share) for label, share in HALVES.items()
    }
    tail = [(token, alternatives if i == position else {token: 0.0}) for i, token in enumerate(tokens)]
    found = label_probabilities(tail, len("".join(tokens)) - label_at, "ABCD")
    assert found == pytest.approx(HALVES)


def test_merged_and_plain_tokens_of_one_label_are_added() -> None:
    alternatives = {"A": math.log(0.25), 'A"': math.log(0.25), "B": math.log(0.375), 'B",': math.log(0.125)}
    tail = [('"', {'"': 0.0}), ("B", alternatives), ('"}', {'"}': 0.0})]
    assert label_probabilities(tail, 3, "AB") == {"A": 0.5, "B": 0.5}


@pytest.mark.parametrize(
    ("tail", "distance"),
    [
        ([('"', {'"': 0.0}), ("B", logs(A=0.5, B=0.49)), ('"}', {})], 3),
        ([('"', {'"': 0.0}), ("B", logs(A=0.5, X=0.5)), ('"}', {})], 3),
        ([('"', {'"': 0.0}), ("B", logs(A=0.9, B=0.9)), ('"}', {})], 3),
        ([('"B', {'"B': math.log(0.5), '"': math.log(0.5)}), ('"}', {})], 3),
        ([("B", {"B": math.nan, "A": 0.0}), ('"}', {})], 3),
        ([("B", {}), ('"}', {})], 3),
        ([('"}', {'"}': 0.0})], 3),
        ([], 3),
    ],
)
def test_no_probabilities_where_they_would_not_be_exact(tail: Any, distance: int) -> None:
    assert label_probabilities(tail, distance, "AB") is None


@given(st.lists(st.floats(-30, 0), min_size=2, max_size=10))
def test_probabilities_sum_to_one_over_all_labels(logprobs: list[float]) -> None:
    labels = LABELS[: len(logprobs)]
    total = math.log(math.fsum(map(math.exp, logprobs)))
    alternatives = {label: value - total for label, value in zip(labels, logprobs, strict=True)}
    alternatives["{"] = -math.inf
    found = label_probabilities([("A", alternatives), ('"}', {})], 3, labels)
    assert found is not None
    assert list(found) == list(labels)
    assert math.fsum(found.values()) == pytest.approx(1, abs=1e-12)
    assert found == pytest.approx({label: math.exp(alternatives[label]) for label in labels}, rel=1e-9)


def test_labels_that_may_not_be_answered_are_left_out() -> None:
    tail = [("B", logs(B=0.75, D=0.25)), ('"}', {})]
    assert label_probabilities(tail, 3, ("B", "D")) == {"B": 0.75, "D": 0.25}
