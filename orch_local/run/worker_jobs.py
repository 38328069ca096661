"""The jobs of workers: each generates the rows of one replica of a placement."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from orch_local.placement.replicas import Replica
from orch_local.run.supervisor import Progress, Supervisor


class SharedProgress:
    """One progress for several workers, each of which counts its own rows."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._done: dict[int, int] = {}

    def of(self, worker: int) -> Progress:
        """The progress of one worker."""

        def update(done: int) -> None:
            with self._lock:
                self._done[worker] = done
                self._progress(self.done)

        return update

    @property
    def done(self) -> int:
        """Rows finished by all of them."""
        return sum(self._done.values())


@dataclass(slots=True)
class WorkerJob:
    """A replica, the supervisor of its worker, and what that does."""

    replica: Replica
    supervisor: Supervisor
    work: Callable[[], object]
    """Returns when the worker has ended."""
    rows: int
    began: float = 0.0
    """By the monotonic clock, as ``ended``; 0 where it never began."""
    ended: float = 0.0

    def run(self) -> None:
        """Do the work, and note when."""
        self.began = time.monotonic()
        try:
            self.work()
        finally:
            self.ended = time.monotonic()
