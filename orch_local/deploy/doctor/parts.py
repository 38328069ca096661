"""What runs where: the parts of the page, by the module that looks, and the lanes that they run in."""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """A module of this package with a function ``examine``, and what it checks."""

    module: str
    checks: tuple[str, ...]
    """The first is what is named if the module itself cannot be imported."""


PARTS = {
    "python": Part("python", ("python-version", "python-64-bit", "virtual-environment")),
    "packages": Part("packages", ("packages-installed", "torch-companions", "vllm-build", "torch-pin")),
    "imports": Part("imports", ("packages-import",)),
    "engine": Part("engine", ("torch-import", "gpu-computes", "engine-import")),
    "gpu": Part("gpu", ("gpu-driver", "driver-for-cuda", "gpu-slices", "gpu-in-use")),
    "kernels": Part("kernels", ("kernel-compiler",)),
    "run": Part("run", ("run-file", "device")),
    "models": Part("models", ("model-folder", "model-tokenizer")),
    "placement": Part("placement", ("placement", "batch-invariance")),
    "host": Part("host", ("cpu-instructions", "cpu-cores", "memory-limit")),
    "questions": Part("questions", ("questions", "plan")),
    "digests": Part("digests", ("model-digests",)),
    "disks": Part("disks", ("disk-space", "file-system", "file-writing")),
    "limits": Part(
        "limits",
        ("open-files", "processes", "address-space", "locked-memory", "core-files", "shared-memory"),
    ),
    "offline": Part("offline", ("offline-variables", "proxies", "hub-token", "hub-folders")),
    "slurm": Part(
        "slurm",
        (
            "slurm-clients",
            "slurm-controller",
            "slurm-partition",
            "slurm-time",
            "slurm-node",
            "slurm-gres",
            "slurm-array",
            "slurm-accounting",
        ),
    ),
    "clock": Part("clock", ("clock-sane", "clock-monotonic", "clock-synchronised", "text-encoding")),
}

LANES = (
    ("engine",),  # imports of torch and the engine: most of the time of a page
    (
        "python", "packages", "clock", "limits", "offline", "gpu", "kernels", "run", "models", "placement",
        "host", "questions", "digests", "disks", "slurm", "imports",
    ),
)  # fmt: skip
"""Side by side. A part that loses its child costs only the parts behind it in its own child a new start."""
