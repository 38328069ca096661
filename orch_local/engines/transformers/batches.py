"""One call of `generate`: each row is masked, reported and ended by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from orch_local.engines.base import Completion, Finish, Request
from orch_local.engines.transformers.loading import damaged


class Row:
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


class Batch:
    """Masks, reports and ends each row of one ``generate`` call by itself."""

    def __init__(self, rows: Sequence[Row], model: str) -> None:
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
            raise damaged(self._model)
        for row, ids, logprobs in zip(self._rows, best.indices.tolist(), best.values.tolist(), strict=True):
            if row.active and row.request.logprobs:
                row.offer(ids, logprobs)
