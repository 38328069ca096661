"""Decisions to numbers: accuracy with its uncertainty, paired comparisons, agreement. Pure, one pass.

What counts where (unscored is not wrong, and never silently dropped):

- A question without gold is counted as ``no_gold`` and enters no accuracy.
- A system is *scored* on a question with gold that it answered. ``accuracy`` is correct / scored, with its
  Wilson interval; ``accuracy_all`` is correct / all questions with gold, so that nothing hides in the
  choice of denominator. What was not answered is counted by reason in ``unscored``.
- A comparison is over the questions on which both systems are scored; its difference is theirs too.

Numeric answers are canonical strings, so an answer is right if it equals the gold as a string.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orch_local.records import Decision, How, Usage
from orch_local.stats import mcnemar_exact, wilson

NOT_ASKED = "not_asked"
NO_ANSWER = "no_answer"
NO_MAJORITY = "no_majority"
NO_USABLE_ANALYSIS = "no_usable_analysis"


@dataclass(frozen=True, slots=True)
class System:
    """How one system did on the questions with gold."""

    scored: int
    """Questions with gold that it answered."""
    correct: int
    accuracy: float | None
    """correct / scored; ``None`` where it answered nothing."""
    low: float | None
    """Lower end of the 95 % Wilson interval of ``accuracy``."""
    high: float | None
    accuracy_all: float | None
    """correct / all questions with gold."""
    unscored: Mapping[str, int]
    """Questions with gold that it did not answer, by outcome or reason."""


@dataclass(frozen=True, slots=True)
class Systems:
    """All systems over the same questions."""

    gold: int
    """Questions with gold."""
    agents: Mapping[str, System]
    """In agent order."""
    majority: System
    orch: System
    """The final decisions."""
    oracle: System
    """Right where any agent is right: the most that a choice between the agents could reach."""

    def named(self) -> list[tuple[str, System]]:
        """All systems with the names they have in reports; the oracle is last."""
        reference = [("majority", self.majority), ("ORCH", self.orch), ("oracle", self.oracle)]
        return [*self.agents.items(), *reference]

    @property
    def best_accuracy(self) -> float | None:
        """The highest accuracy of all systems but the oracle."""
        systems = [*self.agents.values(), self.majority, self.orch]
        return max((s.accuracy for s in systems if s.accuracy is not None), default=None)


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """ORCH against another system on the questions where both are scored (exact McNemar)."""

    n: int
    gained: int
    """ORCH right, the other wrong."""
    lost: int
    """ORCH wrong, the other right."""
    difference: float | None
    """Accuracy of ORCH minus that of the other on these questions; ``None`` if there are none."""
    p: float | None
    """Two-sided p-value, not corrected for the number of comparisons."""


@dataclass(frozen=True, slots=True)
class PairedComparisons:
    """ORCH against every agent and against the majority vote."""

    agents: Mapping[str, PairedComparison]
    majority: PairedComparison


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often the agents agreed, over all questions, with gold or without."""

    panels: int
    """Questions with at least two usable analyses."""
    unanimous: int
    share: float | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """All numbers of a run that follow from its decisions."""

    questions: int
    no_gold: int
    answered: int
    """Questions with a final answer, with gold or without."""
    total: Systems
    categories: Mapping[str, Systems]
    """By category in alphabetical order; questions with gold only."""
    versus: PairedComparisons
    best_agent: str | None
    """Most questions right, then highest accuracy, then agent order; ``None`` without gold."""
    how: Mapping[str, int]
    """Questions by how the decision was reached."""
    merge_calls: int
    merge_calls_saved: int
    """Questions whose unanimous panel made the merge agent unnecessary."""
    agreement: Agreement

    def to_dict(self) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one agent, or the merge agent, cost in a run; measured elsewhere, only shown here."""

    rows: int
    generated_now: int
    """Rows generated in this run; the rest came from the store."""
    usage: Usage
    """Tokens of all rows, whenever they were generated."""
    load_s: float
    """In this run."""
    generate_s: float
    recheck_s: float = 0.0
    """Of ``generate_s``, seconds in which workers generated rows again."""
    rechecked: int = 0
    """Rows that were generated again in this run."""


def is_correct(answer: str | None, gold: str | None) -> bool | None:
    """Whether an answer is right; ``None`` where there is no answer or no gold."""
    return None if answer is None or gold is None else answer == gold


def score(decisions: Iterable[Decision], agents: Sequence[str]) -> Metrics:
    """Count the decisions of a run in one pass; memory does not grow with their number.

    Parameters
    ----------
    decisions:
        In any order.
    agents:
        Names of all agents of the run, in agent order.
    """
    scorer = Scorer(agents)
    for decision in decisions:
        scorer.add(decision)
    return scorer.metrics()


# Right, wrong, or the reason why a system is unscored on a question.
_Verdict = bool | str
_Tallies = list[Counter[_Verdict]]


class Scorer:
    """Counts decisions one by one. Systems are held by position: the agents, majority, ORCH, oracle."""

    def __init__(self, agents: Sequence[str]) -> None:
        self.agents = tuple(agents)
        self.questions = self.no_gold = self.answered = self.panels = self.unanimous = 0
        self.how: Counter[How] = Counter()
        self.categories: dict[str, _Tallies] = {}
        self.pairs: list[Counter[tuple[_Verdict, _Verdict]]] = [Counter() for _ in range(len(agents) + 1)]

    def add(self, decision: Decision) -> None:
        """Count one decision."""
        self.questions += 1
        self.answered += decision.answer is not None
        self.how[decision.how] += 1
        usable = [a for name in self.agents if (a := decision.answers.get(name)) is not None]
        if len(usable) > 1:
            self.panels += 1
            self.unanimous += len(set(usable)) == 1
        if decision.gold is None:
            self.no_gold += 1
        else:
            self._add_verdicts(decision.category, _verdicts(decision, self.agents))

    def _add_verdicts(self, category: str, verdicts: list[_Verdict]) -> None:
        if category not in self.categories:
            self.categories[category] = [Counter() for _ in verdicts]
        for tally, verdict in zip(self.categories[category], verdicts, strict=True):
            tally[verdict] += 1
        orch = verdicts[-2]
        if isinstance(orch, bool):
            for pair, verdict in zip(self.pairs, verdicts, strict=False):
                if isinstance(verdict, bool):
                    pair[orch, verdict] += 1

    def metrics(self) -> Metrics:
        """All numbers, of what was counted so far."""
        total = self._systems(self._total())
        compared = [_comparison(pair) for pair in self.pairs]
        return Metrics(
            questions=self.questions,
            no_gold=self.no_gold,
            answered=self.answered,
            total=total,
            categories={name: self._systems(self.categories[name]) for name in sorted(self.categories)},
            versus=PairedComparisons(dict(zip(self.agents, compared, strict=False)), compared[-1]),
            best_agent=_best_agent(total),
            how={str(how): self.how[how] for how in How if self.how[how]},
            merge_calls=self.how[How.MERGE],
            merge_calls_saved=self.how[How.UNANIMOUS],
            agreement=Agreement(self.panels, self.unanimous, _ratio(self.unanimous, self.panels)),
        )

    def _total(self) -> _Tallies:
        total: _Tallies = [Counter() for _ in range(len(self.agents) + 3)]
        for tallies in self.categories.values():
            for into, tally in zip(total, tallies, strict=True):
                into.update(tally)
        return total

    def _systems(self, tallies: _Tallies) -> Systems:
        systems = [_system(tally) for tally in tallies]
        majority, orch, oracle = systems[-3:]
        agents = dict(zip(self.agents, systems, strict=False))
        return Systems(tallies[-1].total(), agents, majority, orch, oracle)


def _verdicts(decision: Decision, agents: tuple[str, ...]) -> list[_Verdict]:
    gold = decision.gold
    verdicts = [_agent_verdict(decision, name) for name in agents]
    scored = [v for v in verdicts if isinstance(v, bool)]
    oracle: _Verdict = any(scored) if scored else NO_USABLE_ANALYSIS
    majority = _verdict(is_correct(decision.majority, gold), NO_MAJORITY)
    orch = _verdict(is_correct(decision.answer, gold), decision.reason or NO_ANSWER)
    return [*verdicts, majority, orch, oracle]


def _verdict(correct: bool | None, why_not: str) -> _Verdict:
    return why_not if correct is None else correct


def _agent_verdict(decision: Decision, name: str) -> _Verdict:
    if name not in decision.answers:
        return NOT_ASKED
    outcome = decision.outcomes.get(name, NO_ANSWER)
    return _verdict(is_correct(decision.answers[name], decision.gold), outcome)


def _system(tally: Counter[_Verdict]) -> System:
    correct, scored = tally[True], tally[True] + tally[False]
    interval = wilson(correct, scored)
    return System(
        scored=scored,
        correct=correct,
        accuracy=_ratio(correct, scored),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        accuracy_all=_ratio(correct, tally.total()),
        unscored={reason: tally[reason] for reason in sorted(k for k in tally if isinstance(k, str))},
    )


def _comparison(pair: Counter[tuple[_Verdict, _Verdict]]) -> PairedComparison:
    test, n = mcnemar_exact(pair[True, False], pair[False, True]), pair.total()
    return PairedComparison(
        n, test.gained, test.lost, _ratio(test.gained - test.lost, n), test.p if n else None
    )


def _best_agent(total: Systems) -> str | None:
    scored = {name: system for name, system in total.agents.items() if system.scored}
    return max(scored, key=lambda name: (scored[name].correct, scored[name].accuracy or 0), default=None)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
