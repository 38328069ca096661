"""Rows of an ablation: what each system scored, against the run as it was, with the uncertainty of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from orch_local.results.summary import Estimate
from orch_local.results.tables import Verdicts
from orch_local.stats import Interval, holm, mcnemar_exact, paired_interval, pairs_of, wilson


@dataclass(frozen=True, slots=True)
class AblationRow:
    """One system of an ablation."""

    family: str
    name: str
    vote: str
    """What decided: ``merge``, ``agent`` (its own answer), ``majority``, ``confidence``, ``probability``."""
    main: bool
    """Whether it stands in the short tables and the plot; the other rows vary one that does."""
    scored: int
    """Questions with gold that it answered."""
    correct: int
    unscored: int
    """Questions with gold that it did not answer: neither right nor wrong."""
    accuracy: Estimate | None
    """correct / scored; Wilson interval."""
    compared: int
    """Questions where it and ORCH as run are both scored; the next five are over these."""
    gained: int
    """It is right, ORCH as run is wrong."""
    lost: int
    difference: Estimate | None
    """Its accuracy minus that of ORCH as run; Newcombe's interval of paired proportions. None for ORCH."""
    p: float | None
    """Exact two-sided McNemar; ``None`` where there is no hypothesis, see :func:`adjusted`."""
    cost: float | None
    """Tokens of its analyses and merges, over the analyses and merges of the run."""
    facts: Mapping[str, float | int | str | None] = field(default_factory=dict)
    """Of routed rows: the setting, and how far it is from other choices."""
    p_holm: float | None = None
    """``p`` adjusted for all rows that have one."""


class AblationSystem(NamedTuple):
    """What a row is made from."""

    family: str
    name: str
    vote: str
    verdicts: Verdicts
    tokens: int
    main: bool = True
    facts: Mapping[str, float | int | str | None] = {}


def row_of(system: AblationSystem, reference: Verdicts, gold: int, tokens: int) -> AblationRow:
    """One system against the verdicts of ORCH as run, which cost ``tokens``."""
    correct = int(np.count_nonzero(system.verdicts == 1))
    scored = int(np.count_nonzero(system.verdicts >= 0))
    pairs = pairs_of(system.verdicts, reference)
    both = sum(pairs)
    return AblationRow(
        family=system.family,
        name=system.name,
        vote=system.vote,
        main=system.main,
        scored=scored,
        correct=correct,
        unscored=gold - scored,
        accuracy=estimate(correct / scored, wilson(correct, scored)) if scored else None,
        compared=both,
        gained=pairs.gained,
        lost=pairs.lost,
        difference=estimate(pairs.difference, paired_interval(pairs)) if both else None,
        p=mcnemar_exact(pairs.gained, pairs.lost).p if both else None,
        cost=system.tokens / tokens if tokens else None,
        facts=dict(system.facts),
    )


def adjusted(rows: Sequence[AblationRow], bounds: str = "") -> list[AblationRow]:
    """The rows with their p-values adjusted for each other.

    Parameters
    ----------
    rows:
        The first is the reference: it has neither p nor difference.
    bounds:
        A family of what was chosen in hindsight or by chance. These are no hypotheses, and have no p.
    """
    tested = [i for i, row in enumerate(rows) if i and row.family != bounds and row.p is not None]
    values = dict(zip(tested, holm([rows[i].p or 0.0 for i in tested]), strict=True))
    return [
        replace(
            row,
            p=row.p if i in values else None,
            p_holm=values.get(i),
            difference=row.difference if i else None,
        )
        for i, row in enumerate(rows)
    ]


def estimate(value: float, interval: Interval | None) -> Estimate | None:
    """A value with its interval, where it has one."""
    return Estimate(value, interval.low, interval.high) if interval else None
