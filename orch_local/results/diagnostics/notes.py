"""Remarks on a single row, in words."""

from __future__ import annotations

from orch_local.records import Analysis, Question
from orch_local.results.diagnostics.statements import Verdict, labels_stated, verdict


def row_notes(question: Question, row: Analysis) -> list[str]:
    """Notes on what one agent wrote about a question; empty where there is nothing to say."""
    notes = [f"reasoning reached its bound of {len(row.reasoning):,} characters"] if row.cut else []
    found = verdict(question, row) if row.usable else Verdict.NOTHING
    named = labels_stated(question, row)
    if found is Verdict.CONTRADICTED:
        notes.append("contradicts its own text" + (f", which names {named}" if named else ""))
    if found is Verdict.UNDECIDED:
        notes.append(f"its text names several answers: {', '.join(named)}")
    return notes
