"""The clients of SLURM: sbatch, squeue, scontrol; never sacct, since many clusters have no database."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from orch_local.errors import OrchError

TIMEOUT_S = 60.0
_FIELDS = "%F|%K|%T|%N|%j"
_NO_SUCH_JOB = "Invalid job id"


class SlurmError(OrchError):
    """SLURM is not there, does not answer, or refuses."""

    exit_code = 2


class QueuedJob(NamedTuple):
    """A line of squeue: a job, or a task of an array."""

    job: str
    """Number of the job; for a task that of its array."""
    task: int | None
    state: str
    node: str
    name: str


class JobInfo(NamedTuple):
    """What `scontrol show job` says."""

    state: str
    reason: str
    restarts: int


def submit(script: Path, options: Sequence[str]) -> str:
    """Submit a script; returns the number of the job.

    Raises
    ------
    SlurmError
        With sbatch's own words where it refuses.
    """
    answer = _call(["sbatch", "--parsable", *options, str(script)])
    number = answer.strip().split(";")[0]  # on a federation the cluster's name follows
    if not number.isdecimal():
        raise SlurmError(f"sbatch answered {answer.strip()!r}, which is no number of a job")
    return number


def queued(jobs: Collection[str]) -> list[QueuedJob]:
    """Those of ``jobs`` that are waiting or running, tasks of arrays one by one.

    Raises
    ------
    SlurmError
        If squeue is missing or does not answer.
    """
    if not jobs:
        return []
    try:
        lines = _call(["squeue", "-h", "-r", "-o", _FIELDS, "-j", ",".join(sorted(jobs))]).splitlines()
    except SlurmError as error:
        if _NO_SUCH_JOB in error.message:
            return []  # so it says of a single job that ended long ago
        raise
    return [_queued(line) for line in lines if line.strip()]


def show(job: str) -> JobInfo:
    """State of one job or task.

    Raises
    ------
    SlurmError
        If scontrol is missing or does not answer, or knows no such job.
    """
    text = _call(["scontrol", "show", "job", "-o", job])
    found = dict(re.findall(r"(JobState|Reason|Restarts)=(\S+)", text))
    return JobInfo(found.get("JobState", ""), found.get("Reason", ""), int(found.get("Restarts", 0)))


def requeue(job: str) -> None:
    """Put a job or task back into the queue.

    Raises
    ------
    SlurmError
        With scontrol's own words where it refuses.
    """
    _call(["scontrol", "requeue", job])


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs.

    Raises
    ------
    SlurmError
        With scancel's own words where it refuses.
    """
    _call(["scancel", *jobs])


def _queued(line: str) -> QueuedJob:
    job, task, state, node, name = (line.strip().split("|", 4) + [""] * 5)[:5]
    return QueuedJob(job, int(task) if task.isdecimal() else None, state, node, name)


def _call(command: Sequence[str]) -> str:
    # Formats and defaults of the user's own must not change what is read here.
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SLURM_TIME_"))
    }
    try:
        done = subprocess.run(
            command,
            env=ours,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise SlurmError(
            f"{command[0]} is not installed here", hint="run this where SLURM is, on a login node"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        hint = "the cluster's controller may be down: try again later"
        raise SlurmError(f"{command[0]} did not answer: {error}", hint=hint) from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        text = "; ".join(" ".join(line.split()) for line in lines if line.strip())
        raise SlurmError(f"{command[0]} refused: {text}", hint=_advice(text))
    return done.stdout


def _advice(text: str) -> str:
    """What to do about sbatch's commonest refusals."""
    if "Invalid job array specification" in text:
        return "the cluster's MaxArraySize is smaller (`scontrol show config`): take fewer --shards"
    if "account" in text.lower() or "partition" in text.lower() or "node configuration" in text:
        return "check the `slurm` block of the run file; `sinfo` lists partitions"
    return ""
