"""The texts the demo models read and write, byte for byte as the pipeline produces them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from orch_local.demo.benchmark import DOMAINS, LABELS, Problem

SPECIALISTS = ("quant", "chrono", "verbal")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
END = "<|im_end|>"
ANSWER_FIELD = '","answer":"'
CONFIDENCE_FIELD = '","confidence":'


@dataclass(frozen=True)
class Reply:
    """A parsed answer of a specialist or of the merge model."""

    reasoning: str
    answer: str
    confidence: int


def chat_prompt(user: str) -> str:
    """One user message under the chat template, ready for the assistant's turn."""
    return f"<|im_start|>user\n{user}{END}\n<|im_start|>assistant\n"


def question_block(problem: Problem) -> str:
    """The question and its labelled choices."""
    lines = [f"{label}) {choice}" for label, choice in zip(LABELS, problem.choices, strict=False)]
    return "\n".join([problem.question, *lines])


def reply_json(reasoning: str, answer: str, confidence: int) -> str:
    """The compact JSON of an answer."""
    fields = {"reasoning": reasoning, "answer": answer, "confidence": confidence}
    return json.dumps(fields, separators=(",", ":"))


def parse_reply(text: str, problem: Problem) -> Reply | None:
    """The parsed answer, or None where the text is not a usable answer."""
    try:
        fields = json.loads(text)
        reply = Reply(fields["reasoning"], fields["answer"], int(fields["confidence"]))
    except (ValueError, KeyError, TypeError):
        return None
    return reply if reply.answer in LABELS[: len(problem.choices)] else None


def merge_block(problem: Problem, replies: Sequence[Reply | None]) -> str:
    """The merge model's user message: the question, then one line for each specialist."""
    lines = [question_block(problem)]
    for number, reply in enumerate(replies, start=1):
        fields: dict[str, object] = {"agent": str(number)}
        if reply is None:
            fields["unusable"] = "truncated"
        else:
            fields.update(reasoning=reply.reasoning, answer=reply.answer, confidence=reply.confidence)
        lines.append(json.dumps(fields, separators=(",", ":")))
    return "\n".join(lines)


def specialist_reply(role: str, problem: Problem, rng: random.Random) -> str:
    """The training answer of a specialist: worked out at home, a guess with low confidence elsewhere."""
    if problem.category in DOMAINS[role]:
        label, steps, confidence = problem.answer, problem.steps, 90
    else:
        guess = rng.randrange(len(problem.choices))
        label, steps, confidence = LABELS[guess], "a guess", 20
    choice = problem.choices[LABELS.index(label)]
    return reply_json(f"{steps}, so {choice} ({label})", label, confidence)


def merge_reply(agent: int, answer: str, confidence: int) -> str:
    """The training answer of the merge model."""
    return reply_json(f"trust {agent} ({answer})", answer, confidence)
