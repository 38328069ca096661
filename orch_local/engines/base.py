"""What an engine is: prompts as token ids in, completions as token ids out, in whatever order they finish.

An engine knows no question, agent or answer. It is used from one thread of one worker process::

    engine = open_engine(settings)
    engine.submit(request)            # any number, at any time
    for completion in engine.step():  # advance all by one step; returns those that finished
        ...
    engine.close()
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol

_MESSAGE_WIDTH = 500
_DEFAULT_SEQUENCES = 256
_MOST_PADDED = 32
LEAST_STEP = 4096
"""Tokens of the largest step of vLLM, at least."""


class Finish(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    """End-of-sequence, a stop id or the stop text, after the pattern (if any) was complete."""
    LENGTH = "length"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Request:
    """One greedy generation."""

    id: str
    prompt_ids: tuple[int, ...]
    max_tokens: int
    pattern: str | None = None
    """Regular expression that the text must match as a whole; ``None`` generates freely."""
    logprobs: int = 0
    """How many most probable tokens to report at every position (0 = none), after the grammar mask."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end the generation besides the tokenizer's end-of-sequence."""
    stop_text: str = ""
    """A text that ends the generation with the token in which it is complete; empty for none."""
    agent: str = ""
    """Who asks. Engines of models do not look at it; the fake engine, whose specs name the agent, does."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What came of one request."""

    id: str
    token_ids: tuple[int, ...]
    """Generated ids without the final end-of-sequence or stop id. The tokens of a stop text are in it."""
    finish: Finish
    logprobs: tuple[Mapping[int, float], ...] = ()
    """For each token of ``token_ids``: token id -> log-probability (natural log), -inf entries left out."""
    cached_tokens: int = 0
    error: str = ""
    """What the engine said, where ``finish`` is ERROR."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Everything an engine needs to load one model. All of it that can change bytes is in the spec."""

    name: str
    """``vllm``, ``transformers`` or ``fake``."""
    model_path: Path
    device: str
    """``cpu`` or ``cuda``; never ``auto`` here."""
    grammar: str
    """``guidance``, ``outlines`` or ``xgrammar``; what executes patterns inside vLLM."""
    dtype: str
    max_model_len: int
    max_logprobs: int = 16
    args: Mapping[str, Any] = field(default_factory=dict)
    """Engine arguments of the model config, e.g. tensor_parallel_size, max_num_seqs, quantization."""
    threads: int = 1
    """Threads of one worker on a CPU; more than one only where ``fast``, since they change bytes."""
    fast: bool = False
    """The promise of equal bytes is given up for speed."""
    prefix_cache: bool | None = None
    """Whether vLLM keeps what it has read of prompts for those that begin alike. ``None`` leaves that to the
    recipe, which does not, and where the recipe is given up to vLLM."""
    longest: int | None = None
    """Tokens of the longest request of the run, prompt and answer; ``None`` where that is not known. The
    engine is loaded for no more. No part of the spec: a longer room changes no byte."""
    graphs: int | None = None
    """CUDA graphs are captured for so many sequences at most; ``None`` leaves it to vLLM. It follows from the
    memory of a machine, and is no part of the spec: a step with more sequences runs without a graph."""

    @property
    def loaded_len(self) -> int:
        """The context that the engine is loaded for, in tokens."""
        return min(self.max_model_len, self.longest or self.max_model_len)

    @property
    def tensor_parallel(self) -> int:
        """GPUs that share each layer. Pipeline stages share out memory as well, but save no time."""
        return int(self.args.get("tensor_parallel_size") or 1) if self.name == "vllm" else 1

    @property
    def step_tokens(self) -> int:
        """The most tokens of one step where each prompt is read in one piece."""
        return max(self.loaded_len, self.side_by_side, LEAST_STEP)

    @property
    def side_by_side(self) -> int:
        """The most requests computed at once: as configured in vLLM; with transformers alone unless ``fast``.

        `generate` pads the rows of a batch to one length, and padding changes the order of sums.
        """
        configured = int(self.args.get("max_num_seqs") or _DEFAULT_SEQUENCES)
        if self.name != "transformers":
            return configured
        return min(configured, _MOST_PADDED) if self.fast else 1


class Attention(NamedTuple):
    """How a loaded model attends; ``None`` where an engine does not tell."""

    head_size: int | None = None
    """Dimension of a head."""
    backend: str | None = None
    """What computes it; several names where layers differ."""


class RequestError(ValueError):
    """The engine cannot take this one request; the engine itself is well."""


class Engine(Protocol):
    """See the module docstring."""

    @property
    def capacity(self) -> int:
        """How many requests are computed side by side; more may be submitted and wait."""

    @property
    def attention(self) -> Attention:
        """How the loaded model attends, for the evidence about its rows."""

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises
        ------
        RequestError
            If this request can never be run (too long, a pattern that does not compile ...).
        """

    def step(self) -> list[Completion]:
        """Advance the work and return what finished; an empty list where nothing did."""

    def close(self) -> None:
        """Free the memory; the engine cannot be used afterwards."""


def one_line(error: BaseException) -> str:
    """A foreign error's message for a message of ours: on one line, and not without end."""
    return textwrap.shorten(str(error), _MESSAGE_WIDTH, placeholder=" ...") or type(error).__name__
