"""The KV cache of published models, computed by hand from their config.json."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orch_local.models.kv_cache import KvCache, kv_cache, layer_kinds

MIB = 2**20


def grouped(layers: int, kv_heads: int, head_dim: int, **more: Any) -> dict[str, Any]:
    sizes = {"num_hidden_layers": layers, "num_key_value_heads": kv_heads, "head_dim": head_dim}
    return {**sizes, "num_attention_heads": 64, **more}


LLAMA_8B = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
}
DEEPSEEK_V3 = {
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "hidden_size": 7168,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
}
GEMMA_3_12B = grouped(48, 8, 256, model_type="gemma3_text", sliding_window=1024, sliding_window_pattern=6)
GPT_OSS = grouped(24, 8, 64, sliding_window=128, layer_types=["sliding_attention", "full_attention"] * 12)
QWEN3_NEXT = grouped(
    48,
    2,
    256,
    full_attention_interval=4,
    linear_conv_kernel_dim=4,
    linear_key_head_dim=128,
    linear_num_key_heads=16,
    linear_num_value_heads=32,
    linear_value_head_dim=128,
)
NEMOTRON_3_NANO = {
    **grouped(52, 2, 128),
    "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
    "mamba_num_heads": 64,
    "mamba_head_dim": 64,
    "ssm_state_size": 128,
    "n_groups": 8,
    "conv_kernel": 4,
    "mamba_ssm_cache_dtype": "float32",
}


@pytest.mark.parametrize(
    ("config", "token_bytes"),
    [
        # 2 (keys and values) x layers x KV heads x head size x 2 bytes
        (LLAMA_8B, 2 * 32 * 8 * 128 * 2),
        ({**LLAMA_8B, "num_key_value_heads": None}, 2 * 32 * 32 * 128 * 2),
        (grouped(36, 8, 128), 147_456),  # Qwen3-8B: 144 KiB
        (grouped(80, 8, 128), 327_680),  # Llama-3.3-70B: 320 KiB
        # layers x (latent + rotary) x 2 bytes: 68.6 KiB where grouped heads would take 1.7 MiB
        (DEEPSEEK_V3, 61 * (512 + 64) * 2),
        ({"num_hidden_layers": 36, "kv_lora_rank": 256, "qk_rope_head_dim": 64}, 36 * 320 * 2),
    ],
)
def test_every_token_is_kept(config: dict[str, Any], token_bytes: int) -> None:
    assert kv_cache(config) == KvCache(token_bytes)
    assert kv_cache(config, dtype_bytes=4).token_bytes == 2 * token_bytes
    assert kv_cache(config).sequence_bytes(1000) == 1000 * token_bytes


def test_latent_attention_is_on_every_gpu_and_heads_are_shared_out() -> None:
    assert kv_cache(DEEPSEEK_V3, tensor_parallel=8) == kv_cache(DEEPSEEK_V3)
    eight_heads = grouped(36, 8, 128)
    assert kv_cache(eight_heads, tensor_parallel=4).token_bytes == kv_cache(eight_heads).token_bytes // 4
    two_heads = grouped(40, 2, 128)  # GLM-4-9B: a head at least on each of four
    assert kv_cache(two_heads, tensor_parallel=4).token_bytes == kv_cache(two_heads).token_bytes // 2


def test_a_window_is_kept_and_no_more() -> None:
    found = kv_cache(GEMMA_3_12B)
    layer = 2 * 8 * 256 * 2
    assert found == KvCache(token_bytes=8 * layer, window_bytes=40 * layer, window=1024)
    assert found.sequence_bytes(500) == 48 * layer * 500
    assert found.sequence_bytes(10_000) == 8 * layer * 10_000 + 40 * layer * 1024
    half = 12 * 2 * 8 * 64 * 2
    assert kv_cache(GPT_OSS) == KvCache(token_bytes=half, window_bytes=half, window=128)


@pytest.mark.parametrize(
    ("more", "sliding"),
    [
        ({"sliding_window": 4096, "sliding_window_pattern": "LLLG"}, 48),  # EXAONE-4.0-32B
        ({"sliding_window": None, "sliding_window_pattern": 4}, 0),
        ({"sliding_window": 4096, "model_type": "gemma2"}, 32),
        ({"sliding_window": 4096}, 0),  # nothing says which layers: none is taken to forget
        ({"sliding_window": 4096, "layer_types": ["sliding_attention", "new_attention"] * 32}, 32),
    ],
)
def test_which_layers_slide(more: dict[str, Any], sliding: int) -> None:
    kinds = layer_kinds(grouped(64, 8, 128, **more))
    assert (kinds["sliding"], kinds["full"]) == (sliding, 64 - sliding)


def test_gemma_4_has_other_heads_where_it_sees_everything() -> None:
    config = grouped(
        60,
        16,
        256,
        sliding_window=1024,
        layer_types=(["sliding_attention"] * 5 + ["full_attention"]) * 10,
        attention_k_eq_v=True,
        num_global_key_value_heads=4,
        global_head_dim=512,
    )
    assert kv_cache(config) == KvCache(10 * 2 * 4 * 512 * 2, 50 * 2 * 16 * 256 * 2, 1024)
    shared = kv_cache({**config, "num_kv_shared_layers": 30})
    assert shared == KvCache(5 * 2 * 4 * 512 * 2, 25 * 2 * 16 * 256 * 2, 1024)


def test_a_gated_delta_net_keeps_a_state() -> None:
    found = kv_cache(QWEN3_NEXT)
    state, inputs = 32 * 128 * 128, 3 * (2 * 16 * 128 + 32 * 128)
    assert found == KvCache(12 * 2 * 2 * 256 * 2, state_bytes=36 * 2 * (state + inputs))
    wide = kv_cache({**QWEN3_NEXT, "mamba_ssm_dtype": "float32"})
    assert wide.state_bytes == 36 * (4 * state + 2 * inputs)
    assert kv_cache(QWEN3_NEXT, tensor_parallel=2).state_bytes == found.state_bytes // 2


def test_mamba_layers_and_those_that_keep_nothing() -> None:
    kinds = layer_kinds(NEMOTRON_3_NANO)
    assert kinds == {"recurrent": 23, "none": 23, "full": 6}
    found = kv_cache(NEMOTRON_3_NANO)
    assert found.token_bytes == 6 * 2 * 2 * 128 * 2  # 6 KiB, a 24th of Qwen3-8B's
    assert found.state_bytes == 23 * (64 * 64 * 128 * 4 + 3 * (64 * 64 + 2 * 8 * 128) * 2)
    assert 46 * MIB < found.state_bytes < 48 * MIB


SIZES = st.integers(1, 10**4)


@given(layers=SIZES, heads=SIZES, tokens=st.integers(0, 10**6), window=st.integers(0, 10**5), interval=SIZES)
def test_a_longer_sequence_never_keeps_less(
    layers: int, heads: int, tokens: int, window: int, interval: int
) -> None:
    config = grouped(layers, heads, 64, sliding_window=window, sliding_window_pattern=interval)
    found = kv_cache(config)
    assert found.sequence_bytes(tokens) <= found.sequence_bytes(tokens + 1)
    assert found.sequence_bytes(tokens) <= kv_cache(grouped(layers, heads, 64)).sequence_bytes(tokens)
    assert sum(layer_kinds(config).values()) == layers
