"""What a run may use of a machine: of this one, or of one that is described in words."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from orch_local.errors import InputError
from orch_local.util.gpus import all_on_nvlink, gpus, gpus_of_one_kind, visible_slice
from orch_local.util.host import cpu_cores, free_memory_gib


@dataclass(frozen=True, slots=True)
class Machine:
    """What may be used; see :func:`machine`."""

    kind: str
    """``cpu`` or ``cuda``."""
    devices: int
    """GPUs of one kind; on a CPU sets of cores, one for each worker."""
    memory_gib: float
    """Of each GPU, 0 where it is not known (and then not checked); on a CPU of the host, shared by all."""
    name: str = ""
    """What the GPU calls itself."""
    nvlink: bool | None = None
    """Whether all GPUs reach each other by NVLink; ``None`` where that is not known."""


def machine(kind: str, threads: int = 1) -> Machine:
    """What a run may use here: the GPUs of one kind, or sets of cores with as many threads each.

    Parameters
    ----------
    kind:
        ``cpu`` or ``cuda``. GPUs that :func:`gpus` does not know are taken to be one of unknown memory.
    """
    if kind == "cpu":
        return Machine("cpu", max(1, cpu_cores() // threads), free_memory_gib())
    if part := visible_slice():
        return Machine("cuda", 1, part.memory_gib, part.name)
    if os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-"):
        return Machine("cuda", 1, 0.0)  # a slice that nvidia-smi does not list
    found = gpus()
    if not found:
        return Machine("cuda", 1, 0.0)
    count = len(gpus_of_one_kind())
    return Machine("cuda", count, found[0].memory_gib, found[0].name, all_on_nvlink())


def read_machine(text: str) -> Machine:
    """A machine of GPUs as it is written on the command line: ``4x80GiB``, or ``8xH100:80GiB``.

    Raises
    ------
    InputError
        If it is written otherwise.
    """
    match = re.fullmatch(r"(\d{1,4})x(?:([\w .-]{1,64}):)?(\d{1,4}(?:\.\d+)?)(?:GiB|GB)?", text)
    if match is None or int(match[1]) == 0 or float(match[3]) == 0:
        raise InputError(
            f"{text!r} is no machine", where="--machine", hint="write 4x80GiB, or 8xH100:80GiB for its speed"
        )
    return Machine("cuda", int(match[1]), float(match[3]), match[2] or "")
