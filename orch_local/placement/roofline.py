"""How long a model generates, as a roofline. Pure.

Reading a prompt is bound by arithmetic: 2 operations a token and parameter that it is multiplied with.
Writing is bound by memory traffic: each step reads the weights once for all sequences, and the KV cache of
each (Pope et al. 2022, arXiv 2211.05102, sections 2 and 3). Under tensor parallelism every layer adds up its
hidden states twice across the GPUs (Shoeybi et al. 2019, arXiv 1909.08053, section 3), which costs a start-up
time and 2 (n - 1) / n times their size (a ring all-reduce).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from orch_local.engines.traits import EXPERTS
from orch_local.models.kv_cache import KvCache
from orch_local.placement.gpu_kinds import Speed

_ALL_REDUCE_S = 2e-5
"""Start of one sum across GPUs."""
_HIDDEN_BYTES = 2
_ROUTED = ("num_experts_per_tok", "top_k_experts", "experts_per_token", "moe_topk")


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model its speed depends on."""

    weight_bytes: float
    parameters: float
    """All of them, those of all experts included."""
    layers: int = 0
    hidden: int = 0
    """Size of the state that goes from layer to layer."""
    expert_share: float = 0.0
    """Of the parameters, those of routed experts."""
    routed_share: float = 1.0
    """Of the experts, those that one token goes to."""

    @property
    def active(self) -> float:
        """Parameters that a token is multiplied with."""
        return self.parameters * (1 - self.expert_share * (1 - self.routed_share))

    def read_bytes(self, tokens: float) -> float:
        """Bytes of weights that a step of so many tokens reads: each token chooses experts of its own."""
        untouched = math.pow(1 - self.routed_share, tokens)
        return self.weight_bytes * (1 - self.expert_share * untouched)


class Work(NamedTuple):
    """What one replica generates."""

    prompt_tokens: float
    """Of all rows together."""
    generated_tokens: float
    sequences: float
    """How many are written side by side."""
    length: float
    """Of a sequence while it is written, on average."""


class Seconds(NamedTuple):
    """Of generating."""

    total: float
    idle: float
    """What of it the device idles."""


def shape(text: Mapping[str, Any], weight_bytes: float, parameters: float) -> Shape:
    """The shape of a model.

    Parameters
    ----------
    text:
        The part of config.json about the language model.
    """
    layers, hidden = int(text.get("num_hidden_layers") or 0), int(text.get("hidden_size") or 0)
    experts, routed = _first(text, EXPERTS), _first(text, _ROUTED)
    if not experts or not routed:
        return Shape(weight_bytes, parameters, layers, hidden)
    size = int(text.get("moe_intermediate_size") or text.get("intermediate_size") or 0)
    with_experts = _expert_layers(text, layers)
    matrices = 2 if text.get("mlp_hidden_act") == "relu2" else 3  # gated ones have three
    share = with_experts * experts * matrices * hidden * size / parameters if parameters else 0.0
    return Shape(weight_bytes, parameters, layers, hidden, min(share, 0.98), min(1.0, routed / experts))


def _expert_layers(text: Mapping[str, Any], layers: int) -> int:
    pattern = text.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        return pattern.count("E")
    return max(0, layers - int(text.get("first_k_dense_replace") or 0))


def _first(text: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return next((int(text[name]) for name in names if text.get(name)), 0)


def generating(shape: Shape, cache: KvCache, work: Work, speed: Speed, tensor_parallel: int = 1) -> Seconds:
    """Seconds that a replica generates.

    Parameters
    ----------
    cache:
        What a sequence keeps on each GPU of the group.
    """
    flops = speed.flops * tensor_parallel
    sequences = max(1.0, work.sequences)
    steps = work.generated_tokens / sequences
    reading = 2 * shape.active * work.prompt_tokens / flops
    traffic = shape.read_bytes(sequences) / tensor_parallel + sequences * cache.sequence_bytes(work.length)
    step = traffic / speed.bytes_per_s
    computing = 2 * shape.active * sequences / flops
    whole = max(step + speed.step_s, computing)
    tokens = work.prompt_tokens + work.generated_tokens
    adding = _adding_up(shape, tokens, steps, speed, tensor_parallel)
    return Seconds(reading + adding + steps * whole, steps * (whole - max(step, computing)))


def _adding_up(shape: Shape, tokens: float, steps: float, speed: Speed, tensor_parallel: int) -> float:
    """Seconds of all-reduces."""
    if tensor_parallel == 1:
        return 0.0
    sums = 2 * shape.layers
    sent = 2 * (tensor_parallel - 1) / tensor_parallel * tokens * shape.hidden * _HIDDEN_BYTES
    return sums * (steps * _ALL_REDUCE_S + sent / speed.link_bytes_per_s)
