"""Confidence that says how often such an answer was right, measured on questions not trained on."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from orch_local.demo.benchmark import DOMAINS, Problem, problems

from .fitting import batches, collate, encode, fit
from .rollout import generate, is_right, replies_of
from .specialists import training_problems
from .texts import CONFIDENCE_FIELD, chat_prompt, question_block, reply_json, specialist_reply

QUESTIONS = 1800
BINS = 4
STEPS, BATCH, RATE = 120, 32, 5e-4
TAIL = 4  # two digits, the closing brace and the end mark
LOWEST, HIGHEST = 5, 99


@dataclass(frozen=True)
class Rollout:
    """One answer on the way to a calibrated confidence."""

    prompt: str
    reasoning: str
    answer: str
    right: bool
    certainty: float
    group: str


def as_confidence(right: float, total: int) -> int:
    """An accuracy as a whole number that always has the digits the model can write."""
    percent = round(100 * (right + 0.5) / (total + 1))
    return min(HIGHEST, max(LOWEST, percent))


@torch.no_grad()
def certainties(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    size: int = 128,
) -> list[float]:
    """The log probability of the least certain token of each answer, up to its confidence."""
    shortened = [(prompt, answer.split(CONFIDENCE_FIELD)[0]) for prompt, answer in pairs]
    documents = encode(tokenizer, shortened, answer_ends=False)
    result: list[float] = []
    for start in range(0, len(documents), size):
        tokens, targets = collate(documents[start : start + size], tokenizer.pad_token_id)
        scores = model(input_ids=tokens, use_cache=False).logits[:, :-1].log_softmax(-1)
        wanted = targets[:, 1:]
        chosen = scores.gather(2, wanted.clamp(min=0)[:, :, None])[:, :, 0]
        result.extend(chosen.masked_fill(wanted < 0, 0.0).min(dim=1).values.tolist())
    return result


def collect(
    role: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int
) -> list[Rollout]:
    """Answers to new questions of the train split: half of them from the role's own categories."""
    home = problems("train", QUESTIONS // 2, seed=seed + 5000, categories=DOMAINS[role])
    asked: list[Problem] = [*home, *problems("train", QUESTIONS // 2, seed=seed + 6000)]
    texts = generate(model, tokenizer, [question_block(problem) for problem in asked])
    kept = [
        (problem, text, reply)
        for problem, text, reply in zip(asked, texts, replies_of(texts, asked), strict=True)
        if reply is not None
    ]
    pairs = [(chat_prompt(question_block(problem)), text) for problem, text, _ in kept]
    sure = certainties(model, tokenizer, pairs)
    return [
        Rollout(
            prompt,
            reply.reasoning,
            reply.answer,
            is_right(reply, problem),
            certainty,
            problem.category if problem.category in DOMAINS[role] else "away",
        )
        for (problem, _, reply), (prompt, _), certainty in zip(kept, pairs, sure, strict=True)
    ]


def with_confidence(rollouts: Sequence[Rollout]) -> list[tuple[str, str]]:
    """The same answers with the accuracy of their bin (group and certainty) as confidence."""
    groups: dict[str, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        groups[rollout.group].append(rollout)
    pairs = []
    for group in groups.values():
        ordered = sorted(group, key=lambda rollout: rollout.certainty)
        for index in range(BINS):
            part = ordered[len(ordered) * index // BINS : len(ordered) * (index + 1) // BINS]
            confidence = as_confidence(sum(rollout.right for rollout in part), len(part))
            pairs += [(r.prompt, reply_json(r.reasoning, r.answer, confidence)) for r in part]
    return pairs


def calibrate(role: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
    """Teach the measured confidence, while the rest of the answer stays as it was."""
    rng = random.Random(f"calibration-{role}-{seed}")
    own = with_confidence(collect(role, model, tokenizer, seed))
    rehearsal = [
        (chat_prompt(question_block(p)), specialist_reply(role, p, rng).split(CONFIDENCE_FIELD)[0])
        for p in training_problems(role, len(own), seed + 1)
    ]
    documents = encode(tokenizer, own, last=TAIL) + encode(tokenizer, rehearsal, answer_ends=False)
    source = batches(documents, BATCH, tokenizer.pad_token_id, seed)
    fit(model, source, STEPS, RATE, muon=False, name=f"{role} confidence", every=STEPS)
