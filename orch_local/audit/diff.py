"""What differs between two runs: in their plans field by field, in their answers question by question.

One run is called A and the other B. Their agents are matched by name, and those left by position; their
questions by id. Two agents with the same spec must give the same answers: where they do not, determinism
was broken, and that is told apart from all other differences. Only an engine that is not batch-invariant
has promised nothing.

Decisions are never held: A is read line by line, and its counterpart in B is found by its position in the
file. The positions take some 150 bytes of memory a question.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from orch_local.errors import StoreError
from orch_local.plan.differences import Change, changes
from orch_local.plan.files import load_plan
from orch_local.plan.plans import MERGE, AgentPlan, Plan
from orch_local.records import Decision, canonical_json
from orch_local.results.finished import recorded_digest
from orch_local.results.scoring import is_correct
from orch_local.stats import Interval, Pairs, holm, mcnemar_exact, paired_interval
from orch_local.store.store import RunFolder

EXAMPLES = 5
FINAL = "ORCH"
"""Name of the final answers among the compared systems, as in all reports."""

_MERGE_RULES = frozenset({"policy", "when", "candidates", "names", "quorum"})
_UNFINISHED = ("failed", "missing")


class Match(NamedTuple):
    """One agent as it is named in the two runs."""

    a: str
    b: str

    @property
    def name(self) -> str:
        """The name, or both where they differ."""
        return self.a if self.a == self.b else f"{self.a} / {self.b}"


class PlanChange(NamedTuple):
    """One changed field, told once for all agents that it changed for."""

    change: Change
    agents: tuple[str, ...]
    """Names of the matched agents, the merge agent as ``merge``; empty for a rule of the whole run."""


@dataclass(frozen=True, slots=True)
class PlanDifference:
    """What differs between two plans."""

    matches: tuple[Match, ...]
    """Agents of both runs, in the order of A; without the merge agent."""
    workers: int
    """The matches, and the merge agent where both runs have one."""
    changed: tuple[PlanChange, ...]
    only_a: tuple[str, ...]
    """Agents of A that B does not have, the merge agent as ``merge``."""
    only_b: tuple[str, ...]
    same_order: bool
    """Whether the matched agents stand at the same places; ties and digests depend on it."""
    same_questions: bool
    """Whether both asked the same questions in the same order, with the same gold answers and examples."""
    same_prompts: tuple[str, ...]
    """Names of the matches with the same spec that were also shown the same for the same question."""
    unpromised: tuple[str, ...]
    """Names of the matches, and ``merge``, whose engine is not batch-invariant in A, in B or in both."""

    @property
    def same(self) -> bool:
        """Whether the two runs must come to the same answers."""
        return not self.changed and self.same_agents and self.same_questions

    @property
    def same_agents(self) -> bool:
        """Whether the agents of the one run are those of the other, whatever their specs."""
        return self.same_order and not self.only_a and not self.only_b


@dataclass(frozen=True, slots=True)
class Scores:
    """One system in both runs, over the questions that it answered in both and whose gold is the same."""

    n: int
    """At least 1."""
    accuracy_a: float
    accuracy_b: float
    gained: int
    """Questions right in B only."""
    lost: int
    """Questions right in A only."""
    difference: float
    """Accuracy of B minus that of A."""
    interval: Interval
    """95 % interval of ``difference`` (Newcombe's method 10)."""
    p: float
    """Two-sided p-value (exact McNemar), not corrected for the number of comparisons."""
    p_holm: float | None = None
    """Corrected by Holm for all systems of the report that have a gained or lost question; else ``None``."""


@dataclass(frozen=True, slots=True)
class SystemDifference:
    """One agent, or the final answer, in both runs; counts of the common questions."""

    name: str
    same: int
    """The same answer in both."""
    different: int
    """Another answer in B."""
    only_a: int
    """Answered in A only."""
    only_b: int
    neither: int
    confidences: int
    """Same answer, other confidence; always 0 for the final answer."""
    broken: int
    """Questions that nothing explains: same spec, no failure, yet another answer or confidence.

    For the final answer: same plan, no failure, yet another answer or way to it.
    """
    scores: Scores | None
    """``None`` where no question was scored in both."""

    @property
    def differing(self) -> int:
        """Questions whose answer is not the same, one-sided ones included."""
        return self.different + self.only_a + self.only_b


class Run(NamedTuple):
    """What is told of one of the two runs."""

    folder: Path
    digest: str
    questions: int


class Example(NamedTuple):
    """One question on which the runs differ, as each decided it."""

    a: Decision
    b: Decision


@dataclass(frozen=True, slots=True)
class Difference:
    """All that differs between two runs."""

    a: Run
    b: Run
    plans: PlanDifference
    common: int
    """Questions of both runs."""
    only_a: int
    only_b: int
    same_order: bool
    """Whether the common questions come in the same order."""
    other_gold: int
    """Common questions whose gold answer is not the same; they enter no accuracy."""
    how: int
    """Common questions with the same final answer, reached in another way."""
    differing: int
    """Common questions on which an answer or a confidence differs."""
    agents: tuple[SystemDifference, ...]
    """In the order of :attr:`PlanDifference.matches`."""
    final: SystemDifference
    examples: tuple[Example, ...]
    """The first differing questions in the order of A, those with another final answer before the rest."""

    @property
    def same_digest(self) -> bool:
        """Whether the runs came to the same, byte for byte."""
        return self.a.digest == self.b.digest

    @property
    def systems(self) -> tuple[SystemDifference, ...]:
        """The agents and, behind them, the final answer."""
        return (*self.agents, self.final)


def compare(a: RunFolder, b: RunFolder, examples: int = EXAMPLES) -> Difference:
    """Compare two finished runs.

    Parameters
    ----------
    examples:
        How many differing questions to keep at most.

    Raises
    ------
    StoreError
        If a folder is not that of a finished run, or one of its files is damaged.
    """
    plan_a, plan_b = load_plan(a), load_plan(b)
    runs = _run(a, plan_a), _run(b, plan_b)
    plans = compare_plans(plan_a, plan_b)
    with _by_id(b, plan_b) as others:
        counts = _Counts(plans, examples)
        for _, decision in _decisions(a, plan_a):
            counts.add(decision, others.pop(decision.question_id))
        return counts.difference(runs, only_b=len(others))


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


def _run(folder: RunFolder, plan: Plan) -> Run:
    return Run(folder.root, recorded_digest(folder), plan.questions.count)


_AGAIN = "run the run's command again: it writes this file anew from the store and generates nothing twice"


def _decisions(folder: RunFolder, plan: Plan) -> Iterator[tuple[int, Decision]]:
    """Position in the file, and decision, of every question in order."""
    position = count = 0
    with _open(folder.decisions) as lines:
        for count, line in enumerate(lines, 1):
            yield position, _decision(line, f"{folder.decisions}, line {count}")
            position += len(line)
    if count != plan.questions.count:
        message = f"holds {count:,} decisions of {plan.questions.count:,} questions"
        raise StoreError(message, where=str(folder.decisions), hint=_AGAIN)


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise StoreError(f"cannot be read: {error.strerror}", where=str(path)) from None
    with file:
        yield file


def _decision(line: bytes, where: str) -> Decision:
    try:
        decision = Decision.from_row(json.loads(line))
        parts = decision.answers, decision.confidences, decision.outcomes
        if not all(isinstance(part, dict) for part in parts):
            raise TypeError("answers, confidences and outcomes must be objects")
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"is not a decision: {error}", where=where, hint=_AGAIN) from None
    return decision


@dataclass(slots=True)
class _ById:
    """The decisions of a run, read from their file when asked for."""

    file: IO[bytes]
    positions: dict[str, int]

    def __len__(self) -> int:
        """How many were never asked for."""
        return len(self.positions)

    def pop(self, question_id: str) -> tuple[int, Decision] | None:
        """Position and decision of a question; ``None`` where the run did not ask it."""
        position = self.positions.pop(question_id, None)
        if position is None:
            return None
        self.file.seek(position)
        return position, _decision(self.file.readline(), self.file.name)


@contextmanager
def _by_id(folder: RunFolder, plan: Plan) -> Iterator[_ById]:
    positions = {decision.question_id: position for position, decision in _decisions(folder, plan)}
    with _open(folder.decisions) as file:
        yield _ById(file, positions)


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


def _scores(pairs: Pairs) -> Scores | None:
    """Numbers of B (the first of each pair) against A."""
    n, interval = sum(pairs), paired_interval(pairs)
    if interval is None:
        return None
    return Scores(
        n=n,
        accuracy_a=(pairs.both + pairs.lost) / n,
        accuracy_b=(pairs.both + pairs.gained) / n,
        gained=pairs.gained,
        lost=pairs.lost,
        difference=pairs.difference,
        interval=interval,
        p=mcnemar_exact(pairs.gained, pairs.lost).p,
    )


class _Counts:
    """Counters of one pass over the questions of A."""

    def __init__(self, plans: PlanDifference, examples: int) -> None:
        self.plans = plans
        self.examples = examples
        self.agents = [_Tally(match.name) for match in plans.matches]
        self.final = _Tally(FINAL)
        self.common = self.only_a = self.other_gold = self.how = self.differing = 0
        self.same_order = True
        self.last = -1
        self.with_final: list[Example] = []
        self.others: list[Example] = []

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
                kept.append(Example(a, b))

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

    def difference(self, runs: tuple[Run, Run], only_b: int) -> Difference:
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
