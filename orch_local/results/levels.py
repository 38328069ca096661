"""How far a run's answers are promised to come again: never more than was shown.

==========  =================================================================================
bitwise     every engine is set up to give the same bytes in any batch, and did so whenever
            rows were generated again; on a GPU the first half is vLLM's word
verified    not so by construction, but all rows that were generated again had the same bytes
rules       routing and aggregation are fixed, as in the paper; of the analyses nothing is shown
==========  =================================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import asdict

from orch_local.errors import StoreError
from orch_local.plan.plans import AgentPlan, Plan
from orch_local.records import Level, LevelAssessment
from orch_local.store.evidence import Found, read_evidence
from orch_local.store.store import RunFolder, Store, read_json, write_json

log = logging.getLogger(__name__)


def assess(plan: Plan, unused: Collection[str] = ()) -> LevelAssessment:
    """The level of a run: the weakest among its agents.

    ``unused`` are those that the run has no row of, as a merge agent whose panels all agreed: what is not
    there need not come again.
    """
    store = Store(plan.store)
    found = {agent.name: read_evidence(store, agent.spec) for agent in plan.workers}
    judged = [_judge(agent, found[agent.name]) for agent in plan.workers if agent.name not in unused]
    every = [one for each in found.values() for one in each.evidence]
    return LevelAssessment(
        level=min((level for level, _ in judged), key=list(Level).index, default=Level.RULES),
        generated_again=sum(one.rows for one in every),
        same=sum(one.same for one in every),
        reasons=tuple(reason for _, reason in judged if reason),
        declared=any(is_declared(agent) for agent in plan.workers if agent.name not in unused),
    )


def is_declared(agent: AgentPlan) -> bool:
    """Whether it is vLLM that declares batch invariance, on a GPU, and not our measurement, on a CPU."""
    facts = agent.environment
    return bool(facts["batch_invariant"]) and facts.get("device") == "cuda" and "vllm" in facts


def _judge(agent: AgentPlan, found: Found) -> tuple[Level, str]:
    name, invariant = agent.name, bool(agent.environment["batch_invariant"])
    if "fake" in agent.environment:
        return Level.RULES, f"{name}: its answers come from a table, no model was asked"
    if found.damaged:
        return Level.RULES, f"{name}: evidence is damaged, delete {found.damaged[0]} and verify again"
    rows, same = sum(one.rows for one in found.evidence), sum(one.same for one in found.evidence)
    if same < rows:
        return Level.RULES, f"{name}: {rows - same} of {rows} rows generated again differed"
    if not rows:
        declared = (
            "its batch invariance is declared by vLLM, not measured, and " if is_declared(agent) else ""
        )
        return Level.RULES, f"{name}: {declared}no row was generated again (`orch-local verify` does that)"
    if not invariant:
        return Level.VERIFIED, f"{name}: its engine is not set up to be batch-invariant"
    return Level.BITWISE, ""


def record_level(folder: RunFolder, plan: Plan, unused: Collection[str] = ()) -> LevelAssessment:
    """Assess the level of a run, and record it in its ``level.json`` and ``metrics.json`` if it can."""
    assessment = assess(plan, unused)
    try:
        write_json(folder.level, asdict(assessment))
        metrics = read_json(folder.metrics) if folder.metrics.exists() else None
        if isinstance(metrics, dict):
            write_json(folder.metrics, metrics | {"standing": asdict(assessment)})
    except StoreError as error:  # an archived run
        log.warning("the level is not recorded in the files of the run: %s", error)
    return assessment
