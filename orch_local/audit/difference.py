"""What differs between two runs, as values: plans, systems, questions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from orch_local.plan.differences import Change
from orch_local.records import Decision
from orch_local.stats import Interval

FINAL = "ORCH"
"""Name of the final answers among the compared systems, as in all reports."""


class Match(NamedTuple):
    """One agent as it is named in the two runs."""

    a: str
    b: str

    @property
    def name(self) -> str:
        """The name, or both where they differ."""
        return self.a if self.a == self.b else f"{self.a} / {self.b}"


class PlanChange(NamedTuple):
    """One changed field, listed once for all agents that it changed for."""

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
class PairedScores:
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
    scores: PairedScores | None
    """``None`` where no question was scored in both."""

    @property
    def differing(self) -> int:
        """Questions whose answer is not the same, one-sided ones included."""
        return self.different + self.only_a + self.only_b


class RunIdentity(NamedTuple):
    """Folder, digest and size of one of the two runs."""

    folder: Path
    digest: str
    questions: int


class DifferingQuestion(NamedTuple):
    """One question on which the runs differ, as each decided it."""

    a: Decision
    b: Decision


@dataclass(frozen=True, slots=True)
class Difference:
    """All that differs between two runs."""

    a: RunIdentity
    b: RunIdentity
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
    examples: tuple[DifferingQuestion, ...]
    """The first differing questions in the order of A, those with another final answer before the rest."""

    @property
    def same_digest(self) -> bool:
        """Whether the runs have the same decisions, byte for byte."""
        return self.a.digest == self.b.digest

    @property
    def systems(self) -> tuple[SystemDifference, ...]:
        """The agents and, behind them, the final answer."""
        return (*self.agents, self.final)
