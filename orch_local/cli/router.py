"""Commands that prepare what a router needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orch_local.cli.options import Folder, Quiet, RunFile, console_of, run_folder_at, shown_path
from orch_local.cli.watching import watched
from orch_local.errors import InputError


def refuse_existing(path: Path) -> None:
    """Runs are pinned to these files, so none is replaced.

    Raises
    ------
    InputError
        If there is one.
    """
    if path.exists():
        raise InputError("is there already", where=str(path), hint="choose another --out, or delete it first")


def calibrate(
    run_folder: Folder,
    out: Annotated[Path, typer.Option("--out", help="State file to write.")] = Path("router.json"),
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Weight of the newest signal.")] = 0.1,
    prior: Annotated[
        float, typer.Option(min=0, max=1, help="Accuracy of an agent before its first signal.")
    ] = 0.5,
    profile: Annotated[
        Path | None, typer.Option(help="Seconds and costs; none counts tokens instead.")
    ] = None,
) -> None:
    """Learn a router's state from a finished run over a calibration split; needs no engine."""
    from orch_local.audit.calibrate import calibrate as learn
    from orch_local.router.states import write_state

    refuse_existing(out)
    learnt = learn(run_folder_at(run_folder), alpha, prior, profile)
    write_state(out, learnt)
    print(f"learnt from {len(learnt.questions):,} questions: {shown_path(out)}")
    print("in a run file:  router: {mode: calibrated, k: 1, state: " + shown_path(out) + "}")


def profile(
    run_file: RunFile,
    out: Annotated[Path, typer.Option("--out", help="Profile to write.")] = Path("profile.json"),
    rows: Annotated[int, typer.Option("--rows", help="Questions to ask each agent, 6 or more.")] = 64,
    quiet: Quiet = False,
) -> None:
    """Measure once how long each agent takes, for the router's latency and cost (docs/profiles.md)."""
    from orch_local.config.run_files import load_run
    from orch_local.report.profile import print_profile
    from orch_local.run.profiling import profile as measure
    from orch_local.run.profiling import write_profile
    from orch_local.store.store import RunFolder

    refuse_existing(out)
    config = load_run(run_file)
    again = "nothing was written: measure again"
    with watched(RunFolder(out.absolute().parent), quiet=quiet, again=again, log=False) as (display, stop):
        measured = measure(config, rows, display, stop)
    print_profile(console_of(), measured)
    write_profile(out, measured)
    print(f"written: {shown_path(out)}")
