"""The package of statistics as a whole; each of its modules has a test file of its own."""

from __future__ import annotations

import subprocess
import sys

from paths import ROOT

from orch_local import stats

DOCS = ROOT / "docs" / "statistics.md"


def test_all_names_are_there_and_sorted() -> None:
    assert stats.__all__ == sorted(stats.__all__)
    assert all(hasattr(stats, name) for name in stats.__all__)


def test_importing_the_package_loads_none_of_the_slow_libraries() -> None:
    code = (
        "import sys, orch_local.stats;"
        "sys.exit(' '.join({'numpy', 'scipy', 'statsmodels', 'pandas'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_checks_table_names_every_function() -> None:
    functions = {name for name in stats.__all__ if name.islower()}
    table = DOCS.read_text(encoding="utf-8").partition("## How each function was checked")[2]
    assert {name for name in functions if f"| `{name}` |" not in table} == set()
