"""How far the errors of two systems coincide; symmetric in the two.

Source of all three: Kuncheva & Whitaker (2003), Machine Learning 51:181, section 2, where N11 is ``both``,
N10 ``gained``, N01 ``lost`` and N00 ``neither``.
"""

from __future__ import annotations

import math

from orch_local.stats.paired import Pairs


def phi(pairs: Pairs) -> float | None:
    """Correlation of the two errors, within -1 and 1: 0 where they are independent, 1 where the same.

    The same as Pearson's correlation of the two columns of 0 and 1, and as Matthews' coefficient.
    ``None`` where one of the two never, or always, errs, and without data.
    """
    both, gained, lost, neither = pairs
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    return (both * neither - gained * lost) / math.sqrt(margins) if margins else None


def yule_q(pairs: Pairs) -> float | None:
    """Yule's Q statistic, within -1 and 1: (OR - 1) / (OR + 1) with OR = both * neither / (gained * lost).

    Its size is at least that of :func:`phi`; it is 1 (or -1) as soon as one of ``gained`` and ``lost``
    (``both`` and ``neither``) is 0. ``None`` where both products are 0, and without data.
    """
    together, apart = pairs.both * pairs.neither, pairs.gained * pairs.lost
    return (together - apart) / (together + apart) if together + apart else None


def disagreement(pairs: Pairs) -> float | None:
    """Share of the questions on which exactly one of the two is right; ``None`` without data."""
    n = sum(pairs)
    return (pairs.gained + pairs.lost) / n if n else None
