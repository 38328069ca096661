"""How GPUs are linked and sliced, from what nvidia-smi prints, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import write_run_file

from orch_local.config.run_files import load_run
from orch_local.errors import ConfigError
from orch_local.placement.gpu_kinds import gpu_speed
from orch_local.placement.hardware_notes import Shared, hardware_notes, lacks_bfloat16
from orch_local.placement.machine import Machine, machine
from orch_local.run.planning import plan_run
from orch_local.util.gpu_links import all_nvlinked, slices
from orch_local.util.gpus import Gpu

LINKED = """\
\t\x1b[4mGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \tNV12\tNV12\tSYS\tPXB\t0-31\t0\t\tN/A
GPU1\tNV12\t X \tNV12\tSYS\tPXB\t0-31\t0\t\tN/A
GPU2\tNV12\tNV12\t X \tSYS\tSYS\t32-63\t1\t\tN/A
GPU3\tSYS\tSYS\tSYS\t X \tSYS\t32-63\t1\t\tN/A
NIC0\tPXB\tPXB\tSYS\tSYS\t X

Legend:

  X    = Self
  NV#  = Connection traversing a bonded set of # NVLinks
"""
SLICED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-11)
  MIG 3g.20gb     Device  0: (UUID: MIG-aa)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-bb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-22)
"""


@pytest.mark.parametrize(
    ("gpus", "linked"),
    [((0, 1, 2), True), ((0, 3), False), ((0,), None), ((0, 7), None), ((0, 1, 2, 3), False)],
)
def test_links_are_read_from_the_matrix(gpus: tuple[int, ...], linked: bool | None) -> None:
    assert all_nvlinked(LINKED, gpus) is linked
    assert all_nvlinked("", gpus) is None


def test_slices_are_read_with_their_gpu() -> None:
    first, second = slices(SLICED)
    assert (first.name, first.uuid) == ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "MIG-aa")
    assert first.memory_gib == pytest.approx(17.7, abs=0.05) and second.uuid == "MIG-bb"
    whole, part = (gpu_speed(name, 40.0, None) for name in ("NVIDIA A100-SXM4-40GB", first.name))
    assert part.flops == pytest.approx(whole.flops * 3 / 7)


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine with these GPUs, whose nvidia-smi prints that."""

    def telling(*gpus: Gpu, listing: str = "", topology: str = "") -> None:
        monkeypatch.setattr("orch_local.util.gpus._installed_gpus", lambda: gpus)
        told = {("-L",): listing, ("topo", "-m"): topology}
        monkeypatch.setattr("orch_local.util.gpus._answer_of_nvidia_smi", lambda *arguments: told[arguments])

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return telling


def a100(number: int) -> Gpu:
    return Gpu("NVIDIA A100-SXM4-40GB", 40.0, "580.1", (8, 0), f"GPU-{number}")


def test_a_machine_knows_how_those_gpus_are_linked_that_may_be_used(
    telling: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    telling(*map(a100, range(4)), topology=LINKED)
    assert machine("cuda").nvlink is False
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert machine("cuda").nvlink is True
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert machine("cuda").nvlink is None


def test_a_slice_is_a_machine_of_its_own(
    telling: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    telling(a100(0), listing=SLICED)
    assert machine("cuda").name.endswith("MIG 3g.20gb")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-bb")
    found = machine("cuda")
    assert (found.devices, found.name) == (1, "NVIDIA A100-SXM4-40GB MIG 1g.5gb+me")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert machine("cuda").name == "NVIDIA A100-SXM4-40GB"


# --- notes ----------------------------------------------------------------------------------------


def notes(machine: Machine, *sizes: int) -> list[str]:
    return list(hardware_notes(machine, [Shared(f"a{size}", size) for size in sizes]))


def test_who_shares_a_model_over_pcie_is_warned() -> None:
    name = "NVIDIA H100 80GB HBM3"
    assert not notes(Machine("cuda", 4, 80.0, name), 1, 4)
    assert not notes(Machine("cuda", 4, 80.0, name, nvlink=False), 1)
    (told,) = notes(Machine("cuda", 4, 80.0, name, nvlink=False), 1, 4)
    assert told.startswith("a4: ") and "PCIe only" in told
    (told,) = notes(Machine("cuda", 2, 48.0, "NVIDIA L40S"), 2)
    assert "usually have no NVLink" in told
    assert not notes(Machine("cuda", 2, 48.0, "NVIDIA L40S", nvlink=True), 2)


def test_a_speed_that_is_only_assumed_is_told() -> None:
    (told,) = notes(Machine("cuda", 1, 80.0), 1)
    assert "the GPU is not known" in told and "A100" in told
    assert not notes(Machine("cpu", 4, 80.0), 1)


def test_gpus_before_ampere_lack_bfloat16() -> None:
    assert lacks_bfloat16((7, 5)) and lacks_bfloat16((7, 0))
    assert not lacks_bfloat16((8, 0)) and not lacks_bfloat16(None)


@pytest.mark.parametrize(
    ("gpu", "message", "hint"),
    [
        (
            Gpu("Tesla T4", 15.0, "580.1", (7, 5), "GPU-0"),
            "Tesla T4 does not compute in bfloat16",
            "dtype: float16",
        ),
        (
            Gpu("Tesla V100", 32.0, "580.1", (7, 0), "GPU-0"),
            "Tesla V100 is too old for CUDA 13",
            "device: cpu",
        ),
    ],
)
def test_what_the_gpu_cannot_do_is_refused_before_loading(
    telling: Callable[..., None],
    run_values: dict[str, Any],
    tmp_path: Path,
    gpu: Gpu,
    message: str,
    hint: str,
) -> None:
    telling(gpu)
    agent = run_values["agents"][0]
    own = tmp_path / "own.yaml"
    own.write_text(f"name: own\npath: {agent['model']}\ndtype: bfloat16\n", encoding="utf-8")
    agent["model"] = str(own)
    run_values["engine"]["device"] = "cuda"
    with pytest.raises(ConfigError, match=message) as caught:
        plan_run(load_run(write_run_file(tmp_path, run_values)), tmp_path / "store")
    assert hint in caught.value.hint
