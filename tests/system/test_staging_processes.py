"""Copies on a node's disk made by several processes, by killed ones, and on a disk that is too small."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from staged_models import PLANNED, agent_of, hub_snapshot, left_in

from orch_local.errors import StoreError
from orch_local.plan.plans import AgentPlan
from orch_local.run import staging
from orch_local.run.staging import stage


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return hub_snapshot(tmp_path)


SPAWN = multiprocessing.get_context("spawn")


def _stage_slowly(agent: AgentPlan, root: Path, log: Path) -> None:
    real = staging._copied

    def slow(source: Path, *others: Any) -> str:
        with log.open("a") as lines:
            lines.write(source.name + "\n")
        time.sleep(0.2)
        return real(source, *others)

    staging._copied = slow
    folder = stage(agent, root)
    assert staging._is_copy(folder, {name: agent.settings.model_path / name for name in PLANNED})


def test_of_several_processes_one_copies(model: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = agent_of(model), tmp_path / "scratch", log
    processes = [SPAWN.Process(target=_stage_slowly, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    names = log.read_text().split()
    assert len(names) == len(set(names)) == 5


def _stage_for_ever(agent: AgentPlan, root: Path) -> None:
    def endless(source: Path) -> Iterator[bytes]:
        yield source.read_bytes()[:5]
        time.sleep(600)

    staging._blocks = endless
    stage(agent, root)


def test_what_a_killed_process_left_is_cleaned_up(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "scratch"
    process = SPAWN.Process(target=_stage_for_ever, args=(agent_of(model), root))
    process.start()
    deadline = time.monotonic() + 200
    while not list(root.glob("orch-local/models/.*.partial/*")):
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    folder = stage(agent_of(model), root)
    assert left_in(root) == [folder.name]
    assert (folder / PLANNED[0]).read_bytes() == (model / PLANNED[0]).read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with too little room for the model."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_is_too_small_is_told_before_copying(
    model: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_copied", lambda *_: pytest.fail("copied"))
    with pytest.raises(StoreError, match=r"needs 0\.2 MiB, but only 0\.\d MiB are free"):
        stage(agent_of(model), small_disk)


def test_a_disk_that_fills_up_meanwhile(
    model: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_check_room", lambda *_: 0)
    with pytest.raises(StoreError, match="No space left on device") as refusal:
        stage(agent_of(model), small_disk)
    assert "free some space" in refusal.value.hint
    assert left_in(small_disk) == []
