"""Tokenizers made to hang or to grow: the probe that tries them ends within its limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hostile_models import (
    good_folder,
    refused,
    replaced,
    tokenizer_with,
)

from orch_local.errors import PromptError
from orch_local.prompts import probing
from orch_local.prompts.template import builtin_names, builtin_text
from orch_local.prompts.tokenizer import PromptTokenizer


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return good_folder(tmp_path)


def split_at(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


TOKENIZERS = {
    # At each place fewer steps than those after which Oniguruma gives up, and a text has 2,000 places.
    "backtracking at each place": {"pre_tokenizer": split_at(r"(?:a{1,7}){1,7}b")},
    "doubling": {"normalizer": {"type": "Sequence", "normalizers": [replaced("a", "aa")] * 60}},
    "one long replacement": {
        "normalizer": {"type": "Sequence", "normalizers": [replaced("a", "a" * 5000)] * 4}
    },
}


@pytest.mark.parametrize("parts", [pytest.param(parts, id=name) for name, parts in TOKENIZERS.items()])
def test_a_tokenizer_that_hangs_or_grows(
    folder: Path, parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "_KIND", probing._KIND._replace(seconds=0.4, memory=2**30))
    tokenizer_with(folder, **parts)
    refused(folder, "the tokenizer (takes longer|needs more memory|takes the process)", "tokenizer.json")


def test_added_tokens_are_tried_with_the_rest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added is a part of the program, and may be what it was made to hang on."""
    monkeypatch.setattr(probing, "_KIND", probing._KIND._replace(seconds=0.4, memory=2**30))
    doubling = {"type": "Sequence", "normalizers": [replaced("j", "jj")] * 60}
    tokenizer_with(folder, normalizer=doubling)
    file = folder / "tokenizer_config.json"
    added = {"added_tokens_decoder": {"0": {"content": "j", "normalized": True}}}
    file.write_text(json.dumps(json.loads(file.read_text()) | added))
    refused(folder, "the tokenizer (takes longer|needs more memory|takes the process)", "tokenizer.json")


def test_a_template_of_ours_is_what_a_tokenizer_may_be_made_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "_KIND", probing._KIND._replace(seconds=0.4, memory=2**30))
    tokenizer_with(
        folder, normalizer={"type": "Sequence", "normalizers": [replaced("Choices", "ChoicesChoices")] * 60}
    )
    assert any("Choices" in builtin_text(name) for name in builtin_names())
    refused(folder, "the tokenizer (takes longer|needs more memory|takes the process)", "tokenizer.json")


def test_a_pattern_that_gives_up_costs_one_question(folder: Path) -> None:
    """Oniguruma stops a match after ten million steps, and the library panics then, which is no Exception."""
    tokenizer_with(folder, pre_tokenizer=split_at(r"(x+x+)+y"))
    tokenizer = PromptTokenizer(folder)
    assert tokenizer.encode(["fine"])
    with pytest.raises(PromptError, match="gives up on a text of 40 characters") as caught:
        tokenizer.encode(["x" * 40])
    assert caught.value.where == str(folder)
