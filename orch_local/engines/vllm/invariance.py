"""Whether the same request gives the same bytes in any batch, and if not, why."""

from __future__ import annotations

import os
from collections.abc import Iterator

from orch_local.engines.base import EngineSettings
from orch_local.engines.traits import has_experts, has_latent_attention, is_listed, is_recurrent, quantization
from orch_local.engines.vllm.recipe import arguments, keeps_prefixes, recipe
from orch_local.util.gpus import gpus

_PLAIN_CACHES = ("auto", "float32", "float16", "bfloat16")


_LEAST_CAPABILITY = (8, 0)
"""Of vLLM 0.32's batch-invariant mode: docs.vllm.ai/en/v0.32.0/features/batch_invariance. The 9.0 in a
comment of vllm/envs.py is older than the kernels for 8.x in model_executor/determinism/batch_invariant.py."""


def obstacles(settings: EngineSettings) -> tuple[str, ...]:
    """Why equal bytes in any batch are not promised, in words for the user; empty where they are."""
    if settings.fast:
        return ("`fast` gives equal bytes up for speed",)
    return (*_quantized(settings), *_cached(settings), *others(settings))


def is_guarded(settings: EngineSettings) -> bool:
    """Whether all is set so that bytes depend on no batch, be it promised or for a recheck to find out.

    On CUDA that is vLLM's batch-invariant mode. It is taken for quantized weights too where vLLM lists their
    method, and with the prefix cache where the run asks for that: their bytes are not promised, and the rows
    that are generated again decide.
    """
    if settings.fast or any(others(settings)):
        return False
    return is_listed(settings) if settings.device == "cuda" else not quantization(settings)


def _quantized(settings: EngineSettings) -> Iterator[str]:
    if method := quantization(settings):
        in_mode = settings.device == "cuda" and is_guarded(settings)
        told = "; vLLM's batch-invariant mode is on" if in_mode else ""
        yield f"the weights are quantized ({method}{told})"


def _cached(settings: EngineSettings) -> Iterator[str]:
    if not keeps_prefixes(settings):
        return
    if settings.device == "cpu":
        yield "the prefix cache is on: on a CPU, long prompts that began with cached blocks had other bits"
    else:
        mode = " (its batch-invariant mode is on)" if is_guarded(settings) else ""
        yield f"the prefix cache is on: that its bytes are the same neither vLLM{mode} nor we promise"


def others(settings: EngineSettings) -> Iterator[str]:
    yield from _common_obstacles(settings)
    yield from _cpu_obstacles(settings) if settings.device == "cpu" else _cuda_obstacles()


def _common_obstacles(settings: EngineSettings) -> Iterator[str]:
    args = arguments(settings)
    if is_recurrent(settings):
        yield "the model has recurrent layers"
    if (cache := args.get("kv_cache_dtype", "auto")) not in _PLAIN_CACHES:
        yield f"the KV cache is quantized (`kv_cache_dtype: {cache}`)"
    if args.get("speculative_config"):
        yield "`vllm_args.speculative_config` checks several tokens at once"
    for key, value in recipe(settings).items():
        if isinstance(value, bool) and args.get(key, value) != value:
            yield f"`vllm_args.{key}` is {args[key]}"


def _cpu_obstacles(settings: EngineSettings) -> Iterator[str]:
    args = arguments(settings)
    for key in ("tensor_parallel_size", "pipeline_parallel_size"):
        # vLLM then starts processes of its own, with threads as it sees fit and without our padding.
        if args.get(key, 1) != 1:
            yield f"`{key}` is more than 1 on a CPU"
    if has_experts(settings):
        yield "the model is a mixture of experts, which was not measured on a CPU"
    if has_latent_attention(settings):
        yield "the model has latent attention, which was not measured on a CPU"


def _cuda_obstacles() -> Iterator[str]:
    """Where vLLM's batch-invariant mode cannot or shall not be used.

    Its attention classes of recurrent layers refuse the mode (vllm/v1/attention/selector.py), and the load
    would fail. Without a GPU in sight, as on a login node, nothing speaks against one.
    """
    if os.environ.get("VLLM_BATCH_INVARIANT") == "0":
        yield "VLLM_BATCH_INVARIANT is 0"
    for gpu in gpus()[:1]:
        if gpu.capability and gpu.capability < _LEAST_CAPABILITY:
            had, least = (".".join(map(str, pair)) for pair in (gpu.capability, _LEAST_CAPABILITY))
            yield f"{gpu.name} has compute capability {had}, vLLM's batch-invariant mode needs {least}"
