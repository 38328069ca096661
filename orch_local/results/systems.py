"""The systems of a run against gold and against each other: accuracies, pairs, categories. Pure, on columns.

What counts where is defined in :mod:`orch_local.results.scoring`, and every figure here is
the one that stands there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orch_local.results.scoring import NO_ANSWER, NO_MAJORITY, NO_USABLE_ANALYSIS
from orch_local.results.summary import CategorySummary, CochranSummary, Estimate, PairSummary, SystemSummary
from orch_local.results.tables import MAJORITY, ORCH, Column, RunTable, Verdicts
from orch_local.stats import (
    Interval,
    Pairs,
    clustered_interval,
    cochran_q,
    holm,
    mcnemar_exact,
    mcnemar_mid_p,
    odds_ratio,
    paired_interval,
    pairs_of,
    wilson,
)

Mask = npt.NDArray[np.bool_]
_REMEMBERED = 1 << 16
"""Small categories have the same few counts again and again, and each costs a call of scipy."""


class _Figures(NamedTuple):
    """What follows from the counts of a pair."""

    difference: Estimate | None
    odds_ratio: Estimate | None
    p: float | None
    p_mid: float | None


@lru_cache(_REMEMBERED)
def accuracy(correct: int, n: int) -> Estimate | None:
    """A share with its Wilson interval; ``None`` without data."""
    interval = wilson(correct, n)
    return Estimate(correct / n, interval.low, interval.high) if interval else None


def systems(table: RunTable) -> tuple[SystemSummary, ...]:
    """How each system did: the agents in order, the majority vote, ORCH, the oracle."""
    return tuple(_system(table, name, verdicts) for name, verdicts in table.verdicts.items())


def _system(table: RunTable, name: str, verdicts: Verdicts) -> SystemSummary:
    scored, correct = int(np.count_nonzero(verdicts >= 0)), int(np.count_nonzero(verdicts == 1))
    gold = int(np.count_nonzero(table.has_gold))
    return SystemSummary(
        name=name,
        scored=scored,
        correct=correct,
        accuracy=accuracy(correct, scored),
        clustered=_clustered(table, verdicts),
        accuracy_all=correct / gold if gold else None,
        unscored=_reasons(table, name, table.has_gold & (verdicts < 0)),
    )


def _clustered(table: RunTable, verdicts: Verdicts) -> Estimate | None:
    return _by_source(table, verdicts >= 0, verdicts, Interval(0, 1))


def _clustered_difference(table: RunTable, first: Verdicts, second: Verdicts) -> Estimate | None:
    return _by_source(table, (first >= 0) & (second >= 0), first - second, Interval(-1, 1))


def _by_source(table: RunTable, scored: Mask, values: Verdicts, bounds: Interval) -> Estimate | None:
    """The mean of the values that count, with an interval that allows for shared sources."""
    counted, clusters = values[scored].astype(np.float64), table.cluster.codes[scored]
    if not (clusters >= 0).any():
        return None
    interval = clustered_interval(counted, clusters, bounds=bounds)
    return Estimate(float(counted.mean()), interval.low, interval.high) if interval else None


def _reasons(table: RunTable, name: str, lacking: Mask) -> Mapping[str, int]:
    """Why a system has no answer to some questions."""
    if name in table.agents:
        return tally(table.outcome[table.agents.index(name)], lacking)
    if name == ORCH:
        return tally(table.reason, lacking)
    count = int(np.count_nonzero(lacking))
    return {NO_MAJORITY if name == MAJORITY else NO_USABLE_ANALYSIS: count} if count else {}


def tally(column: Column, chosen: Mask, otherwise: str = NO_ANSWER) -> dict[str, int]:
    """How often each text occurs among the chosen questions, by name; ``otherwise`` stands for none."""
    counts = np.bincount(column.codes[chosen] + 1, minlength=len(column.names) + 1)
    found: Counter[str] = Counter()
    for name, count in zip((otherwise, *column.names), counts.tolist(), strict=True):
        found[name] += count
    return {name: found[name] for name in sorted(found) if found[name]}


def best_agent(found: Sequence[SystemSummary]) -> str | None:
    """The agent with most questions right, then highest accuracy, then first; ``None`` without gold."""
    agents = [one for one in found[:-3] if one.accuracy]
    best = max(agents, key=lambda one: (one.correct, one.correct / one.scored), default=None)
    return best.name if best else None


def pairs(table: RunTable) -> tuple[PairSummary, ...]:
    """All pairs of ORCH, the majority vote and the agents, in this order."""
    verdicts = table.verdicts
    found = [
        replace(
            compared(first, second, pairs_of(verdicts[first], verdicts[second])),
            clustered=_clustered_difference(table, verdicts[first], verdicts[second]),
        )
        for first, second in combinations((ORCH, MAJORITY, *table.agents), 2)
    ]
    return tuple(adjusted(found))


def compared(first: str, second: str, counts: Pairs) -> PairSummary:
    """Two systems by the counts of what they have in common; ``p_holm`` is left to :func:`adjusted`."""
    figures = _figures(counts)
    return PairSummary(first, second, sum(counts), *counts, **figures._asdict(), p_holm=None)


@lru_cache(_REMEMBERED)
def _figures(counts: Pairs) -> _Figures:
    interval = paired_interval(counts)
    if interval is None:
        return _Figures(None, None, None, None)
    ratio = odds_ratio(counts.gained, counts.lost)
    return _Figures(
        difference=Estimate(counts.difference, interval.low, interval.high),
        odds_ratio=Estimate(ratio.value, ratio.low, ratio.high) if ratio else None,
        p=mcnemar_exact(counts.gained, counts.lost).p,
        p_mid=mcnemar_mid_p(counts.gained, counts.lost),
    )


def adjusted(found: Sequence[PairSummary]) -> Iterator[PairSummary]:
    """The pairs with what Holm makes of their p-values; one without a question is no comparison."""
    corrected = iter(holm([one.p for one in found if one.p is not None]))
    for one in found:
        yield one if one.p is None else replace(one, p_holm=next(corrected))


def cochran(verdicts: Sequence[Verdicts]) -> CochranSummary | None:
    """Are all these systems equally good?"""
    found = cochran_q(verdicts)
    return CochranSummary(found.n, found.systems, found.statistic, found.df, found.p) if found else None


def categories(table: RunTable, best: str | None) -> tuple[CategorySummary, ...]:
    """Those with gold, in alphabetical order; ``best`` is the agent that ORCH is compared with."""
    known = table.has_gold & (table.category.codes >= 0)
    codes = table.category.codes[known].astype(np.int64)
    verdicts = {name: one[known] for name, one in table.verdicts.items()}
    size = len(table.category.names)
    counts = {name: _crossed(codes, one + 1, (size, 3)) for name, one in verdicts.items()}
    versus = _versus(codes, verdicts[ORCH], verdicts[best], size) if best else None
    found = [
        _category(name, {system: one[number] for system, one in counts.items()})
        for number, name in enumerate(table.category.names)
    ]
    if best and versus is not None:
        made = (compared(ORCH, best, Pairs(*row)) for row in versus.tolist())
        found = [replace(one, versus_best=pair) for one, pair in zip(found, made, strict=True)]
    return tuple(_with_holm([one for one in found if one.gold]))


def _crossed(rows: npt.NDArray[np.int64], columns: Verdicts, shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """How often each column occurs in each row."""
    return np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape)


def _versus(
    codes: npt.NDArray[np.int64], orch: Verdicts, other: Verdicts, size: int
) -> npt.NDArray[np.int64]:
    """By category the fields of :class:`Pairs`."""
    both = (orch >= 0) & (other >= 0)
    case = (2 * (1 - orch) + (1 - other))[both]
    return _crossed(codes[both], case, (size, 4))


def _category(name: str, counts: Mapping[str, npt.NDArray[np.int64]]) -> CategorySummary:
    found = {system: [int(count) for count in row] for system, row in counts.items()}
    return CategorySummary(
        name=name,
        gold=sum(found[ORCH]),
        systems={system: accuracy(right, wrong + right) for system, (_, wrong, right) in found.items()},
        scored={system: wrong + right for system, (_, wrong, right) in found.items()},
        versus_best=None,
    )


def _with_holm(found: Sequence[CategorySummary]) -> Iterable[CategorySummary]:
    corrected = iter(list(adjusted([one.versus_best for one in found if one.versus_best])))
    return [replace(one, versus_best=next(corrected)) if one.versus_best else one for one in found]
