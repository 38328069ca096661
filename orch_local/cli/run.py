"""Commands that run a run file, or say what a run of it would do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orch_local.cli.grouping import grouped
from orch_local.cli.options import (
    ExecutionOptions,
    Fast,
    Out,
    QuestionOptions,
    Quiet,
    RunFile,
    StoreOption,
    console_of,
    run_folder_at,
    shown_path,
)
from orch_local.cli.watching import watched

if TYPE_CHECKING:
    from orch_local.run.pipeline import Result
    from orch_local.store.store import RunFolder


@grouped
def run(
    run_file: RunFile,
    *,
    out: Out = None,
    store: StoreOption = None,
    questions: QuestionOptions,
    execution: ExecutionOptions,
    quiet: Quiet = False,
) -> None:
    """Run, or continue, what a run file describes."""
    from orch_local.benchmarks.gold_checks import gold_facts
    from orch_local.config.run_files import load_run
    from orch_local.report.plan import print_notes, print_obstacles
    from orch_local.report.questions import gold_warnings, print_gold_warnings
    from orch_local.run.preparation import prepare
    from orch_local.store.questions import read_questions

    settings = questions.settings(fast=execution.fast)
    folder = run_folder_at(out or Path("runs") / run_file.stem)
    store = (store or folder.root.parent / "store").absolute()
    planned = prepare(load_run(run_file, settings), folder, store, execution.accept_new_environment)
    golds = gold_facts(read_questions(folder.questions))
    if not quiet:
        print_gold_warnings(console_of(stderr=True), golds, planned)
        print_obstacles(console_of(stderr=True), planned)
        print_notes(console_of(stderr=True), planned)
    finish(folder, retry_failed=execution.retry_failed, quiet=quiet, warnings=gold_warnings(golds, planned))


@grouped
def plan(
    run_file: RunFile,
    *,
    questions: QuestionOptions,
    fast: Fast = False,
    store: StoreOption = None,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Print the first prompt of every agent.")
    ] = False,
    machine: Annotated[
        str | None, typer.Option(help="Place on other GPUs than here, e.g. 4x80GiB or 8xH100:80GiB.")
    ] = None,
) -> None:
    """Check a run file, show what it needs and what would run where; loads no model."""
    from orch_local.config.run_files import load_run
    from orch_local.placement.machine import read_machine
    from orch_local.report.plan import print_forecast
    from orch_local.run.forecast import forecast
    from orch_local.run.planning import check, on_machine, plan_run

    settings = questions.settings(fast=fast)
    there = read_machine(machine) if machine else None
    # Where `run` keeps rows; checks that lie there decide whether a prefix cache is on.
    planned = plan_run(load_run(run_file, settings), (store or Path("runs") / "store").absolute())
    planned = on_machine(planned, there) if there else planned
    check(planned.plan, planned.questions, there)
    print_forecast(console_of(), forecast(planned, there), prompts=prompts)


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder of the demo.")] = Path("runs/demo"),
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Number of held-out questions.")] = 1000,
    engine: Annotated[Literal["vllm", "transformers"], typer.Option(help="What runs the models.")] = "vllm",
    quiet: Quiet = False,
) -> None:
    """Run four tiny trained models on a synthetic benchmark."""
    from orch_local.config.run_files import load_run
    from orch_local.demo.settings import EXPLANATION, RUN_FILE, demo_overrides
    from orch_local.report.console import print_paragraph
    from orch_local.run.preparation import prepare
    from orch_local.store.questions import read_questions
    from orch_local.store.store import RunFolder

    folder = RunFolder(out.absolute())
    config = load_run(RUN_FILE, demo_overrides(folder.root, limit, engine))
    prepare(config, folder, folder.root.parent / "store")
    console = console_of()
    if not quiet:
        for paragraph in EXPLANATION:
            print_paragraph(console, paragraph)
    finish(folder, retry_failed=False, quiet=quiet)
    if not quiet:
        first = read_questions(folder.questions)[0].id
        console.print(
            f"\nOne question's story: orch-local show {shown_path(out)} {first}", markup=False, soft_wrap=True
        )
        console.print(
            f"A page for a browser: orch-local report {shown_path(out)}", markup=False, soft_wrap=True
        )
        console.print(f"The run file:         {shown_path(RUN_FILE)}", markup=False, soft_wrap=True)


def finish(folder: RunFolder, *, retry_failed: bool, quiet: bool, warnings: Sequence[str] = ()) -> Result:
    """Execute a prepared run with progress, and print its result; ``warnings`` go to its log."""
    import logging

    from orch_local.report.formatting import NBSP
    from orch_local.run.context import RunContext
    from orch_local.run.pipeline import run as run_pipeline

    with watched(folder, quiet=quiet) as (display, stop):
        for warning in warnings:
            logging.getLogger(__name__).warning(warning.replace(NBSP, " "))
        result = run_pipeline(RunContext.of(folder, display, stop, retry_failed=retry_failed))
    print_result(result, folder)
    return result


def print_result(result: Result, folder: RunFolder) -> None:
    from orch_local.report.findings import findings
    from orch_local.report.proof import print_level, print_recheck_cost
    from orch_local.report.terminal import print_metrics, print_warnings

    console = console_of()
    found = findings(result.diagnostics, result.plan.config.merge.policy)
    values = result.metrics, result.costs
    print_metrics(console, *values, digest=result.digest, run_dir=folder.root, findings=found)
    print_level(console, result.level)
    print_recheck_cost(console, result.costs.values())
    counts = result.plan.questions.bad_rows, result.violations, result.damaged
    print_warnings(console, *counts, result.deaths)
