"""The worker's end of its pipe to the parent: events out, orders and words in.

The parent and the worker exchange one line at a time, JSON but for single words of the parent:

========================= =====================================================================
parent, first line        an :class:`orch_local.run.orders.Order`; another one after the end of one that let
                          the worker stay
parent, ``finish``        take no further question, finish those the engine has
parent, ``complete``      to a worker that follows: the store holds all panels that there will be
parent, end of input      the parent is gone or wants the worker to stop
worker                    ``{"event": "loading"}`` as a sign of life
                          ``{"event": "loaded", "seconds": s}``; 0 where the model was there
                          ``{"event": "admitted", "keys": [...]}`` before the engine sees them
                          ``{"event": "progress", "done": n}``, also as a sign of life
                          ``{"event": "busy"}`` while it waits for others or generates rows again
                          ``{"event": "again", "rows": n}`` before it generates so many rows again
                          ``{"event": "error", "kind": "engine" or "store", "message": m,
                          "where": w, "hint": h}``
                          ``{"event": "end", "seconds": s, "done": n, "again": m, "again_s": t}``
========================= =====================================================================
"""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from orch_local.run import orders
from orch_local.run.orders import Order
from orch_local.run.rechecking import Rechecking

BEAT_SECONDS = 0.5
LOADING_BEAT_SECONDS = 5.0


class Reporter:
    """Sends events to the parent."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._done = 0
        self._last = 0.0

    def send(self, event: str, **values: Any) -> None:
        """Send one event; from any thread."""
        with self._lock:
            print(json.dumps({"event": event, **values}), file=self._stream, flush=True)

    def count(self) -> None:
        """Count one finished row."""
        self._done += 1

    def again(self, rows: int) -> None:
        """Report that so many rows are now generated again."""
        self.send("again", rows=rows)

    def end(self, seconds: float, recheck: Rechecking) -> None:
        """Report the regular end."""
        again = {"again": recheck.rows, "again_s": round(recheck.seconds, 3)}
        self.send("end", seconds=round(seconds, 3), done=self._done, **again)
        self._done = 0

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Show every few seconds that a model is being loaded, as long as the block lasts."""
        loaded = threading.Event()
        self.send("loading")

        def beat() -> None:
            while not loaded.wait(LOADING_BEAT_SECONDS):
                self.send("loading")

        beating = threading.Thread(target=beat, daemon=True)
        beating.start()
        try:
            yield
        finally:
            loaded.set()
            beating.join()

    def beat(self) -> None:
        """Report progress now and then; the parent takes long silence for a hanging engine."""
        self._now_and_then("progress", done=self._done)

    def alive(self) -> None:
        """Show now and then that something goes on which is no progress."""
        self._now_and_then("busy")

    def _now_and_then(self, event: str, **values: Any) -> None:
        now = time.monotonic()
        if now - self._last >= BEAT_SECONDS:
            self._last = now
            self.send(event, **values)


@dataclass(slots=True)
class Parent:
    """What the parent has said since its first order."""

    finishing: threading.Event = field(default_factory=threading.Event)
    """Set when no further question is to be taken."""
    complete: threading.Event = field(default_factory=threading.Event)
    """Set when all panels are in the store."""
    _orders: queue.SimpleQueue[Order] = field(default_factory=queue.SimpleQueue)

    def next_order(self) -> Order:
        """Wait for the next order."""
        return self._orders.get()

    def listen(self, stream: TextIO) -> None:
        """Heed the parent; end this process when its pipe closes, even if an engine is in native code."""
        for line in stream:
            match line.rstrip():
                case orders.FINISH:
                    self.finishing.set()
                case orders.COMPLETE:
                    self.complete.set()
                case line:
                    self._orders.put(Order.from_line(line))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)
        os._exit(1)
