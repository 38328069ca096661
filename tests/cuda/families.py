"""Model folders of true shape without weights: the facts of public config.json files, and files of true size.

The weights are holes, so that a folder of 140 GB takes a few kilobytes. One model stands for each family that
vLLM treats in its own way.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_models import make_tiny_tokenizer

_TENSORS = 8
_LLAMA_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
_AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
_COMMON = {
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
}


@dataclass(frozen=True)
class Family:
    """A model as its config.json has it."""

    architecture: str
    model_type: str
    weights_gb: float
    """Size of its weights in 10^9 bytes, from the model's page."""
    config: dict[str, Any] = field(default_factory=dict)
    vllm_args: dict[str, Any] = field(default_factory=dict)
    """Of the model config that is shipped; a test in `test_cuda_stamp.py` compares."""


_QWEN3_8B: dict[str, Any] = {
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 12288,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rope_theta": 1000000,
    "tie_word_embeddings": False,
    "attention_bias": False,
}
_QWEN3_30B_A3B: dict[str, Any] = {
    **_QWEN3_8B,
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "max_position_embeddings": 262144,
    "rope_theta": 10000000,
}

FAMILIES = {
    "Qwen3-8B": Family("Qwen3ForCausalLM", "qwen3", 16.4, _QWEN3_8B),
    "Qwen3-8B-AWQ": Family(
        "Qwen3ForCausalLM",
        "qwen3",
        6.1,
        {**_QWEN3_8B, "torch_dtype": "float16", "quantization_config": _AWQ},
    ),
    "Qwen3-8B-FP8": Family("Qwen3ForCausalLM", "qwen3", 9.4, {**_QWEN3_8B, "quantization_config": _FP8}),
    "Qwen3-30B-A3B-Instruct-2507": Family("Qwen3MoeForCausalLM", "qwen3_moe", 61.1, _QWEN3_30B_A3B),
    "Qwen3-30B-A3B-Instruct-2507-FP8": Family(
        "Qwen3MoeForCausalLM", "qwen3_moe", 31.2, {**_QWEN3_30B_A3B, "quantization_config": _FP8}
    ),
    "Qwen3-Next-80B-A3B-Instruct": Family(
        "Qwen3NextForCausalLM",
        "qwen3_next",
        162.7,
        {
            **_QWEN3_30B_A3B,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "intermediate_size": 5120,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
            "num_experts": 512,
            "num_experts_per_tok": 10,
            "full_attention_interval": 4,
            "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 128,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 32,
            "linear_value_head_dim": 128,
            "partial_rotary_factor": 0.25,
        },
    ),
    "Llama-3.3-70B-Instruct": Family(
        "LlamaForCausalLM",
        "llama",
        141.1,
        {
            "hidden_size": 8192,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "intermediate_size": 28672,
            "vocab_size": 128256,
            "max_position_embeddings": 131072,
            "rope_theta": 500000.0,
            "rope_scaling": _LLAMA_ROPE,
        },
    ),
    "gemma-3-27b-it": Family(
        "Gemma3ForConditionalGeneration",
        "gemma3",
        54.9,
        {
            "text_config": {
                "model_type": "gemma3_text",
                "hidden_size": 5376,
                "num_hidden_layers": 62,
                "num_attention_heads": 32,
                "num_key_value_heads": 16,
                "head_dim": 128,
                "intermediate_size": 21504,
                "query_pre_attn_scalar": 168,
                "sliding_window": 1024,
                "sliding_window_pattern": 6,
                "vocab_size": 262208,
                "max_position_embeddings": 131072,
                "rope_theta": 1000000.0,
                "rope_local_base_freq": 10000.0,
                "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            },
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 1152,
                "image_size": 896,
                "intermediate_size": 4304,
                "num_attention_heads": 16,
                "num_hidden_layers": 27,
                "patch_size": 14,
                "vision_use_head": False,
            },
            "mm_tokens_per_image": 256,
            "boi_token_index": 255999,
            "eoi_token_index": 256000,
            "image_token_index": 262144,
        },
        {"language_model_only": True},
    ),
    "gpt-oss-20b": Family(
        "GptOssForCausalLM",
        "gpt_oss",
        13.8,
        {
            "hidden_size": 2880,
            "num_hidden_layers": 24,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "intermediate_size": 2880,
            "vocab_size": 201088,
            "max_position_embeddings": 131072,
            "sliding_window": 128,
            "layer_types": ["sliding_attention", "full_attention"] * 12,
            "num_local_experts": 32,
            "num_experts_per_tok": 4,
            "experts_per_token": 4,
            "attention_bias": True,
            "swiglu_limit": 7.0,
            "rope_theta": 150000,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 32.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "original_max_position_embeddings": 4096,
                "truncate": False,
            },
            "quantization_config": {
                "quant_method": "mxfp4",
                "modules_to_not_convert": [
                    "model.layers.*.self_attn",
                    "model.layers.*.mlp.router",
                    "model.embed_tokens",
                    "lm_head",
                ],
            },
        },
    ),
    "DeepSeek-V2-Lite-Chat": Family(
        "DeepseekV2ForCausalLM",
        "deepseek_v2",
        31.4,
        {
            "hidden_size": 2048,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "intermediate_size": 10944,
            "moe_intermediate_size": 1408,
            "kv_lora_rank": 512,
            "q_lora_rank": None,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
            "moe_layer_freq": 1,
            "n_group": 1,
            "topk_group": 1,
            "topk_method": "greedy",
            "norm_topk_prob": False,
            "routed_scaling_factor": 1.0,
            "scoring_func": "softmax",
            "vocab_size": 102400,
            "max_position_embeddings": 163840,
            "rope_theta": 10000,
            "rope_scaling": {
                "type": "yarn",
                "factor": 40,
                "beta_fast": 32,
                "beta_slow": 1,
                "mscale": 0.707,
                "mscale_all_dim": 0.707,
                "original_max_position_embeddings": 4096,
            },
        },
    ),
}


def write_folder(root: Path, name: str, weights_gb: float | None = None) -> Path:
    """A folder of that model with weights of true size, or of another one, that take no room."""
    family, folder = FAMILIES[name], root / name
    folder.mkdir(parents=True)
    config = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        **_COMMON,
        **family.config,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    make_tiny_tokenizer(folder)
    _write_holes(folder / "model.safetensors", round((weights_gb or family.weights_gb) * 1e9))
    return folder


def _write_holes(file: Path, size: int) -> None:
    """A safetensors file of about ``size`` bytes, a few tensors of zeros that no disk holds."""
    each = size // (2 * _TENSORS) * 2
    tensors = {
        f"t{number}": {
            "dtype": "BF16",
            "shape": [each // 2],
            "data_offsets": [number * each, (number + 1) * each],
        }
        for number in range(_TENSORS)
    }
    header = json.dumps(tensors).encode()
    header += b" " * (-len(header) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + each * _TENSORS)
