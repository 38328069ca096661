"""The vLLM engine: requests go into the V1 step loop of this process and come back as they finish."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from orch_local.engines.admission import Admission, RequestSize
from orch_local.engines.base import (
    Attention,
    Completion,
    EngineSettings,
    Finish,
    Request,
    RequestError,
    one_line,
)
from orch_local.engines.vllm.invariance import is_guarded
from orch_local.engines.vllm.loading import hint_for, load
from orch_local.engines.vllm.translation import Position, cache_of, sampling, size_of
from orch_local.errors import EngineError

log = logging.getLogger(__name__)


_PROBE_TOKENS = 8


_FINISH = {"stop": Finish.STOP, "length": Finish.LENGTH}


class _Flight(NamedTuple):
    """A request on its way."""

    request: Request
    held: Any
    """What vLLM's scheduler knows of it."""


class VllmEngine:
    """Implements :class:`orch_local.engines.base.Engine`; one alive per process.

    Raises
    ------
    EngineError
        If vLLM is not installed, refuses an argument, or cannot load the model.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.preempted = 0
        """How often a request was generated anew, since vLLM had put it off for want of memory."""
        self._settings = settings
        self._in_flight: dict[str, _Flight] = {}
        self._engine = load(settings)
        self._scheduler = self._engine.engine_core.engine_core.scheduler
        self._guarded = is_guarded(settings)
        limits = self._engine.vllm_config.scheduler_config
        self._capacity = int(limits.max_num_active_seqs or limits.max_num_seqs)
        self._admission = Admission(cache_of(self._scheduler.kv_cache_config), self._capacity)
        self._probe()

    @property
    def capacity(self) -> int:
        """How many requests are computed side by side."""
        return self._capacity

    @property
    def attention(self) -> Attention:
        """Head dimension and backends of the loaded model; see :attr:`Engine.attention`."""
        try:
            named = {name for found in self._engine.collective_rpc(_backends) for name in found}
            return Attention(int(self._engine.model_config.get_head_size()), ", ".join(sorted(named)))
        except Exception:  # noqa: BLE001 - an engine that lost a process has no more to tell
            return Attention()

    def submit(self, request: Request) -> None:
        """Queue a request; see :meth:`Engine.submit`."""
        from vllm.exceptions import VLLMClientError

        self._check(request)
        try:
            self._add(request)
        except (VLLMClientError, ValueError, TypeError, OverflowError) as error:
            # vLLM may have queued one half of it already.
            self._engine.abort_request([request.id])
            raise RequestError(one_line(error)) from error

    def step(self) -> list[Completion]:
        """Advance all requests by one token; see :meth:`Engine.step`."""
        if not self._in_flight:
            return []
        try:
            if self._guarded:
                self._scheduler.max_num_active_reqs = self._may_run()
            outputs = self._engine.step()
            again = self._start_anew() if self._guarded else frozenset()
        except Exception as error:
            message = f"vLLM died while generating: {one_line(error)}"
            raise EngineError(message, hint=hint_for(str(error))) from error
        return [self._completion(output) for output in outputs if output.request_id not in again]

    def close(self) -> None:
        """Free the memory of weights and KV cache."""
        self._engine.engine_core.shutdown()
        del self._engine
        gc.collect()

    def _add(self, request: Request) -> None:
        from vllm.inputs import tokens_input

        prompt = tokens_input(list(request.prompt_ids))
        name = self._engine.add_request(request.id, prompt, sampling(request))
        self._in_flight[request.id] = _Flight(request, self._scheduler.requests[name])

    def _may_run(self) -> int:
        """How many requests vLLM may run now, so that memory suffices for them; see `admission.py`."""
        longest = max(len(request.prompt_ids) + request.max_tokens for request, _ in self._in_flight.values())
        cache = self._admission.cache
        if self._capacity * cache.blocks_of(RequestSize(longest, 0), 0) <= cache.blocks:
            return self._capacity
        running = [size_of(held) for held in self._scheduler.running]
        return self._admission.may_run(running, [size_of(held) for held in self._scheduler.waiting])

    def _start_anew(self) -> frozenset[str]:
        """Generate again from the beginning what vLLM has put off for want of memory; returns the ids.

        vLLM would read such a request again with what it had written, as one prompt, and so sum in another
        order than it wrote in: measured, the bits of just those requests differed. None is put off for ever:
        vLLM puts off the one that began last, so that others finish meanwhile, and each time more memory is
        kept for all, in the end as much as they can write at most.
        """
        lost = [flight for flight in self._in_flight.values() if flight.held.num_preemptions]
        if not lost:
            return frozenset()
        ran = len(lost) + len(self._scheduler.running)
        self.preempted += len(lost)
        self._admission.ran_out(ran)
        names = [request.id for request, _ in lost]
        self._engine.abort_request(names)
        for request, _ in lost:
            self._add(request)
        log.info(
            "the KV cache did not hold %d of %d requests, they are generated again (%d so far; margin %.2f)",
            len(lost),
            ran,
            self.preempted,
            self._admission.margin,
        )
        return frozenset(names)

    def _check(self, request: Request) -> None:
        """Refuse what vLLM would cut short without a word."""
        if request.id in self._in_flight:
            raise RequestError(f"a request with id {request.id!r} is already in flight")
        needed = len(request.prompt_ids) + request.max_tokens
        if needed > self._settings.loaded_len:
            raise RequestError(
                f"the prompt of {len(request.prompt_ids)} tokens and {request.max_tokens} tokens of answer "
                f"do not fit the context of {self._settings.loaded_len}"
            )

    def _probe(self) -> None:
        """Generate one token, so that damaged weights fail here and not as a page of empty answers."""
        vocabulary = self._engine.model_config.get_vocab_size()
        prompt = tuple(range(min(_PROBE_TOKENS, vocabulary, self._settings.loaded_len - 1)))
        self.submit(Request("probe", prompt, max_tokens=1, logprobs=1))
        while not self.step():
            pass

    def _completion(self, output: Any) -> Completion:
        request, _ = self._in_flight.pop(output.request_id)
        result = output.outputs[0]
        finish = _FINISH.get(result.finish_reason, Finish.ERROR)
        if finish is not Finish.ERROR:
            asked = RequestSize(len(request.prompt_ids), request.max_tokens, len(result.token_ids))
            self._admission.finished(asked)
        # On STOP the last token is the end-of-sequence or a stop id, unless the reason is a stop text.
        at_token = finish is Finish.STOP and not isinstance(result.stop_reason, str)
        end = len(result.token_ids) - at_token
        return Completion(
            id=output.request_id,
            token_ids=tuple(result.token_ids[:end]),
            finish=finish,
            logprobs=self._logprobs(result.logprobs, end) if result.logprobs is not None else (),
            cached_tokens=output.num_cached_tokens or 0,
            error=_failure(result.finish_reason) if finish is Finish.ERROR else "",
        )

    def _logprobs(self, flat: Any, end: int) -> tuple[Mapping[int, float], ...]:
        """The first ``end`` positions of vLLM's FlatLogprobs."""
        if math.isnan(sum(flat.logprobs)):
            raise EngineError(
                "the model computes probabilities that are not numbers",
                where=str(self._settings.model_path),
                hint="its weights are damaged, or overflow in this dtype: check them, or try bfloat16",
            )
        return tuple(Position(flat, index) for index in range(end))


def _backends(worker: Any) -> list[str]:
    """Names of the attention backends of a worker of vLLM; called in the process of each."""
    return [group.backend.get_name() for groups in worker.model_runner.attn_groups for group in groups]


def _failure(reason: str | None) -> str:
    return f"vLLM ended the request with {reason!r}; its log on standard error says why"
