"""The dtype of a model: as named, or as its checkpoint and the CPU suggest. The flags of the CPU are ours."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from running import write_run_file

from orch_local.config.model_configs import ModelConfig
from orch_local.config.run_files import load_run
from orch_local.engines.base import EngineSettings
from orch_local.models.folders import ModelFolder
from orch_local.placement.machine import Machine
from orch_local.plan import dtypes
from orch_local.plan.dtypes import DtypeChoice, choose_dtype
from orch_local.report.plan import print_forecast
from orch_local.run.forecast import forecast
from orch_local.run.planning import on_machine, plan_run

AVX2 = frozenset({"avx", "avx2", "fma", "f16c"})
AVX512 = AVX2 | {"avx512f", "avx512_vnni"}
GIB = 2**30
CpuOf = Callable[..., None]


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> CpuOf:
    """Sets the flags of the CPU and the memory of the machine."""

    def cpu(flags: frozenset[str], gib: float = 64.0) -> None:
        monkeypatch.setattr(dtypes, "cpu_flags", lambda: flags)
        monkeypatch.setattr(dtypes, "memory_gib", lambda: gib)

    return cpu


@pytest.fixture
def chosen(tmp_path: Path) -> Callable[..., DtypeChoice]:
    """What is chosen for a model with 4 GiB of weights in bfloat16."""
    weights = tmp_path / "model.safetensors"
    with weights.open("wb") as stream:
        stream.truncate(4 * GIB)

    def chosen(
        stated: str | None = "bfloat16", device: str = "cpu", more: dict[str, Any] | None = None, **model: Any
    ) -> DtypeChoice:
        config = {
            "architectures": ["LlamaForCausalLM"],
            **({"dtype": stated} if stated else {}),
            **(more or {}),
        }
        made = ModelConfig(name="m", **model)
        args = {
            "cpu_kv_cache_gib": made.cpu_kv_cache_gib,
            "tensor_parallel_size": 1,
            "pipeline_parallel_size": 1,
        }
        plain = EngineSettings("vllm", tmp_path, device, "guidance", "unset", 1024, args=args)
        folder = ModelFolder(tmp_path, config, (weights,))
        found = choose_dtype(made, plain, folder)
        # Asked again, as `plan` does to tell the reason, it says the same.
        assert choose_dtype(made, found.settings, folder) == found
        return found

    return chosen


@pytest.mark.parametrize(
    ("flags", "stated", "dtype", "reason"),
    [
        (AVX2, "bfloat16", "float32", "since this CPU has no native bfloat16"),
        (AVX512, "bfloat16", "float32", "since this CPU has no native bfloat16"),
        (AVX512 | {"avx512_bf16"}, "bfloat16", "bfloat16", "since this CPU has native bfloat16"),
        (AVX512 | {"amx_bf16"}, "bfloat16", "bfloat16", "since this CPU has native bfloat16"),
        (frozenset({"asimd", "bf16"}), "bfloat16", "bfloat16", "since this CPU has native bfloat16"),
        (frozenset(), "bfloat16", "float32", "since this CPU has no native bfloat16"),
        (AVX512 | {"avx512_bf16"}, "float16", "float32", "since this CPU has no native float16"),
        (AVX512 | {"avx512_fp16"}, "float16", "float16", "since this CPU has native float16"),
        (AVX2, "float32", "float32", ""),
        (AVX512 | {"avx512_bf16"}, "float32", "float32", ""),
        (AVX2, None, "float32", "since this CPU has no native bfloat16"),
        (AVX2, "float8_e4m3fn", "float32", "since this CPU has no native bfloat16"),
    ],
)
def test_the_cpu_decides_where_nothing_is_named(
    cpu: CpuOf,
    chosen: Callable[..., DtypeChoice],
    flags: frozenset[str],
    stated: str | None,
    dtype: str,
    reason: str,
) -> None:
    cpu(flags)
    found = chosen(stated)
    assert (found.settings.dtype, found.reason) == (dtype, reason)


def test_a_named_dtype_stays_and_a_slow_one_is_told(cpu: CpuOf, chosen: Callable[..., DtypeChoice]) -> None:
    cpu(AVX2)
    found = chosen(dtype="bfloat16")
    assert (found.settings.dtype, found.settings.args["cpu_kv_cache_gib"]) == ("bfloat16", 1.0)
    assert found.reason == "as its model config says, though this CPU has no native bfloat16"
    for dtype, stated in (("float32", "bfloat16"), ("float32", "float32")):
        found = chosen(stated, dtype=dtype)
        assert (found.settings.dtype, found.reason) == ("float32", "")
        assert found.settings.args["cpu_kv_cache_gib"] == 1.0
    cpu(AVX2 | {"avx512_bf16"})
    assert chosen(dtype="bfloat16").reason == ""


def test_a_gpu_takes_the_dtype_of_the_checkpoint(cpu: CpuOf, chosen: Callable[..., DtypeChoice]) -> None:
    cpu(AVX2)
    for stated in ("bfloat16", "float16", "float32"):
        found = chosen(stated, device="cuda")
        assert (found.settings.dtype, found.reason) == (stated, "")
        assert found.settings.args["cpu_kv_cache_gib"] == 1.0
    nested = {"text_config": {"dtype": "float16"}}
    assert chosen(None, device="cuda", more=nested).settings.dtype == "float16"


@pytest.mark.parametrize(
    ("more", "model"), [({"quantization_config": {"quant_method": "awq"}}, {}), ({}, {"quantization": "fp8"})]
)
def test_quantized_weights_are_left_to_their_kernels(
    cpu: CpuOf, chosen: Callable[..., DtypeChoice], more: dict[str, Any], model: dict[str, Any]
) -> None:
    cpu(AVX2)
    found = chosen(more=more, **model)
    assert (found.settings.dtype, found.reason) == ("bfloat16", "")


def test_a_widened_model_holds_as_many_tokens_in_its_cache(
    cpu: CpuOf, chosen: Callable[..., DtypeChoice]
) -> None:
    cpu(AVX2)
    assert chosen(cpu_kv_cache_gib=1.5).settings.args["cpu_kv_cache_gib"] == 3.0
    named = chosen(cpu_kv_cache_gib=1.5, kv_cache_dtype="bfloat16")
    assert named.settings.args["cpu_kv_cache_gib"] == 1.5


def test_a_model_that_would_not_fit_stays_narrow_and_the_reason_has_the_figures(
    cpu: CpuOf, chosen: Callable[..., DtypeChoice]
) -> None:
    # 8 GiB of weights, 2 GiB of cache, 1.5 GiB of torch and vLLM.
    cpu(AVX2, gib=11.5 / 0.75 + 0.01)
    assert chosen().settings.dtype == "float32"
    cpu(AVX2, gib=11.5 / 0.75 - 0.01)
    found = chosen()
    assert (found.settings.dtype, found.settings.args["cpu_kv_cache_gib"]) == ("bfloat16", 1.0)
    assert found.reason == (
        "though this CPU has no native bfloat16: float32 needs about 11.5 GiB, a model may take 11.5 GiB here"
    )


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flags=st.sets(st.sampled_from(["avx2", "avx512_bf16", "amx_bf16", "avx512_fp16"])).map(frozenset),
    gib=st.floats(0, 64),
    stated=st.sampled_from(["bfloat16", "float16", "float32"]),
    named=st.sampled_from(["auto", "bfloat16", "float16", "float32"]),
    device=st.sampled_from(["cpu", "cuda"]),
)
def test_what_is_chosen_is_what_is_named_the_checkpoint_or_wider(
    cpu: CpuOf,
    chosen: Callable[..., DtypeChoice],
    flags: frozenset[str],
    gib: float,
    stated: str,
    named: str,
    device: str,
) -> None:
    cpu(flags, gib)
    found = chosen(stated, device, dtype=named)
    assert found.settings.dtype in (
        {stated, "float32"} if named == "auto" and device == "cpu" else {named, stated}
    )
    assert named == "auto" or found.settings.dtype == named


@pytest.fixture
def narrow_run(run_values: dict[str, Any], tmp_path: Path) -> Path:
    """A run file whose first agent has a checkpoint that says bfloat16."""
    copy = shutil.copytree(run_values["agents"][0]["model"], tmp_path / "narrow")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    run_values["agents"][0]["model"] = str(copy)
    return write_run_file(tmp_path, run_values)


def shown(planned: Any, machine: Machine | None = None) -> str:
    file = io.StringIO()
    print_forecast(Console(file=file, width=100), forecast(planned, machine), prompts=False)
    return " ".join(file.getvalue().split())


def test_a_plan_says_which_dtype_and_why(cpu: CpuOf, narrow_run: Path, tmp_path: Path) -> None:
    cpu(AVX2)
    planned = plan_run(load_run(narrow_run), tmp_path / "store")
    first = planned.plan.agents[0]
    assert first.settings.dtype == first.environment["dtype"] == "float32"
    assert f"{first.name}: float32, since this CPU has no native bfloat16." in shown(planned)
    cpu(AVX2 | {"amx_bf16"})
    native = plan_run(load_run(narrow_run), tmp_path / "store")
    assert native.plan.agents[0].settings.dtype == "bfloat16"
    assert native.plan.agents[0].spec != first.spec
    assert [one.spec for one in native.plan.workers[1:]] == [one.spec for one in planned.plan.workers[1:]]


def test_a_plan_for_gpus_has_the_dtype_of_gpus(cpu: CpuOf, narrow_run: Path, tmp_path: Path) -> None:
    cpu(AVX2)
    there = Machine("cuda", 4, 80.0)
    moved = on_machine(plan_run(load_run(narrow_run), tmp_path / "store"), there)
    assert moved.plan.agents[0].settings.dtype == "bfloat16"
    assert "native" not in shown(moved, there)
