"""Commands that prepare what a router needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orch_local.commands.options import Folder, run_folder_at, short


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
    from orch_local.router_states import calibrate as learn
    from orch_local.router_states import write_state

    learnt = learn(run_folder_at(run_folder), alpha, prior, profile)
    write_state(out, learnt)
    print(f"learnt from {len(learnt.questions):,} questions: {short(out)}")
    print("in a run file:  router: {mode: calibrated, k: 1, state: " + str(short(out)) + "}")
