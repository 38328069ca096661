"""Supervises the worker of an agent and outlives its death.

A worker that dies takes at most the rows in flight with it. Those are tried again in halves, each in a
fresh worker, until the prompt that kills the engine stands alone; it becomes a ``failed`` row.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from orch_local.engines.registry import environment
from orch_local.errors import EngineError, OrchError, StoreError
from orch_local.plan.plans import AgentPlan
from orch_local.records import Analysis, Outcome
from orch_local.run import compile_cache, orders
from orch_local.run.conversation import Attempt, Conversation, Listeners, Patience
from orch_local.run.loaded import Handover, WorkerProcess
from orch_local.run.orders import NO_RECHECK, Order, Recheck
from orch_local.run.stats import Timing
from orch_local.run.worker_slots import WorkerSlot
from orch_local.store.store import RunFolder, Store, unwritable

log = logging.getLogger(__name__)

WORKER_COMMAND = (sys.executable, "-m", "orch_local.run.worker")

LOADS_LOST = 2
"""So many workers killed one after another before their first prompt mean that no load will succeed."""

POISONED_IN_A_ROW = 3
"""So many prompts killing the engine one after another, with no row between, mean that the engine is ill."""

Progress = Callable[[int], None]
"""Called with the number of rows finished so far."""


def _unheard(_rows: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How the worker of an agent is run."""

    patience: Patience
    slot: WorkerSlot = field(default_factory=WorkerSlot)
    recheck: Recheck = NO_RECHECK
    handover: Handover | None = None
    """How a loaded model is taken over and passed on; ``None`` loads and ends a worker each time."""
    rechecking: Progress = _unheard
    """Called with the number of rows that the worker now generates again, and with 0 when it ends."""
    log: Path | None = None
    """Where the words of the worker and its libraries go; ``None`` for a file in the run folder."""


class Supervisor:
    """Has rows of one agent generated into ``store``, by as many workers as it takes; see :meth:`run`."""

    def __init__(self, folder: RunFolder, agent: AgentPlan, store: Store, options: WorkerOptions) -> None:
        self._folder = folder
        self._agent = agent
        self._store = store
        self._options = options
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
        self.log = options.log or folder.worker_log(agent.name + options.slot.label, store.shard)

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
            if attempt.ended_well or self._stopped:
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
        if not attempt.ended_well and not self._stopped:
            log.warning("the worker of %s that followed ended by %s", self._agent.name, attempt.reason)

    @property
    def resident_gib(self) -> float:
        """Memory of the host that the worker holds now; 0 where there is none."""
        worker = self._worker
        return worker.resident_gib if worker else 0.0

    def prepare(self) -> None:
        """Start the worker ahead: it imports what it needs and waits for its order, or for :meth:`stop`."""
        handover = self._options.handover
        if self._prepared or self._stopped or (handover and handover.waits):
            return
        with _appended(self.log) as log:
            self._prepared = self._start(log, self._agent.settings.name)

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
            worker.stop()

    def _drop_prepared(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared:
            prepared.end()

    def _check_alive(self, attempt: Attempt, lost: int) -> None:
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
        self, groups: deque[list[str]], rows: Mapping[str, str], attempt: Attempt
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

    def _record_poison(self, row_key: str, attempt: Attempt) -> None:
        reason = f"the engine died on this prompt ({attempt.reason})"
        with self._store.writer(self._agent.spec) as writer:
            writer.add(Analysis(row_key, Outcome.FAILED, error=reason))

    def _attempt(self, groups: list[list[str]], progress: Progress) -> Attempt:
        """Let one worker do what is left, until it has ended or waits for another agent."""
        attempt, started, handover = Attempt(), time.monotonic(), self._options.handover
        taken = handover.take() if handover else None
        with _appended(self.log) as log:
            worker = taken or self._started(log)
        self._drop_prepared()
        self._worker, self._events = worker, worker.lines
        listeners = Listeners(progress, self._options.rechecking, self._note_loaded)
        try:
            if not self._stopped:
                order = self._order(groups, taken_over=taken is not None)
                talk = Conversation(worker, self._options.patience, listeners)
                attempt = talk.hold(order, complete=self._complete)
        finally:
            self._part(worker, attempt)
        if not attempt.ended_well:
            attempt.died(worker.end())
        self._count(attempt, time.monotonic() - started)
        return attempt

    def _note_loaded(self) -> None:
        self.loaded = True

    def _count(self, attempt: Attempt, elapsed: float) -> None:
        load_s = elapsed if attempt.load_s is None else attempt.load_s
        generate_s = elapsed - load_s if attempt.generate_s is None else attempt.generate_s
        self.timing += Timing(load_s, generate_s, 0, attempt.recheck_s, attempt.rechecked)

    def _started(self, log: IO[str]) -> WorkerProcess:
        prepared, self._prepared = self._prepared, None
        if prepared and prepared.alive:
            return prepared
        return self._start(log)

    def _part(self, worker: WorkerProcess, attempt: Attempt) -> None:
        """Leave the worker to the next agent if it has done its work, else end it."""
        handover = self._options.handover
        if handover and handover.stay and attempt.ended_well and not self._stopped:
            self._worker, self._events = None, queue.SimpleQueue()
            handover.leave(worker)
        else:
            worker.end()

    def _start(self, log: IO[str], imported: str = "") -> WorkerProcess:
        """Start a worker; it imports the engine of a name before it reads its order."""
        return WorkerProcess(
            [*WORKER_COMMAND, str(self._folder.root), *([imported] if imported else [])],
            env={**os.environ, **environment(self._agent.settings), **self._of_gpus()},
            stderr=log,
        )

    def _of_gpus(self) -> dict[str, str]:
        """Variables for a worker on GPUs: which ones, and where their kernels are kept."""
        if self._agent.settings.device == "cpu":
            return {}
        gpus = self._options.slot.gpus
        seen = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus}
        return compile_cache.variables(self._agent.engine_key) | seen

    def _order(self, groups: list[list[str]], *, taken_over: bool) -> Order:
        options = self._options
        return Order(
            agent=self._agent.name,
            groups=groups,
            store=self._store.root,
            shard=self._store.shard,
            recheck=options.recheck,
            follow=self._follows,
            cores=options.slot.cores,
            memory_share=options.slot.memory_share,
            stage_to=options.slot.stage_to,
            stay=bool(options.handover and options.handover.stay),
            log=self.log if taken_over else None,
        )


def _appended(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from None


def _after(finished: int, progress: Progress) -> Progress:
    """Progress of a later worker, which counts from zero again."""
    return lambda done: progress(finished + done)
