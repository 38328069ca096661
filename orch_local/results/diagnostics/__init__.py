"""How the agents answered, right or wrong: label shares; repeated, cut, copied, contradicted reasonings.

A run may end with plausible numbers although an agent answers A always, or repeats its prompt. These figures
say so. They are counted in the one pass that decides and scores a run, they are no part of any decision or
digest, and their sentences are in :mod:`orch_local.report.findings`.
"""

from orch_local.results.diagnostics.counting import DiagnosticsCounter
from orch_local.results.diagnostics.figures import (
    AgainstLabel,
    AgentDiagnostics,
    Baselines,
    Diagnostics,
    NeverDiffer,
    Spread,
    spread_of,
)
from orch_local.results.diagnostics.notes import row_notes

__all__ = [
    "AgainstLabel",
    "AgentDiagnostics",
    "Baselines",
    "Diagnostics",
    "DiagnosticsCounter",
    "NeverDiffer",
    "Spread",
    "row_notes",
    "spread_of",
]
