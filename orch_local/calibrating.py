"""How far the confidence of each system can be believed. Pure, on columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from orch_local.stats import RiskCoverage, abstain_threshold, aurc, brier, ece, reliability, risk_coverage
from orch_local.stats import thinned as thin
from orch_local.summary import Bin, Calibration, CurvePoint
from orch_local.systems import accuracy
from orch_local.tables import ORCH, RunTable, Shares, Verdicts

BINS = 15
TARGETS = (0.01, 0.02, 0.05, 0.10)
POINTS = 200
MEANINGFUL = 0.5
"""The probability is taken where at least this share of the scored questions has one."""


class _Signal(NamedTuple):
    """What a system says of its own answers."""

    system: str
    probability: Shares
    confidence: Shares
    verdicts: Verdicts


def calibration(table: RunTable) -> tuple[Calibration, ...]:
    """Of the agents in order, then of ORCH, where they have a signal."""
    found = (_calibrated(one) for one in _signals(table))
    return tuple(one for one in found if one)


def _signals(table: RunTable) -> Iterator[_Signal]:
    for i, name in enumerate(table.agents):
        yield _Signal(name, table.probability[i], table.confidence[i], table.verdicts[name])
    yield _Signal(ORCH, table.final_probability, table.final_confidence, table.verdicts[ORCH])


def _calibrated(one: _Signal) -> Calibration | None:
    scored = one.verdicts >= 0
    name, values = _chosen(one.probability[scored], one.confidence[scored])
    known = ~np.isnan(values)
    if not known.any():
        return None
    return _measured(one.system, name, values[known], one.verdicts[scored][known])


def _chosen(probability: Shares, confidence: Shares) -> tuple[str, Shares]:
    """The probability where enough questions have one, else what was stated."""
    shares = (~np.isnan(probability)).mean() if len(probability) else 0.0
    stated = (~np.isnan(confidence)).any()
    if shares >= MEANINGFUL or (shares and not stated):
        return "probability", probability
    return "confidence", confidence


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
