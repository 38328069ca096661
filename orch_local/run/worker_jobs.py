"""Runs shifts: each replica of a placement in a worker of its own, when those before it have ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from orch_local.placement.placing import Replica
from orch_local.run.starting import Gate
from orch_local.run.supervisor import AgentRun, Progress

_LOOK_S = 1.0
"""Seconds between two looks whether a worker that has to wait may start."""


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
class Shift:
    """A replica, its worker, and what that does."""

    replica: Replica
    runner: AgentRun
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


@dataclass(slots=True)
class _Floor:
    """Shifts at work, and those that wait for them."""

    before: Mapping[Replica, set[Replica]]
    waiting: list[Shift]
    gate: Gate | None = None
    held: bool = False
    """Whether one of them could start but for the gate."""
    running: dict[Future[None], Shift] = field(default_factory=dict)

    def ready(self) -> Iterator[Shift]:
        """Shifts whose turn it is, taken off those that wait."""
        unfinished = {shift.replica for shift in (*self.waiting, *self.running.values())}
        running, self.held = list(self.running.values()), False
        for shift in list(self.waiting):
            if self.before.get(shift.replica, set()) & unfinished:
                continue
            if self.gate and not self.gate.may_start(shift.replica, running):
                self.held = True
                continue
            self.waiting.remove(shift)
            running.append(shift)
            yield shift

    def analysing(self) -> bool:
        """Whether a worker is still to write what others follow."""
        return any(not shift.replica.follows for shift in (*self.waiting, *self.running.values()))


def run_shifts(
    shifts: Sequence[Shift], before: Mapping[Replica, set[Replica]], gate: Gate | None = None
) -> None:
    """Run all shifts, each when those before it have ended and the gate, if any, lets it in.

    Those that follow are told when no other is left.

    Raises
    ------
    OrchError
        The first failure of a worker; all others are stopped, and keep what they finished.
    """
    floor = _Floor(before, list(shifts), gate)
    with ThreadPoolExecutor(max_workers=max(1, len(shifts))) as pool:
        try:
            while floor.waiting or floor.running:
                floor.running |= {pool.submit(shift.run): shift for shift in floor.ready()}
                if not floor.analysing():
                    _complete(shifts)
                look_again_s = _LOOK_S if floor.held else None
                done, _ = wait(floor.running, look_again_s, return_when=FIRST_COMPLETED)
                for future in done:
                    del floor.running[future]
                    future.result()
        except BaseException:
            _stop(shifts)
            raise


def _complete(shifts: Sequence[Shift]) -> None:
    for shift in shifts:
        if shift.replica.follows:
            shift.runner.complete()


def _stop(shifts: Sequence[Shift]) -> None:
    """Stop all workers at once: each may take its time, and a batch system does not wait for long."""
    stops = [threading.Thread(target=shift.runner.stop) for shift in shifts]
    for stop in stops:
        stop.start()
    for stop in stops:
        stop.join()
