"""Rows in the chunks of a store, for tests of those who write and read them."""

from __future__ import annotations

from pathlib import Path

from orch_local.records import Analysis, Outcome
from orch_local.store.store import Store

SPEC = "0" * 32


def row(key: str, text: str = "x", outcome: Outcome = Outcome.OK) -> Analysis:
    return Analysis(key, outcome, answer="A", text=text)


def put(store: Store, *rows: Analysis) -> Path:
    """Write rows as one chunk; returns its file."""
    before = set(store.folder(SPEC).glob("*.jsonl"))
    with store.writer(SPEC) as writer:
        for each in rows:
            writer.add(each)
    (chunk,) = set(store.folder(SPEC).glob("*.jsonl")) - before
    return chunk
