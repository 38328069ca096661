"""The fake engine with scripts by request, a tokenizer of characters and an agent, for tests of policy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from orch_local.config.blocks import AnswerConfig
from orch_local.config.model_configs import ModelConfig
from orch_local.engines.base import EngineSettings, Finish, Request, RequestError
from orch_local.engines.fake import FakeEngine
from orch_local.engines.fake_answers import Reply
from orch_local.plan.plans import AgentPlan, Thinking
from orch_local.prompts.template import Message

GOOD = '{"answer":"B","confidence":80}'
ANSWER = AnswerConfig(reasoning_chars=0, eliminated=False)
CONTEXT = 10_000


@dataclass(frozen=True, slots=True)
class Script:
    """What becomes of one request; one token is one character."""

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

    def reply(self) -> Reply:
        """The reply of the fake engine."""
        left = itertools.count(self.steps - 1, -1)

        def ready() -> bool:
            if self.do:
                self.do()
            return next(left) == 0

        logprobs = tuple(self._alternatives(place) for place in range(len(self.text)))
        return Reply(tuple(map(ord, self.text)), self.finish, logprobs, self.cached, self.error, ready)

    def _alternatives(self, place: int) -> Mapping[int, float]:
        answer = self.text.rfind('"answer":"') + len('"answer":"')
        if self.shares is not None and place == answer:
            return {ord(label): share for label, share in self.shares.items()}
        return {ord(self.text[place]): 0.0}


class ScriptedEngine(FakeEngine):
    """The fake engine, with what comes of a request written down by its id, and what it was asked noted.

    Parameters
    ----------
    scripts:
        By id of the request, and of ``id + "/2"`` for a second request of that id.
    """

    def __init__(self, scripts: Mapping[str, Script] | None = None, capacity: int = 2) -> None:
        super().__init__(self._scripted, capacity, tick_s=0.0)
        self.scripts = scripts or {}
        self.submitted: list[Request] = []
        self.most = 0
        """Longest queue there ever was."""

    def submit(self, request: Request) -> None:
        """See the protocol."""
        super().submit(request)
        self.most = max(self.most, len(self.queue))

    def _scripted(self, request: Request) -> Reply:
        again = any(before.id == request.id for before in self.submitted)
        script = self.scripts.get(f"{request.id}/2" if again else request.id, Script())
        self.submitted.append(request)
        if script.refused:
            raise RequestError(script.refused)
        return script.reply()


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
