"""Submits a run to SLURM: cheap checks, scripts into the run folder, then the chain of jobs.

The plan itself is made by the first job, on a node like those that generate: a login node has another CPU
and no GPU, and what computes is part of every spec.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import yaml

from orch_local.config.model_configs import find_model, load_model_config
from orch_local.config.run_files import RunConfig
from orch_local.errors import BenchmarkError, InputError, OrchError, StoreError
from orch_local.models.folders import open_model_folder
from orch_local.prompts.template import load_template
from orch_local.router.states import check_files
from orch_local.run.remaining import remaining_by_shard
from orch_local.slurm import queue
from orch_local.slurm.jobs import Submission, note, ranges, submissions
from orch_local.slurm.queue import QueuedJob
from orch_local.slurm.scripts import STEPS, Scripts, job_name
from orch_local.slurm.status import Facts, RunStatus, status
from orch_local.store.store import RunFolder, write_text


class ActiveError(InputError):
    """Jobs of the run are in the queue already."""


class Submitting(NamedTuple):
    """What is to be submitted, or shown."""

    texts: Mapping[str, str]
    """The scripts by step."""
    run_file: str
    """The run file as the plan job reads it."""
    missing: tuple[int, ...]
    """Shards with rows left."""
    chain: tuple[tuple[str, tuple[str, ...]], ...]
    """Steps, and the options of sbatch that are no part of their script; ``{plan}`` stands for a number."""

    def commands(self, folder: RunFolder) -> list[str]:
        """What is submitted, as one would type it; ``PLAN`` and ``SHARDS`` stand for numbers of jobs."""
        jobs = {step: step.upper() for step, _ in self.chain}
        return [
            shlex.join(["sbatch", "--parsable", *_filled(options, jobs), str(folder.slurm_script(step))])
            for step, options in self.chain
        ]


def check(config: RunConfig) -> None:
    """Check what can be checked on a login node: models, templates and benchmark are there.

    Raises
    ------
    InputError
        Whatever of it cannot be used.
    """
    if not config.benchmark.path.exists():
        raise BenchmarkError(
            "no such file or folder", where=str(config.benchmark.path), hint="check the path"
        )
    names = [agent.model for agent in config.agents] + [config.merge.model or ""]
    for name in dict.fromkeys(filter(None, names)):
        open_model_folder(load_model_config(name))
    for prompt in filter(None, [*(agent.prompt for agent in config.agents), config.merge.prompt]):
        load_template(prompt)
    if config.router:
        check_files(config.router)


def shards_before(folder: RunFolder) -> int:
    """Into how many shards the last submission divided the run; 1 where there was none."""
    made = submissions(folder)
    return made[-1].shards if made else 1


def compose(scripts: Scripts, config: RunConfig) -> Submitting:
    """The scripts, and the jobs to submit: shards that have all rows are left out.

    Raises
    ------
    StoreError
        If the run folder is damaged.
    """
    # Rows that failed are not missing, and those of another environment are counted once it is planned.
    whole = scripts.retry_failed or scripts.accept_new_environment
    left = None if whole else _left(scripts.folder, scripts.shards)
    numbers = range(1, scripts.shards + 1)
    missing = tuple(numbers if left is None else (number for number in numbers if left[number - 1]))
    limit = f"%{scripts.slurm.array_limit}" if scripts.slurm.array_limit else ""
    # Always the plan first: the result of other questions or prompts must not pass for that of these.
    chain: list[tuple[str, tuple[str, ...]]] = [("plan", ())]
    if missing:
        array = f"--array={ranges(missing)}{limit}"
        chain.append(("shards", (array, "--dependency=afterok:{plan}")))
    chain.append(("score", (f"--dependency=afterok:{{{chain[-1][0]}}}",)))
    return Submitting(scripts.texts(), snapshot(config), missing, tuple(chain))


def submit(scripts: Scripts, composed: Submitting) -> Submission:
    """Write scripts and run file into the run folder and submit them.

    Raises
    ------
    ActiveError
        If jobs of the run are waiting or running.
    SlurmError
        If SLURM is missing or refuses; nothing of this submission is then left in the queue.
    StoreError
        If the run folder cannot be written.
    """
    folder = scripts.folder
    _refuse_active(folder)
    for name, text in composed.texts.items():
        write_text(folder.slurm_script(name), text)
    write_text(folder.slurm_run_file, composed.run_file)
    folder.slurm_log("any", "job").parent.mkdir(parents=True, exist_ok=True)
    jobs: dict[str, str] = {}
    try:
        for step, options in composed.chain:
            jobs[step] = queue.submit(folder.slurm_script(step), _filled(options, jobs))
    except OrchError:
        with suppress(OrchError):
            queue.cancel(list(jobs.values()))
        raise
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    made = Submission(scripts.shards, ranges(composed.missing), jobs, at)
    note(folder, made)
    return made


def _filled(options: Sequence[str], jobs: Mapping[str, str]) -> list[str]:
    return [option.format(**jobs) for option in options]


def snapshot(config: RunConfig) -> str:
    """The run file with all paths absolute and all options of the command line in it."""
    head = "# The run file as submitted: options of the command line are in it, and all paths are absolute.\n"
    return head + yaml.safe_dump(_fixed(config), sort_keys=False, allow_unicode=True)


def _fixed(config: RunConfig) -> dict[str, Any]:
    """The values of a run file that mean the same wherever they are read."""
    values = config.model_dump(mode="json", exclude_defaults=True)
    values["benchmark"] = config.benchmark.model_dump(mode="json", exclude_defaults=True)
    for block in (*values["agents"], values["merge"]):
        if block.get("model"):
            block["model"] = _findable(block["model"])
    return values


def look(folder: RunFolder) -> RunStatus:
    """How far a run is.

    Raises
    ------
    InputError
        If the folder was neither planned nor submitted.
    StoreError
        If the run folder is damaged, or there is none.
    """
    if not folder.root.is_dir():
        raise StoreError("no such folder", where=str(folder.root), hint="is this the folder of a run?")
    made = submissions(folder)
    if not made and not folder.plan.exists():
        raise InputError(
            "has neither a plan nor a submission", where=str(folder.root), hint="is this the folder of a run?"
        )
    last = made[-1] if made else None
    # The queue first: what is not in it has written all that it ever will.
    lines, problem = _queued(folder, last)
    return status(Facts(folder, last, _left(folder, last.shards if last else 1), lines, problem))


def _queued(folder: RunFolder, last: Submission | None) -> tuple[Sequence[QueuedJob], str]:
    try:
        return _ours(folder, [last] if last else []), ""
    except OrchError as error:
        return [], error.message


def _ours(folder: RunFolder, made: Sequence[Submission]) -> list[QueuedJob]:
    """Jobs of these submissions that are in the queue."""
    # A cluster starts its numbers anew some day: a number alone does not make a job one of ours.
    names = {job_name(folder, step) for step in STEPS}
    jobs = [job for one in made for job in one.jobs.values()]
    return [one for one in queue.queued(jobs) if one.name in names]


def _left(folder: RunFolder, shards: int) -> list[int] | None:
    """Missing rows of each shard; ``None`` where there is no plan."""
    if not folder.plan.exists():
        return None
    return remaining_by_shard(folder, shards)


def _refuse_active(folder: RunFolder) -> None:
    active = sorted({one.job for one in _ours(folder, submissions(folder))}, key=int)
    if active:
        raise ActiveError(
            f"jobs of this run are in the queue: {', '.join(active)}",
            where=str(folder.root),
            hint=f"wait for them (`orch-local status`), or cancel them first: scancel {' '.join(active)}",
        )


def _findable(model: str) -> str:
    """The model by a path: names are looked up in folders that depend on where the command was typed."""
    return str(find_model(model).absolute())
