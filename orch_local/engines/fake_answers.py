"""Answers of the fake engine's table in the tokens of a model: by the first row that fits, or by a hash."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from orch_local.config.numerals import NUMBER_PATTERN
from orch_local.engines.base import Completion, EngineSettings, Finish, Request, RequestError, one_line
from orch_local.engines.fake_table import Table, TableRow
from orch_local.errors import EngineError

_LABELS = "ABCDEFGHIJ"
_UNSURE = 50
ASKED = "the table asks for this failure"


class OvertakenError(Exception):
    """What a reply was to do once has been done meanwhile: the request is to be answered anew."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What becomes of one request."""

    token_ids: tuple[int, ...]
    finish: Finish = Finish.STOP
    logprobs: tuple[Mapping[int, float], ...] = ()
    cached: int = 0
    error: str = ""
    ready: Callable[[], bool] = lambda: True
    """Asked at each step that computes it, whether this is the last one; may raise, hang or kill."""

    def completion(self, request: Request) -> Completion:
        """The completion; what is longer than the request allows is cut."""
        kept, finish = self.token_ids[: request.max_tokens], self.finish
        if len(kept) < len(self.token_ids):
            finish = Finish.LENGTH
        logprobs = self.logprobs[: len(kept)] if request.logprobs else ()
        return Completion(request.id, kept, finish, logprobs, self.cached, self.error)


class TableAnswers:
    """Answers of a table in the tokens of one model."""

    def __init__(self, settings: EngineSettings, table: Table) -> None:
        from tokenizers import Tokenizer

        file = settings.model_path / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # noqa: BLE001 - `tokenizers` raises plain exceptions
            hint = "fetch the model again with all its tokenizer files"
            message = f"the tokenizer cannot be read: {one_line(error)}"
            raise EngineError(message, where=str(file), hint=hint) from None
        self._settings = settings
        self._table = table
        self._encode = functools.lru_cache(maxsize=4096)(self._encoded)

    def reply(self, request: Request) -> Reply:
        """The reply to a request, by the first row that fits."""
        self._check(request)
        reads = self._table.reads_prompts
        prompt = self._tokenizer.decode(list(request.prompt_ids)) if reads else ""
        fitting = self._table.fitting(request.agent, request.id, prompt)
        number, row = next(fitting, (0, TableRow()))
        if row.fail == "refused":
            if not is_due(row.once, self._table):  # another worker was faster
                return self.reply(request)
            raise RequestError(row.message)
        ready = _Timer(row, self._table).is_over
        if row.fail:
            return Reply((), Finish.ERROR, error=row.message, ready=ready)
        try:
            return self._said(request, row, ready)
        except ValueError as error:
            place = f"line {number} of {self._table.path.name}" if number else "the fake engine"
            return Reply((), Finish.ERROR, error=f"{place}: {error}", ready=ready)

    def _check(self, request: Request) -> None:
        if len(request.prompt_ids) + request.max_tokens > self._settings.loaded_len:
            raise RequestError(
                f"the prompt of {len(request.prompt_ids)} tokens and {request.max_tokens} tokens of answer "
                f"do not fit the context of {self._settings.loaded_len}"
            )

    def _said(self, request: Request, row: TableRow, ready: Callable[[], bool]) -> Reply:
        if request.pattern is None:
            return Reply(self._encode(row.thought if row.text is None else row.text), ready=ready)
        if row.text is not None:
            return Reply(self._encode(row.text), ready=ready)
        label, number = str(row.answer), _hashed(request)
        if row.answer is None:
            possible = possible_answers(request.pattern)
            label = possible[number % len(possible)] if possible else str(number % 1000)
        elif isinstance(row.answer, float) and row.answer.is_integer():
            label = str(int(row.answer))
        confidence = row.confidence
        if confidence is None:
            confidence = number // 7 % 101 if row.answer is None else _UNSURE
        text = self._written(request.pattern, row, label, confidence)
        ids = self._encode(text)
        return Reply(ids, logprobs=self._logprobs(ids, request, row, label, confidence), ready=ready)

    def _written(self, pattern: str, row: TableRow, label: str, confidence: int) -> str:
        text = written(pattern, row, label, confidence)
        if re.fullmatch(pattern, text) is None:
            possible = possible_answers(pattern)
            if possible and label not in possible:
                raise ValueError(f"the answer {label!r} is not one of {', '.join(possible)}")
            raise ValueError(
                "the answer does not fit the answer schema: its reasoning is too long or has characters "
                "that are not allowed, or `eliminated` is not in label order and without the answer"
            )
        return text

    def _encoded(self, text: str) -> tuple[int, ...]:
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if self._tokenizer.decode(ids) != text:
            raise ValueError("the tokenizer of this model cannot write the text")
        return tuple(ids)

    def _logprobs(
        self, ids: tuple[int, ...], request: Request, row: TableRow, label: str, confidence: int
    ) -> tuple[Mapping[int, float], ...]:
        """Every token has all of the probability, but for the one in which the labels first differ."""
        if not request.logprobs:
            return ()
        found: list[Mapping[int, float]] = [{token: 0.0} for token in ids]
        shares = {name: share for name, share in (row.probabilities or {}).items() if share > 0}
        if not shares or label not in shares:
            return tuple(found)
        plain = TableRow(reasoning=row.reasoning)
        spelled = {
            name: self._encode(written(request.pattern or "", plain, name, confidence)) for name in shares
        }
        own = self._encode(written(request.pattern or "", plain, label, confidence))
        others = (other for name, other in spelled.items() if name != label)
        at = min((_first_difference(own, other) for other in others), default=None)
        if at is not None and at < len(found):
            found[at] = {spelled[name][at]: math.log(share) for name, share in shares.items()}
        return tuple(found)


@dataclass(slots=True)
class _Timer:
    """When a row is over, and how it ends."""

    row: TableRow
    table: Table
    started: float | None = None

    def is_over(self) -> bool:
        """Whether the request is finished with this step."""
        row, now = self.row, time.monotonic()
        self.started = now if self.started is None else self.started
        if now - self.started < row.delay_s or (row.hold and self.table.place(row.hold).exists()):
            return False
        if not is_due(row.once, self.table):
            raise OvertakenError
        if row.fail == "engine":
            raise EngineError(row.message, where=str(self.table.path), hint=ASKED)
        if row.fail == "raised":
            raise RuntimeError(row.message)
        if row.fail in ("killed", "hang"):
            end_process(row.fail)
        return True


def written(pattern: str, row: TableRow, label: str, confidence: int) -> str:
    """An answer with the fields that a pattern has, in their order, without white space."""
    fields: dict[str, Any] = {
        "reasoning": row.reasoning,
        "answer": label,
        "eliminated": list(row.eliminated),
        "confidence": confidence,
    }
    kept = {name: value for name, value in fields.items() if f'"{name}":' in pattern}
    return json.dumps(kept, separators=(",", ":"), ensure_ascii=False)


@functools.lru_cache(maxsize=1024)
def possible_answers(pattern: str) -> tuple[str, ...]:
    """What a pattern lets an answer be: labels, or the numbers that it lists; empty for any number."""
    if NUMBER_PATTERN in pattern:
        return ()
    listed = re.search(r'"answer": \?"\(\?:(.*?)\)"', pattern)
    numbers = re.sub(r"\\(.)", r"\1", listed[1]).split("|") if listed else []
    plain = TableRow()
    grammar = re.compile(pattern)
    return tuple(one for one in (*_LABELS, *numbers) if grammar.fullmatch(written(pattern, plain, one, 0)))


def _hashed(request: Request) -> int:
    text = f"{request.agent} {request.pattern} {request.prompt_ids}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def _first_difference(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    pairs = zip(one, other, strict=False)
    differing = (place for place, (left, right) in enumerate(pairs) if left != right)
    return next(differing, min(len(one), len(other)))


def is_due(once: Path | None, table: Table) -> bool:
    """Whether something that happens once has not happened yet; it has from now on."""
    if once is None:
        return True
    try:
        table.place(once).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def end_process(how: str) -> NoReturn:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    # As if it hung in native code, which no signal handler of Python interrupts.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(3600)
