"""The one command that may use the network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orch_local.cli.options import Quiet, console_of
from orch_local.errors import OrchError


class InterruptedFetchError(OrchError):
    """The user stopped the fetch."""

    exit_code = 130


def fetch(
    to: Annotated[Path, typer.Option("--to", help="Folder for it all; made if missing.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME[@REVISION]",
            help="Model configs, benchmarks (mmlu, mmlu_pro, gsm8k, arc), or run files.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Any model of the hub, OWNER/NAME[@REVISION].")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Any data set of the hub, OWNER/NAME[@REVISION].")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Take the newest commit, not the one fetched before.")
    ] = False,
    allow_network: Annotated[
        bool, typer.Option("--allow-network", help="Reach the hub; without it, say what would be fetched.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Download models and benchmarks from the hub; see docs/fetch.md. Nothing else uses the network."""
    from orch_local.deploy.fetch.getting import fetch as get
    from orch_local.deploy.fetch.terminal import display_for, print_fetched, refuse_network
    from orch_local.deploy.fetch.wanted import wanted

    root = to.absolute()
    asked = wanted(names or (), model or (), dataset or ())
    if not allow_network and asked:
        refuse_network(console_of(), asked, root, update=update)
    try:
        found = get(asked, root, display_for(console_of(stderr=True), quiet=quiet), update=update)
    except KeyboardInterrupt:
        hint = "run the same command again to go on"
        raise InterruptedFetchError("stopped; what has come is kept", hint=hint) from None
    if found:
        print_fetched(console_of(), found, asked, root)
    else:
        console_of().print("Everything that the run file names is here already.", markup=False)
