"""Everything that a report says about a run, as one tree of numbers; `report/` draws it and computes nothing.

Systems are named as in :class:`orch_local.results.tables.RunTable`: the agents, ``majority``, ``ORCH``,
``oracle``. Shares are within 0 and 1. ``None`` stands where a number does not exist, never NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orch_local.results.diagnostics import Diagnostics, Spread


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share or a difference with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SystemSummary:
    """How one system did."""

    name: str
    scored: int
    correct: int
    accuracy: Estimate | None
    """correct / scored; Wilson interval."""
    clustered: Estimate | None
    """The same with an interval that allows for shared sources; ``None`` where no clusters are known."""
    accuracy_all: float | None
    """correct / all questions with gold."""
    unscored: Mapping[str, int]
    """Questions with gold that it did not answer, by reason."""


@dataclass(frozen=True, slots=True)
class PairSummary:
    """Two systems on the questions where both are scored."""

    first: str
    second: str
    n: int
    both: int
    gained: int
    """First right, second wrong."""
    lost: int
    neither: int
    difference: Estimate | None
    """Accuracy of the first minus that of the second; Newcombe's interval of paired proportions."""
    odds_ratio: Estimate | None
    """gained / lost with its exact conditional interval; ends may be 0 or infinite."""
    p: float | None
    """Exact two-sided McNemar."""
    p_mid: float | None
    """The mid-p variant."""
    p_holm: float | None
    """``p`` adjusted for all pairs of this list."""
    clustered: Estimate | None = None
    """The difference with an interval that allows for shared sources; ``None`` where none are known."""


@dataclass(frozen=True, slots=True)
class CategorySummary:
    """One category."""

    name: str
    gold: int
    systems: Mapping[str, Estimate | None]
    """Accuracy of each system, Wilson interval."""
    scored: Mapping[str, int]
    versus_best: PairSummary | None
    """ORCH against the agent that is best over all; ``p_holm`` is adjusted over the categories."""


@dataclass(frozen=True, slots=True)
class CochranSummary:
    """Are all systems (agents, majority, ORCH) equally good? Over the questions where all are scored."""

    n: int
    systems: int
    statistic: float
    df: int
    p: float


@dataclass(frozen=True, slots=True)
class AgentPair:
    """How two agents' errors go together, on the questions where both are scored."""

    first: str
    second: str
    n: int
    disagreement: float | None
    """Share of questions where exactly one is right."""
    error_correlation: float | None
    """Phi of the two errors; ``None`` where one of them never, or always, errs."""
    q_statistic: float | None
    """Yule's Q."""
    same_wrong: float | None
    """Share of the questions that both have wrong on which they gave the same wrong answer."""


@dataclass(frozen=True, slots=True)
class Complementarity:
    """What the agents could do together, and what the merge made of it."""

    pairs: tuple[AgentPair, ...]
    oracle: Estimate | None
    right_counts: tuple[int, ...]
    """How many questions with gold were answered rightly by 0, 1, ... all agents; not asked is not right."""
    saves: int
    """Majority vote wrong, ORCH right: both are scored, as in ``gained`` of their pair."""
    breaks: int
    """Majority vote right, ORCH wrong: ``lost`` of their pair."""
    saves_against_best: int
    """Best agent wrong, ORCH right: both are scored."""
    breaks_against_best: int
    """Best agent right, ORCH wrong."""
    beyond_panel: int
    """ORCH right where at least one agent is scored and none is right."""
    lost_by_merge: int
    """ORCH wrong (and scored) where at least one agent is right."""


@dataclass(frozen=True, slots=True)
class Multiplicity:
    """Agents that are about as good as the best, and how much they differ (see docs/statistics.md)."""

    tolerance: float
    """An agent competes if its accuracy is within so much of the best one's."""
    competing: tuple[str, ...]
    """The baseline (the best agent) first."""
    n: int
    ambiguity: float | None
    """Share of questions on which some competing agent answers otherwise than the baseline."""
    discrepancy: float | None
    """Largest share of questions on which one competing agent answers otherwise than the baseline."""


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability diagram."""

    low: float
    high: float
    n: int
    confidence: float
    """Mean."""
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The questions of at least this confidence: their share, and the share of errors among them."""

    threshold: float
    coverage: float
    risk: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far the confidence of a system can be believed."""

    system: str
    signal: str
    """``probability`` of the answer, or ``confidence`` as stated."""
    n: int
    ece: float
    """Expected calibration error, equal-width bins."""
    brier: float
    bins: tuple[Bin, ...]
    """Without the empty ones."""
    curve: tuple[CurvePoint, ...]
    """Risk against coverage from the most confident on; at most 200 points."""
    aurc: float
    """Area under the risk-coverage curve."""
    abstain: Mapping[str, CurvePoint | None]
    """Target risk such as ``0.05`` -> the lowest threshold that keeps it; ``None`` where none does."""
    spread: Spread | None = None
    """How far the signal varies over these answers."""


@dataclass(frozen=True, slots=True)
class CostSummary:
    """What one agent, or the merge agent, cost."""

    name: str
    rows: int
    generated_now: int
    """Rows generated by this run; the others came from the store."""
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    load_s: float
    generate_s: float


@dataclass(frozen=True, slots=True)
class Spending:
    """Device time of the run: GPU-seconds, or core-seconds of workers on a CPU."""

    device: str
    """``cuda`` or ``cpu``."""
    agents: tuple[CostSummary, ...]
    load_s: float
    """Device-seconds, over all devices of the recorded timelines."""
    generate_s: float
    merge_s: float
    """Of these are what the merge agent generated for; ``generate_s`` does not hold them."""
    idle_s: float
    """Device-seconds of planned devices without a worker."""
    correct_per_device_hour: float | None
    """Right answers of ORCH per device-hour; ``None`` where not all was generated now and timed."""


@dataclass(frozen=True, slots=True)
class RouterPoint:
    """What the router did over a stretch of questions."""

    question: int
    """How many questions were routed up to its end."""
    observed: int
    """How many had come back as feedback when its last question was routed."""
    accuracy: Mapping[str, float]
    """Accuracy that the router expected of each agent, mean over the stretch."""
    share: Mapping[str, float]
    """Share of the questions of the stretch that each agent was asked."""


@dataclass(frozen=True, slots=True)
class RouterSummary:
    """What the router did."""

    mode: str
    asked: Mapping[str, int]
    """Questions by agent."""
    phases: Mapping[str, int]
    """Questions by why their agents were chosen: ``warm_up``, ``score``, ``explore``."""
    trajectory: tuple[RouterPoint, ...]
    """At most 200 points."""


@dataclass(frozen=True, slots=True)
class Summary:
    """All of it."""

    title: str
    """Name of the run folder."""
    benchmark: str
    version: str
    digest: str
    level: str
    level_reasons: tuple[str, ...]
    generated_again: int
    same: int
    questions: int
    gold: int
    no_gold: int
    bad_rows: int
    policy: str
    """``merge.policy`` of the run file: ``agent``, ``majority`` ..."""
    best_agent: str | None
    systems: tuple[SystemSummary, ...]
    """Agents in order, majority, ORCH, oracle."""
    pairs: tuple[PairSummary, ...]
    """All pairs of agents, majority and ORCH; ORCH first where it takes part."""
    cochran: CochranSummary | None
    categories: tuple[CategorySummary, ...]
    how: Mapping[str, int]
    agreement: float | None
    """Share of the panels of at least two usable analyses that were unanimous."""
    unscored: Mapping[str, int]
    """ORCH's unscored questions by reason, with gold or without."""
    complementarity: Complementarity
    multiplicity: tuple[Multiplicity, ...]
    """For tolerances of 0.01, 0.02 and 0.05."""
    calibration: tuple[Calibration, ...]
    """By signal (probability, then confidence): of the agents and of ORCH, where they have it."""
    spending: Spending
    router: RouterSummary | None
    environment: Mapping[str, str]
    """The fingerprint: field -> value as text."""
    agents: Mapping[str, Mapping[str, str]]
    """Agent -> facts: model, architecture, role, spec (16 digits), engine, dtype."""
    diagnostics: Diagnostics | None = None
    """How the agents answered; ``None`` in runs that were decided before this was counted."""
    declared: bool = False
    """Whether batch invariance is in part vLLM's word; see :class:`orch_local.records.LevelAssessment`."""
