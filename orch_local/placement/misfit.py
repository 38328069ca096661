"""The refusal of a model that fits on no device, and what would do."""

from __future__ import annotations

import math

from orch_local.errors import InputError
from orch_local.placement.machine import Machine
from orch_local.placement.replicas import AgentJob

LEAST_CONTEXT = 1024
"""Tokens; a model with room for fewer is not offered."""


def refuse_misfit(machine: Machine, job: AgentJob) -> None:
    """A model that fits on no device of the machine."""
    if job.width > machine.devices:
        there = f"are {machine.devices}" if machine.devices > 1 else "is one"
        raise InputError(
            f"its model is spread over {job.width} GPUs, there {there}",
            where=f"agent {job.name!r}",
            hint=_what_would_do(machine, job, most=machine.devices),
        )
    share = 1.0 if machine.kind == "cpu" else job.share
    available = share * machine.memory_gib
    if not machine.memory_gib or job.memory_gib <= available:
        return
    each = f" on each of {job.width} GPUs" if job.width > 1 else ""
    place = f"a GPU share of {share:.0%}" if machine.kind == "cuda" else "this machine (or job)"
    raise InputError(
        f"not enough memory for its model: it needs about {job.memory_gib:.1f} GiB{each}, "
        f"{place} has {available:.1f} GiB",
        where=f"agent {job.name!r}",
        hint=_what_would_do(machine, job, most=math.inf),
    )


def _what_would_do(machine: Machine, job: AgentJob, most: float) -> str:
    """How many GPUs of this kind hold the model, and what else helps."""
    if machine.kind == "cpu":
        return "lower its `cpu_kv_cache_gib`, set a narrower `dtype`, or take a quantized or smaller model"
    others = "take a quantized or smaller model"
    if job.fitting >= LEAST_CONTEXT:
        others = f"set its `max_model_len: {job.fitting}`, which fits (longer prompts are then left out)"
    divided = (job.memory_gib - job.fixed_gib) * job.width
    widths = [2**power for power in range(7)]
    room = job.share * machine.memory_gib - job.fixed_gib
    enough = next((width for width in widths if divided <= room * width), None)
    if not machine.memory_gib or enough is None or enough > most:
        return others
    return f"`tensor_parallel_size: {enough}` on as many GPUs of this kind would do; or {others}"
