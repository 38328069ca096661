"""Cores and memory that a run may use: never more than its job or its control group was given."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from orch_local.util.host import cpu_cores, free_memory_gib, memory_gib

GIB = 2**30


@pytest.fixture(autouse=True)
def _a_plain_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Eight cores, 64 GiB, no job, no control group."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    memory = psutil.virtual_memory()._replace(available=64 * GIB, total=128 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr("orch_local.util.host._GROUP", tmp_path / "cgroup")
    monkeypatch.setattr("orch_local.util.host._GROUPS", tmp_path / "groups")


def in_job(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


def test_a_machine_that_is_nobodys_is_used_whole() -> None:
    assert (cpu_cores(), free_memory_gib(), memory_gib()) == (8, 64.0, 128.0)


@pytest.mark.parametrize(
    ("values", "cores", "gib"),
    [
        ({"CPUS_ON_NODE": "4"}, 4, 64.0),
        ({"CPUS_ON_NODE": "96"}, 8, 64.0),
        ({"MEM_PER_NODE": "16384"}, 8, 16.0),
        ({"MEM_PER_NODE": "0"}, 8, 64.0),  # all there is
        ({"CPUS_ON_NODE": "4", "MEM_PER_CPU": "2048"}, 4, 8.0),
        ({"CPUS_ON_NODE": "many"}, 8, 64.0),
    ],
)
def test_a_job_uses_what_it_was_given(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], cores: int, gib: float
) -> None:
    in_job(monkeypatch, **values)
    assert (cpu_cores(), free_memory_gib()) == (cores, gib)
    assert memory_gib() == (gib if gib < 64 else 128.0)


def test_what_slurm_left_in_the_environment_is_nothing_without_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "1")
    assert cpu_cores() == 8


@pytest.mark.parametrize(
    ("outer", "inner", "gib"),
    [("max", "max", 64.0), (f"{32 * GIB}", "max", 32.0), (f"{32 * GIB}", f"{12 * GIB}", 12.0)],
)
def test_control_groups_bound_the_memory(tmp_path: Path, outer: str, inner: str, gib: float) -> None:
    (tmp_path / "cgroup").write_text("1:name=systemd:/else\n0::/system/job\n")
    for place, most in (("system", outer), ("system/job", inner)):
        folder = tmp_path / "groups" / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(most + "\n")
    assert free_memory_gib() == gib
    assert memory_gib() == (gib if gib < 64 else 128.0)
