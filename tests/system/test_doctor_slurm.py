"""The doctor on a real SLURM: two nodes on this machine, and what a run file may ask of them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from slurm_cluster import Cluster

from orch_local.deploy.doctor import slurm
from orch_local.deploy.doctor.checks import Finding
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.request import DoctorRequest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def examined(folder: Path, shards: int | None = None, **block: Any) -> dict[str, Finding]:
    """What the doctor says of a run file with this `slurm` block."""
    values = {
        "benchmark": {"name": "jsonl", "path": "questions.jsonl"},
        "agents": [{"name": "a", "model": "some"}],
        "merge": {"policy": "majority"},
        "slurm": block,
    }
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    inspection = Inspection(DoctorRequest(str(file), str(folder / "out"), shards=shards))
    return {one.id: one for one in slurm.examine(inspection)}


def levels(found: dict[str, Finding]) -> dict[str, str]:
    return {name.removeprefix("slurm-"): one.level.value for name, one in found.items()}


@pytest.fixture
def here(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster as that of this process."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.config))
    return cluster


GOOD = {"partition": "main", "score_partition": "urgent", "gres": "gpu:2", "time": "30", "cpus_per_task": 1}


def test_what_the_cluster_can_do(here: Cluster, tmp_path: Path) -> None:
    found = examined(tmp_path, shards=8, **GOOD)
    assert set(levels(found).values()) == {"green"}, json.dumps(levels(found))
    assert len(found) == 8
    assert found["slurm-clients"].fact.startswith("slurm")
    assert "up to 10,000 are possible" in found["slurm-array"].fact
    assert "not needed" in found["slurm-accounting"].fact


@pytest.mark.parametrize(
    ("change", "check", "word"),
    [
        ({"partition": "gpus"}, "partition", "there are main, urgent"),
        ({"time": "2:00:00"}, "time", "at most 60 min"),
        ({"gres": "gpu:3"}, "gres", "no node has gpu:3"),
        ({"gres": "gpu:h100:1"}, "gres", "no node has"),
        ({"mem": "4000G"}, "node", "the largest has"),
        ({"cpus_per_task": 5000}, "node", "no node has 5000 cores"),
    ],
)
def test_what_it_cannot(
    here: Cluster, tmp_path: Path, change: dict[str, object], check: str, word: str
) -> None:
    found = examined(tmp_path, **{**GOOD, **change})
    assert levels(found)[check] == "red"
    assert word in found[f"slurm-{check}"].fact


def test_more_shards_than_an_array_has_places(here: Cluster, tmp_path: Path) -> None:
    assert levels(examined(tmp_path, shards=10_001, **GOOD))["array"] == "red"


def test_a_partition_that_is_down(here: Cluster, tmp_path: Path) -> None:
    here.client("scontrol", "update", "partitionname=urgent", "state=down")
    try:
        assert levels(examined(tmp_path, **GOOD))["partition"] == "yellow"
    finally:
        here.client("scontrol", "update", "partitionname=urgent", "state=up")


def test_without_a_block_the_cluster_is_told_and_nothing_judged(here: Cluster, tmp_path: Path) -> None:
    told = levels(examined(tmp_path))
    assert (told["controller"], told["array"], told["gres"]) == ("green", "green", "not checked")


def test_a_controller_that_does_not_answer(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "slurm.conf"
    lines = cluster.config.read_text().splitlines()
    config.write_text("\n".join(f"{line.split('=')[0]}=1" if "ctldPort" in line else line for line in lines))
    monkeypatch.setenv("SLURM_CONF", str(config))
    began = time.monotonic()
    found = examined(tmp_path, **GOOD)
    assert time.monotonic() - began < 200
    assert levels(found)["controller"] == "red"
    assert levels(found)["partition"] == "not checked"


def test_without_slurm_nobody_asks_for_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in slurm._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(slurm, "_FILES", ())
    monkeypatch.setattr(slurm, "ask", lambda *_: pytest.fail("the clients would look into the DNS"))
    assert set(levels(examined(tmp_path)).values()) == {"not checked"}


def test_a_block_but_no_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = levels(examined(tmp_path, **GOOD))
    assert told.pop("clients") == "yellow"
    assert set(told.values()) == {"not checked"}
