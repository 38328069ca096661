"""What a user should know of the GPUs that a plan is for, before a model is loaded. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from orch_local.placement.gpu_kinds import is_known, kind_of
from orch_local.placement.machine import Machine

LEAST_FOR_BFLOAT16 = (8, 0)
"""Compute capability; vLLM refuses bfloat16 below (vllm/platforms/cuda.py, check_if_supports_dtype)."""


LEAST_OF_CUDA_13 = (7, 5)
"""Compute capability; CUDA 13 builds for nothing below, so torch has no kernels for a V100 (7.0) or P100."""


class Shared(NamedTuple):
    """An agent, and how many GPUs share each layer of its model."""

    agent: str
    tensor_parallel: int


def hardware_notes(machine: Machine, agents: Sequence[Shared]) -> Iterator[str]:
    """Sentences about a machine; none for a CPU, or where there is nothing to say."""
    if machine.kind != "cuda":
        return
    kind = kind_of(machine.name, machine.memory_gib)
    if not is_known(machine.name):
        named = f"{machine.name!r}" if machine.name else "the GPU"
        yield f"The speed of {named} is not known; that of an {kind.name} is taken, by its memory."
    wide = [one.agent for one in agents if one.tensor_parallel > 1]
    linked = kind.nvlink if machine.nvlink is None else machine.nvlink
    if wide and not linked:
        seen = "are linked by PCIe only"
        usual = f"of this kind ({kind.name}) usually have no NVLink"
        yield (
            f"{', '.join(wide)}: the GPUs that share a model {usual if machine.nvlink is None else seen}, so "
            f"every layer waits for the link. A quantized model that one GPU holds would be faster; "
            f"`pipeline_parallel_size` instead of `tensor_parallel_size` may be."
        )


def lacks_kernels(capability: tuple[int, int] | None) -> bool:
    """Whether the locked torch is not built for a GPU; not where its compute capability is not known."""
    return capability is not None and capability < LEAST_OF_CUDA_13


def lacks_bfloat16(capability: tuple[int, int] | None) -> bool:
    """Whether vLLM refuses bfloat16 on a GPU; not where its compute capability is not known."""
    return capability is not None and capability < LEAST_FOR_BFLOAT16
