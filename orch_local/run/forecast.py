"""What a run will ask and need, worked out without loading a model: the content of `orch-local plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from orch_local.benchmarks.gold_checks import GoldFacts, gold_facts
from orch_local.models.folders import ModelFolder, open_model_folder
from orch_local.placement.estimates import Need
from orch_local.placement.machine import Machine
from orch_local.placement.replicas import Placement
from orch_local.plan.dtypes import choose_dtype
from orch_local.plan.needs import need_of
from orch_local.plan.plans import AgentPlan, Plan
from orch_local.records import Question
from orch_local.run.planning import (
    PlannedRun,
    machine_for,
    placed,
    rows_in_all,
    sample_of,
    sampled_prompts,
)


@dataclass(frozen=True, slots=True)
class AgentForecast:
    """One agent of a plan."""

    plan: AgentPlan
    folder: ModelFolder
    shortest: int
    """Prompt tokens over the sample."""
    median: int
    longest: int
    budget: int
    """Most tokens an answer can have, a thought included."""
    too_long: int
    """Prompts of the sample that do not fit the context with their answer."""
    need: Need
    dtype_reason: str
    """Why it has its dtype here, to be read behind that; empty where nothing else came into question."""
    first_prompt: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """The content of `orch-local plan`."""

    planned: PlannedRun
    agents: tuple[AgentForecast, ...]
    """The agents and, behind them, the merge agent."""
    sample: int
    placement: Placement
    here: bool
    """Whether it is for this machine."""
    golds: GoldFacts


def forecast(planned: PlannedRun, machine: Machine | None = None) -> Forecast:
    """Render a sample of the prompts, estimate memory and time of every agent, place them on a machine.

    Without a ``machine`` it is this one; for another, ``planned`` comes from
    :func:`orch_local.run.planning.on_machine`.

    Raises
    ------
    InputError
        If a model fits on no device of the machine.
    """
    sample = sample_of(planned.questions)
    there = machine or machine_for(planned.plan)
    agents = tuple(_forecast_agent(agent, planned.plan, sample, there) for agent in planned.plan.workers)
    placement, golds = placed(planned.plan, there), gold_facts(planned.questions)
    return Forecast(planned, agents, len(sample), placement, machine is None, golds)


def _forecast_agent(
    agent: AgentPlan, plan: Plan, sample: Sequence[Question], machine: Machine
) -> AgentForecast:
    asked, folder = sampled_prompts(agent, plan, sample), open_model_folder(agent.model)
    return AgentForecast(
        plan=agent,
        folder=folder,
        shortest=min(asked.lengths),
        median=round(median(asked.lengths)),
        longest=max(asked.lengths),
        budget=asked.budget,
        too_long=sum(tokens > agent.settings.max_model_len for tokens in asked.needed),
        need=need_of(agent, plan, rows_in_all(plan)[agent.name], machine),
        dtype_reason=choose_dtype(agent.model, agent.settings, folder).reason,
        first_prompt=asked.first_prompt,
    )
