"""What vLLM is loaded with: keywords of its EngineArgs, from the settings."""

from __future__ import annotations

from typing import Any

from orch_local.engines.base import EngineSettings
from orch_local.engines.vllm.invariance import is_guarded
from orch_local.engines.vllm.recipe import arguments, recipe

_GRAPH_ARGUMENTS = ("max_cudagraph_capture_size", "cudagraph_capture_sizes", "compilation_config")


_CHUNKED_STEP = 8192
"""Tokens of a step where prompts may be cut. vLLM's own default for an engine in the caller's loop is 2,048,
with which prompts are read at a fraction of a GPU's speed; it takes 8,192 and more for its offline class."""


_GIB = 2**30


def engine_arguments(settings: EngineSettings) -> dict[str, Any]:
    """Keywords of EngineArgs: ours, then the recipe of the device, then the user's `vllm_args`."""
    ours = {
        "model": str(settings.model_path),
        "dtype": settings.dtype,
        "max_model_len": settings.loaded_len,
        "max_logprobs": settings.max_logprobs,
        # Without it vLLM falls back to pickled weights where a folder has no safetensors.
        "load_format": "safetensors",
        "trust_remote_code": False,
        "use_tqdm_on_load": False,
        "disable_log_stats": True,
        "seed": 0,
    }
    lost = settings.fast or (settings.device == "cuda" and not is_guarded(settings))
    asked = {} if settings.prefix_cache is None else {"enable_prefix_caching": settings.prefix_cache}
    return ours | _sizes(settings) | ({} if lost else recipe(settings)) | asked | arguments(settings)


def _sizes(settings: EngineSettings) -> dict[str, Any]:
    """What a device needs whether or not bytes are promised."""
    if settings.device != "cpu":
        return {**_gpu_step(settings), **_graphs(settings)}
    cache = int(settings.args.get("cpu_kv_cache_gib", 1.0) * _GIB)
    # Compiling took 40 s a model, and `environment` turns it off.
    return {"max_num_seqs": settings.side_by_side, "kv_cache_memory_bytes": cache, "enforce_eager": True}


def _gpu_step(settings: EngineSettings) -> dict[str, int]:
    """The largest step of an engine without the recipe. It is in the spec, so it depends on no question."""
    cut = arguments(settings).get("enable_chunked_prefill", True)
    least = settings.side_by_side if cut else max(settings.side_by_side, settings.max_model_len)
    return {"max_num_batched_tokens": max(_CHUNKED_STEP, least)}


def _graphs(settings: EngineSettings) -> dict[str, int]:
    """For how many sequences CUDA graphs are captured, unless the user says it or vLLM's own choice is right.

    vLLM captures 51 sizes up to 512 tokens for 256 sequences, which takes most of a load from a warm cache.
    A step with more sequences than that runs without a graph.
    """
    named = any(key in arguments(settings) for key in _GRAPH_ARGUMENTS)
    return {"max_cudagraph_capture_size": settings.graphs} if settings.graphs and not named else {}


def step_tokens(settings: EngineSettings) -> int:
    """The most tokens of a step; the memory that it computes with depends on them."""
    return int(engine_arguments(settings).get("max_num_batched_tokens") or settings.step_tokens)
