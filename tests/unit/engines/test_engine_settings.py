"""What is told of an engine without loading it: arguments, determinism, batch size, environment."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import make_weightless_model

from orch_local.engines.base import EngineSettings
from orch_local.engines.registry import (
    determinism,
    environment,
    obstacles,
    step_tokens,
)
from orch_local.engines.vllm.arguments import engine_arguments
from orch_local.util.gpus import Gpu

CONTEXT = 512


def engine_settings(
    name: str, device: str, model: Path, *, fast: bool = False, **args: Any
) -> EngineSettings:
    dtype = "float32" if device == "cpu" else "bfloat16"
    sizes = {"max_num_seqs": 16, "cpu_kv_cache_gib": 0.05, "gpu_memory_utilization": 0.3}
    return EngineSettings(name, model, device, "guidance", dtype, CONTEXT, 16, {**sizes, **args}, fast=fast)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weightless_model(tmp_path_factory.mktemp("tiny"))


def test_an_argument_that_breaks_determinism_is_shown(tiny_model: Path) -> None:
    plain = determinism(engine_settings("vllm", "cpu", tiny_model))
    args = {"enable_prefix_caching": True}
    cached = determinism(engine_settings("vllm", "cpu", tiny_model, vllm_args=args))
    assert (plain["batch_invariant"], plain["prefix_caching"]) == (True, False)
    assert (cached["batch_invariant"], cached["prefix_caching"]) == (False, True)


def test_a_null_argument_is_as_good_as_none(tiny_model: Path) -> None:
    args = {"enable_prefix_caching": None, "quantization": None}
    assert determinism(engine_settings("vllm", "cpu", tiny_model, vllm_args=args))["batch_invariant"]


@pytest.mark.parametrize(
    ("name", "fast", "most", "side_by_side"),
    [
        ("transformers", False, 256, 1),
        ("transformers", True, 256, 32),
        ("transformers", True, 5, 5),
        ("vllm", False, 5, 5),
        ("vllm", False, None, 256),
    ],
)
def test_how_many_rows_are_computed_side_by_side(
    tiny_model: Path, name: str, fast: bool, most: int | None, side_by_side: int
) -> None:
    settings = engine_settings(name, "cpu", tiny_model, fast=fast, max_num_seqs=most)
    assert settings.side_by_side == side_by_side


@pytest.mark.parametrize("name", ["vllm", "transformers"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_equal_bytes_are_promised_by_default_and_never_where_fast(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, name: str, device: str
) -> None:
    monkeypatch.delenv("VLLM_BATCH_INVARIANT", raising=False)
    monkeypatch.setattr("orch_local.util.gpus._installed_gpus", lambda: ())
    plain, fast = (engine_settings(name, device, tiny_model, fast=fast) for fast in (False, True))
    assert (obstacles(plain), determinism(plain)["batch_invariant"]) == ((), True)
    assert "`fast`" in obstacles(fast)[0]
    assert determinism(fast) != determinism(plain)


def test_a_fast_worker_takes_all_its_threads(tiny_model: Path) -> None:
    for name in ("vllm", "transformers"):
        settings = replace(engine_settings(name, "cpu", tiny_model, fast=True), threads=7)
        assert environment(settings)["OMP_NUM_THREADS"] == "7"
        assert determinism(settings)["threads"] == 7


def test_the_batch_size_is_a_fact_only_where_bytes_depend_on_it(tiny_model: Path) -> None:
    def facts(most: int, **args: Any) -> dict[str, Any]:
        return determinism(engine_settings("vllm", "cpu", tiny_model, max_num_seqs=most, **args))

    assert facts(4) == facts(8)
    assert facts(4, quantization="awq") != facts(8, quantization="awq")


@pytest.mark.parametrize(
    ("config", "args", "named"),
    [
        ({"quantization_config": {"quant_method": "awq"}}, {}, "awq"),
        ({}, {"quantization": "fp8"}, "fp8"),
        ({}, {"vllm_args": {"quantization": "gptq"}}, "gptq"),
        ({"mamba_d_state": 16}, {}, "recurrent"),
        ({"num_experts": 8}, {}, "mixture of experts"),
        ({"kv_lora_rank": 512}, {}, "latent"),
        ({}, {"kv_cache_dtype": "fp8"}, "kv_cache_dtype: fp8"),
        ({}, {"tensor_parallel_size": 2}, "tensor_parallel_size"),
        ({}, {"pipeline_parallel_size": 2}, "pipeline_parallel_size"),
        ({}, {"vllm_args": {"speculative_config": {"method": "ngram"}}}, "speculative_config"),
        ({}, {"vllm_args": {"enable_chunked_prefill": True}}, "vllm_args.enable_chunked_prefill"),
        ({}, {"vllm_args": {"enforce_eager": False}}, "vllm_args.enforce_eager"),
    ],
)
def test_each_obstacle_on_a_cpu_is_named(
    tmp_path: Path, config: dict[str, Any], args: dict[str, Any], named: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    settings = engine_settings("vllm", "cpu", tmp_path, **args)
    (reason,) = obstacles(settings)
    assert named in reason
    assert determinism(settings)["batch_invariant"] is False


def test_a_key_that_is_set_to_nothing_is_no_obstacle(tmp_path: Path) -> None:
    config = {"num_experts": 0, "kv_lora_rank": None, "quantization_config": None, "text_config": None}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert obstacles(engine_settings("vllm", "cpu", tmp_path)) == ()


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 9), (9, 0), (10, 0), None])
def test_the_gpu_decides_with_others_whether_bytes_are_promised(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None
) -> None:
    monkeypatch.delenv("VLLM_BATCH_INVARIANT", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu = Gpu("Some GPU", 80.0, "580.1", capability)
    monkeypatch.setattr("orch_local.util.gpus._installed_gpus", lambda: (gpu,))
    settings = engine_settings("vllm", "cuda", tiny_model)
    if capability == (7, 5):
        assert obstacles(settings) == (
            "Some GPU has compute capability 7.5, vLLM's batch-invariant mode needs 8.0",
        )
    else:
        assert obstacles(settings) == ()
    assert environment(settings)["VLLM_BATCH_INVARIANT"] == ("0" if capability == (7, 5) else "1")
    # Where the mode is off its other restrictions would cost speed for nothing.
    assert determinism(settings)["prefix_caching"] is (capability == (7, 5))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_vllm_spawns_its_processes_and_never_compiles_a_sampler(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "fork")
    variables = environment(engine_settings("vllm", device, tiny_model, tensor_parallel_size=2))
    assert variables["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
    assert variables.get("VLLM_USE_FLASHINFER_SAMPLER") == ("0" if device == "cuda" else None)


@pytest.mark.parametrize(
    ("fast", "args", "tokens"),
    [
        (False, {}, 4096),  # the recipe: as much as the longest prompt, 4,096 at least
        (True, {}, 8192),
        (False, {"quantization": "gptq"}, 8192),
        (True, {"max_num_seqs": 10_000}, 10_000),
        (True, {"vllm_args": {"max_num_batched_tokens": 3000}}, 3000),
        (False, {"vllm_args": {"max_num_batched_tokens": 6000}}, 6000),
    ],
)
def test_the_largest_step_on_a_gpu(tiny_model: Path, fast: bool, args: dict[str, Any], tokens: int) -> None:
    settings = engine_settings("vllm", "cuda", tiny_model, fast=fast, **args)
    assert engine_arguments(settings)["max_num_batched_tokens"] == step_tokens(settings) == tokens
    told = determinism(settings)
    assert told.get("step_tokens") == (None if told["batch_invariant_mode"] else tokens)


def test_a_step_without_cut_prompts_holds_the_longest(tiny_model: Path) -> None:
    whole = {"enable_chunked_prefill": False}
    settings = engine_settings("vllm", "cuda", tiny_model, fast=True, vllm_args=whole)
    assert step_tokens(replace(settings, max_model_len=20_000)) == 20_000
    assert "step_tokens" not in determinism(engine_settings("vllm", "cpu", tiny_model, fast=True))


def test_how_many_graphs_are_captured_is_no_part_of_the_spec(tiny_model: Path) -> None:
    settings = engine_settings("vllm", "cuda", tiny_model)
    few = replace(settings, graphs=32)
    assert "max_cudagraph_capture_size" not in engine_arguments(settings)
    assert engine_arguments(few)["max_cudagraph_capture_size"] == 32
    assert determinism(few) == determinism(settings)
    assert "max_cudagraph_capture_size" not in engine_arguments(replace(few, device="cpu"))
    for named in (
        {"cudagraph_capture_sizes": [1, 2]},
        {"compilation_config": {"max_cudagraph_capture_size": 8}},
    ):
        told = replace(few, args={**few.args, "vllm_args": named})
        assert "max_cudagraph_capture_size" not in engine_arguments(told)


def test_a_named_attention_backend_is_told(tiny_model: Path) -> None:
    for args in ({"attention_backend": "TRITON_ATTN"}, {"attention_config": {"backend": "TRITON_ATTN"}}):
        facts = determinism(engine_settings("vllm", "cuda", tiny_model, vllm_args=args))
        assert facts["attention"] == "TRITON_ATTN"


@pytest.mark.parametrize(
    ("config", "args", "invariant", "in_mode"),
    [
        ({"model_type": "llama"}, {}, True, True),
        ({"quantization_config": {"quant_method": "awq"}}, {}, False, True),
        ({"quantization_config": {"quant_method": "awq"}, "num_experts": 8}, {}, False, False),
        ({"quantization_config": {"quant_method": "mxfp4"}, "num_local_experts": 8}, {}, False, True),
        ({"quantization_config": {"quant_method": "gptq"}}, {}, False, False),
        ({"text_config": {"linear_conv_kernel_dim": 4}}, {}, False, False),
        ({}, {"quantization": "fp8"}, False, True),
        ({}, {"quantization": "fp8", "vllm_args": {"enable_prefix_caching": True}}, False, False),
        ({}, {"kv_cache_dtype": "fp8"}, False, False),
        ({}, {"vllm_args": {"speculative_config": {"method": "ngram"}}}, False, False),
    ],
)
def test_when_cuda_is_batch_invariant(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    args: dict[str, Any],
    invariant: bool,
    in_mode: bool,
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    settings = engine_settings("vllm", "cuda", tmp_path, **args)
    monkeypatch.delenv("VLLM_BATCH_INVARIANT", raising=False)
    facts = determinism(settings)
    assert facts["batch_invariant"] is invariant is not bool(obstacles(settings))
    assert facts["batch_invariant_mode"] is in_mode
    assert environment(settings)["VLLM_BATCH_INVARIANT"] == str(int(in_mode))
    # In the mode prompts are read whole, whether the bytes are promised or the recheck decides.
    assert facts["chunked_prefill"] is not in_mode
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "0")
    assert determinism(settings)["batch_invariant"] is False
    assert determinism(settings)["batch_invariant_mode"] is False
    assert "VLLM_BATCH_INVARIANT is 0" in obstacles(settings)
