"""What a run will ask and need, worked out without loading a model: the content of `orch-local plan`."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from orch_local.benchmarks.gold_checks import GoldFacts, gold_facts
from orch_local.models.folders import ModelFolder, open_model_folder
from orch_local.placement.estimates import Need
from orch_local.placement.machine import Machine
from orch_local.placement.replicas import Placement
from orch_local.plan.dtypes import choose_dtype
from orch_local.plan.needs import need_of
from orch_local.plan.plans import AgentPlan
from orch_local.run.planning import (
    PlannedRun,
    machine_for,
    placed,
    rows_in_all,
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
    """Estimate memory and time of every agent, and place them on a machine.

    Without a ``machine`` it is this one; for another, ``planned`` comes from
    :func:`orch_local.run.planning.on_machine`.

    Raises
    ------
    InputError
        If a model fits on no device of the machine.
    """
    plan, there = planned.plan, machine or machine_for(planned.plan)
    agents = tuple(_forecast_agent(agent, planned, there) for agent in plan.workers)
    sample = len(planned.samples[plan.agents[0].name].lengths)
    return Forecast(
        planned, agents, sample, placed(plan, there), machine is None, gold_facts(planned.questions)
    )


def _forecast_agent(agent: AgentPlan, planned: PlannedRun, machine: Machine) -> AgentForecast:
    prompts, folder = planned.samples[agent.name], open_model_folder(agent.model)
    rows = rows_in_all(planned.plan)[agent.name]
    return AgentForecast(
        plan=agent,
        folder=folder,
        shortest=min(prompts.lengths),
        median=round(median(prompts.lengths)),
        longest=max(prompts.lengths),
        budget=prompts.budget,
        too_long=sum(tokens > agent.settings.max_model_len for tokens in prompts.needed),
        need=need_of(agent, planned.plan, rows, machine),
        dtype_reason=choose_dtype(agent.model, agent.settings, folder).reason,
        first_prompt=prompts.first_prompt,
    )
