"""Cores, memory and CPU of this machine, within what SLURM and control groups grant."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from pathlib import Path

import psutil

_CPUINFO = Path("/proc/cpuinfo")
_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_L2_SIZE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
_X86_FLAGS = re.compile(r"(avx|amx)\w*|fma4?|f16c|sse4_[12]")
"""Flags of x86 by which oneDNN, MKL, ATen and vLLM choose their kernels."""


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
