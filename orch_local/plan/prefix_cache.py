"""Whether the prefix cache of vLLM is on where the run file leaves that open (`prefix_cache: auto`).

With few-shot examples most tokens of a prompt are those of the prompts before it, and a cache saves reading
them again. A prompt that begins with cached blocks may be summed in another order, so the cache is on only
where a check of just that execution found the same bytes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from orch_local.config.blocks import EngineConfig
from orch_local.plan.execution import execution_spec, with_prefix_cache
from orch_local.plan.plans import AgentPlan, Plan
from orch_local.records import Question, digest
from orch_local.store.evidence import Checked, read_checks
from orch_local.store.store import Store

LEAST_MET = 64
"""Rows that must have read cached blocks, all with the same bytes; the fewer, the less they show."""
_BEGINNING = 200
"""Characters by which two questions count as beginning alike, as questions about one passage do."""


class CacheChoice(NamedTuple):
    """On or off, and why in a few words."""

    on: bool
    reason: str


class Known(NamedTuple):
    """What decides besides the run file."""

    store: Store
    begun: Mapping[str, str] = {}
    """By name, the specs of the agents of the run that is continued: what was chosen for it stays."""

    @classmethod
    def of(cls, store: Path, begun: Plan | None) -> Known:
        """What a store holds, and the plan of the run that is continued, if there is one."""
        return cls(Store(store), {agent.name: agent.spec for agent in begun.workers} if begun else {})


def decided(agent: AgentPlan, engine: EngineConfig, known: Known) -> AgentPlan:
    """The agent with its prefix cache on or off, and with the reason."""
    if engine.prefix_cache != "auto":
        return agent.model_copy(update={"cache_reason": "as the run file has it"})
    cached = with_prefix_cache(agent)
    # None: transformers has no such cache. True: the recipe is given up, and vLLM has it on by itself.
    if agent.environment.get("prefix_caching") is not False or cached.spec == agent.spec:
        return agent
    begun = known.begun.get(agent.name)
    if begun in (agent.spec, cached.spec):
        choice = CacheChoice(begun == cached.spec, "as when the run was begun")
    else:
        choice = choose_cache(read_checks(known.store, execution_spec(cached.spec_content).digest))
    return (cached if choice.on else agent).model_copy(update={"cache_reason": choice.reason})


def choose_cache(found: Checked) -> CacheChoice:
    """What the checks of an execution with the cache on allow."""
    if found.damaged:
        return CacheChoice(False, f"a check is damaged: delete {found.damaged[0]} and check again")
    cases = [case for check in found.checks for case in check.cases if case.name == "warm cache"]
    rows, same, met = (sum(getattr(case, name) for case in cases) for name in ("rows", "same", "met"))
    if not rows:
        return CacheChoice(False, "not checked here, see benchmarks/determinism.py --model")
    if same < rows:
        return CacheChoice(False, f"in a check {rows - same:,} of {rows:,} rows had other bytes with it")
    if met < LEAST_MET:
        return CacheChoice(
            False, f"checked on {met} rows that read cached blocks, and {LEAST_MET} are needed"
        )
    return CacheChoice(True, f"in a check all {rows:,} rows had the same bytes with it")


def meeting(questions: Iterable[tuple[str, Question]]) -> list[str]:
    """Keys of questions in an order in which prompts that begin alike go one after another.

    Those with the same labels and examples come together, and among them those that begin alike; what comes
    first stays first. No answer depends on the order.
    """
    places: dict[str, int] = {}

    def first(content: object) -> int:
        return places.setdefault(digest(content), len(places))

    ranks = []
    for place, (key, question) in enumerate(questions):
        shown = [question.labels, [asdict(one) for one in question.examples]]
        ranks.append((first(shown), first([shown, question.text[:_BEGINNING]]), place, key))
    return [key for *_, key in sorted(ranks)]
