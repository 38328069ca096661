"""The package of statistics as a whole; each of its modules has a test file of its own."""

from __future__ import annotations

from paths import ROOT

from orch_local import stats

DOCS = ROOT / "docs" / "statistics.md"


def test_all_names_are_there_and_sorted() -> None:
    assert stats.__all__ == sorted(stats.__all__)
    assert all(hasattr(stats, name) for name in stats.__all__)


def test_the_checks_table_names_every_function() -> None:
    functions = {name for name in stats.__all__ if name.islower()}
    table = DOCS.read_text(encoding="utf-8").partition("## How each function was checked")[2]
    assert {name for name in functions if f"| `{name}` |" not in table} == set()
