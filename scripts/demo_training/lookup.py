"""A short curriculum of look-ups: which label does this value have?"""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from transformers import PreTrainedTokenizerBase

from orch_local.demo.benchmark import LABELS

from .fitting import IGNORED, Document, collate
from .tokens import VALUES

QUESTIONS = 6


def _document(tokenizer: PreTrainedTokenizerBase, rng: random.Random, shuffled: bool) -> Document:
    """A list of labelled values, then some of the values again, each followed by its label."""
    size = rng.randint(3, 6)
    pool = [str(number) for number in range(100)] if rng.random() < 0.4 else list(VALUES)
    values = rng.sample(pool, size)
    labels = rng.sample(LABELS, size) if shuffled else list(LABELS[:size])
    lines = "".join(f"{label}) {value}\n" for label, value in zip(labels, values, strict=True))
    tokens = tokenizer.backend_tokenizer.encode(lines, add_special_tokens=False).ids
    targets = [IGNORED] * len(tokens)
    for _ in range(QUESTIONS):
        index = rng.randrange(size)
        asked = tokenizer.backend_tokenizer.encode(f" {values[index]} ({labels[index]}),").ids
        _, _, label, *rest = asked
        tokens += asked
        targets += [IGNORED, IGNORED, label, *[IGNORED] * len(rest)]
        assert tokenizer.decode([label]) == labels[index]
    return Document(tokens, targets)


def lookup_batches(
    tokenizer: PreTrainedTokenizerBase, seed: int, shuffled_steps: int, size: int = 48
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches: at first with labels in any order, then in the order of the alphabet."""
    rng = random.Random(f"lookup-{seed}")
    step = 0
    while True:
        shuffled = step < shuffled_steps
        documents = [_document(tokenizer, rng, shuffled) for _ in range(size)]
        yield collate(documents, tokenizer.pad_token_id)
        step += 1
