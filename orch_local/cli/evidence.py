"""Commands that look at one question, and at what proves that a run would come out the same again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orch_local.cli.options import Folder, Quiet, console_of, run_folder_at, short
from orch_local.cli.watching import watched
from orch_local.errors import InputError

if TYPE_CHECKING:
    pass


def show(
    run_folder: Folder,
    question_id: Annotated[
        str | None, typer.Argument(help="Id of a question, or the beginning of one.")
    ] = None,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="When each model loaded and generated, against the plan.")
    ] = False,
) -> None:
    """Print one question's whole story, or the timeline of the run."""
    from orch_local.report.story import print_story
    from orch_local.report.timeline import print_timelines
    from orch_local.results.showing import executions, story

    folder = run_folder_at(run_folder)
    if timeline == (question_id is not None):
        raise InputError(
            "show needs the id of a question or --timeline, and not both",
            hint=f"`orch-local show {short(folder.root)} --timeline`, or an id from questions.jsonl",
        )
    if question_id is None:
        print_timelines(console_of(), executions(folder))
    else:
        print_story(console_of(), *story(folder, question_id))


def verify(
    run_folder: Folder,
    sample: Annotated[int, typer.Option(min=0, help="Rows of each agent to generate again.")] = 32,
    every: Annotated[bool, typer.Option("--all", help="Generate all rows again.")] = False,
    quiet: Quiet = False,
) -> None:
    """Check a run's files, generate rows again in other batches, compare bytes. Code 1 on a difference."""
    from orch_local.audit.verify import verify as verify_run
    from orch_local.plan.files import load_plan
    from orch_local.report.proof import print_verification
    from orch_local.results.levels import record_level

    folder = run_folder_at(run_folder)
    load_plan(folder)  # what is no run must not get a log
    with watched(folder, quiet=quiet, again="nothing of the run was changed; verify it again") as (
        display,
        stop,
    ):
        found = verify_run(folder, None if every else sample, display, stop)
    print_verification(console_of(), found, record_level(folder, found.plan, found.unused))
    raise typer.Exit(0 if found.passed else 1)


def replay(run_folder: Folder) -> None:
    """Recompute every decision from the stored rows, without an engine. Code 1 on a difference."""
    from orch_local.audit.replay import replay as replay_run
    from orch_local.report.proof import print_replay

    found = replay_run(run_folder_at(run_folder))
    print_replay(console_of(), found)
    raise typer.Exit(0 if found.same else 1)


def diff(
    run_a: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    run_b: Annotated[Path, typer.Argument(help="Folder of another.")],
    examples: Annotated[int, typer.Option(min=0, help="Differing questions to show.")] = 5,
) -> None:
    """Say what differs between two runs: plans, then answers. Code 1 where the digests differ."""
    from orch_local.audit.diff import compare
    from orch_local.report.difference import print_difference

    found = compare(run_folder_at(run_a), run_folder_at(run_b), examples)
    print_difference(console_of(), found)
    raise typer.Exit(0 if found.same_digest else 1)
