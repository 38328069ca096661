"""Training of a specialist, and the calibration of its confidence."""

from __future__ import annotations

import random

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from orch_local.demo.benchmark import CATEGORIES, DOMAINS, Problem, draw, problems

from .fitting import Report, batches, encode, fit
from .lookup import lookup_batches
from .rollout import accuracy_table, generate, is_right, replies_of
from .texts import chat_prompt, question_block, specialist_reply

LOOKUP_STEPS, LOOKUP_SHUFFLED, LOOKUP_RATE = 120, 80, 2e-3
STEPS = {"quant": 950, "chrono": 320, "verbal": 650}
BATCH, RATE = 32, 3e-3
AWAY_SHARE = 0.15  # of the training questions come from the other specialists' categories


def training_problems(role: str, n: int, seed: int) -> list[Problem]:
    """Questions of the train split, mostly from a role's own categories."""
    rng = random.Random(f"specialist-{role}-{seed}")
    away = [category for category in CATEGORIES if category not in DOMAINS[role]]
    chosen = [rng.choice(away if rng.random() < AWAY_SHARE else DOMAINS[role]) for _ in range(n)]
    return [draw(rng, category, "train") for category in chosen]


def home_report(role: str, tokenizer: PreTrainedTokenizerBase, n: int) -> Report:
    """What to print while a specialist trains: how often label and value are right, on dev questions."""
    asked = list(problems("dev", n, seed=1, categories=DOMAINS[role]))
    users = [question_block(problem) for problem in asked]

    def report(model: PreTrainedModel) -> dict[str, object]:
        replies = replies_of(generate(model, tokenizer, users), asked)
        label_right = [is_right(reply, problem) for reply, problem in zip(replies, asked, strict=True)]
        value_right = [
            reply is not None and f"so {problem.choices[problem.gold]} (" in reply.reasoning
            for reply, problem in zip(replies, asked, strict=True)
        ]
        return {"label": accuracy_table(label_right, asked), "value": accuracy_table(value_right, asked)}

    return report


def train_specialist(
    role: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int
) -> None:
    """Look-ups first, then the role's questions."""
    steps = STEPS[role]
    rng = random.Random(f"guesses-{role}-{seed}")
    lookups = lookup_batches(tokenizer, seed, LOOKUP_SHUFFLED)
    fit(model, lookups, LOOKUP_STEPS, LOOKUP_RATE, muon=False, name=f"{role} look-up", every=60)
    asked = training_problems(role, steps * BATCH, seed)
    pairs = [(chat_prompt(question_block(p)), specialist_reply(role, p, rng)) for p in asked]
    source = batches(encode(tokenizer, pairs), BATCH, tokenizer.pad_token_id, seed)
    report = home_report(role, tokenizer, 90)
    fit(model, source, steps, RATE, name=role, report=report, every=400)
