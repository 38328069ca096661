"""The transformers engine: rows through ``generate``, patterns executed by Outlines.

For machines without vLLM and for architectures that vLLM does not know. Slower: a row is computed alone,
because padding changes the order of sums, and with it the bits. ``fast`` computes padded batches.
"""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from orch_local.engines.base import (
    Attention,
    Completion,
    EngineSettings,
    Finish,
    Request,
    RequestError,
    one_line,
)
from orch_local.engines.traits import has_experts, is_recurrent, quantization
from orch_local.errors import EngineError
from orch_local.util.offline import SILENCE

_PROBE_TOKENS = 8
_INSTALL_HINT = "install `torch`, `transformers` and `outlines` into this environment"


def version() -> str:
    """Version of the installed transformers.

    Raises
    ------
    EngineError
        If transformers is not installed.
    """
    return _installed("transformers")


def _installed(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise EngineError(f"{distribution} is not installed", hint=_INSTALL_HINT) from None


def warm_up() -> None:
    """Import what loading a model takes."""
    import outlines_core  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401


def environment(settings: EngineSettings) -> dict[str, str]:
    """Variables that a worker must have before its Python starts, torch reads them at import."""
    common = {
        **SILENCE,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if settings.device == "cpu":
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        return {**common, **dict.fromkeys(names, str(settings.threads)), "CUDA_VISIBLE_DEVICES": ""}
    # A fixed workspace makes cuBLAS choose the same algorithm in every run.
    return {**common, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def libraries(settings: EngineSettings) -> dict[str, str]:  # noqa: ARG001 - the same for every model
    """Versions of transformers, torch and what executes the grammar.

    Raises
    ------
    EngineError
        If one of them is not installed.
    """
    return {name: _installed(name) for name in ("transformers", "torch", "outlines_core")}


def determinism(settings: EngineSettings) -> dict[str, str | int | bool]:
    """Facts of the execution that can change bytes, JSON-able, for the spec."""
    threads = {"threads": settings.threads} if settings.device == "cpu" else {}
    return {
        "batch_invariant": not obstacles(settings),
        "attention": "chosen by transformers",
        "batch_size": settings.side_by_side,
        **threads,
    }


def obstacles(settings: EngineSettings) -> tuple[str, ...]:
    """Why equal bytes are not promised, in words for the user; empty where they are.

    A row computed alone depends on nothing else that is computed. With one thread of a CPU its sums have one
    order. On CUDA all shapes are its own, cuBLAS repeats itself with a fixed workspace and one stream
    (docs.nvidia.com/cuda/cublas, "Results reproducibility"), and torch is told to take its deterministic
    kernels; what runs in kernels from elsewhere is not known to add in a fixed order, and not promised.
    """
    if settings.fast:
        return ("`fast` gives equal bytes up for speed",)
    return tuple(_cuda_obstacles(settings)) if settings.device == "cuda" else ()


def _cuda_obstacles(settings: EngineSettings) -> Iterator[str]:
    if method := quantization(settings):
        yield f"the weights are quantized ({method})"
    if is_recurrent(settings):
        yield "the model has recurrent layers"
    if has_experts(settings):
        yield "the model is a mixture of experts"


class TransformersEngine:
    """Implements :class:`orch_local.engines.base.Engine`.

    Raises
    ------
    EngineError
        If transformers is not installed or cannot load the model as it is.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._waiting: deque[_Row] = deque()
        self._model, self._tokenizer = _load(settings)
        self._vocabulary_size = int(self._model.get_input_embeddings().weight.shape[0])
        self._patterns = Patterns(self._tokenizer)
        self._stops = _end_ids(self._model, self._tokenizer)
        # The model's own sampling defaults would come back in wherever ours are silent.
        self._model.generation_config = _greedy(self._tokenizer)
        self._probe()

    @property
    def capacity(self) -> int:
        """How many requests are computed side by side."""
        return self._settings.side_by_side

    @property
    def attention(self) -> Attention:
        """Head dimension and implementation of the loaded model; see :attr:`Engine.attention`."""
        config = self._model.config.get_text_config()
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return Attention(int(size), str(getattr(config, "_attn_implementation", "") or "") or None)

    def submit(self, request: Request) -> None:
        """Queue a request; see :meth:`Engine.submit`."""
        self._check(request)
        guide = None if request.pattern is None else self._patterns.guide(request.pattern)
        decode = self._tokenizer.decode
        self._waiting.append(_Row(request, self._stops | set(request.stop_ids), guide, decode))

    def step(self) -> list[Completion]:
        """Generate one batch to its end, in the order of submission; see :meth:`Engine.step`."""
        rows = [self._waiting.popleft() for _ in range(min(self.capacity, len(self._waiting)))]
        if rows:
            self._generate(rows)
        return [row.completion() for row in rows]

    def close(self) -> None:
        """Free the memory of the weights."""
        import torch

        del self._model, self._patterns
        self._waiting.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _check(self, request: Request) -> None:
        prompt = request.prompt_ids
        if any(row.request.id == request.id for row in self._waiting):
            raise RequestError(f"a request with id {request.id!r} is already waiting")
        if not prompt:
            raise RequestError("the prompt is empty")
        if min(prompt) < 0 or max(prompt) >= self._vocabulary_size:
            raise RequestError(f"the prompt holds a token id outside 0 to {self._vocabulary_size - 1}")
        if request.max_tokens < 1:
            raise RequestError(f"max_tokens must be at least 1, got {request.max_tokens}")
        if not 0 <= request.logprobs <= self._settings.max_logprobs:
            raise RequestError(f"logprobs must be 0 to {self._settings.max_logprobs}, got {request.logprobs}")
        if len(prompt) + request.max_tokens > self._settings.max_model_len:
            raise RequestError(
                f"the prompt of {len(prompt)} tokens and {request.max_tokens} tokens of answer "
                f"do not fit the context of {self._settings.max_model_len}"
            )

    def _generate(self, rows: Sequence[_Row]) -> None:
        import torch

        batch = _Batch(rows, str(self._settings.model_path))
        ids, mask = self._padded([row.request.prompt_ids for row in rows])
        try:
            with torch.inference_mode():
                self._model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=max(row.request.max_tokens for row in rows),
                    logits_processor=[batch.process],
                    stopping_criteria=[batch.finished],
                )
        except (RuntimeError, ValueError) as error:
            message = f"transformers died while generating: {one_line(error)}"
            raise EngineError(message, hint="lower `max_num_seqs` if memory ran out") from error

    def _padded(self, prompts: Sequence[Sequence[int]]) -> tuple[Any, Any]:
        """Prompts as one tensor, padded on the left, and the mask that hides the padding."""
        import torch

        width = max(map(len, prompts))
        pad = self._model.generation_config.pad_token_id
        ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        device = self._model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _probe(self) -> None:
        """Compute a few tokens, so that damaged weights fail here and not as a page of empty answers."""
        import torch

        ids, mask = self._padded([range(min(_PROBE_TOKENS, self._vocabulary_size))])
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=mask).logits
        if not torch.isfinite(logits).all():
            raise _damaged(str(self._settings.model_path))


class _Row:
    """One request while it is generated."""

    def __init__(
        self, request: Request, stops: frozenset[int], guide: Any, decode: Callable[..., str]
    ) -> None:
        self.request = request
        self.guide = guide
        self._stops = stops
        self._decode = decode
        self._token_ids: list[int] = []
        self._logprobs: list[dict[int, float]] = []
        self._finish: Finish | None = None

    @property
    def active(self) -> bool:
        """Whether more tokens are wanted; the others of the batch may still run on."""
        return self._finish is None

    def offer(self, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        """Note the most probable tokens of the coming position, best first."""
        count = self.request.logprobs
        pairs = zip(ids[:count], logprobs[:count], strict=True)
        self._logprobs.append({token: value for token, value in pairs if value != -math.inf})

    def take(self, token: int) -> None:
        """Note the chosen token of the position."""
        if token in self._stops:
            self._finish = Finish.STOP
            return
        self._token_ids.append(token)
        if self.guide is not None:
            self.guide.advance(token, return_tokens=False)
        if self.request.logprobs:
            # Among equals `generate` may choose another than the one listed first.
            best = self._logprobs[-1]
            best.setdefault(token, max(best.values()))
        if self._wrote_stop_text():
            self._finish = Finish.STOP
        elif len(self._token_ids) == self.request.max_tokens:
            self._finish = Finish.LENGTH

    def _wrote_stop_text(self) -> bool:
        """Whether the stop text is complete; only tokens that it can reach back into are looked at."""
        stop = self.request.stop_text
        if not stop:
            return False
        # A token stands for at least one byte, and the first of them may be cut within a character.
        reach = len(stop.encode()) + 1
        text = self._decode(
            self._token_ids[-reach:], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return stop in text

    def completion(self) -> Completion:
        """What came of the request."""
        ids = tuple(self._token_ids)
        finish = self._finish or Finish.ERROR
        error = "" if self._finish else "generation ended before the answer did"
        return Completion(self.request.id, ids, finish, tuple(self._logprobs[: len(ids)]), error=error)


class _Batch:
    """Masks, reports and ends each row of one ``generate`` call by itself."""

    def __init__(self, rows: Sequence[_Row], model: str) -> None:
        self._rows = rows
        self._model = model
        self._wanted = max(row.request.logprobs for row in rows)
        self._constrained = any(row.guide is not None for row in rows)
        self._seen: int | None = None

    def process(self, input_ids: Any, scores: Any) -> Any:
        """Logits processor: forbid what the patterns forbid, then note the most probable tokens."""
        self._observe(input_ids)
        if self._constrained:
            scores = scores.masked_fill(~self._allowed(scores), -math.inf)
        if self._wanted:
            self._report(scores)
        return scores

    def finished(self, input_ids: Any, *_: Any) -> Any:
        """Stopping criterion: which rows are done."""
        import torch

        self._observe(input_ids)
        return torch.tensor([not row.active for row in self._rows], device=input_ids.device)

    def _observe(self, input_ids: Any) -> None:
        """Take the tokens chosen since the last look; whoever of the two callers comes first does it."""
        width = input_ids.shape[1]
        for column in range(self._seen or width, width):
            for row, token in zip(self._rows, input_ids[:, column].tolist(), strict=True):
                if row.active:
                    row.take(token)
        self._seen = width

    def _allowed(self, scores: Any) -> Any:
        """Boolean mask of the tokens each row may choose, of the shape of ``scores``."""
        import torch

        rows, vocabulary = scores.shape
        words = torch.full((rows, math.ceil(vocabulary / 32)), -1, dtype=torch.int32)
        for row, bits in zip(self._rows, words, strict=True):
            if row.guide is not None and row.active:
                row.guide.write_mask_into(bits.data_ptr(), bits.numel(), bits.element_size())
        shifts = torch.arange(32, dtype=torch.int32, device=scores.device)
        bits = (words.to(scores.device).unsqueeze(-1) >> shifts) & 1
        return bits.bool().flatten(1)[:, :vocabulary]

    def _report(self, scores: Any) -> None:
        best = scores.log_softmax(dim=-1).topk(min(self._wanted, scores.shape[1]), dim=-1)
        if best.values[:, 0].isnan().any():
            raise _damaged(self._model)
        for row, ids, logprobs in zip(self._rows, best.indices.tolist(), best.values.tolist(), strict=True):
            if row.active and row.request.logprobs:
                row.offer(ids, logprobs)


class Patterns:
    """Patterns compiled by Outlines for one tokenizer, each once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._vocabulary: Any = None
        self._indexes: dict[str, Any] = {}

    def guide(self, pattern: str) -> Any:
        """A fresh walk through the automaton of ``pattern``.

        Raises
        ------
        RequestError
            If Outlines cannot compile the pattern for this tokenizer.
        """
        import outlines_core

        if self._vocabulary is None:
            end = self._tokenizer.eos_token_id
            self._vocabulary = outlines_core.Vocabulary(end, _token_bytes(self._tokenizer))
        if pattern not in self._indexes:
            try:
                self._indexes[pattern] = outlines_core.Index(pattern, self._vocabulary)
            except ValueError as error:
                raise RequestError(f"the pattern cannot be compiled: {one_line(error)}") from error
        return outlines_core.Guide(self._indexes[pattern])


def _token_bytes(tokenizer: Any) -> dict[bytes, list[int]]:
    """What each token stands for, in bytes; special tokens are left out, no pattern may choose one.

    Outlines' own conversion goes through text, where a part of a character becomes U+FFFD and would be
    allowed inside strings.
    """
    decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"]
    spell = _spell_byte_level if '"ByteLevel"' in json.dumps(decoder) else _spell_sentence_piece
    added = tokenizer.added_tokens_decoder
    spelled: dict[bytes, list[int]] = {}
    for token, index in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        text = token.encode() if index in added else spell(token)
        if text and not (index in added and added[index].special) and index != tokenizer.eos_token_id:
            spelled.setdefault(text, []).append(index)
    return spelled


def _spell_byte_level(token: str) -> bytes:
    table = _byte_level_table()
    # An entry beyond the alphabet is plain text.
    return bytes(map(table.__getitem__, token)) if table.keys() >= set(token) else token.encode()


@functools.cache
def _byte_level_table() -> dict[str, int]:
    """Inverse of the printable alphabet in which byte-level BPE writes the 256 bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _spell_sentence_piece(token: str) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", token)
    return bytes.fromhex(byte[1]) if byte else token.replace("\u2581", " ").encode()


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end a generation: the tokenizer's, and those of generation_config.json, as in vLLM."""
    configured = model.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(end for end in (tokenizer.eos_token_id, *several) if end is not None)


def _greedy(tokenizer: Any) -> Any:
    """Plain greedy decoding; any id will do for padding, the mask hides it."""
    from transformers import GenerationConfig

    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return GenerationConfig(do_sample=False, num_beams=1, use_cache=True, pad_token_id=pad)


def _load(settings: EngineSettings) -> tuple[Any, Any]:
    """Model and tokenizer from local files.

    Raises
    ------
    EngineError
        If a library or a file is missing, or weights are.
    """
    try:
        # To find it missing now, not at the first pattern.
        import outlines_core  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except Exception as error:
        message = f"the transformers engine cannot be imported: {one_line(error)}"
        raise EngineError(message, hint=_hint(str(error), otherwise=_INSTALL_HINT)) from error
    _check_settings(settings)
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(settings.model_path, **safe)
        model, report = AutoModelForCausalLM.from_pretrained(
            settings.model_path, dtype=settings.dtype, use_safetensors=True, output_loading_info=True, **safe
        )
        _check_loaded(settings, tokenizer, report)
        return model.to(settings.device).eval(), tokenizer
    except EngineError:
        raise
    except Exception as error:
        message = f"transformers cannot load the model: {one_line(error)}"
        raise EngineError(message, where=str(settings.model_path), hint=_hint(str(error))) from error


def _check_settings(settings: EngineSettings) -> None:
    import torch

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise EngineError("torch sees no GPU", hint="check nvidia-smi, or set `engine.device: cpu`")
    # Sums by atomic additions, as in `index_add_`, come out in another order each time; a CPU has none.
    torch.use_deterministic_algorithms(settings.device == "cuda" and not settings.fast, warn_only=True)
    one = {"quantization": None, "tensor_parallel_size": 1, "pipeline_parallel_size": 1}
    for key, plain in one.items():
        if settings.args.get(key, plain) not in (plain, None):
            raise EngineError(
                f"the transformers engine has no `{key}`", hint="take it out, or set `engine.name: vllm`"
            )


def _check_loaded(settings: EngineSettings, tokenizer: Any, report: Mapping[str, Any]) -> None:
    """Refuse what transformers only warns of: weights made up at random, a tokenizer that cannot be used."""
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        raise EngineError(
            f"{len(absent)} weights are missing or of another shape, the first is {absent[0]}",
            where=str(settings.model_path),
            hint="the weights do not belong to this config.json: fetch the model again",
        )
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        raise EngineError(
            "the tokenizer has no tokenizer.json or no end-of-sequence token",
            where=str(settings.model_path),
            hint="fetch the model again with all its tokenizer files",
        )


_FILES_HINT = "the folder needs config.json, *.safetensors and tokenizer.json: fetch the model again"


def _hint(message: str, otherwise: str = _FILES_HINT) -> str:
    """What to do about a failed load, by signs in its message."""
    lowered = message.lower()
    if "torchvision" in lowered:
        return "its build does not fit this torch: uninstall torchvision, torchaudio and torchcodec"
    if "out of memory" in lowered:
        return "the weights do not fit this device: choose a smaller model or a narrower dtype"
    if "trust_remote_code" in lowered or "does not recognize this architecture" in lowered:
        return "this transformers does not know the architecture, and code in a model folder is not run"
    return otherwise


def _damaged(model: str) -> EngineError:
    return EngineError(
        "the model computes probabilities that are not numbers",
        where=model,
        hint="its weights are damaged, or overflow in this dtype: check them, or try bfloat16",
    )
