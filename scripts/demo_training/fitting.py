"""Documents, batches and the training loop."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .muon import Muon
from .texts import END

IGNORED = -100
POOL = 32  # batches that are sorted by length together


@dataclass(frozen=True)
class Document:
    """Token numbers and, for each, the target (or IGNORED where no loss is taken)."""

    tokens: list[int]
    targets: list[int]


Report = Callable[[PreTrainedModel], dict[str, object]]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    last: int = 0,
    answer_ends: bool = True,
) -> list[Document]:
    """Documents of (prompt, answer) pairs, with a loss on the answer, or on its ``last`` tokens only."""
    end = END if answer_ends else ""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()  # generation leaves it on
    prompts = backend.encode_batch_fast([prompt for prompt, _ in pairs], add_special_tokens=False)
    answers = backend.encode_batch_fast([answer + end for _, answer in pairs], add_special_tokens=False)
    documents = []
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens = list(prompt.ids) + list(answer.ids)
        first = len(tokens) - last if last else len(prompt.ids)
        documents.append(Document(tokens, [IGNORED] * first + tokens[first:]))
    return documents


def collate(documents: Sequence[Document], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded tensors of tokens and targets."""
    width = max(len(document.tokens) for document in documents)
    tokens = torch.full((len(documents), width), pad)
    targets = torch.full((len(documents), width), IGNORED)
    for row, document in enumerate(documents):
        tokens[row, : len(document.tokens)] = torch.tensor(document.tokens)
        targets[row, : len(document.targets)] = torch.tensor(document.targets)
    return tokens, targets


def batches(
    documents: Sequence[Document], size: int, pad: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches of documents of about equal length, in a seeded order."""
    if len(documents) < size:
        raise ValueError(f"{len(documents)} documents do not fill a batch of {size}")
    rng = random.Random(seed)
    while True:
        order = rng.sample(range(len(documents)), len(documents))
        for start in range(0, len(order), size * POOL):
            pool = sorted(order[start : start + size * POOL], key=lambda index: len(documents[index].tokens))
            starts = list(range(0, len(pool) - size + 1, size))
            for first in rng.sample(starts, len(starts)):
                yield collate([documents[index] for index in pool[first : first + size]], pad)


def loss_of(model: PreTrainedModel, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over the positions that have a target (only those pass through the output layer)."""
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
    wanted = targets[:, 1:]
    mask = wanted != IGNORED
    return functional.cross_entropy(model.lm_head(hidden[mask]), wanted[mask])


def schedule(step: int, steps: int, warmup: int = 40, decay: float = 0.4) -> float:
    """Warm up, stay, then go down linearly over the last part."""
    return min(1.0, (step + 1) / warmup) * min(1.0, max(0.02, (steps - step) / (decay * steps)))


def optimizers(model: PreTrainedModel, rate: float, muon: bool) -> list[torch.optim.Optimizer]:
    """Muon for the matrices and Adam for the rest, or Adam for all."""
    if not muon:
        return [torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]
    named = dict(model.named_parameters())
    matrices = [
        p for name, p in named.items() if p.ndim == 2 and "embed" not in name and "lm_head" not in name
    ]
    chosen = {id(p) for p in matrices}
    rest = [p for p in named.values() if id(p) not in chosen]
    return [
        Muon(matrices, lr=rate),
        torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def fit(
    model: PreTrainedModel,
    source: Iterator[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    rate: float,
    *,
    muon: bool = True,
    name: str = "",
    report: Report | None = None,
    every: int = 200,
) -> None:
    """Train in place; now and then print the loss, the CPU time and what ``report`` says."""
    parts = optimizers(model, rate, muon)
    started = time.process_time()
    smooth = 0.0
    model.train()
    for step in range(steps):
        tokens, targets = next(source)
        loss = loss_of(model, tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in parts:
            for group in part.param_groups:
                group["lr"] = rate * schedule(step, steps)
            part.step()
            part.zero_grad()
        smooth = loss.item() if step == 0 else 0.95 * smooth + 0.05 * loss.item()
        if (step + 1) % every == 0 or step + 1 == steps:
            line: dict[str, object] = {"step": step + 1, "loss": round(smooth, 4)}
            line["cpu_minutes"] = round((time.process_time() - started) / 60, 2)
            if report is not None:
                line.update(report(model))
                model.train()
            print(name, json.dumps(line), flush=True)
    model.eval()
