"""The command that says whether this machine can do a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orch_local.cli.options import Out, StoreOption


def doctor(
    run_file: Annotated[Path | None, typer.Argument(help="The run file; none looks at the demo.")] = None,
    out: Out = None,
    store: StoreOption = None,
    shards: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Parts that `submit` would make, for SLURM's limits."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Hash all weights anew, however long it takes.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Do not import torch and the engine.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether this machine can do a run. Code 0: nothing is red; 1: something is (docs/doctor.md)."""
    from orch_local.deploy.doctor.offline import set_by_user
    from orch_local.deploy.doctor.printing import print_report
    from orch_local.deploy.doctor.request import DoctorRequest

    file, folder, rows = (None if path is None else str(path) for path in (run_file, out, store))
    request = DoctorRequest(file, folder, rows, shards, fresh, quick, silence=set_by_user())
    raise typer.Exit(print_report(request, as_json=json))
