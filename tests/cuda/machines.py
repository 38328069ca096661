"""Machines with GPUs that are not here, as the stubs of this folder describe them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Some GPUs of one kind."""

    name: str
    """What NVML calls each GPU."""
    capability: tuple[int, int]
    gib: int
    """Memory of each."""
    count: int = 1
    nvlink: bool = False
    shared_memory: int = 101_376
    """Bytes that a block can have, from NVIDIA's table of compute capabilities."""

    @property
    def stub(self) -> str:
        """Value of STUB_GPUS."""
        major, minor = self.capability
        return f"{self.count} {major} {minor} {self.gib} {int(self.nvlink)} {self.name}"


MACHINES = {
    "v100": Machine("Tesla V100-SXM2-32GB", (7, 0), 32, shared_memory=98_304),
    "t4": Machine("Tesla T4", (7, 5), 16, shared_memory=65_536),
    "4090": Machine("NVIDIA GeForce RTX 4090", (8, 9), 24),
    "5090": Machine("NVIDIA GeForce RTX 5090", (12, 0), 32),
    "h100": Machine("NVIDIA H100 80GB HBM3", (9, 0), 80, shared_memory=232_448),
    "4xa100": Machine("NVIDIA A100-SXM4-80GB", (8, 0), 80, 4, nvlink=True, shared_memory=166_912),
    "8xh200": Machine("NVIDIA H200", (9, 0), 141, 8, nvlink=True, shared_memory=232_448),
    "b200": Machine("NVIDIA B200", (10, 0), 180, shared_memory=232_448),
}
