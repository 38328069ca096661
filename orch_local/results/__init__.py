"""The decisions of a run as figures: accuracy, paired tests, intervals, calibration, cost; and as files."""

__all__ = [
    "calibration",
    "compare",
    "diagnostics",
    "files",
    "finished",
    "levels",
    "scoring",
    "showing",
    "sizing",
    "spending",
    "summarise",
    "summary",
    "systems",
    "tables",
    "timeline",
    "together",
    "trajectory",
]
