"""The simulation of `benchmarks/scale.py`, tiny: same digest in any number of shards, files as predicted."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest
from paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FILE = ROOT / "benchmarks" / "scale.py"
QUESTIONS, AGENTS, RATE = 1_000, 5, 20.0


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scale", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runs(scale: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    root = tmp_path_factory.mktemp("scale")
    sizes = {1: QUESTIONS, 8: QUESTIONS, 2: QUESTIONS // 4}
    return {
        shards: scale.Simulation(root / str(shards), questions, shards, AGENTS, RATE).run()
        for shards, questions in sizes.items()
    }


def test_the_digest_is_that_of_one_shard(runs: dict[int, dict[str, Any]]) -> None:
    assert runs[1]["digest"] == runs[8]["digest"]
    assert runs[8]["steps"]["score"]["answered"] == QUESTIONS
    assert runs[8]["steps"]["score"]["level"] == "bitwise"
    assert sum(runs[8]["steps"]["work"]["shard_rows"]) > 0


def test_files_are_as_many_as_the_rule_of_the_writer_says(runs: dict[int, dict[str, Any]]) -> None:
    """20 rows a second and 5 s make chunks of some 100 rows; the last one of a writer is smaller."""
    for shards in (1, 8):
        writers, rows = shards * (AGENTS + 1), QUESTIONS * (AGENTS + 1)
        chunks = runs[shards]["sizes"]["chunks"]
        assert rows / 101 <= chunks <= rows / 99 + writers
        assert runs[shards]["sizes"]["folders"] == writers + AGENTS + 1  # and the folders of evidence
        renames = runs[shards]["steps"]["work"]["calls"]["rename"]
        specs = renames - chunks - writers  # of evidence each writer has one file
        assert AGENTS + 1 <= specs <= 2 * (AGENTS + 1)  # two at a time may both write one


def test_memory_does_not_grow_with_the_questions(runs: dict[int, dict[str, Any]]) -> None:
    for step in ("work", "score"):
        few, many = (runs[shards]["steps"][step]["peak_mib"] for shards in (2, 8))
        assert many < few + 15, step
