"""The frozen plan of a run: its agents with their specs, its questions and its router.

A plan is everything that a worker needs; workers read it from ``run.json``, never the run file again.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from orch_local.config.blocks import AnswerConfig
from orch_local.config.model_configs import ModelConfig
from orch_local.config.run_files import RunConfig
from orch_local.engines.base import EngineSettings
from orch_local.engines.registry import obstacles
from orch_local.plan.fingerprint import Fact
from orch_local.plan.profiles import Profile
from orch_local.prompts.template import Template, parse_template
from orch_local.records import digest
from orch_local.store.store import Spec

MERGE = "merge"
"""Name of the merge agent in plans, costs and logs; no agent may have it."""


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True
    )


class Thinking(_Frozen):
    """How a reasoning model thinks before its answer."""

    tokens: int
    open: str
    close: str


class AgentPlan(_Frozen):
    """One agent (or the merge agent), with everything its worker needs."""

    name: str
    kind: Literal["analysis", "merge"]
    model: ModelConfig
    settings: EngineSettings
    template: str
    answer: AnswerConfig
    thinking: Thinking | None
    max_tokens: int | None
    notes: tuple[str, ...] = ()
    """What was decided about its prompts, in words for the user; no part of the identity."""
    cache_reason: str = ""
    """Why its prefix cache is on or off, where that is a choice; no part of the identity."""
    spec: str
    spec_content: dict[str, Any]

    @property
    def parsed_template(self) -> Template:
        """The prompt template, parsed."""
        return parse_template(self.template, f"template of {self.name}")

    @property
    def full_spec(self) -> Spec:
        """The spec with its content."""
        return Spec(self.spec_content, self.spec)

    @property
    def engine_key(self) -> str:
        """The same for agents whose engines load alike, however they are asked: see `run/compile_cache.py`.

        What is compiled depends on the model, the arguments and the environment of the engine, and on the
        context that it is loaded for.
        """
        facts = {name: self.spec_content[name] for name in ("model", "engine", "environment")}
        return digest({**facts, "loaded_len": self.settings.loaded_len})[:32]

    @property
    def environment(self) -> dict[str, Fact]:
        """The environment of its engine, see :mod:`orch_local.plan.fingerprint`, when the plan was made."""
        return dict(self.spec_content["environment"])

    @property
    def engine(self) -> str:
        """Equal for agents of a plan that one loaded model can serve, whatever their prompts and answers."""
        return digest({**asdict(self.settings), "model_path": str(self.settings.model_path), "longest": None})

    @property
    def obstacles(self) -> tuple[str, ...]:
        """Why its bytes are not promised, by the environment of this process; empty where they are."""
        return obstacles(self.settings)


class QuestionsPlan(_Frozen):
    """Which questions a run asks."""

    count: int
    bad_rows: int
    digest: str
    categories: int = 0
    """Categories that could be asked before `per_category` and `limit`; 0 in plans of earlier versions."""


class TokensPerRow(_Frozen):
    """What a row of an agent costs, on average over a sample of the questions."""

    prompt: float
    generated: float
    """Not measured: an answer is taken to use half of its bound."""


class RouterPlan(_Frozen):
    """The files that a router needs, as they were when the plan was made."""

    start: dict[str, Any] | None = None
    """State to begin with; see :class:`orch_local.router.averages.RouterState`."""
    profile: Profile | None = None


class Plan(_Frozen):
    """Everything a run is made of."""

    version: str
    config: RunConfig
    agents: tuple[AgentPlan, ...]
    merger: AgentPlan | None
    router: RouterPlan | None = None
    questions: QuestionsPlan
    store: Path
    environment: dict[str, Fact]
    """What is common to the environments of all workers."""
    tokens: dict[str, TokensPerRow] = {}
    """By agent; what the placement is made from. No part of the identity."""

    @property
    def names(self) -> tuple[str, ...]:
        """Agent names in order."""
        return tuple(agent.name for agent in self.agents)

    @property
    def workers(self) -> tuple[AgentPlan, ...]:
        """The agents and, behind them, the merge agent."""
        return (*self.agents, self.merger) if self.merger else self.agents

    def identity(self) -> dict[str, str]:
        """What makes two plans the same run, by field.

        Paths are no part of it, and batch sizes only where bytes depend on them.
        """
        fields = {"questions": self.questions.digest, "agents": ", ".join(self.names)}
        fields |= {f"agent {agent.name}": agent.spec for agent in self.agents}
        rules = self.config.merge.model_dump(include={"policy", "when", "candidates", "names", "quorum"})
        fields |= {f"merge.{name}": str(value) for name, value in rules.items()}
        if self.config.router:
            rules = self.config.router.model_dump(mode="json", exclude={"state", "profile"})
            fields |= {f"router.{name}": str(value) for name, value in rules.items()}
            fields["router files"] = digest(self.router.model_dump(mode="json")) if self.router else ""
        return fields | ({"merge agent": self.merger.spec} if self.merger else {})
