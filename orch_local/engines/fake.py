"""The fake engine: answers from a table, through the real tokenizer; no weights are loaded.

It is for trying a run file without a model, and for tests. The name of the engine, the digest of its table
and the name of the agent are in the spec, so that no row of it is ever taken for that of a model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from orch_local.engines.base import (
    Attention,
    Completion,
    EngineSettings,
    Request,
    RequestError,
)
from orch_local.engines.fake_answers import ASKED, OvertakenError, Reply, TableAnswers, end_process, is_due
from orch_local.engines.fake_table import LoadRow, Table, read_table
from orch_local.errors import ConfigError, EngineError

_VERSION = "1"
"""Of the rule by which a table and a prompt come to an answer; part of the spec."""
_TICK_S = 0.02

log = logging.getLogger(__name__)


def version() -> str:
    """Version of the rule by which answers are made."""
    return _VERSION


def warm_up() -> None:
    """Import what loading takes, which is nothing."""


def environment(settings: EngineSettings) -> dict[str, str]:  # noqa: ARG001 - the same for every model
    """Variables that a worker must have before its Python starts."""
    return {"TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}


def libraries(settings: EngineSettings) -> dict[str, str]:  # noqa: ARG001 - the same for every model
    """The version of the rule; there is no library."""
    return {"fake": _VERSION}


def determinism(settings: EngineSettings) -> dict[str, str | int | bool]:  # noqa: ARG001 - see above
    """Facts for the spec: a table depends on no batch."""
    return {"batch_invariant": True, "attention": "none"}


def obstacles(settings: EngineSettings) -> tuple[str, ...]:  # noqa: ARG001 - see above
    """Why equal bytes in any batch are not promised: nothing is computed, so they are equal."""
    return ()


class FakeEngine:
    """Implements :class:`orch_local.engines.base.Engine` with what ``answer`` says to a request.

    Parameters
    ----------
    answer:
        The reply to a request; raises :class:`RequestError` for one that is refused.
    capacity:
        Requests that are computed side by side.
    tick_s:
        What a step takes in which nothing finishes.
    """

    attention = Attention()

    def __init__(self, answer: Callable[[Request], Reply], capacity: int, *, tick_s: float = _TICK_S) -> None:
        self.capacity = capacity
        self.queue: dict[str, tuple[Request, Reply]] = {}
        """What waits or is computed."""
        self.answer = answer
        self._tick_s = tick_s

    def submit(self, request: Request) -> None:
        """Queue a request; see :meth:`Engine.submit`."""
        if request.id in self.queue:
            raise RequestError(f"a request with id {request.id!r} is already in flight")
        self.queue[request.id] = (request, self.answer(request))

    def step(self) -> list[Completion]:
        """Advance the first ``capacity`` requests; what finishes comes out last in, first out."""
        finished = []
        for name in list(self.queue)[: self.capacity]:
            request, reply = self.queue[name]
            try:
                over = reply.ready()
            except OvertakenError:
                self.queue[name] = (request, self.answer(request))
                continue
            if over:
                del self.queue[name]
                finished.append(reply.completion(request))
        if self.queue and not finished:
            time.sleep(self._tick_s)
        return finished[::-1]

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        self.queue.clear()


def open_table_engine(settings: EngineSettings) -> FakeEngine:
    """The engine that answers from the table of the settings.

    Raises
    ------
    EngineError
        If the table is not the one of the plan, the tokenizer cannot be read, or the table says so.
    """
    try:
        table = read_table(Path(settings.args["table"]))
    except ConfigError as error:
        raise EngineError(error.message, where=error.where, hint=error.hint) from None
    if table.sha256 != settings.args.get("table_sha256", table.sha256):
        raise EngineError(
            "the table of the fake engine is not the one that was planned with: its SHA-256 is another",
            where=str(table.path),
            hint="put the old file back, or choose another --out for the new one",
        )
    for row in table.loads:
        if row.model in (None, settings.model_path.name):
            _load(row, table)
    log.info("no model is loaded: answers for %s come from %s", settings.model_path.name, table.path.name)
    return FakeEngine(TableAnswers(settings, table).reply, settings.side_by_side)


def _load(row: LoadRow, table: Table) -> None:
    time.sleep(row.delay_s)
    while row.hold and table.place(row.hold).exists():
        time.sleep(_TICK_S)
    if row.load == "ok":
        print(row.message)
    if row.load == "ok" or not is_due(row.once, table):
        return
    if row.load == "failed":
        raise EngineError(row.message, where=str(table.path), hint=ASKED)
    end_process(row.load)
