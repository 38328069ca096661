"""What GPUs of a kind can do, by the name that nvidia-smi gives them. Pure.

Figures are about half of what the maker's data sheets say: arithmetic in bfloat16 without sparsity (float16
where there is none), memory traffic, and traffic between GPUs. They tell minutes from hours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NVLINK = 1.5e11
"""Bytes a second between GPUs: NVLink of A100 and H100 has 300 to 450 GB/s in each direction."""
_PCIE = 1e10
"""PCIe 4.0 x16 has 32 GB/s in each direction, through the host."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Sustained speed of one device."""

    flops: float
    """Operations a second in the model's dtype."""
    bytes_per_s: float
    """Memory traffic."""
    step_s: float = 0.01
    """Overhead of one step of the engine, in which the device idles."""
    link_bytes_per_s: float = _PCIE
    """To the other GPUs of a tensor-parallel group."""


@dataclass(frozen=True, slots=True)
class GpuKind:
    """A kind of GPU."""

    name: str
    pattern: str
    """Regular expression of its names."""
    flops: float
    bytes_per_s: float
    nvlink: bool
    """Whether boxes with several of it usually link them."""


_KINDS = (
    GpuKind("B300", r"G?B300", 1.0e15, 5.0e12, nvlink=True),
    GpuKind("B200", r"G?B200", 1.0e15, 5.0e12, nvlink=True),
    GpuKind("H200", r"H200|GH200", 4.0e14, 3.0e12, nvlink=True),
    GpuKind("H100 PCIe", r"H100 PCIe", 3.0e14, 1.3e12, nvlink=False),
    GpuKind("H100", r"H[18]00", 4.0e14, 2.2e12, nvlink=True),
    GpuKind("H20", r"H20", 7.0e13, 2.6e12, nvlink=True),
    GpuKind("A100 PCIe", r"A[18]00\b.*PCI\w*", 1.5e14, 1.1e12, nvlink=False),
    GpuKind("A100", r"A[18]00", 1.5e14, 1.2e12, nvlink=True),
    GpuKind("L40S", r"L40S", 1.7e14, 6.0e11, nvlink=False),
    GpuKind("L40", r"L40", 9.0e13, 6.0e11, nvlink=False),
    GpuKind("L4", r"L4", 5.0e13, 2.2e11, nvlink=False),
    GpuKind("A10", r"A10G?", 5.0e13, 4.3e11, nvlink=False),
    GpuKind("A40", r"A40", 7.5e13, 5.0e11, nvlink=False),
    GpuKind("RTX PRO 6000", r"RTX PRO 6000", 2.0e14, 1.2e12, nvlink=False),
    GpuKind("RTX 6000 Ada", r"RTX 6000 Ada", 1.7e14, 6.5e11, nvlink=False),
    GpuKind("RTX A6000", r"RTX A6000", 7.5e13, 5.3e11, nvlink=False),
    GpuKind("RTX 5090", r"5090", 1.0e14, 1.2e12, nvlink=False),
    GpuKind("RTX 4090", r"4090", 8.0e13, 7.0e11, nvlink=False),
    GpuKind("RTX 3090", r"3090", 3.5e13, 6.5e11, nvlink=False),
    GpuKind("V100", r"V100", 5.0e13, 6.0e11, nvlink=True),
    GpuKind("T4", r"T4", 2.5e13, 2.0e11, nvlink=False),
)
"""The first whose pattern is a word of the name is taken."""

_BY_MEMORY = (
    (170, "B200"),
    (100, "H200"),
    (60, "A100"),
    (44, "L40S"),
    (38, "A100"),
    (30, "RTX 5090"),
    (20, "A10"),
)
"""What a GPU is taken for of which the memory alone is known: the least GiB, the kind."""


def kind_of(name: str, memory_gib: float) -> GpuKind:
    """The kind of a GPU by its name, else a usual one with so much memory (0: unknown)."""
    by_name = (kind for kind in _KINDS if re.search(rf"\b(?:{kind.pattern})\b", name, re.IGNORECASE))
    likely = next((likely for least, likely in _BY_MEMORY if memory_gib >= least), "T4")
    return next(by_name, None) or next(kind for kind in _KINDS if kind.name == likely)


def is_known(name: str) -> bool:
    """Whether the speed of a GPU is known by its name."""
    return any(re.search(rf"\b(?:{kind.pattern})\b", name, re.IGNORECASE) for kind in _KINDS)


def gpu_speed(name: str, memory_gib: float, nvlink: bool | None) -> Speed:
    """Speed of a GPU.

    Parameters
    ----------
    nvlink:
        Whether its neighbours are reached by NVLink; ``None`` takes what is usual for the kind.
    """
    kind, part = kind_of(name, memory_gib), _part(name)
    linked = kind.nvlink if nvlink is None else nvlink
    link = _NVLINK if linked else _PCIE
    return Speed(part * kind.flops, part * kind.bytes_per_s, link_bytes_per_s=link)


def _part(name: str) -> float:
    """What share of a GPU is there: a slice named ``MIG 2g.10gb`` has two of its seven parts."""
    found = re.search(r"\bMIG (\d)g\.", name)
    return int(found[1]) / 7 if found else 1.0
