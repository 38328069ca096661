"""Whether torch and the library of an engine can be imported, and whether each GPU computes.

Only the standard library is imported at the top: the doctor calls this where packages are broken, and reports
whatever is raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class GpuTest(NamedTuple):
    """What torch says of the GPUs."""

    built_for: str | None
    """CUDA version, ``None`` for a CPU build."""
    available: bool
    devices: int
    errors: Mapping[int, str]
    """By GPU: what went wrong when it added two numbers."""


def torch_version() -> str:
    """Import torch; returns its version."""
    import torch

    return str(torch.__version__)


def compute_on_gpus(device: str) -> GpuTest:
    """Let each GPU add two numbers; none where the run is for a CPU."""
    import torch

    built_for = getattr(torch.version, "cuda", None)
    if device == "cpu" or built_for is None or not torch.cuda.is_available():
        return GpuTest(built_for, False, 0, {})
    errors = {}
    for number in range(torch.cuda.device_count()):
        try:
            two = torch.ones(1, device=f"cuda:{number}") + 1
            if two.item() != 2:
                errors[number] = f"1 + 1 came to {two.item()}"
        except Exception as error:  # noqa: BLE001 - drivers have many ways to fail
            errors[number] = str(error)
    return GpuTest(built_for, True, torch.cuda.device_count(), errors)


def library_and_platform(engine: str) -> str:
    """Import the library of an engine; returns its name and version, and of vLLM the platform it is for."""
    if engine == "fake":
        return "fake engine, nothing to import"
    if engine != "vllm":
        import transformers

        return f"transformers {transformers.__version__}"
    import vllm
    from vllm.platforms import current_platform

    return f"vLLM {vllm.__version__}, platform {current_platform.device_type or 'none'}"
