"""What differs between the plans of two runs, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orch_local.audit.difference import Match, PlanChange, PlanDifference
from orch_local.plan.differences import Change, changes
from orch_local.plan.plans import MERGE, AgentPlan, Plan
from orch_local.records import canonical_json

_MERGE_RULES = frozenset({"policy", "when", "candidates", "names", "quorum"})


def compare_plans(a: Plan, b: Plan) -> PlanDifference:
    """What differs between two plans; paths and batch sizes are no part of them."""
    matches, only_a, only_b = _match(a.names, b.names)
    pairs = {match.name: (_agent(a, match.a), _agent(b, match.b)) for match in matches}
    same = tuple(name for name, (one, other) in pairs.items() if one.spec == other.spec)
    if a.merger and b.merger:
        pairs[MERGE] = a.merger, b.merger
    elif a.merger or b.merger:
        only_a, only_b = only_a + (MERGE,) * bool(a.merger), only_b + (MERGE,) * bool(b.merger)
    rules = changes(_rules(a), _rules(b), "merge.")
    same_questions = a.questions.digest == b.questions.digest
    return PlanDifference(
        matches=matches,
        workers=len(pairs),
        changed=(*_agent_changes(pairs, rules), *(PlanChange(rule, ()) for rule in rules)),
        only_a=only_a,
        only_b=only_b,
        same_order=all(a.names.index(match.a) == b.names.index(match.b) for match in matches),
        same_questions=same_questions,
        same_prompts=same if same_questions or not _few_shot(a, b) else (),
        unpromised=tuple(name for name, pair in pairs.items() if not all(map(_is_promised, pair))),
    )


def _match(a: Sequence[str], b: Sequence[str]) -> tuple[tuple[Match, ...], tuple[str, ...], tuple[str, ...]]:
    """The matched agents, those of ``a`` alone, those of ``b`` alone."""
    left_a, left_b = [name for name in a if name not in b], [name for name in b if name not in a]
    partners = {name: name for name in a if name in b} | dict(zip(left_a, left_b, strict=False))
    matches = tuple(Match(name, partners[name]) for name in a if name in partners)
    return matches, tuple(left_a[len(left_b) :]), tuple(left_b[len(left_a) :])


def _agent(plan: Plan, name: str) -> AgentPlan:
    return plan.agents[plan.names.index(name)]


def _is_promised(agent: AgentPlan) -> bool:
    """Whether its engine gives the same bytes in any batch; a spec that does not say so is taken to."""
    environment = agent.spec_content.get("environment") or {}
    return environment.get("batch_invariant") is not False


def _rules(plan: Plan) -> Mapping[str, Any]:
    return plan.config.merge.model_dump(include=set(_MERGE_RULES))


def _few_shot(*plans: Plan) -> bool:
    return any(plan.config.benchmark.few_shot for plan in plans)


def _agent_changes(
    pairs: Mapping[str, tuple[AgentPlan, AgentPlan]], rules: Sequence[Change]
) -> Iterator[PlanChange]:
    """Each changed field of the specs once, with the agents that it changed for."""
    found: dict[str, tuple[Change, list[str]]] = {}
    for name, (one, other) in pairs.items():
        for change in changes(one.spec_content, other.spec_content):
            # The merge agent's spec repeats those rules of the run that shape its prompt.
            if change._replace(field=change.field.replace("panel.", "merge.", 1)) not in rules:
                found.setdefault(canonical_json(change), (change, []))[1].append(name)
    return (PlanChange(change, tuple(names)) for change, names in found.values())
