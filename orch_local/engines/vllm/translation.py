"""Between our types and those of vLLM: KV cache, sampling parameters, log-probabilities."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from orch_local.engines.admission import Cache, Layers, RequestSize
from orch_local.engines.base import Request


def cache_of(config: Any) -> Cache:
    """The KV cache of vLLM, which never gives one of its blocks away."""
    return Cache(
        config.num_blocks - 1, tuple(layers_of(group.kv_cache_spec) for group in config.kv_cache_groups)
    )


def layers_of(spec: Any) -> Layers:
    """What a group of layers keeps, as vllm/v1/kv_cache_interface.py has it."""
    from vllm.v1.kv_cache_interface import ChunkedLocalAttentionSpec, MambaSpec, SlidingWindowSpec

    one = getattr(spec, "first_spec", spec)  # of layers that differ in their sizes only
    if isinstance(one, SlidingWindowSpec):
        return Layers(spec.block_size, window=one.sliding_window + one.extra_retained_tokens)
    if isinstance(one, ChunkedLocalAttentionSpec):
        return Layers(spec.block_size, window=one.attention_chunk_size)
    if isinstance(one, MambaSpec) and one.mamba_cache_mode != "all":
        last = 2 + one.num_prefill_checkpoint_blocks if one.mamba_cache_mode == "align" else 1
        return Layers(spec.block_size, fixed=last + one.num_speculative_blocks)
    return Layers(spec.block_size)


def size_of(held: Any) -> RequestSize:
    return RequestSize(held.num_prompt_tokens, held.max_tokens, held.num_output_tokens)


def sampling(request: Request) -> Any:
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    pattern = None if request.pattern is None else StructuredOutputsParams(regex=request.pattern)
    return SamplingParams(
        temperature=0.0,
        max_tokens=request.max_tokens,
        logprobs=request.logprobs or None,
        stop_token_ids=list(request.stop_ids),
        stop=request.stop_text or None,
        structured_outputs=pattern,
        output_kind=RequestOutputKind.FINAL_ONLY,
        # Ids are all we need; flat lists spare vLLM one object for each entry, and the copy is for sharing.
        detokenize=bool(request.stop_text),
        flat_logprobs=True,
        skip_clone=True,
    )


class Position(Mapping[int, float]):
    """Token id -> log-probability at one position, made when first read.

    One position in a hundred is read; making all of them would cost more than submitting the request.
    """

    def __init__(self, flat: Any, index: int) -> None:
        self._flat = flat
        self._index = index

    def __getitem__(self, token: int) -> float:
        return self._finite[token]

    def __iter__(self) -> Iterator[int]:
        return iter(self._finite)

    def __len__(self) -> int:
        return len(self._finite)

    @functools.cached_property
    def _finite(self) -> dict[int, float]:
        flat = self._flat
        span = slice(flat.start_indices[self._index], flat.end_indices[self._index])
        pairs = zip(flat.token_ids[span], flat.logprobs[span], strict=True)
        return {token: value for token, value in pairs if value != -math.inf}
