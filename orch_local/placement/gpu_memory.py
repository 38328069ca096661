"""Memory of a model on each GPU of a group. Pure.

vLLM takes a share of a GPU and divides it so: weights, what one step computes with (measured by a step of
``max_num_batched_tokens`` when it loads), what CUDA itself takes, and the KV cache gets the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from orch_local.models.kv_cache import KvCache

GIB = 2**30
OVERHEAD_GIB = 1.5
"""CUDA context, workspaces and CUDA graphs."""
_OVERHEAD_OF_LINKS_GIB = 0.5
"""Buffers of NCCL, where several GPUs share a model."""
_BLOCK = 16
"""Tokens of a block of the cache, the least that is given to a sequence."""
_STATES = 6
"""Hidden states of a token that live at once: residual, norm, query, key and value, attention, output."""
_NO_BOUND = 10**6
_LOGIT_BYTES = 3 * 4
"""A logit in float32, its probability, and a copy where the grammar is applied."""


class GpuGroup(NamedTuple):
    """What a model keeps on each GPU of its group."""

    weight_gib: float
    cache: KvCache
    """Of one sequence."""
    stages: int = 1
    """Pipeline stages, which share out the layers."""
    tensor_parallel: int = 1

    @property
    def overhead_gib(self) -> float:
        """What every GPU needs, however many share the model."""
        return OVERHEAD_GIB + (_OVERHEAD_OF_LINKS_GIB if self.tensor_parallel * self.stages > 1 else 0.0)

    def sequence_gib(self, tokens: float) -> float:
        """KV cache of a sequence, in whole blocks."""
        return self.cache.sequence_bytes(math.ceil(tokens / _BLOCK) * _BLOCK) / self.stages / GIB

    def least_gib(self, step_gib: float, tokens: float) -> float:
        """With a KV cache of one sequence of so many tokens, read in one piece."""
        cache_gib = self.cache.whole_bytes(tokens + _BLOCK) / self.stages / GIB
        return self.weight_gib + self.overhead_gib + step_gib + cache_gib

    def sequences(self, room_gib: float, step_gib: float, tokens: float) -> int:
        """Sequences of so many tokens that fit beside all else into ``room_gib``."""
        free, each = room_gib - self.weight_gib - self.overhead_gib - step_gib, self.sequence_gib(tokens)
        if each <= 0:  # a config.json without sizes
            return _NO_BOUND if free >= 0 else 0
        return max(0, math.floor(free / each))


def step_gib(text: Mapping[str, Any], tokens: int, sequences: int, tensor_parallel: int = 1) -> float:
    """GiB that a step computes with, in bfloat16.

    The widest moment of a dense layer holds the products of gate and up projection, their activation and the
    hidden states; of a mixture of experts the same for each expert that a token goes to. Behind the last
    layer there are logits for each sequence. By this a Llama of 8B takes 1.4 GiB for 8,192 tokens and 256
    sequences.

    Parameters
    ----------
    text:
        The part of config.json about the language model.
    tokens:
        Of the largest step, ``max_num_batched_tokens``.
    """
    hidden = int(text.get("hidden_size") or 0)
    dense = 3 * int(text.get("intermediate_size") or 4 * hidden) / tensor_parallel
    size = int(text.get("moe_intermediate_size") or text.get("intermediate_size") or 0)
    routed = int(text.get("num_experts_per_tok") or text.get("top_k_experts") or 0)
    mixed = routed * (max(2 * size / tensor_parallel, hidden) + size / tensor_parallel)
    numbers = tokens * (max(dense, mixed) + _STATES * hidden)
    logits = sequences * int(text.get("vocab_size") or 0)
    return (2 * numbers + _LOGIT_BYTES * logits) / GIB


def fitting_tokens(
    group: GpuGroup,
    text: Mapping[str, Any],
    room_gib: float,
    sequences: int,
    step_tokens: Callable[[int], int],
) -> int:
    """The longest sequence, in steps of 256 tokens, that a GPU has room for; 0 if there is no room.

    Parameters
    ----------
    step_tokens:
        Of the largest step, by the longest sequence: where each prompt is read in one piece, a longer one
        takes a larger step, too.
    """
    low, high = 0, 2**13
    while low < high:  # in steps of 256
        middle = (low + high + 1) // 2
        tokens = 256 * middle
        step = step_gib(text, step_tokens(tokens), sequences, group.tensor_parallel)
        if group.least_gib(step, tokens) <= room_gib:
            low = middle
        else:
            high = middle - 1
    return 256 * low
