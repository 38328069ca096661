"""What a run may use of a machine: GPUs of one kind, or sets of cores."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orch_local.errors import InputError
from orch_local.placement.machine import Machine, machine, read_machine
from orch_local.util.gpus import Gpu, gpu_names, gpus_of_one_kind

LARGE = Gpu("H100", 80.0, capability=(9, 0))
SMALL = Gpu("T4", 16.0, capability=(7, 5))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the machine have these GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda *gpus: monkeypatch.setattr("orch_local.util.gpus._installed_gpus", lambda: gpus)


def test_only_gpus_like_the_first_are_used(
    installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(LARGE, SMALL, LARGE)
    assert machine("cuda") == Machine("cuda", 2, 80.0, "H100")
    assert (gpus_of_one_kind(), gpu_names()) == ((0, 2), ("0", "2"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, 0,7,2")
    assert (machine("cuda").name, gpu_names()) == ("T4", ("1",))


def test_gpus_that_are_not_known_are_one_of_unknown_memory(
    installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed()
    assert machine("cuda") == Machine("cuda", 1, 0.0)
    assert gpus_of_one_kind() == gpu_names() == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-aa")
    assert (machine("cuda").devices, gpu_names()) == (1, ())


def test_a_slice_of_a_gpu_is_one_device(
    installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(LARGE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1234")
    assert machine("cuda") == Machine("cuda", 1, 0.0)


def test_cores_are_shared_out_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orch_local.placement.machine.cpu_cores", lambda: 13)
    monkeypatch.setattr("orch_local.placement.machine.free_memory_gib", lambda: 7.5)
    assert machine("cpu") == Machine("cpu", 13, 7.5)
    assert machine("cpu", threads=4).devices == 3
    assert machine("cpu", threads=64).devices == 1


def test_a_machine_is_read_as_it_is_written() -> None:
    assert read_machine("4x80GiB") == Machine("cuda", 4, 80.0)
    assert read_machine("8xH100:80GiB") == Machine("cuda", 8, 80.0, "H100")
    assert read_machine("2xRTX 4090:24.5") == Machine("cuda", 2, 24.5, "RTX 4090")
    with pytest.raises(InputError, match="is no machine"):
        read_machine("4 GPUs")
