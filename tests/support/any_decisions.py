"""Decisions of all kinds, drawn or written as letters, and what a finished run makes of them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st
from two_runs import agent, decision, finished, plan

from orch_local.merge.merging import majority
from orch_local.records import Analysis, Decision, How, Outcome
from orch_local.results.files import write_decisions
from orch_local.results.summarise import summarise
from orch_local.results.summary import Summary
from orch_local.results.tables import RunTable, read_table
from orch_local.store.store import RunFolder

NAMES = ("quant", "chrono", "verbal")
_SHARES = st.none() | st.sampled_from([0.0, 0.25, 0.5, 2 / 3, 0.9, 1.0])
_STATED = st.none() | st.integers(0, 100)
_LETTERS = st.sampled_from("ABC")
_TEXT = st.text(max_size=6)


@st.composite
def a_decision(draw: st.DrawFn, text: st.SearchStrategy[str] = _TEXT) -> Decision:
    """One in which agents are asked or not, answer or fail; with gold or without, decided or not."""
    asked = [name for name in NAMES if draw(st.integers(0, 9))]
    answers = {name: draw(st.none() | _LETTERS) if draw(st.booleans()) else draw(_LETTERS) for name in asked}
    failed = st.sampled_from(["invalid", "truncated", "failed"])
    usable = [Analysis("k", Outcome.OK, answer) for answer in answers.values() if answer]
    answer = draw(_LETTERS) if usable and draw(st.integers(0, 9)) else None
    merged = answer is not None and draw(st.booleans())
    return Decision(
        question_id=f"{draw(st.integers(0, 2**64 - 1)):016x}",
        category=draw(st.sampled_from(["sums", "time", ""]) | text),
        gold=draw(st.none() | _LETTERS) if draw(st.booleans()) else "A",
        answers=answers,
        confidences={name: draw(_STATED) if said else None for name, said in answers.items()},
        outcomes={name: "ok" if said else draw(failed) for name, said in answers.items()},
        answer=answer,
        how=How.UNSCORED if answer is None else How.MERGE if merged else How.MAJORITY,
        reason=draw(st.sampled_from(["quorum", "merge invalid"])) if answer is None else "",
        majority=majority(usable),
        probabilities={name: draw(_SHARES) if said else None for name, said in answers.items()},
        confidence=draw(_STATED) if merged else None,
        probability=draw(_SHARES) if merged else None,
        cluster=draw(st.sampled_from(["", "", "page 1", "page 2"]) | text),
    )


def many_decisions(least: int = 0) -> st.SearchStrategy[list[Decision]]:
    """Some of them."""
    return st.lists(a_decision(), min_size=least, max_size=25)


def table_from(decisions: Sequence[Decision], agents: Sequence[str] = NAMES) -> RunTable:
    """The decisions as they are read back."""
    with tempfile.TemporaryDirectory() as folder:
        write_decisions(Path(folder), decisions, agents)
        return read_table(RunFolder(Path(folder)), agents)


def letters(*rows: str, gold: str | None = "A", **changes: Any) -> list[Decision]:
    """Decisions of two agents and ORCH."""
    return [decision(number, row, gold, **changes) for number, row in enumerate(rows)]


def summary_from(decisions: Sequence[Decision], names: Sequence[str] = NAMES) -> Summary:
    """The summary of a run that ended with these decisions.

    statsmodels collects garbage at each correction, which takes longest where other tests left most.
    """
    made = plan([agent(name, {}) for name in names], agent("merge", {}, "merge"), count=len(decisions))
    with tempfile.TemporaryDirectory() as folder, patch("gc.collect"):
        return summarise(finished(Path(folder) / "run", made, decisions))


def utf8(text: str) -> str:
    """As Parquet holds it."""
    return text.encode("utf-8", "backslashreplace").decode()
