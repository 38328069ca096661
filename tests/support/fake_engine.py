"""An engine that is a table: what each prompt comes to is written down; and what goes with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from orch_local.config.blocks import AnswerConfig
from orch_local.config.model_configs import ModelConfig
from orch_local.engines.base import Attention, Completion, EngineSettings, Finish, Request, RequestError
from orch_local.plan.plans import AgentPlan, Thinking
from orch_local.prompts.template import Message

GOOD = '{"answer":"B","confidence":80}'
ANSWER = AnswerConfig(reasoning_chars=0, eliminated=False)
CONTEXT = 10_000


@dataclass(frozen=True, slots=True)
class Reply:
    """What becomes of one request."""

    text: str = GOOD
    finish: Finish = Finish.STOP
    error: str = ""
    refused: str = ""
    """The request is refused with this message when it is submitted."""
    steps: int = 1
    """Steps until it is finished."""
    cached: int = 0
    shares: Mapping[str, float] | None = None
    """Log-probabilities of single characters at the place of the last label of the text."""
    do: Callable[[], None] | None = None
    """Called in the step that computes it; may raise, hang or kill."""


@dataclass
class FakeEngine:
    """Implements :class:`orch_local.engines.base.Engine`; one token is one character."""

    replies: Mapping[str, Reply] = field(default_factory=dict)
    """By id of the request, and of ``id + "/2"`` for a second request of that id."""
    capacity: int = 2
    attention: Attention = field(default_factory=Attention)
    submitted: list[Request] = field(default_factory=list)
    queue: dict[str, tuple[Request, Reply, int]] = field(default_factory=dict)
    """What waits or is computed: request, reply, steps left."""
    most: int = 0
    """Longest queue there ever was."""
    starved: int = 0
    """Steps that began with less in the queue than is computed side by side."""

    def submit(self, request: Request) -> None:
        """See the protocol."""
        assert request.id not in self.queue, "the id is in use"
        times = sum(before.id == request.id for before in self.submitted)
        reply = self.replies.get(f"{request.id}/2" if times else request.id, Reply())
        self.submitted.append(request)
        if reply.refused:
            raise RequestError(reply.refused)
        self.queue[request.id] = (request, reply, reply.steps)
        self.most = max(self.most, len(self.queue))

    def step(self) -> list[Completion]:
        """Advance the first ``capacity`` of the queue; what finishes comes out last in, first out."""
        self.starved += len(self.queue) < self.capacity
        running = list(self.queue)[: self.capacity]
        finished = []
        for name in running:
            request, reply, left = self.queue[name]
            if reply.do:
                reply.do()
            self.queue[name] = (request, reply, left - 1)
            if left == 1:
                del self.queue[name]
                finished.append(completion(request, reply))
        return finished[::-1]

    def close(self) -> None:
        """See the protocol."""


def completion(request: Request, reply: Reply) -> Completion:
    """The completion that a reply makes of a request; a text longer than allowed is cut."""
    ids = tuple(map(ord, reply.text))
    finish = reply.finish
    if len(ids) > request.max_tokens:
        ids, finish = ids[: request.max_tokens], Finish.LENGTH
    logprobs: tuple[Mapping[int, float], ...] = ()
    if request.logprobs:
        logprobs = tuple(_alternatives(reply, place) for place in range(len(ids)))
    return Completion(request.id, ids, finish, logprobs, reply.cached, reply.error)


def _alternatives(reply: Reply, place: int) -> Mapping[int, float]:
    answer = reply.text.rfind('"answer":"') + len('"answer":"')
    if reply.shares is not None and place == answer:
        return {ord(label): share for label, share in reply.shares.items()}
    return {ord(reply.text[place]): 0.0}


CLOSE = "\u2063"
"""Stands for </think>, as one token."""


class CharTokenizer:
    """One token is one character; a chat is its messages one behind the other."""

    def __init__(self, opens: str = "") -> None:
        self._opens = opens

    @property
    def controls(self) -> dict[int, AddedToken]:
        return {ord(CLOSE): AddedToken("</think>")}

    def before(self, ids: Sequence[int], text: str) -> list[int]:
        return list(map(ord, "".join(map(chr, ids)).partition(text)[0]))

    def trusted_ids(self, text: str) -> list[int]:
        return list(map(ord, text.replace("</think>", CLOSE)))

    def encode(self, pieces: Sequence[str]) -> list[int]:
        return list(map(ord, "".join(pieces)))

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids)).replace(CLOSE, "")

    def token_text(self, index: int) -> str:
        return chr(index)

    def chat(self, messages: Sequence[Message], options: dict[str, Any]) -> str:
        return "".join(f"<{message.role}>{message.content}" for message in messages) + "<bot>" + self._opens


def agent_plan(thinking: int | None = None, max_tokens: int | None = None, **model: Any) -> AgentPlan:
    return AgentPlan(
        name="solver",
        kind="analysis",
        model=ModelConfig(name="m", think_open="<think>", think_close="</think>\n", **model),
        settings=EngineSettings("vllm", Path(), "cpu", "guidance", "float32", CONTEXT),
        template="[user]\n{{ question }}{{ choices }}",
        answer=ANSWER,
        thinking=Thinking(tokens=thinking, open="<think>", close="</think>\n") if thinking else None,
        max_tokens=max_tokens,
        spec="0" * 32,
        spec_content={},
    )
