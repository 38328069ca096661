"""Runs the worker of an agent here and outlives its death.

A worker that dies takes at most the rows in flight with it. Those are tried again in halves, each in a
fresh worker, until the prompt that kills the engine stands alone; it becomes a ``failed`` row.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from orch_local.config.run_files import EngineConfig
from orch_local.engines.registry import environment
from orch_local.errors import EngineError, OrchError, StoreError
from orch_local.plan.plans import AgentPlan
from orch_local.records import Analysis, Outcome
from orch_local.run import compile_cache, orders
from orch_local.run.loaded import Handover, WorkerProcess
from orch_local.run.orders import NO_RECHECK, Order, Recheck
from orch_local.store.store import RunFolder, Store, unwritable

log = logging.getLogger(__name__)

WORKER_COMMAND = (sys.executable, "-m", "orch_local.run.worker")

LOADS_LOST = 2
"""So many workers killed one after another before their first prompt mean that no load will succeed."""

POISONED_IN_A_ROW = 3
"""So many prompts killing the engine one after another, with no row between, mean that the engine is ill."""

Progress = Callable[[int], None]
"""Called with the number of rows finished so far."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a worker runs, and what of the machine it may use."""

    label: str = ""
    """Tells the workers of one agent apart in messages and names of logs."""
    gpus: str | None = None
    """Value of CUDA_VISIBLE_DEVICES; ``None`` leaves it as it is here."""
    cores: tuple[int, ...] = ()
    """CPU cores; empty for all."""
    memory_share: float | None = None
    """Share of each GPU's memory; ``None`` for that of the model config."""
    stage_to: Path | None = None
    """Folder on a local disk that the model is copied to first."""


@dataclass(slots=True)
class Timing:
    """Wall seconds of one agent's workers, and how often one died."""

    load_s: float = 0.0
    generate_s: float = 0.0
    """What generating rows again took is part of it."""
    deaths: int = 0
    recheck_s: float = 0.0
    rechecked: int = 0
    """Rows that were generated again, in ``recheck_s``."""

    def __str__(self) -> str:
        again = f", {self.rechecked} rows of it again in {self.recheck_s:.1f} s" if self.rechecked else ""
        died = f", {self.deaths} of its workers died" if self.deaths else ""
        return f"loaded in {self.load_s:.1f} s, generated in {self.generate_s:.1f} s{again}{died}"

    def add(self, other: Timing) -> None:
        """Add the figures of another worker."""
        self.load_s += other.load_s
        self.generate_s += other.generate_s
        self.deaths += other.deaths
        self.recheck_s += other.recheck_s
        self.rechecked += other.rechecked


@dataclass(slots=True)
class _Attempt:
    """What one worker process came to."""

    loading: float | None = None
    """When it began to load, by the monotonic clock; ``None`` where it did not."""
    load_s: float | None = None
    """Seconds until the model was loaded; ``None`` where it never was."""
    generate_s: float | None = None
    """Seconds from then to the regular end; ``None`` where it did not come to that."""
    admitted: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    reason: str = ""
    """How the process ended, where it did not end well."""


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


class AgentRun:
    """Generates rows of one agent into ``store``; see :meth:`run`."""

    def __init__(
        self,
        folder: RunFolder,
        agent: AgentPlan,
        store: Store,
        patience: Patience,
        recheck: Recheck = NO_RECHECK,
        seat: Seat = Seat(),
    ) -> None:
        self._folder = folder
        self._agent = agent
        self._store = store
        self._patience = patience
        self._recheck = recheck
        self._seat = seat
        self._worker: WorkerProcess | None = None
        self._prepared: WorkerProcess | None = None
        """One that was started ahead, and waits for its order."""
        self._events: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stopped = False
        self._follows = False
        self._complete = False
        self.loaded = False
        """Whether its model was loaded once."""
        self.timing = Timing()
        self.log = folder.worker_log(agent.name + seat.label, store.shard)
        """Where the words of the worker and its libraries go."""
        self.again: Progress = lambda rows: None  # noqa: ARG005
        """Called with the number of rows that the worker now generates again, and with 0 when it ends."""
        self.handover: Handover | None = None
        """How a loaded model is taken over and passed on; ``None`` loads and ends a worker each time."""

    def run(
        self, rows: Mapping[str, str], progress: Progress, batches: Sequence[Sequence[str]] | None = None
    ) -> Timing:
        """Generate the row of each question key in ``rows`` (question key -> row key), unless stopped.

        ``batches`` holds the question keys that are in the engine together; none puts all into one.

        Raises
        ------
        EngineError
            If the model cannot be loaded, or the engine dies on whatever it is given.
        StoreError
            If the worker could not write its rows.
        """
        groups = deque(list(batch) for batch in (batches or [list(rows)]) if batch)
        finished = poisoned = lost = 0
        while groups and not self._stopped:
            attempt = self._attempt(list(groups), _after(finished, progress))
            if attempt.generate_s is not None or self._stopped:
                log.info("%s: %s", self._agent.name, self.timing)
                return self.timing
            lost = 0 if attempt.admitted else lost + 1
            self._check_alive(attempt, lost)
            self.timing.deaths += 1
            log.warning(
                "the worker of %s died (%s); the rows in flight go again", self._agent.name, attempt.reason
            )
            groups, new_rows = self._remaining(groups, rows, attempt)
            finished += new_rows
            poisoned = 0 if new_rows else poisoned
            if groups and len(groups[0]) == 1 and attempt.admitted == groups[0]:
                poisoned += 1
                self._record_poison(rows[groups.popleft()[0]], attempt)
                finished += 1
            if poisoned >= POISONED_IN_A_ROW:
                raise self._dead(f"{poisoned} prompts in a row killed it, the last time by {attempt.reason}")
        self._drop_prepared()
        return self.timing

    def follow(self, keys: Sequence[str], progress: Progress) -> None:
        """Generate the rows of a merge agent while panels are still being written, until told they are.

        That is by :meth:`complete`. Whatever goes wrong is logged only: what is missing in the end is for
        :meth:`run`.
        """
        self._follows = True
        if self._stopped:
            return
        attempt = self._attempt([list(keys)], progress)
        if attempt.generate_s is None and not self._stopped:
            log.warning("the worker of %s that followed ended by %s", self._agent.name, attempt.reason)

    @property
    def resident_gib(self) -> float:
        """Memory of the host that the worker holds now; 0 where there is none."""
        worker = self._worker
        return worker.resident_gib if worker else 0.0

    def prepare(self) -> None:
        """Start the worker ahead: it imports what it needs and waits for its order, or for :meth:`stop`."""
        if self._prepared or self._stopped or (self.handover and self.handover.waits):
            return
        with _appended(self.log) as log:
            self._prepared = WorkerProcess(self._start(log, self._agent.settings.name))

    def complete(self) -> None:
        """Tell a worker that follows that the store holds all panels. From any thread."""
        self._complete = True
        self._events.put(orders.COMPLETE)

    def finish(self) -> None:
        """Let the worker finish what its engine has; start no other. From any thread or signal handler."""
        self._stopped = True
        self._events.put(orders.FINISH)

    def stop(self) -> None:
        """Ask the worker to write what is finished and leave, and start no other. From any thread."""
        self._stopped = True
        self._drop_prepared()
        if worker := self._worker:
            worker.ask_to_leave()

    def _drop_prepared(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared:
            prepared.end()

    def _check_alive(self, attempt: _Attempt, lost: int) -> None:
        """Raise where trying again would not help; ``lost`` workers in a row came to no prompt."""
        if attempt.error and attempt.error["kind"] == "store":
            raise StoreError(
                attempt.error["message"], where=attempt.error["where"], hint=attempt.error["hint"]
            )
        if attempt.admitted:
            return
        if attempt.error:
            raise self._error(attempt.error)
        if attempt.reason.startswith("SIG") and lost < LOADS_LOST:
            return  # somebody's kill, or memory that another process may have given back by now
        when = "while loading" if attempt.load_s is None else "before its first prompt"
        raise self._dead(f"it ended by {attempt.reason} {when}")

    def _error(self, error: Mapping[str, str]) -> OrchError:
        where = error["where"] or f"agent {self._agent.name!r}"
        return EngineError(error["message"], where=where, hint=f"{error['hint']} (log: {self.log})".strip())

    def _dead(self, what: str) -> EngineError:
        memory = "; exit by SIGKILL usually means that memory ran out" if "SIGKILL" in what else ""
        return EngineError(
            f"the worker of agent {self._agent.name!r} does not stay alive: {what}{memory}",
            hint=f"see {self.log}; finished rows are kept, the same command continues",
        )

    def _remaining(
        self, groups: deque[list[str]], rows: Mapping[str, str], attempt: _Attempt
    ) -> tuple[deque[list[str]], int]:
        """What is left after a death (suspects in halves, then the rest), and how many rows were written."""
        stored = self._store.read(self._agent.spec)
        left = [[key for key in group if rows[key] not in stored] for group in groups]
        written = sum(map(len, groups)) - sum(map(len, left))
        admitted = set(attempt.admitted)
        suspects = [key for group in left for key in group if key in admitted]
        rest = [[key for key in group if key not in admitted] for group in left]
        middle = (len(suspects) + 1) // 2
        parts = [suspects[:middle], suspects[middle:], *rest]
        return deque(part for part in parts if part), written

    def _record_poison(self, row_key: str, attempt: _Attempt) -> None:
        reason = f"the engine died on this prompt ({attempt.reason})"
        with self._store.writer(self._agent.spec) as writer:
            writer.add(Analysis(row_key, Outcome.FAILED, error=reason))

    def _attempt(self, groups: list[list[str]], progress: Progress) -> _Attempt:
        """Let one worker do what is left, until it has ended or waits for another agent."""
        attempt = _Attempt()
        started = time.monotonic()
        taken = self.handover.take() if self.handover else None
        with _appended(self.log) as log:
            worker = taken or self._started(log)
        self._drop_prepared()
        self._worker, self._events = worker, worker.events
        try:
            if not self._stopped:
                self._converse(worker, self._order(groups, taken is not None), attempt, progress)
        finally:
            self._part(worker, attempt)
        elapsed = time.monotonic() - started
        load_s = elapsed if attempt.load_s is None else attempt.load_s
        self.timing.load_s += load_s
        self.timing.generate_s += elapsed - load_s if attempt.generate_s is None else attempt.generate_s
        if attempt.generate_s is None:
            attempt.reason = attempt.reason or _how_ended(worker.end(), attempt.error)
        return attempt

    def _started(self, log: IO[str]) -> WorkerProcess:
        prepared, self._prepared = self._prepared, None
        if prepared and prepared.alive:
            return prepared
        return WorkerProcess(self._start(log))

    def _part(self, worker: WorkerProcess, attempt: _Attempt) -> None:
        """Leave the worker to the next agent if it has done its work, else end it."""
        handover, well = self.handover, attempt.generate_s is not None
        if handover and handover.stay and well and not self._stopped:
            self._worker, self._events = None, queue.SimpleQueue()
            handover.leave(worker)
        else:
            worker.end()

    def _start(self, log: IO[str], imported: str = "") -> subprocess.Popen[str]:
        """Start a worker; it imports the engine of a name before it reads its order."""
        return subprocess.Popen(
            [*WORKER_COMMAND, str(self._folder.root), *([imported] if imported else [])],
            env={**os.environ, **environment(self._agent.settings), **self._of_gpus()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            # Ctrl-C is for the parent, which then asks its workers to finish.
            start_new_session=True,
        )

    def _of_gpus(self) -> dict[str, str]:
        """Variables for a worker on GPUs: which ones, and where their kernels are kept."""
        if self._agent.settings.device == "cpu":
            return {}
        seen = {} if self._seat.gpus is None else {"CUDA_VISIBLE_DEVICES": self._seat.gpus}
        return compile_cache.variables(self._agent.engine_key) | seen

    def _order(self, groups: list[list[str]], taken_over: bool) -> Order:
        return Order(
            agent=self._agent.name,
            groups=groups,
            store=self._store.root,
            shard=self._store.shard,
            recheck=self._recheck,
            follow=self._follows,
            cores=self._seat.cores,
            memory_share=self._seat.memory_share,
            stage_to=self._seat.stage_to,
            stay=bool(self.handover and self.handover.stay),
            log=self.log if taken_over else None,
        )

    def _converse(self, worker: WorkerProcess, order: Order, attempt: _Attempt, progress: Progress) -> None:
        try:
            worker.tell(order.to_line())
            if self._complete:  # said before there was a worker to hear it
                worker.tell(orders.COMPLETE)
        except BrokenPipeError:
            return  # it died at once; its exit code says how
        while True:
            try:
                line = worker.events.get(timeout=self._wait_s(attempt))
            except queue.Empty:
                worker.process.kill()
                attempt.reason = self._impatience(attempt)
                return
            if line is None:
                return
            if line == orders.FINISH:
                self._finish(worker, attempt)
                continue
            if line == orders.COMPLETE:
                with suppress(BrokenPipeError):
                    worker.tell(line)
                continue
            self._note(json.loads(line), attempt, progress)
            if attempt.generate_s is not None or attempt.error:
                return

    def _wait_s(self, attempt: _Attempt) -> float:
        """Seconds that the next line is waited for."""
        if attempt.load_s is not None or attempt.loading is None:
            return self._patience.silence_s
        left = attempt.loading + self._patience.load_s - time.monotonic()
        return max(0.0, min(self._patience.silence_s, left))

    def _impatience(self, attempt: _Attempt) -> str:
        """Why the worker was waited for no longer."""
        patience, loading = self._patience, attempt.loading if attempt.load_s is None else None
        if loading is not None and time.monotonic() >= loading + patience.load_s:
            return f"loading for {patience.load_s:.0f} s (engine.load_timeout_s)"
        return f"silence of {patience.silence_s:.0f} s (engine.stall_timeout_s)"

    def _finish(self, worker: WorkerProcess, attempt: _Attempt) -> None:
        if attempt.load_s is None:
            worker.process.terminate()  # it has nothing that could be finished
            return
        with suppress(BrokenPipeError):
            worker.tell(orders.FINISH)

    def _note(self, event: Mapping[str, Any], attempt: _Attempt, progress: Progress) -> None:
        match event["event"]:
            case "loading":
                attempt.loading = attempt.loading or time.monotonic()
            case "loaded":
                attempt.load_s = event["seconds"]
                self.loaded = True
            case "admitted":
                attempt.admitted += event["keys"]
            case "progress":
                progress(event["done"])
            case "again":
                self.again(event["rows"])
            case "error":
                attempt.error = dict(event)
            case "end":
                progress(event["done"])
                attempt.generate_s = event["seconds"]
                self.timing.rechecked += event["again"]
                self.timing.recheck_s += event["again_s"]
                self.again(0)


def _appended(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from None


def _after(finished: int, progress: Progress) -> Progress:
    """Progress of a later worker, which counts from zero again."""
    return lambda done: progress(finished + done)


def _how_ended(code: int, error: Mapping[str, Any] | None) -> str:
    if error:
        return str(error["message"])
    if code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
