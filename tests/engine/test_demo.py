"""The embedded default, whole: what the README claims of it must come out of a real run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from paths import TESTS
from running import Cli

from orch_local.util.host import cpu_kind

GOLDEN = TESTS / "golden" / "run" / "demo_digest.json"


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_merge_beats_every_member_of_the_panel(cli: Cli, tmp_path: Path) -> None:
    result = cli("demo", "--out", "demo")
    assert result.code == 0, result.err
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text(encoding="utf-8"))
    total, versus = metrics["total"], metrics["versus"]
    assert total["gold"] == total["orch"]["scored"] == 1000
    best = max(agent["accuracy"] for agent in total["agents"].values())
    assert total["orch"]["accuracy"] >= best + 0.10
    assert total["orch"]["accuracy"] > total["majority"]["accuracy"]
    assert all(comparison["p"] < 0.001 for comparison in (*versus["agents"].values(), versus["majority"]))
    # Other CPUs choose other kernels, which may come to other bytes.
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert metrics["digest"] == golden["digest"] or cpu_kind() != golden["cpu"]
    # What one sees: the headline, the table, and where to look next.
    assert "points above the best single agent" in " ".join(result.out.split())
    assert "orch-local show" in result.out
