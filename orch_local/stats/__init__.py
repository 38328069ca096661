"""Uncertainty of scores and of what is compared; pure, with the formulas of scipy and statsmodels.

Both libraries, and numpy, are imported inside the functions: they take long to load, and the command line
must not. Formulas, choices and how each function was checked: `docs/statistics.md`.
"""

from orch_local.stats.calibration import (
    ReliabilityBin,
    RiskCoverage,
    abstain_threshold,
    aurc,
    brier,
    ece,
    reliability,
    risk_coverage,
    thinned,
)
from orch_local.stats.diversity import disagreement, phi, yule_q
from orch_local.stats.multiplicity import Ambiguity, predictive_multiplicity
from orch_local.stats.paired import (
    McNemar,
    OddsRatio,
    Pairs,
    mcnemar_exact,
    mcnemar_mid_p,
    odds_ratio,
    paired_interval,
    pairs_of,
)
from orch_local.stats.power import mcnemar_power, minimum_detectable, questions_needed
from orch_local.stats.proportions import Interval, binomial_excess, clustered_interval, wilson
from orch_local.stats.several import CochranQ, cochran_q, holm

__all__ = [
    "Ambiguity",
    "CochranQ",
    "Interval",
    "McNemar",
    "OddsRatio",
    "Pairs",
    "ReliabilityBin",
    "RiskCoverage",
    "abstain_threshold",
    "aurc",
    "binomial_excess",
    "brier",
    "clustered_interval",
    "cochran_q",
    "disagreement",
    "ece",
    "holm",
    "mcnemar_exact",
    "mcnemar_mid_p",
    "mcnemar_power",
    "minimum_detectable",
    "odds_ratio",
    "paired_interval",
    "pairs_of",
    "phi",
    "predictive_multiplicity",
    "questions_needed",
    "reliability",
    "risk_coverage",
    "thinned",
    "wilson",
    "yule_q",
]
