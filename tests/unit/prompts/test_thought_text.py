"""Where a thought ends in a text: the tokens before it are kept, whatever tokens the tag was written with."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_families import FAMILIES, make_family

from orch_local.prompts.data import Data
from orch_local.prompts.tokenizer import PromptTokenizer

TAG = "</think>"
BYTE_LEVEL = ("llama3", "qwen3")


@functools.cache
def reader(family: str) -> PromptTokenizer:
    return PromptTokenizer(make_family(family, Path(tempfile.mkdtemp())))


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_before_a_text(family: str) -> None:
    tokenizer = reader(family)

    @fuzz(150)
    @given(st.text(max_size=30), st.text(max_size=8))
    def check(thought: str, behind: str) -> None:
        ids = tokenizer.encode([Data(thought + TAG + behind)])
        whole = tokenizer.decode(ids)
        kept = tokenizer.before(ids, TAG)
        assert len(kept) <= len(ids)
        if TAG not in whole:  # some families lose characters
            assert kept == ids
            return
        assert whole.partition(TAG)[0].startswith(tokenizer.decode(kept))
        if family in BYTE_LEVEL:
            assert tokenizer.decode(kept) == whole.partition(TAG)[0]

    check()


def test_a_token_that_reaches_into_the_tag_is_replaced_by_what_is_before_it() -> None:
    tokenizer = reader("llama3")
    # In this vocabulary a run of other characters with its line breaks is one token, as `>\n\n` is in others.
    ids = tokenizer.encode([Data("So it is B.")])
    joined = tokenizer.encode([Data(".</")])
    for written in (ids[:-1] + joined, ids + tokenizer.encode([Data("</")])):
        rest = tokenizer.encode([Data("think>\n\n")])
        assert tokenizer.decode(tokenizer.before(written + rest, TAG)) == "So it is B."
    assert tokenizer.before(ids, TAG) == ids
    assert tokenizer.before([], TAG) == []


def test_never_more_tokens_than_were_given() -> None:
    tokenizer = reader("llama3")
    # A tag of one character, in a token of many: cut, it would need as many tokens as it has characters.
    (long,) = next(
        [i] for i in range(420) if len(tokenizer.decode([i])) >= 5 and tokenizer.decode([i]).isalpha()
    )
    text = tokenizer.decode([long])
    kept = tokenizer.before([long], text[-1])
    assert len(kept) <= 1
    assert text.startswith(tokenizer.decode(kept))
