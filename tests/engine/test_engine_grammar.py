"""Both engines accept exactly the same strings, and those are the strings of the pattern."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import END, make_tiny_tokenizer

from orch_local.config.answers import AnswerSchema
from orch_local.config.blocks import AnswerConfig
from orch_local.config.numerals import NUMBER_PATTERN
from orch_local.engines.base import RequestError
from orch_local.engines.transformers.patterns import Patterns

pytest.importorskip("outlines_core")
llguidance = pytest.importorskip("llguidance")

SCHEMAS = {
    "usual": AnswerSchema("ABCD", AnswerConfig(reasoning_chars=40)),
    "full": AnswerSchema("ABCD", AnswerConfig(reasoning_chars=40, eliminated=True)),
    "unicode": AnswerSchema("AB", AnswerConfig(reasoning_chars=12, eliminated=True), charset="unicode"),
    "candidates": AnswerSchema(
        "ABCDEFGHIJ", AnswerConfig(reasoning_chars=3, eliminated=True), candidates=("B", "J")
    ),
    "numeric": AnswerSchema("", AnswerConfig(reasoning_chars=0)),
    "numbers": AnswerSchema("", AnswerConfig(reasoning_chars=3), candidates=("-1234567.5", "12", "3600")),
}
LAYOUTS: list[dict[str, Any]] = [{}, {"separators": (",", ":")}, {"indent": 0}, {"indent": 2}, {"indent": 4}]
"""Ways to write JSON, as arguments of `json.dumps`; the grammar allows them all."""
ALPHABET = st.sampled_from('{}[]":,\\/ abAJ019.-\n\t\x00\x7f\x85é\u2028😀') | st.characters(codec="utf-8")


@cache
def tokenizer() -> Any:
    """The byte-level tokenizer of the tiny models, as transformers loads it."""
    from transformers import PreTrainedTokenizerFast

    with TemporaryDirectory() as folder:
        make_tiny_tokenizer(Path(folder))
        file = str(Path(folder) / "tokenizer.json")
        return PreTrainedTokenizerFast(tokenizer_file=file, eos_token=END, split_special_tokens=True)


@cache
def patterns() -> Patterns:
    return Patterns(tokenizer())


@cache
def guidance_tokenizer() -> Any:
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer())


def outlines_accepts(pattern: str, ids: list[int]) -> bool:
    """What the transformers engine executes."""
    guide = patterns().guide(pattern)
    for token in ids:
        if not guide.accepts_tokens([token]):
            return False
        guide.advance(token, return_tokens=False)
    return bool(guide.is_finished())


def guidance_accepts(pattern: str, ids: list[int]) -> bool:
    """What vLLM executes with the guidance backend."""
    grammar = llguidance.grammar_from("regex", pattern)
    matcher = llguidance.LLMatcher(guidance_tokenizer(), grammar, log_level=0)
    return bool(matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting())


@st.composite
def near_answers(draw: st.DrawFn, pattern: str) -> str:
    """A sentence of ``pattern``, whole or with up to two characters changed, put in or taken out."""
    text = draw(st.from_regex(pattern, fullmatch=True))
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 2))
        text = text[:start] + draw(st.text(ALPHABET, max_size=2)) + text[end:]
    return text


@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_all_engines_accept_the_strings_of_the_pattern(name: str, data: st.DataObject) -> None:
    pattern = SCHEMAS[name].pattern
    assert_all_agree(pattern, data.draw(near_answers(pattern)))


def assert_all_agree(pattern: str, text: str) -> bool:
    """Whether a text is accepted: by Python and by both engines, or by none of them."""
    expected = re.fullmatch(pattern, text) is not None
    ids = tokenizer().encode(text, add_special_tokens=False)
    assert outlines_accepts(pattern, ids) == expected, text
    assert guidance_accepts(pattern, ids) == expected, text
    return expected


GOOD: dict[str, dict[str, Any]] = {
    "full": {"reasoning": "It is hot.", "answer": "B", "eliminated": ["A", "D"], "confidence": 85},
    "candidates": {"reasoning": "", "answer": "J", "eliminated": ["A", "B", "I"], "confidence": 0.95},
    "numeric": {"answer": "-$1,234,567.50", "confidence": 100},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", GOOD)
def test_white_space_is_accepted_where_it_may_be_and_nowhere_else(name: str, layout: dict[str, Any]) -> None:
    pattern, text = SCHEMAS[name].pattern, json.dumps(GOOD[name], **layout)
    assert assert_all_agree(pattern, text)
    read = 0
    for place in range(len(text) + 1):
        for blank in (" ", "\n", "\n         ", "\t"):
            read += assert_all_agree(pattern, text[:place] + blank + text[place:])
    assert 0 < read < len(text)


@pytest.mark.parametrize(("name", "spoilt"), [("full", '"B"'), ("candidates", '"J"')])
def test_the_answer_is_never_eliminated(name: str, spoilt: str) -> None:
    schema = SCHEMAS[name]
    for answer in schema.labels:
        for out in schema.labels:
            fields = GOOD[name] | {"answer": answer, "eliminated": [out]}
            allowed = answer != out and answer in (schema.candidates or schema.labels)
            assert assert_all_agree(schema.pattern, json.dumps(fields)) == allowed, fields


WHOLE_NUMBERS = ["01", "-0", "0.5", "-12", "1,234", "12,345,678.25", "$3,600", "-$1", "$-1", "1,000,000"]
OTHER_NUMBERS = ["1.", ".5", "1e5", "+1", "", "1,23", "1,2345", "1234,567", "0,123", ",123", "1,", "1,234,5"]


@pytest.mark.parametrize("number", [*WHOLE_NUMBERS, *OTHER_NUMBERS, "--1", "$$1", "-", "1" * 24, "1" * 25])
def test_edges_of_numbers(number: str) -> None:
    pattern = AnswerSchema("", AnswerConfig(reasoning_chars=0, confidence=False)).pattern
    accepted = number in (*WHOLE_NUMBERS[1:], "1" * 24)
    assert assert_all_agree(pattern, f'{{"answer":"{number}"}}') == accepted
    assert not assert_all_agree(pattern, f'{{"answer":{number}}}')


@pytest.mark.parametrize(
    "confidence", ["0", "100", "101", "0.95", "1.0", "1.00", "1.01", "0.", "0.12345", "00", "95.5"]
)
def test_edges_of_confidences(confidence: str) -> None:
    pattern = AnswerSchema("AB", AnswerConfig(reasoning_chars=0)).pattern
    accepted = confidence in ("0", "100", "0.95", "1.0", "1.00")
    assert assert_all_agree(pattern, f'{{"answer": "A", "confidence": {confidence}}}') == accepted


@pytest.mark.parametrize(
    "number",
    [
        "3,600",
        "3,",
        "3,6",
        "3,60",
        "1,234,567",
        "1,234,5",
        "1234,567",
        "-$5.25",
        "$-5",
        "1" * 24,
        "1" * 25,
        "007",
    ],
)
def test_all_engines_write_numbers_alike(number: str) -> None:
    pattern = f'"{NUMBER_PATTERN}"'
    text = f'"{number}"'
    expected = re.fullmatch(pattern, text) is not None
    ids = tokenizer().encode(text, add_special_tokens=False)
    assert outlines_accepts(pattern, ids) == expected
    assert guidance_accepts(pattern, ids) == expected


def test_no_pattern_can_choose_a_special_token() -> None:
    end = tokenizer().convert_tokens_to_ids(END)
    assert end not in patterns().guide("[ -~]{1,20}").get_tokens()
    assert patterns().guide("(?:)").get_tokens() == [end]


def test_a_character_in_parts_is_accepted() -> None:
    parts = tokenizer().encode("😀", add_special_tokens=False)
    assert len(parts) > 1
    assert outlines_accepts("😀", parts)
    assert not outlines_accepts("😀", parts[:-1])


def test_tokens_of_sentence_piece_models() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: n for n, token in enumerate(["</s>", "a", "\u2581b", "<0xC3>", "<0xA9>", "<0xZZ>"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback()])
    sentence_piece = Patterns(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>"))
    guide = sentence_piece.guide("a bé")
    for token in (1, 2, 3, 4):
        assert guide.get_tokens() == [token]
        guide.advance(token, return_tokens=False)
    assert guide.is_finished()


def test_a_pattern_that_does_not_compile_is_refused() -> None:
    with pytest.raises(RequestError, match="cannot be compiled"):
        patterns().guide("(unclosed")
