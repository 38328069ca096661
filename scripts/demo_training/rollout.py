"""Greedy answers of a model to many questions, and their scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from orch_local.demo.benchmark import Problem

from .texts import ANSWER_FIELD, CONFIDENCE_FIELD, Reply, chat_prompt, parse_reply

MAX_NEW_TOKENS = 48


class ConfidenceAfterLabel(LogitsProcessor):
    """Nothing but the confidence field may follow the label (the pipeline's grammar allows nothing else)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.answer = tokenizer.convert_tokens_to_ids(ANSWER_FIELD)
        self.confidence = tokenizer.convert_tokens_to_ids(CONFIDENCE_FIELD)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Rule out every other token where the token before the last one opened the answer."""
        rows = input_ids[:, -2] == self.answer
        scores[rows] = -torch.inf
        scores[rows, self.confidence] = 0.0
        return scores


@torch.no_grad()
def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, users: Sequence[str], size: int = 256
) -> list[str]:
    """The greedy answer to each user message."""
    model.eval()
    prompts = [chat_prompt(user) for user in users]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        batch = tokenizer(
            [prompts[i] for i in chosen], return_tensors="pt", padding=True, padding_side="left"
        )
        produced = model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            logits_processor=LogitsProcessorList([ConfidenceAfterLabel(tokenizer)]),
        )
        texts = tokenizer.batch_decode(produced[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
        for index, text in zip(chosen, texts, strict=True):
            answers[index] = text
    return answers


def is_right(reply: Reply | None, problem: Problem) -> bool:
    """Whether a reply names the right label."""
    return reply is not None and reply.answer == problem.answer


def replies_of(texts: Sequence[str], problems: Sequence[Problem]) -> list[Reply | None]:
    """The parsed replies to some problems."""
    return [parse_reply(text, problem) for text, problem in zip(texts, problems, strict=True)]


def accuracy_table(right: Sequence[bool], problems: Sequence[Problem]) -> dict[str, float]:
    """Accuracy over all, then by category."""
    by_category: dict[str, list[bool]] = defaultdict(list)
    for ok, problem in zip(right, problems, strict=True):
        by_category[problem.category].append(ok)
    table = {"all": round(sum(right) / len(right), 4)}
    table.update({name: round(sum(values) / len(values), 4) for name, values in by_category.items()})
    return table
