"""More than two systems, or more than one comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class CochranQ(NamedTuple):
    """Result of Cochran's test that several systems are equally good."""

    statistic: float
    df: int
    """Systems less one."""
    p: float
    """Of the chi-squared distribution: good where differing questions times systems is 24 or more."""
    n: int
    """Questions on which all systems are scored."""
    systems: int


def cochran_q(verdicts: Sequence[npt.NDArray[np.int8]]) -> CochranQ | None:
    """Cochran's Q over the questions where all systems are scored.

    Questions that all have right, or all have wrong, carry no information and are left out of the sum. Of two
    systems it is McNemar's test with the chi-squared approximation, uncorrected.

    Parameters
    ----------
    verdicts:
        Of each system, shape (n,), of the same questions: 1 right, 0 wrong, negative unscored.

    Returns
    -------
    ``None`` with fewer than two systems, or without a question on which all are scored. Statistic 0 and p 1
    where no question differs.

    Raises
    ------
    ValueError
        If the shapes differ.

    Source: Cochran (1950), Biometrika 37:256; the 24: Tate & Brown (1970), JASA 65:155. Computed by
    ``statsmodels.stats.contingency_tables.cochrans_q``.
    """
    if len({column.shape for column in verdicts}) > 1:
        raise ValueError("the verdicts are not of the same questions")
    if len(verdicts) < 2:
        return None
    import numpy as np

    scored = np.logical_and.reduce([column >= 0 for column in verdicts])
    n, systems = int(np.count_nonzero(scored)), len(verdicts)
    if not n:
        return None
    first = verdicts[0]
    differs = scored & np.logical_or.reduce([column != first for column in verdicts[1:]])
    if not differs.any():
        return CochranQ(0.0, systems - 1, 1.0, n, systems)
    from statsmodels.stats.contingency_tables import cochrans_q

    result = cochrans_q(np.column_stack([column[differs] for column in verdicts]))
    return CochranQ(float(result.statistic), systems - 1, float(result.pvalue), n, systems)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, in the order given: the chance of even one false alarm is bounded.

    Source: Holm (1979), Scandinavian Journal of Statistics 6:65. Computed by
    ``statsmodels.stats.multitest.multipletests(method="holm")``.
    """
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]]
