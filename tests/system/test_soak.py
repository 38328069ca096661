"""Ten times the questions, the same memory; ten kills, the same digest. The full soak is `soak.py` itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from soak import soak

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FEW, MANY = 1_000, 10_000
KILLS = 10


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A large run that nothing happened to."""
    return soak(tmp_path_factory.mktemp("many"), MANY, 0)


def test_memory_does_not_grow_with_the_questions(tmp_path: Path, many: dict[str, Any]) -> None:
    few = soak(tmp_path, FEW, 0)
    assert (few["answered"], many["answered"]) == (FEW, MANY)
    for process in ("parent_mib", "worker_mib"):
        assert many[process] < 1.5 * few[process], process


def test_killed_and_continued_it_loses_nothing_and_makes_nothing_twice(
    tmp_path: Path, many: dict[str, Any]
) -> None:
    killed = soak(tmp_path, MANY, KILLS)
    assert killed["killed"] >= KILLS // 2
    assert killed["digest"] == many["digest"]
    assert killed["rows_twice"] == 0
