"""How much of a KV cache one sequence takes, from a model's config.json. Pure arithmetic.

Which layers keep what is read as vLLM 0.32 reads it (``vllm/v1/kv_cache_interface.py``,
``model_executor/models/config.py``, ``model_executor/layers/mamba/mamba_utils.py``):

- full attention keeps a key and a value a KV head for every token;
- multi-head latent attention keeps one compressed vector and one rotary key for every token (DeepSeek-V2,
  arXiv 2405.04434, section 2.1.4);
- a sliding window keeps as many tokens as it is wide;
- recurrent layers (Mamba-2, gated delta nets) keep a state whose size does not depend on the length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FULL, _SLIDING, _RECURRENT, _NONE = "full", "sliding", "recurrent", "none"

_KINDS = {
    "full_attention": _FULL,
    "attention": _FULL,
    "sliding_attention": _SLIDING,
    "chunked_attention": _SLIDING,
    "linear_attention": _RECURRENT,
    "mamba": _RECURRENT,
    "mamba2": _RECURRENT,
    "moe": _NONE,
    "mlp": _NONE,
}
"""What the entries of ``layer_types`` and ``layers_block_type`` keep; of an unknown one every token."""

_LETTERS = {"*": _FULL, "M": _RECURRENT, "-": _NONE, "E": _NONE}
"""Of Nemotron-H's ``hybrid_override_pattern``."""

_PATTERN_BY_TYPE = {"gemma2": 2, "gemma3_text": 6, "gemma4_text": 6, "gemma4_unified_text": 6}
"""Every so many layers one is global, in configs that do not say so."""

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number, by the name of its dtype."""


@dataclass(frozen=True, slots=True)
class KvCache:
    """What one sequence keeps on each GPU of a tensor-parallel group, in bytes."""

    token_bytes: int
    """A token, in layers that keep every token."""
    window_bytes: int = 0
    """A token, in layers that keep a window."""
    window: int = 0
    """Tokens that those keep."""
    state_bytes: int = 0
    """Of recurrent layers, whatever the length."""

    def sequence_bytes(self, tokens: float) -> float:
        """Of a sequence of so many tokens, prompt and answer together."""
        windowed = min(tokens, self.window) * self.window_bytes
        return self.state_bytes + tokens * self.token_bytes + windowed

    def whole_bytes(self, tokens: float) -> float:
        """The same where its prompt is read in one piece: only then a window lets go."""
        return self.state_bytes + tokens * (self.token_bytes + self.window_bytes)


def kv_cache(text: Mapping[str, Any], dtype_bytes: int = 2, tensor_parallel: int = 1) -> KvCache:
    """The KV cache of a model.

    Parameters
    ----------
    text:
        The part of config.json about the language model.
    dtype_bytes:
        Bytes of a number in the cache: 4 for float32, 2 for bfloat16, 1 for fp8.
    tensor_parallel:
        GPUs that share each layer. KV heads are shared out, a head at least to each GPU; what latent
        attention keeps is on all of them.

    Raises
    ------
    ValueError, TypeError, ArithmeticError
        If a size is not valid.
    """
    layers = layer_kinds(text)
    window = int(text.get("sliding_window") or text.get("attention_chunk_size") or 0)
    whole = layers[_FULL] + (0 if window else layers[_SLIDING])
    local = layers[_SLIDING] if window else 0
    return KvCache(
        token_bytes=whole * _global_layer(text, tensor_parallel) * dtype_bytes,
        window_bytes=local * _local_layer(text, tensor_parallel) * dtype_bytes,
        window=window if local else 0,
        state_bytes=layers[_RECURRENT] * _state_bytes(text, dtype_bytes) // tensor_parallel,
    )


def layer_kinds(text: Mapping[str, Any]) -> Counter[str]:
    """How many layers are ``full``, ``sliding``, ``recurrent`` or keep nothing (``none``)."""
    shared = int(text.get("num_kv_shared_layers") or 0)  # the last ones read what earlier ones keep
    named = _named_kinds(text)
    if named:
        return Counter(named[: max(0, len(named) - shared)])
    layers = max(0, int(text.get("num_hidden_layers") or 1) - shared)
    if "linear_num_value_heads" in text:
        return _every(int(text.get("full_attention_interval") or 4), layers, _RECURRENT)
    pattern = text.get("sliding_window_pattern") or _PATTERN_BY_TYPE.get(str(text.get("model_type")))
    if pattern and text.get("sliding_window"):
        return _every(len(pattern) if isinstance(pattern, str) else int(pattern), layers, _SLIDING)
    return Counter({_FULL: layers})  # the most that there can be


def _named_kinds(text: Mapping[str, Any]) -> list[str]:
    """What each layer is, where the config says so."""
    named = text.get("layer_types") or text.get("layers_block_type")
    if isinstance(named, list):
        return [_KINDS.get(str(one), _FULL) for one in named]
    letters = text.get("hybrid_override_pattern")
    return [_LETTERS.get(letter, _FULL) for letter in letters] if isinstance(letters, str) else []


def _every(interval: int, layers: int, otherwise: str) -> Counter[str]:
    """Every ``interval``-th layer is full."""
    return Counter({_FULL: layers // interval, otherwise: layers - layers // interval})


def _local_layer(text: Mapping[str, Any], tensor_parallel: int) -> int:
    """Numbers that a token leaves in a layer, on each GPU."""
    if latent := int(text.get("kv_lora_rank") or 0):
        return latent + int(text.get("qk_rope_head_dim") or 0)
    heads = int(text.get("num_attention_heads") or 1)
    kv_heads = int(text.get("num_key_value_heads") or heads)
    head_size = int(text.get("head_dim") or int(text.get("hidden_size") or 0) // heads)
    return 2 * -(-kv_heads // tensor_parallel) * head_size


def _global_layer(text: Mapping[str, Any], tensor_parallel: int) -> int:
    """The same for layers that see everything, which have heads of their own in Gemma 4."""
    kv_heads = text.get("num_global_key_value_heads") if text.get("attention_k_eq_v") else None
    own = {"head_dim": text.get("global_head_dim"), "num_key_value_heads": kv_heads}
    return _local_layer({**text, **{key: value for key, value in own.items() if value}}, tensor_parallel)


def _state_bytes(text: Mapping[str, Any], dtype_bytes: int) -> int:
    """Of one recurrent layer: the state, and the last inputs of its convolution."""
    stated = text.get("mamba_ssm_dtype") or text.get("mamba_ssm_cache_dtype")
    state_bytes = DTYPE_BYTES.get(str(stated), dtype_bytes)
    if heads := int(text.get("linear_num_value_heads") or 0):
        value, key = (int(text.get(f"linear_{part}_head_dim") or 0) for part in ("value", "key"))
        channels = 2 * int(text.get("linear_num_key_heads") or 0) * key + heads * value
        kernel = int(text.get("linear_conv_kernel_dim") or 1)
        return heads * value * key * state_bytes + channels * (kernel - 1) * dtype_bytes
    heads = int(text.get("mamba_num_heads") or text.get("mamba_n_heads") or 0)
    head_size = int(text.get("mamba_head_dim") or text.get("mamba_d_head") or 0)
    size = int(text.get("ssm_state_size") or text.get("mamba_d_state") or 0)
    groups = int(text.get("n_groups") or text.get("mamba_n_groups") or 0)
    kernel = int(text.get("conv_kernel") or text.get("mamba_d_conv") or 1)
    channels = heads * head_size + 2 * groups * size
    return heads * head_size * size * state_bytes + channels * (kernel - 1) * dtype_bytes
