"""What was submitted for a run: ``slurm/jobs.json``, one entry for each `orch-local submit`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from orch_local.errors import StoreError
from orch_local.slurm.scripts import job_name
from orch_local.store.store import RunFolder, read_json, write_json


@dataclass(frozen=True, slots=True)
class Submission:
    """The jobs of one `orch-local submit`."""

    shards: int
    """Into how many shards the questions are divided."""
    array: str
    """Those that were submitted, as sbatch writes them: ``2,5-7``; empty where none has rows left."""
    jobs: dict[str, str]
    """Number of the job by step: ``plan``, ``shards``, ``score``."""
    at: str
    """When, as an ISO date in UTC."""

    def log(self, folder: RunFolder, step: str, task: int | None = None) -> str:
        """Path of the log of a step, or of one task of the array; empty where it was not submitted."""
        job = self.jobs.get(step)
        if job is None or (task is not None and task not in numbers(self.array)):
            return ""
        number = job if task is None else f"{job}_{task}"
        return str(folder.slurm_log(job_name(folder, step), number))


def submissions(folder: RunFolder) -> list[Submission]:
    """All submissions of a run, the last one last.

    Raises
    ------
    StoreError
        If the file is damaged.
    """
    path = folder.slurm_jobs
    if not path.exists():
        return []
    values: Any = read_json(path)
    try:
        return [Submission(**one) for one in values["submissions"]]
    except (KeyError, TypeError) as error:
        hint = "delete it; the jobs that it names may still be in the queue (`squeue --me`)"
        raise StoreError(f"is not a list of submissions: {error!r}", where=str(path), hint=hint) from None


def note(folder: RunFolder, submission: Submission) -> None:
    """Add a submission, or replace the last one where it is the same that has got further.

    Raises
    ------
    StoreError
        If the file cannot be written.
    """
    before = [one for one in submissions(folder) if one.at != submission.at]
    write_json(folder.slurm_jobs, {"submissions": [asdict(one) for one in (*before, submission)]})


def ranges(shards: Iterable[int]) -> str:
    """Numbers as sbatch reads them: ``2,5-7``."""
    parts: list[list[int]] = []
    for number in sorted(shards):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


@lru_cache(maxsize=8)
def numbers(array: str) -> frozenset[int]:
    """The numbers of ``2,5-7``."""
    pairs: Sequence[tuple[str, str]] = re.findall(r"(\d+)(?:-(\d+))?", array)
    return frozenset(number for first, last in pairs for number in range(int(first), int(last or first) + 1))
