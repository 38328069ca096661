"""What differs between the answers of two runs, counted question by question."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orch_local.audit.difference import (
    FINAL,
    Difference,
    DifferingQuestion,
    PairedScores,
    PlanDifference,
    RunIdentity,
    SystemDifference,
)
from orch_local.records import Decision
from orch_local.results.scoring import is_correct
from orch_local.stats import Pairs, holm, mcnemar_exact, paired_interval

_UNFINISHED = ("failed", "missing")


@dataclass(slots=True)
class _Tally:
    """Counters of one system."""

    name: str
    answers: Counter[str] = field(default_factory=Counter)
    right: Counter[tuple[bool, bool]] = field(default_factory=Counter)
    """By whether A and B are right."""
    confidences: int = 0
    broken: int = 0

    def add(self, a: str | None, b: str | None, gold: str | None) -> None:
        self.answers[_relation(a, b)] += 1
        right_a, right_b = is_correct(a, gold), is_correct(b, gold)
        if right_a is not None and right_b is not None:
            self.right[right_a, right_b] += 1

    def difference(self) -> SystemDifference:
        counts = {name: self.answers[name] for name in ("same", "different", "only_a", "only_b", "neither")}
        right = self.right
        pairs = Pairs(right[True, True], right[False, True], right[True, False], right[False, False])
        return SystemDifference(
            self.name, **counts, confidences=self.confidences, broken=self.broken, scores=_scores(pairs)
        )


def _relation(a: str | None, b: str | None) -> str:
    if a is None or b is None:
        return "neither" if a == b else "only_a" if b is None else "only_b"
    return "same" if a == b else "different"


def _scores(pairs: Pairs) -> PairedScores | None:
    """Numbers of B (the first of each pair) against A."""
    n, interval = sum(pairs), paired_interval(pairs)
    if interval is None:
        return None
    return PairedScores(
        n=n,
        accuracy_a=(pairs.both + pairs.lost) / n,
        accuracy_b=(pairs.both + pairs.gained) / n,
        gained=pairs.gained,
        lost=pairs.lost,
        difference=pairs.difference,
        interval=interval,
        p=mcnemar_exact(pairs.gained, pairs.lost).p,
    )


class AnswerDiff:
    """Counters of one pass over the questions of A."""

    def __init__(self, plans: PlanDifference, examples: int) -> None:
        self.plans = plans
        self.examples = examples
        self.agents = [_Tally(match.name) for match in plans.matches]
        self.final = _Tally(FINAL)
        self.common = self.only_a = self.other_gold = self.how = self.differing = 0
        self.same_order = True
        self.last = -1
        self.with_final: list[DifferingQuestion] = []
        self.others: list[DifferingQuestion] = []

    def add(self, a: Decision, found: tuple[int, Decision] | None) -> None:
        """Count one question of A and, where there is one, its counterpart with its position in B."""
        if found is None:
            self.only_a += 1
            return
        position, b = found
        self.common += 1
        self.same_order &= position > self.last
        self.last = position
        self.other_gold += a.gold != b.gold
        gold = a.gold if a.gold == b.gold else None
        agents_differ = self._add_agents(a, b, gold)
        self._add_final(a, b, gold)
        if agents_differ or a.answer != b.answer:
            self.differing += 1
            kept = self.others if a.answer == b.answer else self.with_final
            if len(kept) < self.examples:
                kept.append(DifferingQuestion(a, b))

    def _add_agents(self, a: Decision, b: Decision, gold: str | None) -> bool:
        """Count the agents' answers; returns whether an answer or a confidence differs."""
        differs = False
        for tally, match in zip(self.agents, self.plans.matches, strict=True):
            one, other = a.answers.get(match.a), b.answers.get(match.b)
            tally.add(one, other, gold)
            confidence = a.confidences.get(match.a) != b.confidences.get(match.b)
            tally.confidences += confidence and one == other
            if confidence or one != other:
                differs = True
                outcomes = a.outcomes.get(match.a, "missing"), b.outcomes.get(match.b, "missing")
                broken = tally.name in self.plans.same_prompts and not _unfinished(outcomes)
                tally.broken += broken
        return differs

    def _add_final(self, a: Decision, b: Decision, gold: str | None) -> None:
        self.final.add(a.answer, b.answer, gold)
        self.how += a.answer == b.answer and a.how != b.how
        if self.plans.same and (a.answer, a.how) != (b.answer, b.how):
            # A reason such as "merge failed" ends with the outcome of the merge agent.
            outcomes = [*a.outcomes.values(), *b.outcomes.values(), *a.reason.split(), *b.reason.split()]
            self.final.broken += not _unfinished(outcomes)

    def difference(self, runs: tuple[RunIdentity, RunIdentity], only_b: int) -> Difference:
        *agents, final = _adjusted([tally.difference() for tally in (*self.agents, self.final)])
        return Difference(
            *runs,
            plans=self.plans,
            common=self.common,
            only_a=self.only_a,
            only_b=only_b,
            same_order=self.same_order,
            other_gold=self.other_gold,
            how=self.how,
            differing=self.differing,
            agents=tuple(agents),
            final=final,
            examples=tuple([*self.with_final, *self.others][: self.examples]),
        )


def _unfinished(outcomes: Iterable[str]) -> bool:
    """Whether an engine failed, or was never asked: what then differs says nothing about determinism."""
    return any(outcome in _UNFINISHED for outcome in outcomes)


def _adjusted(systems: Sequence[SystemDifference]) -> list[SystemDifference]:
    """The systems with Holm's p-values.

    A system without a gained or lost question has p = 1 whatever its accuracy and cannot raise a false
    alarm, so it does not count as a comparison (Tarone 1990, Biometrics 46:515).
    """
    made = list(systems)
    tested = [(i, s.scores) for i, s in enumerate(made) if s.scores and s.scores.gained + s.scores.lost]
    for (i, scores), p in zip(tested, holm([scores.p for _, scores in tested]), strict=True):
        made[i] = dataclasses.replace(made[i], scores=dataclasses.replace(scores, p_holm=p))
    return made
