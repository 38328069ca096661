"""What this machine computes on, told without importing torch."""

from __future__ import annotations

import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

import psutil


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU as nvidia-smi names it."""

    name: str
    memory_gib: float
    """0 where it is not told, as with memory that is shared with the host."""


@cache
def gpus() -> tuple[Gpu, ...]:
    """The GPUs of this machine, in nvidia-smi's order; empty where there is none or no driver."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    query = [command, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(_gpu(line) for line in done.stdout.splitlines() if "," in line)


def _gpu(line: str) -> Gpu:
    name, mib = line.rsplit(",", 1)
    return Gpu(name.strip(), float(mib) / 1024 if mib.strip().isdigit() else 0.0)


def free_memory_gib() -> float:
    """Memory of the host that can be taken now, in GiB."""
    return float(psutil.virtual_memory().available) / 2**30


def device_name(device: str) -> str:
    """The kind of device that enters a spec: the GPU's name, or the architecture of the CPU."""
    if device == "cuda" and gpus():
        return gpus()[0].name
    return platform.machine() if device == "cpu" else device
