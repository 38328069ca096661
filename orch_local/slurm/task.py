"""What one task of the array does around the ordinary work on its shard: signals, attempts, its state file.

The store makes any way to end harmless, so all that is decided here is whether the task goes back into the
queue. A user's scancel is never undone; what SLURM has put back itself is left alone; in all other cases a
task that was stopped with rows left puts itself back, up to a ceiling. docs/slurm.md has the measurements
behind it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from orch_local.errors import OrchError
from orch_local.run.interrupts import Stopped
from orch_local.slurm.queue import JobInfo, SlurmError, requeue, show
from orch_local.store.store import RunFolder, read_json, write_json

log = logging.getLogger(__name__)

_RUNNING = ("RUNNING", "SIGNALING")  # the second while a signal is on its way
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)


class TaskError(OrchError):
    """A task of the array cannot bring its shard to an end."""


class State(StrEnum):
    """What a task last wrote down about itself."""

    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A state file. A hint for people: only its rows say whether a shard is done."""

    state: State
    attempt: int
    job: str
    node: str
    log: str
    message: str = ""
    hint: str = ""

    @classmethod
    def read(cls, folder: RunFolder, name: str) -> TaskRecord | None:
        """The state file of a shard, or of ``plan`` or ``score``; ``None`` where none can be read."""
        with suppress(OrchError, TypeError, ValueError, KeyError):
            values: dict[str, Any] = read_json(folder.slurm_task(name))
            return cls(**{**values, "state": State(values["state"]), "attempt": int(values["attempt"])})
        return None


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """The job of SLURM that this process is, by what SLURM says in its environment."""

    folder: RunFolder
    name: str
    """``plan``, ``score``, or the name of a shard."""
    number: str
    """As ``123``, or ``123_4`` for a task of an array; empty where this is no job of SLURM's."""
    restarts: int
    """How often SLURM has started it anew."""
    job_name: str
    node: str

    @classmethod
    def here(cls, folder: RunFolder, name: str, env: Mapping[str, str] = os.environ) -> SlurmJob:
        """The job that this process is."""
        array, task = env.get("SLURM_ARRAY_JOB_ID"), env.get("SLURM_ARRAY_TASK_ID")
        number = f"{array}_{task}" if array and task else env.get("SLURM_JOB_ID", "")
        node = env.get("SLURMD_NODENAME") or socket.gethostname()
        restarts = int(env.get("SLURM_RESTART_COUNT") or 0)
        return cls(folder, name, number, restarts, env.get("SLURM_JOB_NAME", ""), node)

    @property
    def attempt(self) -> int:
        """Number of this start, from 1."""
        return self.restarts + 1

    def record(self, state: State, message: str = "", hint: str = "") -> None:
        """Write the state file; it is a hint, so failing to is no reason to lose any work."""
        if not self.number:
            return  # by hand: whoever does that sees how it ends
        log_file = str(self.folder.slurm_log(self.job_name, self.number))
        last = TaskRecord.read(self.folder, self.name)
        if last is not None and last.job == self.number and last.attempt > self.attempt:
            return  # an orphan, which went on when SLURM took its node for dead
        record = TaskRecord(state, self.attempt, self.number, self.node, log_file, message, hint)
        try:
            write_json(self.folder.slurm_task(self.name), asdict(record))
        except OrchError as error:
            log.warning("%s", error)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Write down when the block begins, and how it ends."""
        self.record(State.RUNNING)
        try:
            yield
        except Stopped:
            raise  # whoever handles it has more to say
        except OrchError as error:
            self.record(State.FAILED, error.message, error.hint)
            raise
        except BaseException as error:
            self.record(State.FAILED, f"{type(error).__name__}: {error}")
            raise
        self.record(State.DONE)


def run_shard(job: SlurmJob, attempts: int, work: Callable[[], None]) -> None:
    """Do the work on a shard, and see to the end of it.

    Parameters
    ----------
    attempts:
        So often may SLURM start the task, its own requeues included.

    Raises
    ------
    TaskError
        If the task was started, or would have to be started, more often than that.
    OrchError
        Whatever the work raises.
    Stopped
        If a signal stopped it; it is then in the queue again, or is not to be.
    """
    with job.recorded():
        if job.number and job.attempt > attempts:
            raise _too_often(attempts)
        try:
            work()
        except Stopped as stopped:
            # SLURM sends another SIGTERM when the task is put back; SIGKILL comes only later.
            with _undisturbed():
                _see_to(job, attempts, stopped.signum)
            raise


def _see_to(job: SlurmJob, attempts: int, signum: int) -> None:
    """Put a stopped task back into the queue, or leave it."""
    why, again = "no job of SLURM", False
    if job.number:
        why, again = ending(_info(job.number), job.restarts)
    text = f"stopped by {signal.Signals(signum).name}: {why}"
    if again and job.attempt >= attempts:
        log.warning(text)
        raise _too_often(attempts)
    text += "; it is put back into the queue" if again else ""
    log.warning(text)
    job.record(State.STOPPED, text)
    if again:
        requeue(job.number)


@contextmanager
def _undisturbed() -> Iterator[None]:
    before = {one: signal.signal(one, signal.SIG_IGN) for one in _SIGNALS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _info(number: str) -> JobInfo | None:
    try:
        return show(number)
    except SlurmError as error:
        log.warning("%s", error)
        return None


def _too_often(attempts: int) -> TaskError:
    return TaskError(
        f"started {attempts} times and still not finished; slurm.attempts allows no more",
        hint="finished rows are kept: submit again, with a longer `time` if the time limit stopped it",
    )


def ending(info: JobInfo | None, restarts: int) -> tuple[str, bool]:
    """Why a task was signalled, in words, and whether it is to put itself back into the queue.

    ``info`` is what SLURM says of it now; ``restarts`` how often it had been started anew when it began.
    """
    if info is None:
        return "SLURM does not say why, so it is not put back into the queue", False
    if info.restarts > restarts:
        return "SLURM itself has put it back into the queue", False
    if info.state in _RUNNING:
        return "the time limit is near, or the node is to go down", True
    if info.reason == "TimeLimit":
        return "the time limit has come", True
    return "it was cancelled", False
