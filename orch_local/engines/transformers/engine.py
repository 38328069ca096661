"""The transformers engine: rows through ``generate``, patterns executed by Outlines.

For machines without vLLM and for architectures that vLLM does not know. Slower: a row is computed alone,
because padding changes the order of sums, and with it the bits. ``fast`` computes padded batches.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Sequence
from typing import Any

from orch_local.engines.base import Attention, Completion, EngineSettings, Request, RequestError, one_line
from orch_local.engines.transformers.batches import Batch, Row
from orch_local.engines.transformers.loading import damaged, end_ids, greedy, load
from orch_local.engines.transformers.patterns import Patterns
from orch_local.errors import EngineError

_PROBE_TOKENS = 8


class TransformersEngine:
    """Implements :class:`orch_local.engines.base.Engine`.

    Raises
    ------
    EngineError
        If transformers is not installed or cannot load the model as it is.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._waiting: deque[Row] = deque()
        self._model, self._tokenizer = load(settings)
        self._vocabulary_size = int(self._model.get_input_embeddings().weight.shape[0])
        self._patterns = Patterns(self._tokenizer)
        self._stops = end_ids(self._model, self._tokenizer)
        # The model's own sampling defaults would come back in wherever ours are silent.
        self._model.generation_config = greedy(self._tokenizer)
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
        self._waiting.append(Row(request, self._stops | set(request.stop_ids), guide, decode))

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

    def _generate(self, rows: Sequence[Row]) -> None:
        import torch

        batch = Batch(rows, str(self._settings.model_path))
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
            raise damaged(str(self._settings.model_path))
