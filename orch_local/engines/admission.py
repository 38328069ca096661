"""How many requests may run at once in a KV cache, by what the ones before them have written. Pure.

An answer is bounded by its grammar, and most write a small part of the bound. Memory for the whole bound
leaves most of the cache empty; so memory is kept for what was written so far, with a margin.

Of the requests that start together the short ones finish first. Their mean alone would be too small, so
what the unfinished have written counts as well: the mean is all tokens written by the finished ones, over the
number of the finished. This is the estimate of a mean life with right-censored lives (Epstein and Sobel 1953,
Journal of the American Statistical Association 48:486-502). With it the memory suffices on average also where
all start at once: by Markov's inequality no more than mean / t of them write more than t tokens.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_AHEAD = 2
"""Tokens behind the last one known for which there must be room: vLLM plans up to two steps ahead."""
_MARGIN = 1.25
"""Factor on the mean, and by which that factor grows with each time that memory ran out."""
_SEEN = 16


class RequestSize(NamedTuple):
    """A request, in tokens."""

    prompt: int
    most: int
    """Bound of what it writes."""
    written: int = 0
    """Until now; 0 also where the prompt was not read yet."""


class Layers(NamedTuple):
    """Layers that share one table of blocks."""

    block_tokens: int
    window: int | None = None
    """Tokens that they keep; ``None`` for all. The prompt is read in one piece, and is kept until then."""
    fixed: int | None = None
    """Blocks of a request whatever its length, as for recurrent layers."""

    def blocks(self, size: RequestSize, answer: int) -> int:
        """The most blocks that a request takes from now on, if it writes ``answer`` tokens in all."""
        if self.fixed is not None:
            return self.fixed
        whole = _divided(size.prompt + answer + _AHEAD, self.block_tokens)
        if self.window is None:
            return whole
        # The window may begin within a block.
        kept = min(whole, _divided(self.window + _AHEAD, self.block_tokens) + 1)
        return kept if size.written else max(kept, _divided(size.prompt, self.block_tokens))


class Cache(NamedTuple):
    """A KV cache."""

    blocks: int
    """That can be given to requests."""
    layers: tuple[Layers, ...]

    def blocks_of(self, size: RequestSize, answer: int) -> int:
        """The most blocks that a request takes from now on, if it writes ``answer`` tokens in all."""
        return max(1, sum(layers.blocks(size, answer) for layers in self.layers))


class Admission:
    """Says how many requests may run.

    Parameters
    ----------
    capacity:
        The most requests that the engine runs at once.
    seen:
        So many requests must have finished before others of about the same bound (within a factor of two)
        are reckoned by what those have written. Until then they are reckoned with their whole bound, so that
        memory cannot run out.
    margin:
        Factor on the mean of what was written.
    """

    def __init__(self, cache: Cache, capacity: int, *, seen: int = _SEEN, margin: float = _MARGIN) -> None:
        self.cache = cache
        self.margin = margin
        self._capacity = capacity
        self._seen = seen
        self._settled = 0
        """So many must have finished before the margin grows again."""
        self._finished: dict[int, int] = defaultdict(int)
        self._written: dict[int, int] = defaultdict(int)

    def finished(self, size: RequestSize) -> None:
        """Take note of a request that has written all it will."""
        kind = _kind(size)
        self._finished[kind] += 1
        self._written[kind] += size.written

    def ran_out(self, running: int) -> None:
        """Memory did not suffice for those that ran: keep more from now on, in the end the whole bound.

        What the others of the ``running`` ones bring about until they have finished counts as the same case,
        for they began by the same reckoning.
        """
        finished = sum(self._finished.values())
        if finished >= self._settled:
            self.margin *= _MARGIN
            self._settled = finished + running

    def may_run(self, running: Sequence[RequestSize], waiting: Sequence[RequestSize]) -> int:
        """How many may run, those included that do; 1 at least.

        It lets no more begin than there is memory for, whichever of the waiting ones come first.
        """
        means = self._means(running)
        free = self.cache.blocks - sum(self._reserve(one, means) for one in running)
        largest = max((self._reserve(one, means) for one in waiting), default=1)
        return max(1, min(self._capacity, len(running) + max(0, free) // largest))

    def reserve(self, size: RequestSize, running: Sequence[RequestSize]) -> int:
        """Blocks that are kept for a request beside those that run."""
        return self._reserve(size, self._means(running))

    def _reserve(self, size: RequestSize, means: Mapping[int, float]) -> int:
        mean = means.get(_kind(size), math.inf)
        answer = min(size.most, self.margin * max(mean, size.written))
        return self.cache.blocks_of(size, math.ceil(answer))

    def _means(self, running: Sequence[RequestSize]) -> dict[int, float]:
        """Tokens that a request of each kind writes; nothing for kinds of which too few have finished."""
        written = dict(self._written)
        for one in running:
            if one.written and (kind := _kind(one)) in written:
                written[kind] += one.written
        counts = self._finished
        return {kind: total / counts[kind] for kind, total in written.items() if counts[kind] >= self._seen}


def _kind(size: RequestSize) -> int:
    """Requests of one kind are taken as alike: thoughts, analyses and bare labels differ in their bounds."""
    return size.most.bit_length()


def _divided(tokens: int, block_tokens: int) -> int:
    return -(-tokens // block_tokens)
