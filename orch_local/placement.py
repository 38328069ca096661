"""What a model needs of this machine: memory, and roughly how long it will take. Pure, but for the sizes.

The estimate of time is a roofline: reading a prompt is bound by arithmetic (2 operations a parameter and
token), writing by memory traffic (the weights once a step, shared by the sequences of a batch; Pope et al.
2022, arXiv 2211.05102). It tells minutes from hours, not more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orch_local.devices import free_memory_gib, gpus
from orch_local.errors import InputError
from orch_local.models import ModelFolder
from orch_local.plans import AgentPlan

GIB = 2**30
_CPU_OVERHEAD_GIB = 1.5
"""Resident size of a worker with torch and vLLM before any weights, measured 0.8 to 1.3 GiB."""
_GPU_OVERHEAD_GIB = 2.0
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Speed:
    """Sustained speed of one device; cautious figures, about half of what its data sheet says."""

    flops: float
    """Operations a second in the model's dtype."""
    bytes_per_s: float
    """Memory traffic."""
    step_s: float
    """Overhead of one step of the engine."""


_SPEEDS = {
    "H200": Speed(4e14, 3.0e12, 0.01),
    "H100": Speed(4e14, 2.2e12, 0.01),
    "A100": Speed(1.5e14, 1.2e12, 0.01),
    "L40": Speed(1.5e14, 6e11, 0.01),
    "4090": Speed(8e13, 7e11, 0.01),
}
_OTHER_GPU = Speed(5e13, 5e11, 0.01)
_CPU_THREAD = Speed(4e10, 8e9, 0.03)


@dataclass(frozen=True, slots=True)
class Load:
    """What one agent has to do."""

    rows: int
    prompt_tokens: int
    """Of all rows together."""
    generated_tokens: int


@dataclass(frozen=True, slots=True)
class Need:
    """What one agent needs."""

    memory_gib: float
    """Weights, KV cache of one longest sequence (CPU: the configured cache) and overhead."""
    load_s: float
    generate_s: float


def need(agent: AgentPlan, folder: ModelFolder, load: Load) -> Need:
    """Memory and time of one agent on one device (or one tensor-parallel group)."""
    speed = _speed(agent.settings.device)
    weights = _weight_gib(agent, folder)
    parallel = int(agent.settings.args["tensor_parallel_size"])
    batch = max(1, min(agent.settings.side_by_side, load.rows))
    parameters = _parameters(agent, folder)
    reading_s = 2 * parameters * load.prompt_tokens / speed.flops
    steps = load.generated_tokens / batch
    writing_s = steps * (weights * GIB / speed.bytes_per_s + speed.step_s)
    computing_s = 2 * parameters * load.generated_tokens / speed.flops
    return Need(
        memory_gib=_memory_gib(agent, folder, weights),
        load_s=15.0 + folder.weight_bytes / 1e9,
        generate_s=(reading_s + max(writing_s, computing_s)) / parallel,
    )


def check_memory(agent: AgentPlan, folder: ModelFolder) -> float:
    """Memory that a model needs, in GiB; a model that cannot fit is refused before it is loaded.

    Raises
    ------
    InputError
        With what is needed and what there is, in GiB.
    """
    needed = need(agent, folder, Load(1, 1, 1)).memory_gib
    available, place, hint = _available(agent)
    if needed <= available:
        return needed
    raise InputError(
        f"not enough memory for model {agent.model.name!r}: it needs about {needed:.1f} GiB, "
        f"{place} has {available:.1f} GiB",
        where=f"agent {agent.name!r}",
        hint=hint,
    )


def check_together(agents: Sequence[AgentPlan], needs_gib: Sequence[float], at_once: int) -> None:
    """Refuse more models side by side than fit, in the worst order they could be loaded in.

    Raises
    ------
    InputError
        With the memory, or the shares of a GPU, that they need together.
    """
    if agents[0].settings.device == "cpu":
        needed, available = sum(sorted(needs_gib)[-at_once:]), free_memory_gib()
        figures = f"about {needed:.1f} GiB, this machine has {available:.1f} GiB"
    else:
        shares = sorted(float(agent.settings.args["gpu_memory_utilization"]) for agent in agents)
        needed, available = sum(shares[-at_once:]), 1.0
        figures = f"{needed:.0%} of a GPU by their `gpu_memory_utilization`"
    if needed > available:
        raise InputError(
            f"not enough memory for {at_once} models side by side: they need {figures}",
            where="engine.models_at_once",
            hint="lower it, or what each model takes",
        )


def _available(agent: AgentPlan) -> tuple[float, str, str]:
    if agent.settings.device == "cpu":
        hint = "lower `cpu_kv_cache_gib` or `engine.models_at_once`, or take a smaller model"
        return free_memory_gib(), "this machine", hint
    share = float(agent.settings.args["gpu_memory_utilization"])
    smallest = min((gpu.memory_gib for gpu in gpus() if gpu.memory_gib), default=float("inf"))
    hint = "raise `tensor_parallel_size` or `gpu_memory_utilization`, or take a quantized or smaller model"
    return share * smallest, f"a GPU share of {share:.0%}", hint


def _memory_gib(agent: AgentPlan, folder: ModelFolder, weights_gib: float) -> float:
    args = agent.settings.args
    # Both kinds of parallelism share out weights and cache; only the tensor-parallel one saves time.
    parallel = int(args["tensor_parallel_size"]) * int(args["pipeline_parallel_size"])
    if agent.settings.device == "cpu":
        return weights_gib / parallel + float(args["cpu_kv_cache_gib"]) + _CPU_OVERHEAD_GIB
    sequence = folder.kv_bytes_per_token() * agent.settings.max_model_len / GIB
    return (weights_gib + sequence) / parallel + _GPU_OVERHEAD_GIB


def _weight_gib(agent: AgentPlan, folder: ModelFolder) -> float:
    """Weights in memory: as on disk, unless they are widened to float32."""
    stated = str(folder.config.get("dtype") or folder.config.get("torch_dtype") or "bfloat16")
    wider = _DTYPE_BYTES.get(agent.settings.dtype, 2) / _DTYPE_BYTES.get(stated, 2)
    quantized = "quantization_config" in folder.config
    return folder.weight_bytes / GIB * (1.0 if quantized else wider)


def _parameters(agent: AgentPlan, folder: ModelFolder) -> float:
    """As the model config states, or from the size on disk; all experts of a mixture count."""
    if agent.model.parameters_b is not None:
        return agent.model.parameters_b * 1e9
    stated = str(folder.config.get("dtype") or folder.config.get("torch_dtype") or "bfloat16")
    return folder.weight_bytes / _DTYPE_BYTES.get(stated, 2)


def _speed(device: str) -> Speed:
    if device == "cpu":
        return _CPU_THREAD
    name = gpus()[0].name if gpus() else ""
    return next((speed for part, speed in _SPEEDS.items() if part in name), _OTHER_GPU)
