"""The engine arguments a user gives, and those under which bytes do not depend on the batch. Pure."""

from __future__ import annotations

from typing import Any

from orch_local.engines.base import EngineSettings

OURS = ("cpu_kv_cache_gib", "vllm_args")
"""Keys of ``EngineSettings.args`` that are no keyword of vLLM's EngineArgs."""


_WHOLE = {"enable_prefix_caching": False, "enable_chunked_prefill": False}
"""Each prompt is read anew and in one piece. A prompt resumed behind cached blocks, or cut where the batch
left room, is summed in another order: measured on a CPU. For CUDA, vLLM 0.32 neither tests nor aligns the
cuts in its batch-invariant mode (vllm-project/vllm pull requests 38561, 46592): nothing is promised then.
Where a run asks for the prefix cache, that alone is turned, and the rows generated again decide."""


def arguments(settings: EngineSettings) -> dict[str, Any]:
    """Engine arguments of the model config; a null is as good as none."""
    given = {key: value for key, value in settings.args.items() if key not in OURS}
    parts = (given, settings.args.get("vllm_args", {}))
    return {key: value for part in parts for key, value in part.items() if value is not None}


def keeps_prefixes(settings: EngineSettings) -> bool:
    """Whether the run has the prefix cache on, and the model config does not switch it off."""
    return bool(settings.prefix_cache and arguments(settings).get("enable_prefix_caching", True))


def recipe(settings: EngineSettings) -> dict[str, Any]:
    """Arguments under which every comparison on a CPU was the same bit by bit (with one thread).

    On CUDA they go with vLLM's batch-invariant mode.
    """
    eager = {"enforce_eager": True} if settings.device == "cpu" else {}
    whole = _WHOLE | {"enable_prefix_caching": keeps_prefixes(settings)}
    return {**whole, **eager, "max_num_batched_tokens": settings.step_tokens}
