"""What this machine computes on, told without importing torch."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from orch_local.placement.placing import Machine
from orch_local.util.gpu_links import Slice, all_nvlinked, slices

_CPUINFO = Path("/proc/cpuinfo")
_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_L2_SIZE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
_FIELDS = ("name", "memory.total", "driver_version", "compute_cap", "uuid")
_X86_FLAGS = re.compile(r"(avx|amx)\w*|fma4?|f16c|sse4_[12]")
"""Flags of x86 by which oneDNN, MKL, ATen and vLLM choose their kernels."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU as nvidia-smi names it."""

    name: str
    memory_gib: float
    """0 where it is not told, as with memory that is shared with the host."""
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
    printed = _printed(f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
    return None if printed is None else printed.splitlines()


def _printed(*arguments: str) -> str | None:
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
def _told(*arguments: str) -> str:
    """What nvidia-smi prints, asked once; empty where there is none or it refuses."""
    return _printed(*arguments) or ""


def _slice() -> Slice | None:
    """The slice of a GPU that a process started here sees: CUDA offers one, the first or the one named."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is not None and not wanted.startswith("MIG-"):
        return None
    named = (wanted or "").split(",")[0]
    return next((one for one in slices(_told("-L")) if one.uuid.startswith(named)), None)


def _nvlinked() -> bool | None:
    """Whether the GPUs of :func:`gpus_of_one_kind` reach each other by NVLink; ``None`` where not known."""
    places = gpus_of_one_kind()
    if len(places) < 2:
        return None
    used = [gpus()[place] for place in places]
    numbers = [number for number, gpu in enumerate(_installed_gpus()) if gpu in used]
    return all_nvlinked(_told("topo", "-m"), numbers) if len(numbers) == len(used) else None


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


@cache
def cpu_kind() -> str:
    """All of the CPU by which numerical libraries choose their kernels, in one line.

    Architecture, maker, size of the level-2 cache (vLLM sizes the tiles of its attention by it) and the
    instruction sets, sorted.
    """
    text, flags = _read(_CPUINFO), cpu_flags()
    # On ARM the list is short and all of it is about arithmetic.
    sets = [flag for flag in flags if _X86_FLAGS.fullmatch(flag)] or _cpu_field(text, "Features").split()
    maker = [_cpu_field(text, name) for name in ("vendor_id", "CPU implementer", "CPU part")]
    cache_size = _read(_L2_SIZE).strip()
    parts = [platform.machine(), *maker, cache_size and f"L2={cache_size}", *sorted(set(sets))]
    return " ".join(part for part in parts if part)


def cpu_flags() -> frozenset[str]:
    """What the first CPU can do, as the kernel names it; empty where it does not tell."""
    text = _read(_CPUINFO)
    return frozenset((_cpu_field(text, "flags") or _cpu_field(text, "Features")).split())


def _cpu_field(text: str, name: str) -> str:
    """A field of the first CPU; empty where there is none of that name."""
    match = re.search(rf"^{name}\s*:\s*(.*?)\s*$", text, re.MULTILINE)
    return match[1] if match else ""


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


def machine(kind: str, threads: int = 1) -> Machine:
    """What a run may use here: the GPUs of one kind, or sets of cores with as many threads each.

    Parameters
    ----------
    kind:
        ``cpu`` or ``cuda``. GPUs that :func:`gpus` does not know are taken to be one of unknown memory.
    """
    if kind == "cpu":
        return Machine("cpu", max(1, cpu_cores() // threads), free_memory_gib())
    if part := _slice():
        return Machine("cuda", 1, part.memory_gib, part.name)
    if os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-"):
        return Machine("cuda", 1, 0.0)  # a slice that nvidia-smi does not list
    found = gpus()
    if not found:
        return Machine("cuda", 1, 0.0)
    count = len(gpus_of_one_kind())
    return Machine("cuda", count, found[0].memory_gib, found[0].name, _nvlinked())


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


def cpu_cores() -> int:
    """Cores that this process may use.

    A SLURM job may use those it was given, also where the cluster does not bind it to them.
    """
    cores = len(os.sched_getaffinity(0))
    return min(cores, _of_job("SLURM_CPUS_ON_NODE") or cores)


def free_memory_gib() -> float:
    """Memory of the host that can be taken now, in GiB, within what SLURM and control groups grant."""
    return _within_grants(psutil.virtual_memory().available)


def memory_gib() -> float:
    """Memory of the host whether it is free or not, in GiB, within what SLURM and control groups grant."""
    return _within_grants(psutil.virtual_memory().total)


def _within_grants(of_host: int) -> float:
    """GiB of so many bytes that this process may take."""
    granted_mib = _of_job("SLURM_MEM_PER_NODE") or _of_job("SLURM_MEM_PER_CPU") * cpu_cores()
    grants = [granted_mib * 2**20] if granted_mib else []
    return float(min([of_host, *grants, *_group_limits()])) / 2**30


def _of_job(name: str) -> int:
    """What SLURM says of this job on this node; 0 where it says nothing, or this is no job."""
    value = os.environ.get(name, "") if "SLURM_JOB_ID" in os.environ else ""
    return int(value) if value.isdecimal() else 0


def _group_limits() -> list[int]:
    """Bytes that this process's control group (version 2) and those above it may take."""
    own = re.search(r"^0::/(.*)$", _read(_GROUP), re.MULTILINE)
    if own is None:
        return []
    folder = _GROUPS / own[1]
    limits = (_read(one / "memory.max").strip() for one in (folder, *folder.parents))
    return [int(limit) for limit in limits if limit.isdecimal()]
