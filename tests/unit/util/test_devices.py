"""What a run may use of a machine: never more than the job or the control group that it is in was given."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from orch_local.util import devices
from orch_local.util.devices import Gpu, cpu_cores, free_memory_gib, gpu_names, machine, memory_gib

GIB = 2**30


@pytest.fixture(autouse=True)
def _a_plain_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Eight cores, 64 GiB, no job, no control group, no GPU."""
    for name in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    memory = psutil.virtual_memory()._replace(available=64 * GIB, total=128 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(devices, "_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(devices, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(devices, "_installed_gpus", lambda: ())


def in_job(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


def test_a_machine_that_is_nobodys_is_used_whole() -> None:
    assert (cpu_cores(), free_memory_gib(), memory_gib()) == (8, 64.0, 128.0)
    assert machine("cpu", threads=3) == devices.Machine("cpu", 2, 64.0)
    assert machine("cpu", threads=16).devices == 1


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


def test_gpus_are_those_that_are_like_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = Gpu("H100", 80.0, None, (9, 0)), Gpu("T4", 16.0, None, (7, 5))
    monkeypatch.setattr(devices, "_installed_gpus", lambda: (large, small, large))
    assert machine("cuda") == devices.Machine("cuda", 2, 80.0, "H100")
    assert gpu_names() == ("0", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, 0,7,2")
    assert (machine("cuda").name, gpu_names()) == ("T4", ("1",))


def test_gpus_that_nobody_can_name_are_one_of_unknown_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine("cuda") == devices.Machine("cuda", 1, 0.0)
    assert gpu_names() == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-aa")
    assert (machine("cuda").devices, gpu_names()) == (1, ())
