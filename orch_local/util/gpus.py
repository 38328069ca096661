"""The GPUs of this machine, as nvidia-smi describes them; torch is not imported."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from orch_local.util.gpu_links import Slice, all_nvlinked, slices

_FIELDS = ("name", "memory.total", "driver_version", "compute_cap", "uuid")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU as nvidia-smi names it."""

    name: str
    memory_gib: float
    """0 where it is not known, as with memory that is shared with the host."""
    driver: str | None = None
    capability: tuple[int, int] | None = None
    """Compute capability, e.g. (9, 0); drivers before 510 do not tell it."""
    uuid: str = ""


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that a program started here can use, in its order; empty where there is none or no driver.

    CUDA_VISIBLE_DEVICES is honoured; its numbers are taken in nvidia-smi's order, which the engines ask
    CUDA for as well.
    """
    found = _installed_gpus()
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    # A slice of a GPU is not in nvidia-smi's list; which GPU it is cut from makes no difference here.
    if wanted is None or wanted.startswith("MIG-"):
        return found
    chosen = []
    for item in wanted.split(","):
        gpu = _named(item.strip(), found)
        if gpu is None:  # CUDA, too, ends its list at the first that it does not know
            break
        chosen.append(gpu)
    return tuple(chosen)


def _named(item: str, found: Sequence[Gpu]) -> Gpu | None:
    """The GPU of that number, or whose UUID begins so."""
    if item.isdigit():
        return found[int(item)] if int(item) < len(found) else None
    return next((gpu for gpu in found if item and gpu.uuid.startswith(item)), None)


@cache
def _installed_gpus() -> tuple[Gpu, ...]:
    fields: Sequence[str] = _FIELDS
    lines = _nvidia_smi(fields)
    if lines is None:
        # An old driver refuses the whole query for the one field that it does not know.
        fields = tuple(field for field in _FIELDS if field != "compute_cap")
        lines = _nvidia_smi(fields)
    split = (line.rsplit(",", len(fields) - 1) for line in lines or ())
    return tuple(
        _gpu(dict(zip(fields, map(str.strip, values), strict=True)))
        for values in split
        if len(values) == len(fields)
    )


def _nvidia_smi(fields: Sequence[str]) -> list[str] | None:
    """One line of values a GPU; ``None`` where there is no nvidia-smi or it refuses."""
    printed = _ask_nvidia_smi(f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
    return None if printed is None else printed.splitlines()


def _ask_nvidia_smi(*arguments: str) -> str | None:
    """What nvidia-smi prints; ``None`` where there is none, it fails or does not end."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    try:
        done = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


@cache
def _answer_of_nvidia_smi(*arguments: str) -> str:
    """What nvidia-smi prints, asked once; empty where there is none or it refuses."""
    return _ask_nvidia_smi(*arguments) or ""


def visible_slice() -> Slice | None:
    """The slice of a GPU that a process started here sees: CUDA offers one, the first or the one named."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is not None and not wanted.startswith("MIG-"):
        return None
    named = (wanted or "").split(",")[0]
    return next((one for one in slices(_answer_of_nvidia_smi("-L")) if one.uuid.startswith(named)), None)


def all_on_nvlink() -> bool | None:
    """Whether the GPUs of :func:`gpus_of_one_kind` reach each other by NVLink; ``None`` where not known."""
    places = gpus_of_one_kind()
    if len(places) < 2:
        return None
    used = [gpus()[place] for place in places]
    numbers = [number for number, gpu in enumerate(_installed_gpus()) if gpu in used]
    return all_nvlinked(_answer_of_nvidia_smi("topo", "-m"), numbers) if len(numbers) == len(used) else None


def _gpu(values: Mapping[str, str]) -> Gpu:
    """A GPU from nvidia-smi's values; what it does not know it prints as [N/A] or in other brackets."""
    mib, driver = values["memory.total"], values["driver_version"]
    capability = re.fullmatch(r"(\d+)\.(\d+)", values.get("compute_cap", ""))
    return Gpu(
        name=values["name"],
        memory_gib=float(mib) / 1024 if mib.isdigit() else 0.0,
        driver=None if driver.startswith("[") else driver,
        capability=(int(capability[1]), int(capability[2])) if capability else None,
        uuid=values["uuid"],
    )


def gpus_of_one_kind() -> tuple[int, ...]:
    """Places in :func:`gpus` of those that are like the first; the bytes of another kind may be others."""
    kinds = [(gpu.name, gpu.capability, gpu.memory_gib) for gpu in gpus()]
    return tuple(place for place, kind in enumerate(kinds) if kind == kinds[0])


def gpu_names() -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES calls each GPU of :func:`machine`, in order; empty where they are unknown."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is not None and wanted.startswith("MIG-"):
        return ()
    names = wanted.split(",") if wanted is not None else [str(place) for place in range(len(gpus()))]
    return tuple(names[place].strip() for place in gpus_of_one_kind())
