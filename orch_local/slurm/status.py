"""How far a submitted run is: rows of the store first, then squeue, then what the tasks wrote down."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from orch_local.errors import StoreError
from orch_local.results.finished import recorded_digest
from orch_local.slurm.jobs import Submission
from orch_local.slurm.queue import QueuedJob
from orch_local.slurm.task import State, TaskRecord
from orch_local.store.shards import Shard
from orch_local.store.store import RunFolder

LOG_LINES = 20
_LOG_BYTES = 64 * 1024
_WAITING = (
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
)


class Condition(StrEnum):
    """Of a shard, or of the job that plans or scores."""

    DONE = "done"
    RUNNING = "running"
    QUEUED = "queued"
    STOPPED = "stopped"
    """It was cancelled, or removed from the queue before it began."""
    FAILED = "failed"
    LOST = "lost"
    """It began and is gone without a word: killed, or its node died."""
    WAITING = "waiting"
    """It has not begun, and is not in the queue."""


NOT_QUEUED = "nothing of it is in the queue: submit again"
EMPTY_LOG = "its log is empty: a line of `setup` failed, or it was killed"
TROUBLE = (Condition.FAILED, Condition.LOST, Condition.STOPPED)


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A shard, or ``plan`` or ``score``."""

    name: str
    condition: Condition
    left: int | None = None
    """Missing rows of a shard; ``None`` where that is not known yet."""
    attempt: int = 0
    job: str = ""
    node: str = ""
    message: str = ""
    hint: str = ""
    log: str = ""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """All of a run."""

    planned: bool
    submitted: bool
    plan: JobStatus
    shards: tuple[JobStatus, ...]
    score: JobStatus
    digest: str
    """Of the finished run; empty before."""
    trouble: JobStatus | None
    """What went wrong first."""
    log_tail: tuple[str, ...]
    """The last lines of its log."""
    queue_error: str
    """Why squeue could not be asked; empty where it could."""

    @property
    def counts(self) -> dict[str, int]:
        """Shards by condition."""
        counts = Counter(str(one.condition) for one in self.shards)
        return {str(name): counts[name] for name in Condition if counts[name]}

    @property
    def active(self) -> bool:
        """Whether anything of the run waits in the queue or runs."""
        conditions = {one.condition for one in (self.plan, *self.shards, self.score)}
        return bool(conditions & {Condition.RUNNING, Condition.QUEUED})

    @property
    def exit_code(self) -> int:
        """0: finished and scored; 1: something failed; 3: not finished, and nothing wrong so far."""
        if self.trouble:
            return 1
        return 0 if self.digest else 3

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**asdict(self), "counts": self.counts, "active": self.active}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a status is made from."""

    folder: RunFolder
    submission: Submission | None
    left: Sequence[int] | None
    """Missing rows of each shard; ``None`` where there is no plan yet."""
    queue: Sequence[QueuedJob]
    queue_error: str

    @property
    def shards(self) -> int:
        """Into how many shards the run is divided."""
        return self.submission.shards if self.submission else 1

    @property
    def over(self) -> bool:
        """Whether SLURM will do nothing more for the run by itself."""
        return self.submission is not None and not self.queue and not self.queue_error


def status(facts: Facts) -> RunStatus:
    """Put the facts together."""
    queue = {(one.job, one.task): one for one in facts.queue}
    shards = tuple(_shard(facts, number, queue) for number in range(1, facts.shards + 1))
    digest = _digest(facts)
    plan, score = (_step(facts, step, queue) for step in ("plan", "score"))
    if plan.condition is Condition.WAITING and facts.left is not None:
        plan = replace(plan, condition=Condition.DONE)  # made without SLURM, or by an earlier submission
    if digest:
        score = replace(score, condition=Condition.DONE)
    elif score.condition is Condition.DONE:
        score = replace(score, condition=Condition.WAITING)  # of rows that are gone
    if facts.over and not digest:
        shards, (plan, score) = tuple(map(_not_queued, shards)), map(_not_queued, (plan, score))
    first = _first_trouble((plan, *shards, score))
    lines = tail(Path(first.log)) if first and first.log else ()
    if first and first.condition is Condition.LOST and not (lines or first.message):
        first = replace(first, message=EMPTY_LOG)
    return RunStatus(
        planned=facts.left is not None,
        submitted=facts.submission is not None,
        plan=plan,
        shards=shards,
        score=score,
        digest=digest,
        trouble=first,
        log_tail=lines,
        queue_error=facts.queue_error,
    )


def tail(path: Path, lines: int = LOG_LINES) -> tuple[str, ...]:
    """The last lines of a log; none where it cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOG_BYTES))
        text = file.read().decode("utf-8", "replace")
        return tuple(deque((line for line in text.splitlines() if line.strip()), maxlen=lines))
    return ()


_Queue = Mapping[tuple[str, int | None], QueuedJob]


def _shard(facts: Facts, number: int, queue: _Queue) -> JobStatus:
    shard = Shard(number, facts.shards)
    left = facts.left[number - 1] if facts.left is not None else None
    found = _job(facts, _JobFiles(str(shard), shard.name, "shards", number), queue)
    if left == 0:
        return JobStatus(str(shard), Condition.DONE, left=0, attempt=found.attempt)
    condition = Condition.WAITING if found.condition is Condition.DONE else found.condition
    return replace(found, left=left, condition=condition)


def _step(facts: Facts, step: str, queue: _Queue) -> JobStatus:
    return _job(facts, _JobFiles(step, step, step, None), queue)


class _JobFiles(NamedTuple):
    """Where to look for what is known of a job."""

    name: str
    record: str
    step: str
    task: int | None


def _job(facts: Facts, place: _JobFiles, queue: _Queue) -> JobStatus:
    """What queue, state file and log say of a job, whatever the rows say."""
    submission = facts.submission
    number = submission.jobs.get(place.step, "") if submission else ""
    listed = queue.get((number, place.task)) if number else None
    record = TaskRecord.read(facts.folder, place.record)
    # What a job of an earlier submission wrote down is past.
    if record is not None and number and record.job.split("_")[0] == number:
        details = (record.attempt, record.job, record.node, record.message, record.hint, record.log)
        return JobStatus(place.name, _condition(listed, record.state, facts), None, *details)
    log = submission.log(facts.folder, place.step, place.task) if submission else ""
    began = bool(log) and Path(log).exists()
    condition = _condition(listed, State.RUNNING if began else None, facts)
    node = listed.node if listed else ""
    job = f"{number}_{place.task}" if log and place.task is not None else number if log else ""
    return JobStatus(place.name, condition, job=job, node=node, log=log if began else "")


def _condition(listed: QueuedJob | None, text: State | None, facts: Facts) -> Condition:
    if listed is not None:
        return Condition.QUEUED if listed.state in _WAITING else Condition.RUNNING
    if text is State.RUNNING:
        # Where squeue does not answer, its own word is all there is.
        return Condition.RUNNING if facts.queue_error else Condition.LOST
    return Condition(text) if text is not None else Condition.WAITING


def _not_queued(job: JobStatus) -> JobStatus:
    """What waits, though nothing of the run is in the queue, will never begin."""
    if job.condition is not Condition.WAITING:
        return job
    return replace(job, condition=Condition.STOPPED, message=NOT_QUEUED)


def _first_trouble(jobs: Sequence[JobStatus]) -> JobStatus | None:
    """What went wrong first: the worst, in the order of the jobs; what never began tells least."""
    wrong = [one for one in jobs if one.condition in TROUBLE]
    return min(wrong, key=lambda one: (TROUBLE.index(one.condition), one.message == NOT_QUEUED), default=None)


def _digest(facts: Facts) -> str:
    """The digest of a finished run; empty where there is none, or it cannot be read."""
    # While jobs are to come, the result of an earlier submission is not yet the result of this one.
    if facts.left is None or any(facts.left) or facts.queue:
        return ""
    folder = facts.folder
    with suppress(StoreError, json.JSONDecodeError):
        return recorded_digest(folder)
    return ""
