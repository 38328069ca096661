"""Worker processes, and which of them wait with a loaded model for the next agent that it can serve."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from orch_local.placement.replicas import Loaded, Slot
from orch_local.util.children import ChildProcess


class WorkerProcess(ChildProcess):
    """The process of a worker; its events come as lines of JSON."""

    @property
    def resident_gib(self) -> float:
        """Memory of the host that it holds now; 0 where it is dead."""
        try:
            return float(psutil.Process(self.pid).memory_info().rss) / 2**30 if self.alive else 0.0
        except psutil.Error:
            return 0.0

    def end(self) -> int:
        """Let it write what is finished and leave, or kill it; returns its exit code."""
        code = self.stop()
        self.close_input()
        return code


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker has its model loaded."""

    slots: tuple[Slot, ...]
    """Devices and lanes of the placement."""
    engine: str
    """What is loaded; see :attr:`orch_local.plan.plans.AgentPlan.engine`."""
    means: object = None
    """What of the machine it was given; a worker with other means cannot take over."""


class LoadedWorkers:
    """The workers of one execution that wait with their model loaded. Safe to use from several threads."""

    def __init__(self) -> None:
        self._waiting: dict[Place, WorkerProcess] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> LoadedWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def engines(self) -> Loaded:
        """The engine that is loaded in each slot."""
        with self._lock:
            return {slot: place.engine for place in self._waiting for slot in place.slots}

    def holds(self, place: Place) -> bool:
        """Whether a worker waits there."""
        with self._lock:
            return place in self._waiting

    def leave(self, place: Place, worker: WorkerProcess) -> None:
        """Let a worker wait, after the end of an order that asked it to stay."""
        with self._lock:
            self._waiting[place] = worker

    def take(self, place: Place) -> WorkerProcess | None:
        """The worker that waits there, if any; others in the same slots are ended."""
        with self._lock:
            found = self._waiting.pop(place, None)
            others = [other for other in self._waiting if set(other.slots) & set(place.slots)]
            ended = [self._waiting.pop(other) for other in others]
        for worker in ended:
            worker.end()
        if found and not found.alive:
            found.end()
            return None
        return found

    def keep_only(self, places: Iterable[Place]) -> None:
        """End those that wait elsewhere than in these places."""
        wanted = set(places)
        with self._lock:
            ended = [self._waiting.pop(place) for place in list(self._waiting) if place not in wanted]
        for worker in ended:
            worker.end()

    def end(self) -> None:
        """End all."""
        self.keep_only(())


@dataclass(frozen=True, slots=True)
class Handover:
    """From whom a worker's process may be taken over, and whether it waits for another agent at the end."""

    workers: LoadedWorkers
    place: Place
    stay: bool = False

    @property
    def waits(self) -> bool:
        """Whether a worker with the model loaded waits there."""
        return self.workers.holds(self.place)

    def take(self) -> WorkerProcess | None:
        """The worker that waits there, if any."""
        return self.workers.take(self.place)

    def leave(self, worker: WorkerProcess) -> None:
        """Let a worker wait there."""
        self.workers.leave(self.place, worker)
