"""What a model needs: memory, and roughly how long it will take. Pure, but for the sizes of files.

Memory is that of :mod:`orch_local.placement.gpu_memory` and :mod:`orch_local.models.kv_cache`, time a
roofline of :mod:`orch_local.placement.roofline`. It separates minutes from hours, not more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from orch_local.config.model_configs import ModelConfig
from orch_local.engines.base import EngineSettings
from orch_local.engines.registry import step_tokens
from orch_local.errors import InputError
from orch_local.models.folders import ModelFolder
from orch_local.models.kv_cache import DTYPE_BYTES, kv_cache
from orch_local.placement.gpu_kinds import Speed, gpu_speed
from orch_local.placement.gpu_memory import GIB, GpuGroup, fitting_tokens, step_gib
from orch_local.placement.machine import Machine
from orch_local.placement.replicas import AgentJob
from orch_local.placement.roofline import Shape, Work, generating, shape

_CPU_OVERHEAD_GIB = 1.5
"""Resident size of a worker with torch and vLLM before any weights, measured 0.8 to 1.3 GiB."""
_CPU_BLOCK = 128
"""Tokens of a block of the KV cache on a CPU."""
_WIDTHS = (1, 2, 4, 8)
UNKNOWN_TOKENS = (500.0, 100.0)
"""Prompt and answer of a row, for plans that no sample was taken of."""
_USUAL_CONTEXT = 8192
"""Number of GPUs of a model: they hold a sequence of so many tokens. Runs are seldom longer ..."""
_WORTH_OF_MORE_GPUS = 0.9
"""... and more of them are taken where a row then costs at most so much of the GPU-seconds."""
_FAKE_GIB = 0.3
"""What a worker of the fake engine takes: Python and a tokenizer."""
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

    @property
    def row_tokens(self) -> float:
        """Of a row, on average, prompt and answer."""
        return (self.prompt_tokens + self.generated_tokens) / max(1, self.rows)


@dataclass(frozen=True, slots=True)
class Need:
    """What one agent needs, on each device of one replica."""

    memory_gib: float
    """Weights, what a step computes with, KV cache of one longest sequence (CPU: the configured cache) and
    overhead; CPU: in all."""
    fixed_gib: float
    """What of it every device needs, however many share the model."""
    ample_gib: float
    """Memory with the KV cache of as many sequences as run side by side."""
    load_s: float
    generate_s: float
    overlap: float
    """Share of ``generate_s`` in which the device idles."""
    sequences: int = 1
    """How many run at once, with the memory that there is."""
    fitting: int = 0
    """The longest sequence that there is room for, in tokens; 0 if there is no room or it is unknown."""


def need(model: LoadedModel, load: Load, machine: Machine) -> Need:
    """Memory and time of one agent on one device (or one group of them)."""
    if model.settings.name == "fake":  # nothing is loaded, and nothing is computed
        return Need(_FAKE_GIB, _FAKE_GIB, _FAKE_GIB, 1.0, load.rows / 1e3, 1.0, model.settings.side_by_side)
    memory, fixed, ample = _memory(model, load)
    sequences = at_once(model, load, machine)
    total, idle = _times(model, load, machine, sequences)
    return Need(
        memory_gib=memory,
        fixed_gib=fixed,
        ample_gib=ample,
        load_s=15.0 + model.folder.weight_bytes / 1e9,
        generate_s=total,
        overlap=idle / total if total else 0.0,
        sequences=sequences,
        fitting=_fitting(model, machine),
    )


def job(name: str, model: LoadedModel, needed: Need) -> AgentJob:
    """What the placement is to know of an agent that needs so much.

    Raises
    ------
    InputError
        If the KV cache of a worker on a CPU does not hold its longest row.
    """
    settings = model.settings
    if settings.device == "cpu" and settings.name == "vllm" and needed.fitting < settings.loaded_len:
        raise _small_cache(name, model, needed)
    return AgentJob(
        name=name,
        width=width(settings),
        memory_gib=round(needed.memory_gib, 3),
        load_s=needed.load_s,
        generate_s=needed.generate_s,
        overlap=needed.overlap,
        share=float(settings.args.get("gpu_memory_utilization", model.config.gpu_memory_utilization)),
        ample_gib=needed.ample_gib,
        fixed_gib=needed.fixed_gib,
        fitting=needed.fitting,
    )


def _small_cache(name: str, model: LoadedModel, needed: Need) -> InputError:
    """The refusal of a cache that is too small, which vLLM would refuse after loading."""
    settings = model.settings
    cache = kv_cache(model.folder.text_config, _cache_bytes(settings))
    given = float(settings.args["cpu_kv_cache_gib"])
    widened = given / model.config.cpu_kv_cache_gib  # see orch_local.plan.dtypes
    wanted = cache.whole_bytes(settings.loaded_len + 2 * _CPU_BLOCK) / GIB / widened
    fits = f", or `max_model_len: {needed.fitting}`" if needed.fitting >= _CPU_BLOCK else ""
    return InputError(
        f"a KV cache of {given:g} GiB in {settings.dtype} holds {needed.fitting:,} tokens, "
        f"its longest row may have {settings.loaded_len:,}",
        where=f"agent {name!r}",
        hint=f"set `cpu_kv_cache_gib: {math.ceil(10 * wanted) / 10:.1f}` in its model config{fits}",
    )


def width(settings: EngineSettings) -> int:
    """GPUs that one replica spans; 1 on a CPU, whose memory is one, and with the transformers engine."""
    return _parallel(settings) if settings.device == "cuda" and settings.name == "vllm" else 1


def best_tensor_parallel(model: LoadedModel, machine: Machine) -> int:
    """GPUs of the machine that are to share each layer: 1, 2, 4 or 8, dividing its attention heads.

    Of the numbers that hold the model, it is the one by which a usual row costs the fewest GPU-seconds, the
    smaller one where they differ little: what is left is for other replicas. It does not depend on the
    questions, since it is part of the spec. Where even the most GPUs do not hold the model, it is that
    number: the refusal then says what would.
    """
    if model.settings.device != "cuda" or model.settings.name != "vllm" or not machine.memory_gib:
        return 1
    heads = int(model.folder.text_config.get("num_attention_heads") or 1)
    stages = int(model.settings.args["pipeline_parallel_size"])
    possible = [n for n in _WIDTHS if heads % n == 0 and n * stages <= max(machine.devices, stages)]
    costs = {n: cost for n in possible if (cost := _gpu_seconds(model, n, machine))}
    if not costs:
        return possible[-1]
    best = next(iter(costs))
    for size, cost in costs.items():
        if cost <= _WORTH_OF_MORE_GPUS * costs[best]:
            best = size
    return best


def _gpu_seconds(model: LoadedModel, size: int, machine: Machine) -> float | None:
    """Of all GPUs of a group, for many usual rows; ``None`` where it does not hold the model."""
    settings = replace(
        model.settings,
        args={**model.settings.args, "tensor_parallel_size": size},
        longest=min(model.settings.loaded_len, _USUAL_CONTEXT),
    )
    rows = 10 * settings.side_by_side
    prompt, generated = UNKNOWN_TOKENS
    load = Load(rows, round(rows * prompt), round(rows * generated))
    shared = model._replace(settings=settings)
    if _gpu_memory(shared, 1, settings.loaded_len) > _room_gib(settings, machine):
        return None
    return size * _times(shared, load, machine, at_once(shared, load, machine))[0]


def _room_gib(settings: EngineSettings, machine: Machine) -> float:
    """What vLLM may take of a GPU."""
    return float(settings.args.get("gpu_memory_utilization") or 0.9) * machine.memory_gib


def _parallel(settings: EngineSettings) -> int:
    return settings.tensor_parallel * int(settings.args.get("pipeline_parallel_size") or 1)


def at_once(model: LoadedModel, load: Load, machine: Machine) -> int:
    """How many rows of average length are generated at once: as configured, or as the KV cache holds them."""
    settings = model.settings
    wanted = max(1, min(settings.side_by_side, load.rows))
    if settings.device == "cpu":
        blocks = max(1, math.ceil(load.row_tokens / _CPU_BLOCK))
        cache = kv_cache(model.folder.text_config, _cache_bytes(settings))
        taken = cache.sequence_bytes(blocks * _CPU_BLOCK) / GIB
        held = math.floor(float(settings.args["cpu_kv_cache_gib"]) / taken) if taken else wanted
        return max(1, min(wanted, held)) if settings.name == "vllm" else wanted
    if not machine.memory_gib:
        return wanted
    held = _group(model).sequences(_room_gib(settings, machine), _step_gib(model), max(1.0, load.row_tokens))
    return max(1, min(wanted, held))


def _memory(model: LoadedModel, load: Load) -> tuple[float, float, float]:
    settings = model.settings
    if settings.device == "cpu":
        needed = cpu_memory_gib(model)
        return needed, needed - _weight_gib(model), needed
    wanted = max(1, min(settings.side_by_side, load.rows))
    least = _gpu_memory(model, 1, settings.loaded_len)
    ample = max(least, _gpu_memory(model, wanted, min(load.row_tokens, settings.loaded_len)))
    return least, _group(model).overhead_gib + _step_gib(model), ample


def _group(model: LoadedModel) -> GpuGroup:
    settings = model.settings
    tensor_parallel = settings.tensor_parallel
    cache = kv_cache(model.folder.text_config, _cache_bytes(settings), tensor_parallel)
    stages = _parallel(settings) // tensor_parallel if settings.name == "vllm" else 1
    return GpuGroup(_weight_gib(model) / tensor_parallel / stages, cache, stages, tensor_parallel)


def _step_gib(model: LoadedModel) -> float:
    settings = model.settings
    text = model.folder.text_config
    return step_gib(text, step_tokens(settings), settings.side_by_side, settings.tensor_parallel)


def _cache_bytes(settings: EngineSettings) -> int:
    """Bytes of a number in the KV cache."""
    stated = str(settings.args.get("kv_cache_dtype") or "auto")
    return 1 if stated.startswith(("fp8", "int8")) else DTYPE_BYTES.get(settings.dtype, 2)


def _gpu_memory(model: LoadedModel, sequences: int, tokens: float) -> float:
    """GiB on each GPU, with a KV cache of so many sequences of so many tokens."""
    group = _group(model)
    more = (sequences - 1) * group.sequence_gib(tokens)
    return group.least_gib(_step_gib(model), tokens) + more


def _fitting(model: LoadedModel, machine: Machine) -> int:
    settings = model.settings
    if settings.device == "cpu":
        return cpu_fitting_tokens(model)
    if not machine.memory_gib:
        return 0
    room = _room_gib(settings, machine)

    def largest_step(longest: int) -> int:
        return step_tokens(replace(settings, max_model_len=longest, longest=None))

    text = model.folder.text_config
    return fitting_tokens(_group(model), text, room, settings.side_by_side, largest_step)


def cpu_fitting_tokens(model: LoadedModel) -> int:
    """The longest sequence that the KV cache of a worker on a CPU holds, in whole blocks."""
    room = float(model.settings.args["cpu_kv_cache_gib"]) * GIB
    cache = kv_cache(model.folder.text_config, _cache_bytes(model.settings))
    blocks = 0
    step = 2**17
    while step:
        if cache.whole_bytes((blocks + step + 1) * _CPU_BLOCK) <= room:  # vLLM keeps one block for itself
            blocks += step
        step //= 2
    return blocks * _CPU_BLOCK


def cpu_memory_gib(model: LoadedModel) -> float:
    """Memory of the host that one worker on a CPU takes: weights, the configured KV cache, overhead."""
    each = float(model.settings.args["cpu_kv_cache_gib"]) + _CPU_OVERHEAD_GIB
    return _weight_gib(model) + _parallel(model.settings) * each


def _times(model: LoadedModel, load: Load, machine: Machine, sequences: int) -> tuple[float, float]:
    """Seconds of generating, and those of them in which the device idles."""
    settings = model.settings
    tensor_parallel = settings.tensor_parallel
    cache = kv_cache(model.folder.text_config, _cache_bytes(settings), tensor_parallel)
    written = load.generated_tokens / max(1, load.rows)
    work = Work(load.prompt_tokens, load.generated_tokens, sequences, load.row_tokens - written / 2)
    return generating(_shape(model), cache, work, _speed(machine, settings), tensor_parallel)


def _shape(model: LoadedModel) -> Shape:
    return shape(model.folder.text_config, _weight_gib(model) * GIB, _parameters(model))


def _weight_gib(model: LoadedModel) -> float:
    """Weights in memory: as on disk, unless they are widened to float32."""
    config = model.folder.config
    stated = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    wider = DTYPE_BYTES.get(model.settings.dtype, 2) / DTYPE_BYTES.get(stated, 2)
    quantized = "quantization_config" in config
    return model.folder.weight_bytes / GIB * (1.0 if quantized else wider)


def _parameters(model: LoadedModel) -> float:
    """As the model config states, or from the size on disk; all experts of a mixture count."""
    if model.config.parameters_b is not None:
        return model.config.parameters_b * 1e9
    config = model.folder.config
    stated = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    return model.folder.weight_bytes / DTYPE_BYTES.get(stated, 2)


def _speed(machine: Machine, settings: EngineSettings) -> Speed:
    if machine.kind == "cpu":
        one = _CPU_THREAD
        return Speed(one.flops * settings.threads, one.bytes_per_s * settings.threads, one.step_s)
    return gpu_speed(machine.name, machine.memory_gib, machine.nvlink)
