"""The agents of a run together: how their errors coincide, and what the merge changed. Pure, on columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from orch_local.results.summary import AgentPair, Complementarity, Multiplicity, SystemSummary
from orch_local.results.systems import accuracy
from orch_local.results.tables import MAJORITY, ORACLE, ORCH, RunTable
from orch_local.stats import Pairs, disagreement, pairs_of, phi, predictive_multiplicity, yule_q

TOLERANCES = (0.01, 0.02, 0.05)
_ROUNDING = 1e-12
"""An accuracy that is 0.05 lower on paper must not be 0.05000000000000004 lower here."""


def complementarity(table: RunTable, best: str | None) -> Complementarity:
    """What the agents could do together; ``best`` is the best of them."""
    verdicts = table.verdicts
    oracle, orch = verdicts[ORACLE], verdicts[ORCH]
    # Unscored is not wrong: a question counts where both are scored, as in the pairs of the report.
    vote, panel = pairs_of(orch, verdicts[MAJORITY]), pairs_of(orch, oracle)
    alone = pairs_of(orch, verdicts[best]) if best else Pairs(0, 0, 0, 0)
    right = ((verdicts[name] == 1).astype(np.int64) for name in table.agents)
    counts = sum(right, np.zeros(len(table), np.int64))
    per_count = np.bincount(counts[table.has_gold], minlength=len(table.agents) + 1)
    return Complementarity(
        pairs=tuple(_agent_pair(table, *pair) for pair in combinations(range(len(table.agents)), 2)),
        oracle=accuracy(_count(oracle == 1), _count(oracle >= 0)),
        right_counts=tuple(per_count.tolist()),
        saves=vote.gained,
        breaks=vote.lost,
        saves_against_best=alone.gained,
        breaks_against_best=alone.lost,
        beyond_panel=panel.gained,
        lost_by_merge=panel.lost,
    )


def _count(chosen: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(chosen))


def _agent_pair(table: RunTable, i: int, j: int) -> AgentPair:
    first, second = table.agents[i], table.agents[j]
    counts = pairs_of(table.verdicts[first], table.verdicts[second])
    both_wrong = (table.verdicts[first] == 0) & (table.verdicts[second] == 0)
    same = _count(both_wrong & (table.answer[i] == table.answer[j]))
    return AgentPair(
        first=first,
        second=second,
        n=sum(counts),
        disagreement=disagreement(counts),
        error_correlation=phi(counts),
        q_statistic=yule_q(counts),
        same_wrong=same / counts.neither if counts.neither else None,
    )


def multiplicity(
    table: RunTable, found: Sequence[SystemSummary], best: str | None
) -> tuple[Multiplicity, ...]:
    """How far agents that are about as good as ``best`` differ from it, for each tolerance."""
    if best is None:
        return ()
    shares = {one.name: one.correct / one.scored for one in found if one.name in table.agents and one.scored}
    return tuple(
        _within(table, [best, *_rivals(shares, best, tolerance)], tolerance) for tolerance in TOLERANCES
    )


def _rivals(shares: Mapping[str, float], best: str, tolerance: float) -> list[str]:
    least = shares[best] - tolerance - _ROUNDING
    return [name for name, share in shares.items() if name != best and share >= least]


def _within(table: RunTable, competing: Sequence[str], tolerance: float) -> Multiplicity:
    answers = dict(zip(table.agents, table.answer, strict=True))
    baseline, *others = (answers[name] for name in competing)
    measured = predictive_multiplicity(baseline, others)
    return Multiplicity(
        tolerance=tolerance,
        competing=tuple(competing),
        n=measured.n if measured else 0,
        ambiguity=measured.ambiguity if measured else None,
        discrepancy=measured.discrepancy if measured else None,
    )
