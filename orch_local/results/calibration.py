"""How far the confidence of each system can be believed. Pure, on columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from orch_local.results.diagnostics import spread_of
from orch_local.results.summary import Bin, Calibration, CurvePoint
from orch_local.results.systems import accuracy
from orch_local.results.tables import ORCH, RunTable, Shares, Verdicts
from orch_local.stats import RiskCoverage, abstain_threshold, aurc, brier, ece, reliability, risk_coverage
from orch_local.stats import thinned as thin

BINS = 15
TARGETS = (0.01, 0.02, 0.05, 0.10)
POINTS = 200


class _Signal(NamedTuple):
    """What a system says of its own answers, in one way."""

    system: str
    name: str
    values: Shares
    verdicts: Verdicts


def calibration(table: RunTable) -> tuple[Calibration, ...]:
    """By signal, the probability first: of the agents in order, then of ORCH, where they have it.

    Both are reported, since neither is better by itself: behind a written analysis the probability of the
    label is near 1 whatever the model thinks, and what a model states may be the same number each time.
    """
    found = (_calibrated(one) for one in _signals(table))
    return tuple(one for one in found if one)


def _signals(table: RunTable) -> Iterator[_Signal]:
    systems = (*table.agents, ORCH)
    kinds = {
        "probability": (*table.probability, table.final_probability),
        "confidence": (*table.confidence, table.final_confidence),
    }
    for kind, columns in kinds.items():
        for name, values in zip(systems, columns, strict=True):
            yield _Signal(name, kind, values, table.verdicts[name])


def _calibrated(one: _Signal) -> Calibration | None:
    known = (one.verdicts >= 0) & ~np.isnan(one.values)
    if not known.any():
        return None
    return _measured(one.system, one.name, one.values[known], one.verdicts[known])


def _measured(system: str, signal: str, values: Shares, verdicts: Verdicts) -> Calibration:
    correct = verdicts == 1
    # A probability is a sum of rounded ones, and may be above one by its last bit.
    values = np.clip(values, 0.0, 1.0)
    bins, curve = reliability(values, correct, BINS), risk_coverage(values, correct)
    return Calibration(
        system=system,
        signal=signal,
        n=len(values),
        ece=ece(bins),
        brier=brier(values, correct),
        bins=tuple(_bin(one.low, one.high, one.n, one.confidence, one.correct) for one in bins),
        curve=_points(thin(curve, POINTS)),
        aurc=aurc(curve),
        abstain={f"{target:.2f}": _abstain(curve, target) for target in TARGETS},
        spread=spread_of(Counter(np.rint(100 * values).astype(int).tolist())),
    )


def _bin(low: float, high: float, n: int, confidence: float, correct: int) -> Bin:
    share = accuracy(correct, n)
    assert share is not None  # a bin is not empty
    return Bin(low, high, n, confidence, share)


def _points(curve: RiskCoverage) -> tuple[CurvePoint, ...]:
    columns = (column.tolist() for column in (curve.threshold, curve.coverage, curve.risk))
    return tuple(CurvePoint(*values) for values in zip(*columns, strict=True))


def _abstain(curve: RiskCoverage, target: float) -> CurvePoint | None:
    index = abstain_threshold(curve, target)
    if index is None:
        return None
    return CurvePoint(float(curve.threshold[index]), float(curve.coverage[index]), float(curve.risk[index]))
