"""What a parent and one worker say to each other, from the order to the end of its work.

The events are listed in `run/worker_channel.py`. A worker that says nothing for too long is killed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from orch_local.config.blocks import EngineConfig
from orch_local.run import orders
from orch_local.run.loaded import WorkerProcess
from orch_local.run.orders import Order
from orch_local.util.children import ending


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a worker is waited for, in seconds."""

    silence_s: float
    """Until one that says nothing is stopped and replaced."""
    load_s: float = 1e7
    """Until one that is still loading its model is."""

    @classmethod
    def of(cls, engine: EngineConfig) -> Patience:
        """As a run file says."""
        return cls(engine.stall_timeout_s, engine.load_timeout_s)


@dataclass(slots=True)
class Attempt:
    """What one worker process came to."""

    loading: float | None = None
    """When it began to load, by the monotonic clock; ``None`` where it did not."""
    load_s: float | None = None
    """Seconds until the model was loaded; ``None`` where it never was."""
    generate_s: float | None = None
    """Seconds from then to the regular end; ``None`` where it did not come to that."""
    admitted: list[str] = field(default_factory=list)
    rechecked: int = 0
    recheck_s: float = 0.0
    error: dict[str, Any] | None = None
    reason: str = ""
    """How the process ended, where it did not end well."""

    @property
    def ended_well(self) -> bool:
        """Whether the worker did all of its order."""
        return self.generate_s is not None

    def died(self, code: int) -> None:
        """Note how a worker that did not end well left."""
        self.reason = self.reason or _how_ended(code, self.error)


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told of a worker's progress, from the thread that listens to it."""

    progress: Callable[[int], None]
    """Called with the number of rows that the worker has finished."""
    rechecking: Callable[[int], None]
    """Called with the number of rows that it now generates again, and with 0 when it ends."""
    loaded: Callable[[], None]


class Conversation:
    """Gives a worker its order and listens to it until it has done its work, or is lost."""

    def __init__(self, worker: WorkerProcess, patience: Patience, listeners: Listeners) -> None:
        self._worker = worker
        self._patience = patience
        self._listeners = listeners
        self._attempt = Attempt()

    def hold(self, order: Order, *, complete: bool) -> Attempt:
        """Give the order; returns when the worker has ended or waits for another order.

        Parameters
        ----------
        complete:
            All panels that there will be are in the store already.
        """
        try:
            self._worker.send(order.to_line())
            if complete:
                self._worker.send(orders.COMPLETE)
        except BrokenPipeError:
            return self._attempt  # it died at once; its exit code says how
        while self._hear():
            pass
        return self._attempt

    def _hear(self) -> bool:
        """Take in the next line; returns whether there are more to come."""
        attempt = self._attempt
        try:
            line = self._worker.next_line(self._wait_s())
        except TimeoutError:
            self._worker.kill()
            attempt.reason = self._why_given_up()
            return False
        match line:
            case None:
                return False
            case orders.FINISH:
                self._finish()
            case orders.COMPLETE:
                with suppress(BrokenPipeError):
                    self._worker.send(line)
            case _:
                self._note(json.loads(line))
        return not (attempt.ended_well or attempt.error)

    def _wait_s(self) -> float:
        """Seconds that the next line is waited for."""
        attempt = self._attempt
        if attempt.load_s is not None or attempt.loading is None:
            return self._patience.silence_s
        left = attempt.loading + self._patience.load_s - time.monotonic()
        return max(0.0, min(self._patience.silence_s, left))

    def _why_given_up(self) -> str:
        patience, attempt = self._patience, self._attempt
        loading = attempt.loading if attempt.load_s is None else None
        if loading is not None and time.monotonic() >= loading + patience.load_s:
            return f"loading for {patience.load_s:.0f} s (engine.load_timeout_s)"
        return f"silence of {patience.silence_s:.0f} s (engine.stall_timeout_s)"

    def _finish(self) -> None:
        if self._attempt.load_s is None:
            self._worker.terminate()  # it has nothing that could be finished
            return
        with suppress(BrokenPipeError):
            self._worker.send(orders.FINISH)

    def _note(self, event: Mapping[str, Any]) -> None:
        attempt, listeners = self._attempt, self._listeners
        match event["event"]:
            case "loading":
                attempt.loading = attempt.loading or time.monotonic()
            case "loaded":
                attempt.load_s = event["seconds"]
                listeners.loaded()
            case "admitted":
                attempt.admitted += event["keys"]
            case "progress":
                listeners.progress(event["done"])
            case "again":
                listeners.rechecking(event["rows"])
            case "error":
                attempt.error = dict(event)
            case "end":
                listeners.progress(event["done"])
                attempt.generate_s = event["seconds"]
                attempt.rechecked, attempt.recheck_s = event["again"], event["again_s"]
                listeners.rechecking(0)


def _how_ended(code: int, error: Mapping[str, Any] | None) -> str:
    if error:
        return str(error["message"])
    return ending(code) if code < 0 else f"exit code {code}"
