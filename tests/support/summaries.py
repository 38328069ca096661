"""Summaries by hand: one with every part filled, one whose every text is hostile, one with nothing to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from itertools import combinations
from typing import Any, TypeVar

from orch_local.results.diagnostics import (
    AgainstLabel,
    AgentDiagnostics,
    Baselines,
    Diagnostics,
    NeverDiffer,
    Spread,
)
from orch_local.results.summary import (
    AgentPair,
    Bin,
    Calibration,
    CategorySummary,
    CochranSummary,
    Complementarity,
    CostSummary,
    CurvePoint,
    Estimate,
    Multiplicity,
    PairSummary,
    RouterPoint,
    RouterSummary,
    Spending,
    Summary,
    SystemSummary,
)
from orch_local.results.tables import MAJORITY, ORACLE, ORCH

AGENTS = ("quant", "chrono", "verbal")
CATEGORIES = ("sums", "dates")
HOSTILE = (
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 1</script><!--",
    "<img src=x onerror=\"window.pwned = 1\"><svg onload='window.pwned = 1'>",
    '<a href="javascript:window.pwned = 1">javascript:window.pwned = 1</a>',
    "</title></style></td></table><iframe srcdoc='<b>'>\" autofocus onfocus='window.pwned = 1' x=\"",
    "{{ 7 * 7 }} {% include 'x' %} ${7} &lt;b&gt; <![CDATA[ ]]> <!-- -->",
    "\u202eright to left\u2066 \x00\x07\x1b[2J\x9b \x7f \ufeff\u200b\u2028\u2029",
    "lone \ud800 surrogate \udfff",
    "",
    " \n\t ",
    "name" * 2_500,
    "<" * 10_000,
)
T = TypeVar("T")


def estimate(value: float, half: float = 0.05) -> Estimate:
    """A share, or a difference, with an interval of twice that width."""
    return Estimate(value, value - half, value + half)


def pair(first: str, second: str, gained: int = 30, lost: int = 10) -> PairSummary:
    """Two systems on 100 questions, of which 40 both have right."""
    gap, p = (gained - lost) / 100, 0.002 if gained != lost else 1.0
    ratio = Estimate(gained / lost, 1.4, 6.9)
    neither = 60 - gained - lost
    return PairSummary(
        first, second, 100, 40, gained, lost, neither, estimate(gap), ratio, p, p / 2, min(1.0, p * 3)
    )


def usual(router: bool = True) -> Summary:
    """A run of 100 questions in which ORCH is better than its agents; no part of a report is empty."""
    systems = (*AGENTS, MAJORITY, ORCH)
    pairs = [pair(ORCH, other) for other in systems if other != ORCH]
    pairs += [pair(*two, 20, 20) for two in combinations(systems[:-1], 2)]
    return Summary(
        title="made by hand",
        benchmark="jsonl questions.jsonl",
        version="0.1",
        digest="0123456789abcdef" * 4,
        level="verified",
        level_reasons=("2 engines of 4 are not batch-invariant",),
        generated_again=12,
        same=12,
        questions=104,
        gold=102,
        no_gold=2,
        bad_rows=1,
        policy="agent",
        best_agent="chrono",
        systems=tuple(_system(name, number) for number, name in enumerate((*systems, ORACLE))),
        pairs=tuple(pairs),
        cochran=CochranSummary(98, 5, 41.5, 4, 2e-8),
        categories=tuple(_category(name) for name in CATEGORIES),
        how={"merge": 80, "unanimous": 20, "unscored": 4},
        agreement=0.2,
        unscored={"quorum": 3, "merge invalid": 1},
        complementarity=_together(),
        multiplicity=(
            Multiplicity(0.01, AGENTS[:2], 98, 0.25, 0.25),
            Multiplicity(0.05, AGENTS, 98, 0.4, 0.3),
        ),
        calibration=tuple(
            _calibration(n, s) for s in ("probability", "confidence") for n in (AGENTS[0], ORCH)
        ),
        spending=_spending(),
        router=_router() if router else None,
        environment={"python": "3.11.9", "vllm": "0.32.0", "device": "made up"},
        agents={name: {"model": f"{name}-7b", "role": "solve", "dtype": "bfloat16"} for name in AGENTS},
        diagnostics=diagnostics(),
    )


def diagnostics() -> Diagnostics:
    """Three agents, of which the first is degenerate in every way, and a merge agent."""
    good = AgentDiagnostics(
        answers=100,
        labels={"A": 26, "B": 24, "C": 25, "D": 25},
        gold={"A": 25, "B": 25, "C": 20, "D": 30},
        reasoning_chars=600,
        reasonings=100,
        empty=0,
        cut=1,
        copied=0,
        identical=0,
        alike=2,
        contradicted=1,
        undecided=0,
        confidence=Spread(100, 30, 80, 20),
        probability=Spread(100, 40, 99, 30),
    )
    poor = replace(
        good,
        labels={"A": 96, "B": 4},
        empty=5,
        cut=12,
        copied=40,
        identical=31,
        alike=62,
        contradicted=8,
        undecided=20,
        confidence=Spread(100, 1, 100, 100),
        probability=Spread(100, 2, 100, 97),
    )
    against = {AGENTS[0]: AgainstLabel(100, 26, 30, 0.6), AGENTS[1]: AgainstLabel(100, 70, 30, 1e-9)}
    baselines = Baselines(102, good.gold, "D", 0.3, 0.25, {**against, ORCH: AgainstLabel(100, 31, 30, 0.9)})
    agents = dict(zip(AGENTS, (poor, good, good), strict=True)) | {"merge": good}
    return Diagnostics(baselines, agents, (NeverDiffer(AGENTS[1], AGENTS[2], 100),))


def bare() -> Summary:
    """A run without gold: little can be said of it."""
    nothing = Complementarity((), None, (0,) * 4, 0, 0, 0, 0, 0, 0)
    spent = Spending("cpu", (), 0.0, 0.0, 0.0, 0.0, None)
    unknown = [SystemSummary(name, 0, 0, None, None, None, {}) for name in (*AGENTS, MAJORITY, ORCH, ORACLE)]
    return replace(
        usual(router=False),
        gold=0,
        no_gold=104,
        bad_rows=0,
        best_agent=None,
        systems=tuple(unknown),
        pairs=(),
        cochran=None,
        categories=(),
        how={},
        agreement=None,
        unscored={},
        complementarity=nothing,
        multiplicity=(),
        calibration=(),
        spending=spent,
        environment={},
        agents={},
        level_reasons=(),
        diagnostics=None,
    )


def hostile(texts: Callable[[], str]) -> Summary:
    """The usual summary with another text wherever a text may come from a run; names stay consistent."""
    kept = {MAJORITY, ORCH, ORACLE, "cuda", "probability", "confidence", "0.05", "0.1"}
    renamed: dict[str, str] = {}

    def other(text: str) -> str:
        if text in kept:
            return text
        if text not in renamed:
            renamed[text] = _unlike(texts(), renamed)
        return renamed[text]

    return mapped(usual(), other)


def _unlike(text: str, known: Mapping[str, str]) -> str:
    while text in known.values():
        text += "'"
    return text


def mapped(value: T, change: Callable[[str], str]) -> T:
    """The same tree with each text changed."""
    return _mapped(value, change)  # type: ignore[no-any-return]


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_mapped(one, change) for one in value)
    if isinstance(value, Mapping):
        return {change(key): _mapped(one, change) for key, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{one.name: _mapped(getattr(value, one.name), change) for one in fields(value)}
        )
    return value


def _system(name: str, number: int) -> SystemSummary:
    right = 50 + 6 * number
    unscored = {} if name == ORACLE else {"truncated": 1, "invalid": 1}
    share = estimate(right / 100)
    return SystemSummary(name, 100, right, share, estimate(right / 100, 0.08), right / 102, unscored)


def _category(name: str) -> CategorySummary:
    systems = (*AGENTS, MAJORITY, ORCH, ORACLE)
    known = {one: estimate(0.3 + 0.1 * number) for number, one in enumerate(systems)}
    return CategorySummary(
        name, 51, {**known, AGENTS[0]: None}, dict.fromkeys(systems, 50), pair(ORCH, "chrono")
    )


def _together() -> Complementarity:
    pairs = [
        AgentPair(*two, 98, 0.4, sign, 0.5, 0.3)
        for two, sign in zip(combinations(AGENTS, 2), (0.2, -0.3, None), strict=True)
    ]
    return Complementarity(tuple(pairs), estimate(0.8), (20, 30, 30, 18), 30, 10, 25, 8, 5, 9)


def _calibration(system: str, signal: str) -> Calibration:
    bins = tuple(Bin(n / 10, (n + 1) / 10, 10 + n, n / 10 + 0.04, estimate(n / 10)) for n in range(2, 10))
    curve = tuple(CurvePoint(1 - n / 20, n / 20, 0.02 * n) for n in range(1, 21))
    risks = {"0.05": curve[1], "0.1": None}
    return Calibration(system, signal, 100, 0.08, 0.21, bins, curve, 0.19, risks, Spread(100, 30, 80, 20))


def _spending() -> Spending:
    agents = [CostSummary(name, 104, 100, 20_000, 12_000, 9_000, 10.5, 42.0) for name in (*AGENTS, "merge")]
    return Spending("cuda", tuple(agents), 42.0, 126.0, 30.0, 12.0, 1_234.5)


def _router() -> RouterSummary:
    points = [
        RouterPoint(10 * n, 10 * n - 10, dict.fromkeys(AGENTS, 0.4 + 0.03 * n), dict.fromkeys(AGENTS, 1 / n))
        for n in range(1, 11)
    ]
    return RouterSummary("online", dict.fromkeys(AGENTS, 60), {"score": 90, "warm_up": 14}, tuple(points))
