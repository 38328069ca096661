"""What is told of transformers without loading it: version, environment of its process, facts of a spec."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

from orch_local.engines.base import EngineSettings
from orch_local.engines.traits import has_experts, is_recurrent, quantization
from orch_local.errors import EngineError
from orch_local.util.offline import SILENCE

INSTALL_HINT = "install `torch`, `transformers` and `outlines` into this environment"


def version() -> str:
    """Version of the installed transformers.

    Raises
    ------
    EngineError
        If transformers is not installed.
    """
    return _installed("transformers")


def _installed(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise EngineError(f"{distribution} is not installed", hint=INSTALL_HINT) from None


def environment(settings: EngineSettings) -> dict[str, str]:
    """Variables that a worker must have before its Python starts, torch reads them at import."""
    common = {
        **SILENCE,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if settings.device == "cpu":
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        return {**common, **dict.fromkeys(names, str(settings.threads)), "CUDA_VISIBLE_DEVICES": ""}
    # A fixed workspace makes cuBLAS choose the same algorithm in every run.
    return {**common, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def libraries(settings: EngineSettings) -> dict[str, str]:  # noqa: ARG001 - the same for every model
    """Versions of transformers, torch and what executes the grammar.

    Raises
    ------
    EngineError
        If one of them is not installed.
    """
    return {name: _installed(name) for name in ("transformers", "torch", "outlines_core")}


def determinism(settings: EngineSettings) -> dict[str, str | int | bool]:
    """Facts of the execution that can change bytes, JSON-able, for the spec."""
    threads = {"threads": settings.threads} if settings.device == "cpu" else {}
    return {
        "batch_invariant": not obstacles(settings),
        "attention": "chosen by transformers",
        "batch_size": settings.side_by_side,
        **threads,
    }


def obstacles(settings: EngineSettings) -> tuple[str, ...]:
    """Why equal bytes are not promised, in words for the user; empty where they are.

    A row computed alone depends on nothing else that is computed. With one thread of a CPU its sums have one
    order. On CUDA all shapes are its own, cuBLAS repeats itself with a fixed workspace and one stream
    (docs.nvidia.com/cuda/cublas, "Results reproducibility"), and torch is told to take its deterministic
    kernels; what runs in kernels from elsewhere is not known to add in a fixed order, and not promised.
    """
    if settings.fast:
        return ("`fast` gives equal bytes up for speed",)
    return tuple(_cuda_obstacles(settings)) if settings.device == "cuda" else ()


def _cuda_obstacles(settings: EngineSettings) -> Iterator[str]:
    if method := quantization(settings):
        yield f"the weights are quantized ({method})"
    if is_recurrent(settings):
        yield "the model has recurrent layers"
    if has_experts(settings):
        yield "the model is a mixture of experts"
