"""Worker processes, and which of them wait with a loaded model for the next agent that it can serve."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

import psutil

from orch_local.placement.replicas import Loaded, Slot

_LEAVE_S = 20.0
"""Seconds that a worker gets to write what is finished."""


class WorkerProcess:
    """A worker that was started, and what it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.events: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        """Lines of the worker, ``None`` at their end; others may put words for their reader here."""
        assert process.stdout is not None
        for work, arguments in ((_pump, (process.stdout, self.events)), (_end_orphans, (process.pid,))):
            threading.Thread(target=work, args=arguments, daemon=True).start()

    def tell(self, line: str) -> None:
        """Send one line.

        Raises
        ------
        BrokenPipeError
            If the worker is dead.
        """
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    @property
    def resident_gib(self) -> float:
        """Memory of the host that it holds now; 0 where it is dead."""
        try:
            return float(psutil.Process(self.process.pid).memory_info().rss) / 2**30 if self.alive else 0.0
        except psutil.Error:
            return 0.0

    def ask_to_leave(self) -> None:
        """Let it write what is finished and leave; kill it if it does not. From any thread."""
        if not self.alive:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=_LEAVE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def end(self) -> int:
        """End it; returns its exit code."""
        self.ask_to_leave()
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # words that a dead worker did not take are still in it
            self.process.stdin.close()
        return self.process.wait()


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


def _pump(stream: IO[str], events: queue.SimpleQueue[str | None]) -> None:
    with stream:
        for line in stream:
            if line.endswith("\n"):  # else its writer was killed in the midst of it
                events.put(line)
    events.put(None)


def _end_orphans(pid: int) -> None:
    """Kill what a dead worker left behind; it may hold GPU memory, and our pipe open."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # see start_new_session
