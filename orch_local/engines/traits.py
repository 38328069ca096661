"""What of a model decides whether its bytes can be promised, read from its config.json."""

from __future__ import annotations

import json
from typing import Any

from orch_local.engines.base import EngineSettings

_RECURRENT = ("mamba", "ssm_", "rwkv", "state_size", "linear_conv", "linear_attn", "conv_L")
"""Beginnings of config.json keys that only models with recurrent layers have."""

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Beginnings of config.json keys that only mixtures of experts have."""

_LISTED = ("awq", "fp8", "mxfp4")
"""Methods of which vLLM's list of models tested in its batch-invariant mode has one: Qwen3-8B-AWQ,
Qwen3-30B-A3B-Thinking-2507-FP8 and DeepSeek-V3, gpt-oss (docs/features/batch_invariance.md, "Tested Models").
All that it lists of AWQ are dense."""


def model_config(settings: EngineSettings) -> dict[str, Any]:
    """The model's config.json with its text part lifted; empty where unreadable, which loading reports."""
    try:
        config = json.loads((settings.model_path / "config.json").read_text(encoding="utf-8"))
        return {**config, **(config.get("text_config") or {})}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def quantization(settings: EngineSettings) -> str | None:
    """How the weights are quantized: as the engine is told, or as the model says."""
    told = {**settings.args, **settings.args.get("vllm_args", {})}.get("quantization")
    stated = model_config(settings).get("quantization_config")
    said = stated.get("quant_method", "by a method not named") if isinstance(stated, dict) else None
    return str(told or said) if told or said else None


def is_listed(settings: EngineSettings) -> bool:
    """Whether the weights are not quantized, or by a method that vLLM lists for its batch-invariant mode."""
    method = quantization(settings)
    return method is None or (method in _LISTED and not (method == "awq" and has_experts(settings)))


def is_recurrent(settings: EngineSettings) -> bool:
    """Whether some layers carry a state along instead of attending."""
    return _has(settings, _RECURRENT)


def has_experts(settings: EngineSettings) -> bool:
    """Whether the model is a mixture of experts."""
    return _has(settings, EXPERTS)


def has_latent_attention(settings: EngineSettings) -> bool:
    """Whether keys and values are kept compressed (multi-head latent attention)."""
    return _has(settings, ("kv_lora_rank",))


def _has(settings: EngineSettings, beginnings: tuple[str, ...]) -> bool:
    return any(value for key, value in model_config(settings).items() if key.startswith(beginnings))
