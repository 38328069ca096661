"""How far a submitted run is, and what is to be submitted, on the terminal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from orch_local.report.console import print_paragraph, print_table, table
from orch_local.report.formatting import counted
from orch_local.report.safe import safe, visible
from orch_local.slurm.jobs import Submission
from orch_local.slurm.status import Condition, JobStatus, RunStatus
from orch_local.slurm.submitting import Submitting
from orch_local.store.store import RunFolder

MAX_SHARDS = 20
"""So many shards that are not done are listed."""


def print_status(console: Console, found: RunStatus, folder: Path) -> None:
    """Print counts, the shards that are not done, and the log of the first failure."""
    print_paragraph(console, visible(_summary(found)), style="bold")
    if found.digest:  # not to be copied where a line break is in it
        console.print(Text.assemble(("digest ", "dim"), safe(found.digest)), soft_wrap=True)
    if found.submitted:
        _print_jobs(console, found)
    elif not found.digest:
        print_paragraph(console, "Go on by `orch-local run` or `orch-local submit`, with its run file.")
    if found.queue_error:
        print_paragraph(
            console, visible(f"The queue could not be asked ({found.queue_error}): only files were read.")
        )
    if found.trouble:
        _print_trouble(console, found.trouble, found.log_tail)
    line = f"orch-local submit runs what is missing; finished rows are kept ({folder})."
    if found.trouble and not found.active and not _is_refused(found.trouble):
        console.print(safe(line), soft_wrap=True)


def print_status_json(found: RunStatus) -> None:
    """Print the same as JSON."""
    print(json.dumps(found.to_dict(), indent=2, ensure_ascii=True))


def print_submitting(console: Console, composed: Submitting, folder: RunFolder) -> None:
    """Print scripts, run file and commands of a submission that is not made."""
    files = {folder.slurm_script(step): composed.texts[step] for step, _ in composed.chain}
    for path, text in {folder.slurm_run_file: composed.run_file, **files}.items():
        console.print(Text.assemble(("# ", "dim"), safe(str(path), "bold")), soft_wrap=True)
        console.print(safe(text, newlines=True), soft_wrap=True)
    console.print(Text("# would be submitted (PLAN and SHARDS stand for the numbers of the jobs)", "bold"))
    for command in composed.commands(folder):
        console.print(safe(command), soft_wrap=True)


def print_submission(console: Console, made: Submission, folder: Path) -> None:
    """Print which jobs there are now, and how to follow them."""
    jobs = ", ".join(f"{step} {number}" for step, number in made.jobs.items())
    none = "only the check of the plan and the score, no shard has rows left"
    what = f"shards {made.array} of {made.shards}" if made.array else none
    console.print(safe(f"submitted: {what} (jobs: {jobs})"), soft_wrap=True)
    console.print(safe(f"follow it: orch-local status {shlex.quote(str(folder))}"), soft_wrap=True)


def _is_refused(job: JobStatus) -> bool:
    """Whether submitting again would come to the same; a hint says then what to do."""
    return job.name == "plan" and job.condition is Condition.FAILED and bool(job.hint)


def _summary(found: RunStatus) -> str:
    if not found.submitted:
        left = sum(one.left or 0 for one in found.shards)
        return "Finished and scored." if found.digest else f"Never submitted; {counted(left, 'row')} left."
    if found.digest:
        return f"Finished: {counted(len(found.shards), 'shard')} done and scored."
    counts = ", ".join(f"{count:,} {name}" for name, count in found.counts.items())
    left = sum(one.left or 0 for one in found.shards)
    rows = f"; {counted(left, 'row')} left" if found.planned else "; there is no plan yet"
    return f"{counted(len(found.shards), 'shard')}: {counts}{rows}."


def _of_step(step: JobStatus) -> str:
    job = f" (job {step.job})" if step.job else ""
    return f"{step.name}: {step.condition}{job}"


def _print_jobs(console: Console, found: RunStatus) -> None:
    for step in (found.plan, found.score):
        if step.condition is not Condition.DONE:
            print_paragraph(console, visible(_of_step(step)))
    unfinished = [one for one in found.shards if one.condition is not Condition.DONE]
    if found.planned or found.shards[1:]:
        _print_shards(console, unfinished)


def _print_shards(console: Console, unfinished: Sequence[JobStatus]) -> None:
    # What failed comes first, so that it is never among those that are not shown.
    order = {condition: place for place, condition in enumerate(reversed(Condition))}
    shown = sorted(unfinished, key=lambda one: order[one.condition])[:MAX_SHARDS]
    if not shown:
        return
    made = table(console, "shard", ["condition", "rows left", "attempt", "job", "node"])
    for one in shown:
        left = "-" if one.left is None else f"{one.left:,}"
        cells = (str(one.condition), left, str(one.attempt or "-"), one.job or "-", one.node or "-")
        made.add_row(safe(one.name), *map(safe, cells))
    print_table(console, "Shards that are not done", made)
    if len(unfinished) > len(shown):
        print_paragraph(console, f"... and {len(unfinished) - len(shown):,} more (--json lists all)")


def _print_trouble(console: Console, job: JobStatus, lines: Sequence[str]) -> None:
    name = job.name if job.name in ("plan", "score") else f"shard {job.name}"
    console.print(safe(f"{name} {job.condition}", "bold red"), soft_wrap=True)
    for text in (job.message, f"hint: {job.hint}" if job.hint else ""):
        if text:
            console.print(safe(text), soft_wrap=True)
    if job.log:
        about = "last lines of " if lines else "its log: "
        console.print(Text.assemble((about, "dim"), safe(job.log)), soft_wrap=True)
    for line in lines:
        console.print(Text("  ").append_text(safe(line)), soft_wrap=True)
    console.print()
