"""A router's state as a file: learnt from a finished run over a calibration split, then frozen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orch_local.config.blocks import RouterConfig
from orch_local.errors import ConfigError, InputError, StoreError
from orch_local.merge.panels import Panels
from orch_local.plan.files import load_plan
from orch_local.plan.plans import AgentPlan, RouterPlan
from orch_local.plan.profiles import Profile, load_profile
from orch_local.records import Question, digest
from orch_local.results.finished import recorded_digest
from orch_local.router.averages import RouterState
from orch_local.router.feedback import Meter
from orch_local.store.questions import read_questions
from orch_local.store.store import RunFolder, Store, read_json, write_json

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


def calibrate(folder: RunFolder, alpha: float, prior: float, profile: Path | None) -> StateFile:
    """Learn a state from a finished run whose agents were all asked; needs no engine.

    Raises
    ------
    InputError
        If the run was routed, or none of its questions has a gold answer.
    StoreError
        If it is not finished, or rows are missing.
    """
    plan, questions = load_plan(folder), read_questions(folder.questions)
    if plan.config.router:
        hint = "run the calibration split without `router`, so that every agent is asked"
        raise InputError("this run was routed itself", where=str(folder.root), hint=hint)
    run_digest = recorded_digest(folder)
    measured = load_profile(profile) if profile else None
    _check_profile(measured, plan.names, str(profile))
    meter = Meter(plan.model_copy(update={"router": RouterPlan(profile=measured)}))
    panels, state, gold = Panels(plan, Store(plan.store)), RouterState(len(plan.agents), prior), 0
    for question in questions:
        rows = panels.of(question).analyses
        if any(row is None for row in rows):
            hint = "run the same command again to generate them anew"
            raise StoreError(
                f"analyses of question {question.id} are missing", where=str(plan.store), hint=hint
            )
        signals = [meter.signal(place, row, question.gold) for place, row in enumerate(rows) if row]
        state.observe(alpha, question.category, signals)
        gold += question.gold is not None
    if not gold:
        raise InputError("no question of this run has a gold answer to learn from", where=str(folder.root))
    return StateFile(
        agents={agent.name: _identity(agent) for agent in plan.agents},
        run_digest=run_digest,
        alpha=alpha,
        profile=_digest_of(measured),
        questions=tuple(question.id for question in questions),
        state=state.to_dict(),
    )


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
    """Read the files of a router, for what can be told before there are questions and models.

    Raises
    ------
    ConfigError, StoreError
        If state or profile are not there, or are none.
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
    _check_profile(profile, names, str(config.profile))
    if config.state is None:
        return RouterPlan(profile=profile)
    file = _read_state(config.state)
    if tuple(file.agents) != names:
        told = f"it was learnt with the agents {', '.join(file.agents)}; this run has {', '.join(names)}"
        raise ConfigError(told, where=str(config.state), hint=_AGAIN)
    others = [agent.name for agent in agents if file.agents[agent.name] != _identity(agent)]
    if others:
        told = f"it was learnt with another model, prompt or answer block of {', '.join(others)}"
        raise ConfigError(told, where=str(config.state), hint=_AGAIN)
    if file.profile != _digest_of(profile):
        told = "its seconds and costs are of another profile than `router.profile`"
        raise ConfigError(told, where=str(config.state), hint="calibrate with `--profile` of the same file")
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


def _check_profile(profile: Profile | None, agents: tuple[str, ...], path: str) -> None:
    lacking = [name for name in agents if profile and name not in profile.agents]
    if lacking:
        told = f"the profile has no agent {', '.join(lacking)}"
        raise ConfigError(told, where=path, hint="measure one with `orch-local profile`")


def _identity(agent: AgentPlan) -> str:
    """What of a spec a state is about: another machine or engine does not change what an agent knows."""
    return digest({name: agent.spec_content.get(name) for name in _ABOUT})


def _digest_of(profile: Profile | None) -> str:
    return digest(profile.model_dump(mode="json")) if profile else ""
