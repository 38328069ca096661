"""Profiling on a real engine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from running import Silent, write_run_file

from orch_local.config.run_files import RunConfig, load_run
from orch_local.records import Usage
from orch_local.run.context import StopRequest
from orch_local.run.profiling import (
    WARM_UP,
    profile,
)


def config_of(folder: Path, values: dict[str, Any]) -> RunConfig:
    return load_run(write_run_file(folder, values))


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.slow
def test_a_real_engine_is_measured(tmp_path: Path, run_values: dict[str, Any], scratch: Path) -> None:
    run_values["engine"] = {"name": "transformers"}
    run_values["agents"], run_values["merge"] = run_values["agents"][:1], {"policy": "majority"}
    made = profile(config_of(tmp_path, run_values), 8, Silent(), StopRequest())
    (one,) = made.agents.values()
    assert one.rows == 8 - WARM_UP
    assert one.load_s > 0
    usage = Usage(prompt=300, generated=30)
    assert 0.001 < one.latency(usage) < 60
    assert 1e-6 < one.cost(usage) < 60
