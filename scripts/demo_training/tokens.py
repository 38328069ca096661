"""A tiny byte-level tokenizer with whole words."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from orch_local.demo.benchmark import DAYS, MONTHS, NAMES, WORDS

from .texts import (
    CHAT_TEMPLATE,
    END,
)

VOCABULARY = Path(__file__).with_name("vocabulary.txt")
MAX_LENGTH = 1024
SPECIALS = ("<|pad|>", "<|im_start|>", END)
# The JSON skeleton first, then a word, a number or a sign with the space before it, then white space.
PIECES = (
    r'","confidence":|","answer":"|","reasoning":"|\{"reasoning":"|\{"agent":"|","unusable":"'
    r"| ?[A-Za-z]+| ?[0-9]{1,2}| ?[^\sA-Za-z0-9]|\s"
)
VALUES = (*NAMES, *DAYS, *MONTHS, *(word for words in WORDS.values() for word in words))


def _splitter() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The special tokens, all 256 bytes, then the numbers and words of vocabulary.txt."""
    pieces = VOCABULARY.read_text(encoding="utf-8").split()
    tokens = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *pieces]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    backend.pre_tokenizer = _splitter()
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END,
        pad_token="<|pad|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
        padding_side="left",
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save a tokenizer, the chat template inside tokenizer_config.json, with no padding left on."""
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # a name that older releases know, too
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
