"""In which dtype a model is computed: as its config says, or as its checkpoint and this machine suggest.

On a GPU ``auto`` is the dtype of the checkpoint. A CPU without instructions for bfloat16 computes it several
times slower than float32 (docs/determinism.md), so there the weights are widened if the memory allows it.
This depends on the whole memory of the machine, never on what is free at the moment: the dtype is part of a
spec, and the same command must come to the same spec.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from orch_local.config.model_configs import ModelConfig
from orch_local.engines.base import EngineSettings
from orch_local.models.folders import ModelFolder
from orch_local.placement.estimates import LoadedModel, cpu_memory_gib
from orch_local.util.host import cpu_flags, memory_gib

_NATIVE = {
    "bfloat16": frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
    "float16": frozenset({"avx512_fp16", "amx_fp16", "asimdhp"}),
}
"""Flags of CPUs (x86, then ARM) that compute products of a dtype without widening it."""
SHARE_OF_MEMORY = 0.75
"""Of the machine's memory, what a widened model may take; the rest is for the system and other workers."""


class DtypeChoice(NamedTuple):
    """The settings of an engine with their dtype."""

    settings: EngineSettings
    reason: str
    """Why this dtype, to be read behind its name; empty where nothing else came into question."""


def choose_dtype(model: ModelConfig, settings: EngineSettings, folder: ModelFolder) -> DtypeChoice:
    """Set the dtype. A widened model gets twice the KV cache of its config, which holds as many tokens."""
    dtype = checkpoint_dtype(folder) if model.dtype == "auto" else model.dtype
    plain = replace(settings, dtype=dtype)
    if settings.device != "cpu" or dtype not in _NATIVE or _is_quantized(model, folder):
        return DtypeChoice(plain, "")
    if _NATIVE[dtype] & cpu_flags():
        return DtypeChoice(plain, f"since this CPU has native {dtype}" if model.dtype == "auto" else "")
    if model.dtype != "auto":
        return DtypeChoice(plain, f"as its model config says, though this CPU has no native {dtype}")
    wide = _widened(plain, model)
    needed, most = cpu_memory_gib(LoadedModel(model, wide, folder)), SHARE_OF_MEMORY * memory_gib()
    if needed > most:
        room = f"float32 needs about {needed:.1f} GiB, a model may take {most:.1f} GiB here"
        return DtypeChoice(plain, f"though this CPU has no native {dtype}: {room}")
    return DtypeChoice(wide, f"since this CPU has no native {dtype}")


def checkpoint_dtype(folder: ModelFolder) -> str:
    """The dtype of the weights; the ``auto`` of the engines would narrow float32 without a word."""
    stated = folder.config.get("dtype") or folder.config.get("torch_dtype") or folder.text_config.get("dtype")
    return stated if stated in ("float32", "float16", "bfloat16") else "bfloat16"


def _is_quantized(model: ModelConfig, folder: ModelFolder) -> bool:
    """Whether kernels for quantized weights say what the others are computed in."""
    return bool(model.quantization) or "quantization_config" in folder.config


def _widened(settings: EngineSettings, model: ModelConfig) -> EngineSettings:
    factor = 2 if model.kv_cache_dtype == "auto" else 1
    args = {**settings.args, "cpu_kv_cache_gib": factor * model.cpu_kv_cache_gib}
    return replace(settings, dtype="float32", args=args)
