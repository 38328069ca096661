"""The longest request of a run: a bound that no request of an agent exceeds, found without tokenizing all.

The engine is loaded for it instead of the whole context of the model, which saves memory for the KV cache.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orch_local.plan.plans import AgentPlan
from orch_local.prompts.tasks import Task, analysis_schema
from orch_local.records import Question
from orch_local.run.generating import PromptWriter

LOOKED_AT = 100
"""Questions whose prompts are tokenized, the largest ones."""
_ROUND = 1024
_AROUND = 16
"""Bytes around a text, as the label before a choice."""
_AROUND_ANALYSIS = 200
"""Bytes of an analysis besides its reasoning: name, answer, confidence, labels ruled out."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How an agent is asked."""

    prompts: PromptWriter
    task: Callable[[Question], Task]
    more_tokens: int = 0
    """What its prompts may be longer than those of ``task``, as where the analyses to merge are not known."""


def longest_request(asking: Asking, questions: Sequence[Question]) -> int:
    """Tokens of the longest request, prompt and answer together, rounded up to whole 1,024.

    The prompts of the largest questions are tokenized. For all others the bound is their size in bytes, since
    no token is shorter than a byte.
    """
    largest = heapq.nlargest(LOOKED_AT, questions, key=size)
    longest = overhead = 0
    for question in (*largest, *_with_largest_budget(asking, questions)):
        task = asking.task(question)
        prompt = asking.prompts.prompt(task)
        behind = _behind(asking.prompts, task)
        around = len(asking.prompts.text(task).encode("utf-8", "replace")) - size(question)
        longest = max(longest, len(prompt) + behind)
        overhead = max(overhead, around + behind)
    if len(questions) > len(largest):
        longest = max(longest, size(largest[-1]) + overhead)
    return -(-(longest + asking.more_tokens) // _ROUND) * _ROUND


def _with_largest_budget(asking: Asking, questions: Sequence[Question]) -> Iterator[Question]:
    """A question whose answer may hold all of Unicode, where there is one: it has the larger budget."""
    wide = (question for question in questions if asking.task(question).schema.charset == "unicode")
    yield from itertools.islice(wide, 1)


def _behind(prompts: PromptWriter, task: Task) -> int:
    """The most tokens behind a prompt: a thought, and an answer with its whole budget.

    ``PromptWriter.needed`` asks for less where the budget is seldom used up, but with less room such an
    answer would be cut where another run did not cut it.
    """
    budget = prompts.budget(task)
    return prompts.needed(task, []) + budget - min(budget, task.schema.enough_tokens)


def size(question: Question) -> int:
    """Bytes of all text of a question that reaches its prompt, with what a template puts around it."""
    examples = (
        text for one in question.examples for text in (one.text, *one.choices, one.answer, one.rationale)
    )
    return sum(len(text.encode("utf-8", "replace")) + _AROUND for text in (*question.texts, *examples))


def panel_tokens(questions: Sequence[Question], members: Sequence[AgentPlan]) -> int:
    """The most that a merge agent reads of so many analyses: no token is shorter than a byte."""
    return sum(
        member.answer.reasoning_chars * _bytes_per_character(questions, member) + _AROUND_ANALYSIS
        for member in members
    )


def _bytes_per_character(questions: Sequence[Question], member: AgentPlan) -> int:
    """Of a reasoning in JSON: ASCII with escapes, or with \\u2028 where it may hold all of Unicode."""
    charsets = (analysis_schema(question, member.answer).charset for question in questions)
    return 6 if any(charset == "unicode" for charset in charsets) else 2


def depends_on_length(text: Mapping[str, Any]) -> bool:
    """Whether a model computes otherwise where it is loaded for a shorter context.

    vLLM takes the short or the long factors of LongRoPE by that length
    (model_executor/layers/rotary_embedding/phi3_long_rope_scaled_rope.py).

    Parameters
    ----------
    text:
        The part of config.json about the language model.
    """
    scaling = text.get("rope_scaling") or text.get("rope_parameters") or {}
    kind = scaling.get("rope_type") or scaling.get("type") if isinstance(scaling, Mapping) else None
    return kind in ("longrope", "su")
