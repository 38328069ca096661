"""What the agents of a plan need, by the estimates of the placement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orch_local.models.folders import open_model_folder
from orch_local.placement.estimates import UNKNOWN_TOKENS, Load, LoadedModel, Need, job, need
from orch_local.placement.machine import Machine
from orch_local.placement.replicas import AgentJob
from orch_local.plan.plans import AgentPlan, Plan


def need_of(agent: AgentPlan, plan: Plan, rows: int, machine: Machine) -> Need:
    """What an agent of a plan needs for so many rows."""
    tokens = plan.tokens.get(agent.name)
    prompt, generated = (tokens.prompt, tokens.generated) if tokens else UNKNOWN_TOKENS
    model = LoadedModel(agent.model, agent.settings, open_model_folder(agent.model))
    return need(model, Load(rows, round(rows * prompt), round(rows * generated)), machine)


def graphs(agent: AgentPlan, plan: Plan, machine: Machine) -> int | None:
    """For how many sequences CUDA graphs are worth their capture; ``None`` for as many as may run at once.

    Twice as many as the plan has at once, for this agent or another that the loaded model can serve, since
    rows may be shorter than those of the sample; and rounded up to a power of two.
    """
    if agent.settings.device != "cuda" or agent.settings.name != "vllm":
        return None
    engine = next(one.engine for one in plan.workers if one.name == agent.name)
    served = [one for one in plan.workers if one.engine == engine]
    served = [one.model_copy(update={"settings": agent.settings}) for one in served]
    at_once = max(need_of(one, plan, plan.questions.count, machine).sequences for one in served)
    most = 1 << (2 * at_once - 1).bit_length()
    return most if most < agent.settings.side_by_side else None


def jobs(plan: Plan, rows: Mapping[str, int], machine: Machine) -> tuple[list[AgentJob], AgentJob | None]:
    """The agents that have rows to generate, and the merge agent if it has, for ``placement.place``.

    Parameters
    ----------
    rows:
        By agent name, how many are missing.
    """
    found = [_job(agent, plan, rows[agent.name], machine) for agent in plan.agents if rows.get(agent.name)]
    merger = plan.merger
    merge = _job(merger, plan, rows[merger.name], machine) if merger and rows.get(merger.name) else None
    return found, merge


def _job(agent: AgentPlan, plan: Plan, rows: int, machine: Machine) -> AgentJob:
    model = LoadedModel(agent.model, agent.settings, open_model_folder(agent.model))
    return replace(job(agent.name, model, need_of(agent, plan, rows, machine)), engine=agent.engine)
