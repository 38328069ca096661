"""What a model needs: memory, and roughly how long it will take. Pure, but for the sizes of files.

The estimate of time is a roofline: reading a prompt is bound by arithmetic (2 operations a parameter and
token), writing by memory traffic (the weights once a step, shared by the sequences of a batch; Pope et al.
2022, arXiv 2211.05102). It tells minutes from hours, not more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from orch_local.config import ModelConfig
from orch_local.engines.base import EngineSettings
from orch_local.models import ModelFolder, open_model_folder
from orch_local.placement import Job, Machine

if TYPE_CHECKING:
    from orch_local.plans import AgentPlan, Plan  # which asks here how many GPUs a model takes

GIB = 2**30
_CPU_OVERHEAD_GIB = 1.5
"""Resident size of a worker with torch and vLLM before any weights, measured 0.8 to 1.3 GiB."""
_GPU_OVERHEAD_GIB = 2.0
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_WIDTHS = (1, 2, 4, 8)
_UNKNOWN_TOKENS = (500.0, 100.0)
"""Prompt and answer of a row, for plans that no sample was taken of."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Sustained speed of one device; cautious figures, about half of what its data sheet says."""

    flops: float
    """Operations a second in the model's dtype."""
    bytes_per_s: float
    """Memory traffic."""
    step_s: float
    """Overhead of one step of the engine, in which the device idles."""


_SPEEDS = {
    "H200": Speed(4e14, 3.0e12, 0.01),
    "H100": Speed(4e14, 2.2e12, 0.01),
    "A100": Speed(1.5e14, 1.2e12, 0.01),
    "L40": Speed(1.5e14, 6e11, 0.01),
    "4090": Speed(8e13, 7e11, 0.01),
}
_OTHER_GPU = Speed(5e13, 5e11, 0.01)
_CPU_THREAD = Speed(4e10, 8e9, 0.03)


class LoadedModel(NamedTuple):
    """A model as one engine is to load it."""

    config: ModelConfig
    settings: EngineSettings
    folder: ModelFolder


@dataclass(frozen=True, slots=True)
class Load:
    """What one agent has to do."""

    rows: int
    prompt_tokens: int
    """Of all rows together."""
    generated_tokens: int


@dataclass(frozen=True, slots=True)
class Need:
    """What one agent needs, on each device of one replica."""

    memory_gib: float
    """Weights, KV cache of one longest sequence (CPU: the configured cache) and overhead; CPU: in all."""
    fixed_gib: float
    """What of it every device needs, however many share the model."""
    ample_gib: float
    """Memory with the KV cache of as many sequences as run side by side."""
    load_s: float
    generate_s: float
    overlap: float
    """Share of ``generate_s`` in which the device idles."""


def need(model: LoadedModel, load: Load, machine: Machine) -> Need:
    """Memory and time of one agent on one device (or one group of them)."""
    memory, fixed, ample = _memory(model, load)
    generate_s, idle_s = _times(model, load, machine)
    return Need(
        memory_gib=memory,
        fixed_gib=fixed,
        ample_gib=ample,
        load_s=15.0 + model.folder.weight_bytes / 1e9,
        generate_s=generate_s,
        overlap=idle_s / generate_s if generate_s else 0.0,
    )


def need_of(agent: AgentPlan, plan: Plan, rows: int, machine: Machine) -> Need:
    """What an agent of a plan needs for so many rows."""
    tokens = plan.tokens.get(agent.name)
    prompt, generated = (tokens.prompt, tokens.generated) if tokens else _UNKNOWN_TOKENS
    model = LoadedModel(agent.model, agent.settings, open_model_folder(agent.model))
    return need(model, Load(rows, round(rows * prompt), round(rows * generated)), machine)


def jobs(plan: Plan, rows: Mapping[str, int], machine: Machine) -> tuple[list[Job], Job | None]:
    """The agents that have rows to generate, and the merge agent if it has, for ``placement.place``.

    Parameters
    ----------
    rows:
        By agent name, how many are missing.
    """
    found = [_job(agent, plan, rows[agent.name], machine) for agent in plan.agents if rows.get(agent.name)]
    merger = plan.merger
    merge = _job(merger, plan, rows[merger.name], machine) if merger and rows.get(merger.name) else None
    return found, merge


def _job(agent: AgentPlan, plan: Plan, rows: int, machine: Machine) -> Job:
    needed = need_of(agent, plan, rows, machine)
    return Job(
        name=agent.name,
        width=width(agent.settings),
        memory_gib=round(needed.memory_gib, 3),
        load_s=needed.load_s,
        generate_s=needed.generate_s,
        overlap=needed.overlap,
        share=float(agent.settings.args.get("gpu_memory_utilization", agent.model.gpu_memory_utilization)),
        ample_gib=needed.ample_gib,
        fixed_gib=needed.fixed_gib,
    )


def width(settings: EngineSettings) -> int:
    """GPUs that one replica spans; 1 on a CPU, whose memory is one, and with the transformers engine."""
    return _parallel(settings) if settings.device == "cuda" and settings.name == "vllm" else 1


def least_tensor_parallel(model: LoadedModel, machine: Machine) -> int:
    """The fewest GPUs of the machine that hold the model: 1, 2, 4 or 8, dividing its attention heads.

    Where even the most do not hold it, that number: the refusal then says what would.
    """
    if model.settings.device != "cuda" or model.settings.name != "vllm" or not machine.memory_gib:
        return 1
    heads = int(model.folder.text_config.get("num_attention_heads") or 1)
    stages = int(model.settings.args["pipeline_parallel_size"])
    possible = [n for n in _WIDTHS if heads % n == 0 and n * stages <= max(machine.devices, stages)]
    share = float(model.settings.args["gpu_memory_utilization"]) * machine.memory_gib
    for size in possible:
        args = {**model.settings.args, "tensor_parallel_size": size}
        if _gpu_memory(model, args, 1.0) <= share:
            return size
    return possible[-1]


def _parallel(settings: EngineSettings) -> int:
    args = settings.args
    return int(args.get("tensor_parallel_size") or 1) * int(args.get("pipeline_parallel_size") or 1)


def _memory(model: LoadedModel, load: Load) -> tuple[float, float, float]:
    settings = model.settings
    if settings.device == "cpu":
        processes = _parallel(settings)
        fixed = processes * (float(settings.args["cpu_kv_cache_gib"]) + _CPU_OVERHEAD_GIB)
        needed = _weight_gib(model) + fixed
        return needed, fixed, needed
    typical = (load.prompt_tokens + load.generated_tokens) / max(1, load.rows) / settings.max_model_len
    sequences = max(1.0, min(settings.side_by_side, load.rows) * typical)
    needed, ample = (_gpu_memory(model, settings.args, number) for number in (1.0, sequences))
    return needed, _GPU_OVERHEAD_GIB, ample


def _gpu_memory(model: LoadedModel, args: Mapping[str, Any], sequences: float) -> float:
    """GiB on each GPU, with a KV cache of so many longest sequences."""
    # Both kinds of parallelism share out weights and cache; only the tensor-parallel one saves time.
    parallel = int(args["tensor_parallel_size"] or 1) * int(args["pipeline_parallel_size"])
    parallel = parallel if model.settings.name == "vllm" else 1
    sequence = model.folder.kv_bytes_per_token() * model.settings.max_model_len / GIB
    return (_weight_gib(model) + sequences * sequence) / parallel + _GPU_OVERHEAD_GIB


def _times(model: LoadedModel, load: Load, machine: Machine) -> tuple[float, float]:
    """Seconds of generating, and those of them in which the device idles."""
    speed, settings = _speed(machine, model.settings), model.settings
    parameters = _parameters(model)
    parallel = int(settings.args.get("tensor_parallel_size") or 1)
    steps = load.generated_tokens / max(1, min(settings.side_by_side, load.rows))
    reading = 2 * parameters * load.prompt_tokens / speed.flops
    traffic = steps * _weight_gib(model) * GIB / speed.bytes_per_s
    computing = 2 * parameters * load.generated_tokens / speed.flops
    waiting = steps * speed.step_s
    writing = max(traffic + waiting, computing)
    idle = max(0.0, writing - max(traffic, computing))
    return (reading + writing) / parallel, idle / parallel


def _weight_gib(model: LoadedModel) -> float:
    """Weights in memory: as on disk, unless they are widened to float32."""
    config = model.folder.config
    stated = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    wider = _DTYPE_BYTES.get(model.settings.dtype, 2) / _DTYPE_BYTES.get(stated, 2)
    quantized = "quantization_config" in config
    return model.folder.weight_bytes / GIB * (1.0 if quantized else wider)


def _parameters(model: LoadedModel) -> float:
    """As the model config states, or from the size on disk; all experts of a mixture count."""
    if model.config.parameters_b is not None:
        return model.config.parameters_b * 1e9
    config = model.folder.config
    stated = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    return model.folder.weight_bytes / _DTYPE_BYTES.get(stated, 2)


def _speed(machine: Machine, settings: EngineSettings) -> Speed:
    if machine.kind == "cpu":
        one = _CPU_THREAD
        return Speed(one.flops * settings.threads, one.bytes_per_s * settings.threads, one.step_s)
    return next((speed for part, speed in _SPEEDS.items() if part in machine.name), _OTHER_GPU)
