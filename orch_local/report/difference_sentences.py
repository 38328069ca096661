"""The difference between two runs in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orch_local.audit.difference import (
    Difference,
    PairedScores,
    PlanDifference,
)
from orch_local.report.formatting import CHANCE_P, NBSP, counted, p_value, percent
from orch_local.report.safe import visible


def headline(difference: Difference) -> str:
    """The whole difference in one or two sentences; no-break spaces hold numbers and units together."""
    if not difference.common:
        return "The runs have no question in common, so none of their answers can be compared."
    if difference.same_digest:
        return _same_sentence(difference)
    if not difference.plans.same:
        return f"{_plans_clause(difference.plans)}; {_final_clause(difference)}."
    return _same_plan_sentence(difference)


def _same_sentence(difference: Difference) -> str:
    same = f"The runs gave the same {counted(difference.common, 'answer')}"
    same = f"{same}, byte for byte in all that the digest covers"
    if difference.plans.same:
        return f"{same}."
    clause = _plans_clause(difference.plans)
    return f"{same}, although {clause[0].lower()}{clause[1:]}."


def _same_plan_sentence(difference: Difference) -> str:
    """Two runs that must be the same are not."""
    common, final = difference.common, difference.final
    if final.broken and final.differing:
        share = f"{final.differing:,} of {counted(common, 'final answer')}"
        verb = verb_for(final.differing, "differs", "differ")
        return f"Same plan, same environment, but {share} {verb}: {_verdict(difference)}."
    if final.broken or _broken_agents(difference):
        share = f"{difference.differing:,} of {counted(common, 'question')}"
        return (
            f"Same plan, same environment, same final answers, but on {share} the agents' answers, their "
            f"confidences or the way to the final answer differ: {_verdict(difference)}."
        )
    if difference.differing or difference.how:
        share = f"{max(difference.differing, difference.how):,} of {counted(common, 'question')}"
        return (
            f"Same plan, same environment; {share} came out differently because an engine failed on them in "
            "one of the runs. `orch-local run ... --retry-failed` generates those rows again."
        )
    return (
        "Same plan, same environment, and no answer differs, yet the digests do: a metrics.json was changed "
        "afterwards, or another version of orch-local wrote it."
    )


def _verdict(difference: Difference) -> str:
    """What it means that a run did not come again."""
    if not difference.plans.unpromised:
        return "determinism was broken"
    names = visible(_listed(difference.plans.unpromised))
    return f"the same bytes were not promised, as the engine of {names} is not batch-invariant"


def is_alarming(difference: Difference) -> bool:
    """Whether two runs that were promised to be the same are not."""
    plans, broken = difference.plans, difference.final.broken + _broken_agents(difference)
    return plans.same and not plans.unpromised and broken > 0


def _plans_clause(plans: PlanDifference) -> str:
    where = []
    if plans.changed:
        where.append(f"in {counted(len(plans.changed), 'field')}")
    if not plans.same_agents:
        where.append("in their agents")
    if not plans.same_questions:
        where.append("in their questions")
    return f"The plans differ {_listed(where)}"


def _final_clause(difference: Difference) -> str:
    count, scores = difference.final.differing, difference.final.scores
    of = f"of {counted(difference.common, 'common question')}"
    if not count:
        return f"{of} no final answer differs"
    text = f"{of} {counted(count, 'final answer')} {verb_for(count, 'differs', 'differ')}"
    return f"{text} ({_scores_phrase(scores, difference.common)})" if scores else text


def _scores_phrase(scores: PairedScores, common: int) -> str:
    parts = [
        f"A {percent(scores.accuracy_a)}",
        f"B {percent(scores.accuracy_b)}",
        f"difference {signed(scores.difference)} points",
        f"95{NBSP}% interval {interval(scores, f'{NBSP}to{NBSP}')}",
        f"p{NBSP}{p_value(scores.p, '=' + NBSP).replace(' ', NBSP)}",
    ]
    if scores.p >= CHANCE_P:
        parts.append("within chance")
    if scores.n < common:
        parts[:0] = [f"on the {scores.n:,} that can be scored in both"]
    return ", ".join(parts)


def _broken_agents(difference: Difference) -> int:
    return sum(agent.broken for agent in difference.agents)


def alarms(difference: Difference) -> Iterator[str]:
    """What no other difference between the runs can explain."""
    unpromised = difference.plans.unpromised
    broken = [agent for agent in difference.agents if agent.broken and agent.name not in unpromised]
    if broken:
        counts = _listed([f"{visible(agent.name)} on {agent.broken:,}" for agent in broken])
        yield (
            f"DETERMINISM BROKEN: the spec is the same in both runs, yet answers or confidences are not: "
            f"{counts} of {counted(difference.common, 'common question')}."
        )
    lists = difference.only_a or difference.only_b or not difference.same_order
    covered = difference.differing or difference.how or lists
    if difference.same_digest and difference.plans.same_agents and covered:
        yield (
            "The digests are the same, yet the decisions are not: a decisions.jsonl or metrics.json was "
            "changed after its run."
        )


def questions_sentence(difference: Difference) -> str:
    common = counted(difference.common, "question")
    if difference.plans.same_questions:
        return f"Both runs asked the same {common}."
    both = f"{common} {verb_for(difference.common, 'is', 'are')} in both runs"
    parts = [f"{both}, {difference.only_a:,} in A only and {difference.only_b:,} in B only."]
    if difference.common and not difference.same_order:
        parts.append("The common ones come in a different order.")
    if difference.other_gold:
        verb = verb_for(difference.other_gold, "has", "have")
        parts.append(f"{difference.other_gold:,} of them {verb} another gold answer and cannot be scored.")
    elif difference.same_order and not (difference.only_a or difference.only_b):
        parts.append("Their categories, examples or other data differ.")
    return " ".join(parts)


def verb_for(n: int, one: str, many: str) -> str:
    return one if n == 1 else many


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def signed(share: float) -> str:
    """A difference in percentage points with its sign; none where it rounds to zero."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def interval(scores: PairedScores, between: str) -> str:
    return f"{signed(scores.interval.low)}{between}{signed(scores.interval.high)}"
