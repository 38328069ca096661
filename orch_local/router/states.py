"""A router's state as a file, and the check that it belongs to the agents of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orch_local.config.blocks import RouterConfig
from orch_local.errors import ConfigError, InputError
from orch_local.plan.plans import AgentPlan, RouterPlan
from orch_local.plan.profiles import Profile, load_profile
from orch_local.records import Question, digest
from orch_local.router.averages import RouterState
from orch_local.store.store import read_json, write_json

_AGAIN = "make one with `orch-local calibrate RUN --out FILE`"
_ABOUT = ("model", "prompt", "chat", "answer", "decoding")


class StateFile(BaseModel):
    """The content of a state file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(default=1, ge=1, le=1)
    agents: dict[str, str]
    """Name -> digest of what makes its answers, the environment apart; in agent order."""
    run_digest: str
    """Digest of the run that taught it."""
    alpha: float
    profile: str
    """Digest of the profile its seconds and costs come from; empty where tokens were counted."""
    questions: tuple[str, ...]
    """Ids of the questions of the calibration split; no run may be routed by what it taught about itself."""
    state: dict[str, Any]


def write_state(path: Path, state: StateFile) -> None:
    """Write a state file.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    values = state.model_dump(mode="json")
    write_json(path, {**values, "sha256": digest(values)})


def check_files(config: RouterConfig) -> None:
    """Check the files of a router as far as that needs no questions and no models.

    Raises
    ------
    ConfigError, StoreError
        If state or profile are missing or not valid.
    """
    if config.state:
        _read_state(config.state)
    if config.profile:
        load_profile(config.profile)


def plan_router(
    config: RouterConfig, agents: Sequence[AgentPlan], questions: Iterable[Question]
) -> RouterPlan:
    """Freeze the files that a router needs into its plan.

    Raises
    ------
    ConfigError
        If state or profile are not there, or are not of these agents.
    InputError
        If the state was learnt from questions of this run.
    """
    profile = load_profile(config.profile) if config.profile else None
    names = tuple(agent.name for agent in agents)
    check_profile(profile, names, str(config.profile))
    if config.state is None:
        return RouterPlan(profile=profile)
    file = _read_state(config.state)
    if tuple(file.agents) != names:
        message = f"it was learnt with the agents {', '.join(file.agents)}; this run has {', '.join(names)}"
        raise ConfigError(message, where=str(config.state), hint=_AGAIN)
    others = [agent.name for agent in agents if file.agents[agent.name] != agent_identity(agent)]
    if others:
        message = f"it was learnt with another model, prompt or answer block of {', '.join(others)}"
        raise ConfigError(message, where=str(config.state), hint=_AGAIN)
    if file.profile != profile_digest(profile):
        message = "its seconds and costs are of another profile than `router.profile`"
        raise ConfigError(
            message, where=str(config.state), hint="calibrate with `--profile` of the same file"
        )
    known = set(file.questions)
    asked_before = sum(question.id in known for question in questions)
    if asked_before:
        raise InputError(
            f"{asked_before:,} questions of this run are in the calibration split of its router",
            where=str(config.state),
            hint="calibrate on other questions: a state that has seen an answer proves nothing",
        )
    return RouterPlan(start=file.state, profile=profile)


def _read_state(path: Path) -> StateFile:
    values = read_json(path, _AGAIN)
    try:
        seal = values.pop("sha256", None)
        file = StateFile.model_validate(values)
        if seal != digest(values):
            raise ValueError("it was edited after it was written: its SHA-256 is not the one in it")
        if RouterState.from_dict(file.state).agents != len(file.agents):
            raise ValueError("its averages are of another number of agents")
    except (ValidationError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"is no state of a router: {reason}", where=str(path), hint=_AGAIN) from None
    return file


def check_profile(profile: Profile | None, agents: tuple[str, ...], path: str) -> None:
    missing = [name for name in agents if profile and name not in profile.agents]
    if missing:
        message = f"the profile has no agent {', '.join(missing)}"
        raise ConfigError(message, where=path, hint="measure one with `orch-local profile`")


def agent_identity(agent: AgentPlan) -> str:
    """What of a spec a state is about: another machine or engine does not change what an agent knows."""
    return digest({name: agent.spec_content.get(name) for name in _ABOUT})


def profile_digest(profile: Profile | None) -> str:
    return digest(profile.model_dump(mode="json")) if profile else ""
