"""Estimates by hand, the number of GPUs that a model takes, and what of a machine may be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import write_run_file

from orch_local.config.model_configs import ModelConfig
from orch_local.config.run_files import load_run
from orch_local.engines.base import EngineSettings
from orch_local.errors import InputError
from orch_local.models.folders import ModelFolder
from orch_local.placement.estimates import Load, LoadedModel, at_once, best_tensor_parallel, job, need, width
from orch_local.placement.machine import Machine
from orch_local.plan.files import load_plan, write_plan
from orch_local.plan.needs import graphs, jobs, need_of
from orch_local.plan.plans import Plan
from orch_local.run.forecast import forecast
from orch_local.run.planning import on_machine, placed, plan_run
from orch_local.store.store import RunFolder

LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
ONE_ROW = Load(1, 1, 1)
HOST = Machine("cpu", 2, 64.0)
GPU = Machine("cuda", 8, 80.0, "NVIDIA H100 80GB HBM3")
Folder = Callable[..., ModelFolder]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Llama 3 8B with weights of some size that take no room on the disk."""

    def folder(gib: float = 15.0, **more: Any) -> ModelFolder:
        file = tmp_path / "llama.safetensors"
        with file.open("wb") as stream:
            stream.truncate(round(gib * 2**30))
        return ModelFolder(tmp_path, {**LLAMA_3_8B, **more}, (file,))

    return folder


def loaded(folder: ModelFolder, device: str, dtype: str = "bfloat16", **args: Any) -> LoadedModel:
    engine = args.pop("engine", "vllm")
    threads = args.pop("threads", 1)
    model = ModelConfig(name="llama")
    plain = {
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "max_num_seqs": 256,
        "gpu_memory_utilization": 0.9,
        "cpu_kv_cache_gib": 1.0,
    }
    return LoadedModel(
        model,
        EngineSettings(
            name=engine,
            model_path=Path(),
            device=device,
            grammar="guidance",
            dtype=dtype,
            max_model_len=8192,
            args={**plain, **args},
            threads=threads,
        ),
        folder,
    )


def memory(model: LoadedModel, machine: Machine = GPU) -> float:
    return need(model, ONE_ROW, machine).memory_gib


# --- memory ---------------------------------------------------------------------------------------


def test_memory_on_a_gpu_is_weights_one_sequence_and_overhead(folder: Folder) -> None:
    # 15 GiB of weights, 1.5 GiB of CUDA, a step of 8192 tokens with (3 x 16384 + 6 x 4096) x 2 bytes each =
    # 1.125 GiB, a cache of 8192 tokens and a block of 16 with 128 KiB each
    assert memory(loaded(folder(), "cuda")) == pytest.approx(15 + 1.5 + 1.125 + 8208 / 8192)


@pytest.mark.parametrize(
    ("args", "step_gib"), [({"tensor_parallel_size": 2}, 0.75), ({"pipeline_parallel_size": 2}, 1.125)]
)
def test_a_model_over_two_gpus_needs_half_on_each(
    folder: Folder, args: dict[str, Any], step_gib: float
) -> None:
    model = loaded(folder(), "cuda", **args)
    assert memory(model) == pytest.approx((15 + 8208 / 8192) / 2 + 2 + step_gib)
    assert width(model.settings) == 2


def test_an_engine_is_loaded_for_the_longest_row_only(folder: Folder) -> None:
    model = loaded(folder(), "cuda")
    shorter = model._replace(settings=replace(model.settings, longest=2048))
    # a step has 4,096 tokens at least: half of the step, a quarter of the cache
    assert memory(model) - memory(shorter) == pytest.approx(1.125 / 2 + 6144 / 8192)
    longer = model._replace(settings=replace(model.settings, longest=2**20))
    assert memory(longer) == memory(model)


def test_memory_of_a_host_is_weights_configured_cache_and_overhead(folder: Folder) -> None:
    assert memory(loaded(folder(), "cpu"), HOST) == pytest.approx(17.5)
    assert memory(loaded(folder(), "cpu", "float32"), HOST) == pytest.approx(32.5)  # widened
    awq = folder(5, quantization_config={"quant_method": "awq"})
    assert memory(loaded(awq, "cpu", "float32"), HOST) == pytest.approx(7.5)
    assert width(loaded(awq, "cpu", tensor_parallel_size=2).settings) == 1


def test_the_transformers_engine_takes_one_gpu(folder: Folder) -> None:
    assert width(loaded(folder(), "cuda", engine="transformers").settings) == 1


def test_ample_memory_holds_what_runs_side_by_side(folder: Folder) -> None:
    model = loaded(folder(), "cuda")
    found = need(model, Load(1000, 700 * 1000, 324 * 1000), GPU)  # 256 sequences of 1,024 tokens = 32 GiB
    assert found.ample_gib == pytest.approx(15 + 32 + 1.5 + 1.125, abs=0.01)
    assert need(model, Load(1, 1, 1), GPU).ample_gib == found.memory_gib
    assert found.fixed_gib == 1.5 + 1.125


def test_without_the_recipe_the_larger_step_is_counted(folder: Folder) -> None:
    model = loaded(folder(), "cuda")
    short = model._replace(settings=replace(model.settings, longest=1024))
    fast = model._replace(settings=replace(short.settings, fast=True))
    larger = loaded(folder(), "cuda", vllm_args={"max_num_batched_tokens": 16_384})
    assert memory(short) < memory(fast) < memory(larger)


# --- rows at once ---------------------------------------------------------------------------------


def test_the_kv_cache_bounds_the_rows_at_once(folder: Folder) -> None:
    rows = Load(1000, 700 * 1000, 324 * 1000)  # 1,024 tokens of 128 KiB: 0.125 GiB a row
    model = loaded(folder(60), "cuda")
    assert at_once(model, rows, GPU) == 75  # 72 - 60 - 1.5 - 1.125 = 9.375 GiB
    assert at_once(model, Load(9, 9 * 700, 9 * 324), GPU) == 9
    assert at_once(loaded(folder(), "cuda", max_num_seqs=8), rows, GPU) == 8
    assert at_once(loaded(folder(71), "cuda"), rows, GPU) == 1
    assert at_once(model, rows, Machine("cuda", 1, 0.0)) == 256
    fp8 = loaded(folder(60), "cuda", kv_cache_dtype="fp8")
    assert at_once(fp8, rows, GPU) == 150


def test_on_a_cpu_the_configured_cache_bounds_them(folder: Folder) -> None:
    rows = Load(1000, 700 * 1000, 324 * 1000)
    assert at_once(loaded(folder(), "cpu"), rows, HOST) == 8
    assert at_once(loaded(folder(), "cpu", "float32"), rows, HOST) == 4
    assert at_once(loaded(folder(), "cpu", engine="transformers"), rows, HOST) == 1


def test_fewer_rows_at_once_take_longer(folder: Folder) -> None:
    rows = Load(10_000, 5_000_000, 1_500_000)
    roomy, tight = (
        need(loaded(folder(60), "cuda"), rows, Machine("cuda", 1, gib, "H100")) for gib in (140, 70)
    )
    assert roomy.sequences > 10 * tight.sequences
    assert tight.generate_s > 2 * roomy.generate_s


def test_a_cache_that_does_not_hold_the_longest_row_is_refused(folder: Folder) -> None:
    model = loaded(folder(), "cpu", "float32", cpu_kv_cache_gib=2.0)  # 8192 tokens of 256 KiB = 2 GiB
    with pytest.raises(InputError, match=r"in float32 holds 8,064 tokens.*may have 8,192") as caught:
        job("llama", model, need(model, ONE_ROW, HOST))
    assert "`cpu_kv_cache_gib: 1.1`" in caught.value.hint  # of the config, which is doubled for float32
    shorter = model._replace(settings=replace(model.settings, longest=8064))
    assert job("llama", shorter, need(shorter, ONE_ROW, HOST)).name == "llama"


# --- time -----------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 10**6),
    prompt=st.integers(0, 10**9),
    generated=st.integers(0, 10**9),
    device=st.sampled_from(["cpu", "cuda"]),
)
def test_more_work_never_takes_less_time(
    folder: Folder, rows: int, prompt: int, generated: int, device: str
) -> None:
    model, there = loaded(folder(), device), GPU if device == "cuda" else HOST
    less = need(model, Load(rows, prompt, generated), there)
    more = need(model, Load(rows, prompt * 2, generated * 2), there)
    assert 0 <= less.generate_s <= more.generate_s
    assert less.load_s == more.load_s > 0
    assert 0 <= less.overlap <= 1 and 0 <= more.overlap <= 1


def test_a_known_gpu_and_more_threads_are_faster(folder: Folder) -> None:
    work = Load(1000, 500_000, 100_000)
    model = loaded(folder(), "cuda")
    known, unknown = (need(model, work, Machine("cuda", 1, 80.0, name)) for name in ("NVIDIA H100", "?"))
    assert known.generate_s < unknown.generate_s / 1.5
    one, four = (need(loaded(folder(), "cpu", threads=n), work, HOST) for n in (1, 4))
    assert four.generate_s < one.generate_s
    two = need(loaded(folder(), "cuda", tensor_parallel_size=2), work, GPU)
    assert two.generate_s < need(model, work, GPU).generate_s


def test_a_small_model_leaves_the_gpu_idle_and_a_large_one_does_not(folder: Folder) -> None:
    work = Load(1000, 100_000, 100_000)
    small, large = (need(loaded(folder(gib), "cuda"), work, GPU) for gib in (1.0, 60.0))
    assert small.overlap > 0.5 > large.overlap


# --- GPUs that a model takes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gib", "devices", "size"),
    # 66 GiB leave one GPU of 80 no room for more than 45 rows; 600 GiB fit nowhere
    [(15, 8, 1), (40, 8, 1), (66, 1, 1), (66, 8, 2), (75, 8, 2), (141, 8, 4), (600, 4, 4)],
)
def test_a_model_takes_the_gpus_that_cost_least_for_a_row(
    folder: Folder, gib: float, devices: int, size: int
) -> None:
    assert best_tensor_parallel(loaded(folder(gib), "cuda"), Machine("cuda", devices, 80.0)) == size


def test_heads_stages_and_engines_bound_the_number(folder: Folder) -> None:
    large = loaded(folder(141, num_attention_heads=18, head_dim=128), "cuda")
    assert best_tensor_parallel(large, GPU) == 2  # 4 does not divide 18
    in_stages = loaded(folder(400), "cuda", pipeline_parallel_size=4)
    assert best_tensor_parallel(in_stages, GPU) == 2
    for model in (loaded(folder(400), "cpu"), loaded(folder(400), "cuda", engine="transformers")):
        assert best_tensor_parallel(model, GPU) == 1
    assert best_tensor_parallel(loaded(folder(400), "cuda"), Machine("cuda", 8, 0.0)) == 1


# --- of a plan ------------------------------------------------------------------------------------


@pytest.fixture
def plan(run_file: Path, tmp_path: Path) -> Plan:
    return plan_run(load_run(run_file), tmp_path / "store").plan


def test_a_plan_keeps_the_lengths_of_its_prompts(plan: Plan, tmp_path: Path) -> None:
    assert set(plan.tokens) == {agent.name for agent in plan.workers}
    assert all(one.prompt > 1 and one.generated > 0 for one in plan.tokens.values())
    write_plan(RunFolder(tmp_path / "run"), plan)
    assert load_plan(RunFolder(tmp_path / "run")).tokens == plan.tokens
    assert plan.identity() == plan.model_copy(update={"tokens": {}}).identity()


def test_only_those_with_rows_left_are_placed(plan: Plan) -> None:
    first, second, _ = plan.names
    found, merge = jobs(plan, {first: 3, second: 0, "merge": 0}, HOST)
    assert ([one.name for one in found], merge) == ([first], None)
    assert {one.agent for one in placed(plan, HOST, {second: 5, "merge": 5}).replicas} == {second, "merge"}
    assert {one.agent for one in placed(plan, HOST).replicas} == {*plan.names, "merge"}


def test_more_rows_take_more_time(plan: Plan) -> None:
    agent = plan.agents[0]
    few, many = (need_of(agent, plan, rows, HOST).generate_s for rows in (100, 1000))
    assert many > few
    without = plan.model_copy(update={"tokens": {}})
    assert need_of(agent, without, 10, HOST).generate_s > 0


@pytest.mark.parametrize(
    ("rows", "memory", "captured"),
    [
        (10_000, 80.0, None),
        (10_000, 0.0, None),
        (100, 80.0, None),
        (10, 80.0, 32),
        (1, 80.0, 2),
        (10_000, 1.0, 2),
    ],
)
def test_graphs_are_captured_for_twice_the_rows_at_once(
    plan: Plan, rows: int, memory: float, captured: int | None
) -> None:
    plan = plan.model_copy(update={"questions": plan.questions.model_copy(update={"count": rows})})
    agent = plan.agents[0]
    on_gpu = agent.model_copy(update={"settings": replace(agent.settings, device="cuda")})
    assert graphs(on_gpu, plan, Machine("cuda", 1, memory)) == captured
    assert graphs(agent, plan, HOST) is None
    written = on_gpu.model_copy(update={"settings": replace(on_gpu.settings, graphs=captured)})
    assert written.engine_key == on_gpu.engine_key


def test_a_plan_for_another_machine_keeps_its_specs(run_file: Path, tmp_path: Path) -> None:
    here = plan_run(load_run(run_file), tmp_path / "store")
    there = Machine("cuda", 4, 80.0)
    moved = on_machine(here, there)
    assert [one.spec for one in moved.plan.workers] == [one.spec for one in here.plan.workers]
    assert {one.settings.device for one in moved.plan.workers} == {"cuda"}
    shown = forecast(moved, there)
    assert not shown.here and shown.placement.machine == there
    assert forecast(here).here


def test_a_stated_number_of_gpus_stays_and_another_is_an_int(
    run_values: dict[str, Any], tmp_path: Path
) -> None:
    agents = run_values["agents"]
    (tmp_path / "mine.yaml").write_text(
        f"name: mine\npath: {agents[0]['model']}\ntensor_parallel_size: 4\n", encoding="utf-8"
    )
    agents[0]["model"] = str(tmp_path / "mine.yaml")
    plan = plan_run(load_run(write_run_file(tmp_path, run_values)), tmp_path / "store").plan
    assert [one.settings.args["tensor_parallel_size"] for one in plan.workers] == [4, 1, 1, 1]
