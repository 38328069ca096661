"""Both engines accept exactly the same strings, and those are the strings of the pattern."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import END, make_tiny_tokenizer

from orch_local.answers import AnswerSchema
from orch_local.config import AnswerConfig
from orch_local.engines.base import RequestError
from orch_local.engines.transformers import Patterns

pytest.importorskip("outlines_core")
llguidance = pytest.importorskip("llguidance")

SCHEMAS = {
    "full": AnswerSchema("ABCD", AnswerConfig(reasoning_chars=40)),
    "unicode": AnswerSchema("AB", AnswerConfig(reasoning_chars=12, charset="unicode")),
    "candidates": AnswerSchema("ABCDEFGHIJ", AnswerConfig(reasoning_chars=3), candidates=("B", "J")),
    "numeric": AnswerSchema("", AnswerConfig(reasoning_chars=0)),
}
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
    text = data.draw(near_answers(pattern))
    expected = re.fullmatch(pattern, text) is not None
    ids = tokenizer().encode(text, add_special_tokens=False)
    assert outlines_accepts(pattern, ids) == expected
    assert guidance_accepts(pattern, ids) == expected


@pytest.mark.parametrize("number", ["01", "-0", "1.", ".5", "1e5", "+1", "0.5", "-12", ""])
def test_edges_of_numbers(number: str) -> None:
    pattern = AnswerSchema("", AnswerConfig(reasoning_chars=0, confidence=False)).pattern
    text = f'{{"answer":{number}}}'
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
