"""Commands for SLURM, and those that its jobs call."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from orch_local.cli.grouping import grouped
from orch_local.cli.options import (
    ExecutionOptions,
    Folder,
    NewEnvironment,
    Out,
    QuestionOptions,
    Quiet,
    RetryFailed,
    RunFile,
    StoreOption,
    console_of,
    run_folder_at,
    short,
)
from orch_local.cli.run import print_result
from orch_local.cli.watching import held, watched


@grouped
def submit(
    run_file: RunFile,
    *,
    out: Out = None,
    store: StoreOption = None,
    shards: Annotated[
        int | None,
        typer.Option(
            min=1, help="Parts of the questions, one job each, at most 100,000. [default: as before, or 1]"
        ),
    ] = None,
    questions: QuestionOptions,
    execution: ExecutionOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the scripts; write and submit nothing.")
    ] = False,
) -> None:
    """Submit a run to SLURM; again: just what is missing (docs/slurm.md)."""
    from orch_local.config.run_files import load_run
    from orch_local.run.waves import refuse_shards
    from orch_local.slurm import submitting
    from orch_local.slurm.scripts import Scripts
    from orch_local.slurm.terminal import print_submission, print_submitting

    settings = questions.settings(fast=execution.fast)
    folder = run_folder_at(out or Path("runs") / run_file.stem)
    store = (store or folder.root.parent / "store").absolute()
    config = load_run(run_file, settings)
    submitting.check(config)
    parts = shards or submitting.shards_before(folder)
    refuse_shards(config, parts)
    scripts = Scripts(
        folder, store, config.slurm, parts, execution.accept_new_environment, execution.retry_failed
    )
    composed = submitting.compose(scripts, config)
    if dry_run:
        print_submitting(console_of(), composed, folder)
        return
    print_submission(console_of(), submitting.submit(scripts, composed), short(folder.root))


def status(
    run_folder: Folder,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how far a run is. Code 0: finished and scored; 1: failed or stopped; 3: not finished yet."""
    from orch_local.slurm.submitting import look
    from orch_local.slurm.terminal import print_status, print_status_json

    found = look(run_folder_at(run_folder))
    if json:
        print_status_json(found)
    else:
        print_status(console_of(), found, short(run_folder.absolute()))
    raise typer.Exit(found.exit_code)


def prepare(
    run_file: RunFile,
    out: Annotated[Path, typer.Option("--out", help="Run folder.")],
    store: Annotated[Path, typer.Option("--store", help="Where rows are kept.")],
    accept_new_environment: NewEnvironment = False,
) -> None:
    """Make the plan of a run, or check the one there is: the first job of `submit`."""
    from orch_local.benchmarks.gold_checks import gold_facts
    from orch_local.config.run_files import load_run
    from orch_local.report.formatting import counted
    from orch_local.report.plan import print_notes, print_obstacles
    from orch_local.report.questions import print_gold_warnings
    from orch_local.run.preparation import prepare as prepare_run
    from orch_local.slurm.task import SlurmJob
    from orch_local.store.questions import read_questions

    folder = run_folder_at(out)
    with SlurmJob.here(folder, "plan").recorded():
        planned = prepare_run(load_run(run_file), folder, store.absolute(), accept_new_environment)
    golds = gold_facts(read_questions(folder.questions))
    print_gold_warnings(console_of(stderr=True), golds, planned)
    print_obstacles(console_of(stderr=True), planned)
    print_notes(console_of(stderr=True), planned)
    print(f"planned: {counted(planned.questions.count, 'question')}, {counted(len(planned.agents), 'agent')}")


def shard(
    run_folder: Folder,
    part: Annotated[str, typer.Argument(metavar="SHARD", help="Such as 3/8: the third of eight.")],
    attempts: Annotated[int, typer.Option(min=1, help="So often may SLURM start it.")] = 10,
    stage_to: Annotated[
        str | None, typer.Option("--stage-to", help="Copy the weights to this local folder first.")
    ] = None,
    retry_failed: RetryFailed = False,
) -> None:
    """Generate the rows of one shard: an array task of `submit`, or by hand."""
    # Imports take a second, and a signal that comes meanwhile is to be heeded behind them, not to kill.
    with held(signal.SIGTERM, signal.SIGUSR1) as release:
        from orch_local.plan.files import load_plan
        from orch_local.run.context import RunContext
        from orch_local.run.pipeline import run_shard as generate
        from orch_local.run.staging import expanded
        from orch_local.slurm.task import SlurmJob, run_shard
        from orch_local.store.shards import Shard

        folder, mine = run_folder_at(run_folder), Shard.parse(part)
        load_plan(folder)  # what is no run must not get files
        again = "`orch-local status` tells what is left"
        with watched(folder, quiet=True, again=again, log=False) as (display, stop):

            def go() -> None:
                release()
                local = expanded(stage_to) if stage_to else None
                generate(
                    RunContext.of(
                        folder, display, stop, shard=mine, retry_failed=retry_failed, stage_to=local
                    )
                )

            run_shard(SlurmJob.here(folder, mine.name), attempts, go)
    print(f"shard {mine}: all rows are there")


def score(run_folder: Folder, quiet: Quiet = False) -> None:
    """Decide and score from the stored rows; loads no model. The last job of `submit`."""
    from orch_local.plan.files import load_plan
    from orch_local.run.context import RunContext
    from orch_local.run.pipeline import score_stored
    from orch_local.slurm.task import SlurmJob

    folder = run_folder_at(run_folder)
    load_plan(folder)
    with SlurmJob.here(folder, "score").recorded(), watched(folder, quiet=quiet):
        result = score_stored(RunContext.of(folder))
    print_result(result, folder)
