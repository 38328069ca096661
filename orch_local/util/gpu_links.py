"""How GPUs are linked and cut into slices, read from what nvidia-smi prints; :mod:`gpus` calls it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ROW = re.compile(r"^GPU(\d+)\s+(.*)$")
_GPU = re.compile(r"^GPU \d+: (.+?) \(UUID: ")
_SLICE = re.compile(r"^\s+MIG (\S*?(\d+)gb\S*)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)")
_OF_ITS_NAME = 0.95
"""A slice has a little less memory than it is called by: 4.75 GiB of 5gb, 9.6 of 10gb."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a GPU (MIG), which CUDA offers as a device of its own."""

    name: str
    """The GPU and the profile, as ``NVIDIA A100-SXM4-40GB MIG 1g.5gb``."""
    memory_gib: float
    uuid: str


def all_nvlinked(topology: str, gpus: Sequence[int]) -> bool | None:
    """Whether each of some GPUs reaches each other by NVLink; ``None`` where the text does not tell.

    Parameters
    ----------
    topology:
        What ``nvidia-smi topo -m`` prints: a row a GPU, a column for each GPU first, ``NV`` and a number of
        links where there are some, else how far PCIe and the processors have to go (``PIX`` to ``SYS``).
    gpus:
        Numbers of the GPUs in question.
    """
    rows = {}
    for line in _COLOUR.sub("", topology).splitlines():
        if match := _ROW.match(line.strip()):
            rows[int(match[1])] = match[2].split()
    pairs = [(one, other) for one in gpus for other in gpus if one != other]
    if not pairs or any(one not in rows or other >= len(rows[one]) for one, other in pairs):
        return None
    return all(rows[one][other].startswith("NV") for one, other in pairs)


def slices(listing: str) -> tuple[Slice, ...]:
    """The slices in what ``nvidia-smi -L`` prints, in its order."""
    found, gpu = [], ""
    for line in listing.splitlines():
        if match := _GPU.match(line):
            gpu = match[1]
        elif match := _SLICE.match(line):
            found.append(Slice(f"{gpu} MIG {match[1]}", _OF_ITS_NAME * int(match[2]) * 1e9 / 2**30, match[3]))
    return tuple(found)
