"""Commands of the receiving side of bundles; ``install.pyz`` runs the same code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

Bundle = Annotated[Path, typer.Argument(help="Folder of the bundle.")]
AllowedSigners = Annotated[
    Path | None,
    typer.Option("--allowed-signers", help="Who may sign (ssh-keygen's file); not out of the bundle."),
]
Identity = Annotated[str | None, typer.Option("--identity", help="The one of them who has to have signed.")]
Revoked = Annotated[Path | None, typer.Option("--revoked", help="Keys that count no more.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def inspect(
    bundle: Bundle,
    allowed_signers: AllowedSigners = None,
    identity: Identity = None,
    revoked: Revoked = None,
    as_json: Json = False,
) -> None:
    """Print what a bundle is for and what it holds."""
    from orch_local.deploy.bundle import receiving

    signers = receiving.signers_of(allowed_signers, identity, revoked)
    raise typer.Exit(receiving.guarded(lambda: receiving.inspect(bundle, signers, as_json=as_json)))


def verify(
    bundle: Bundle,
    allowed_signers: AllowedSigners = None,
    identity: Identity = None,
    revoked: Revoked = None,
    as_json: Json = False,
    list_missing: Annotated[
        bool,
        typer.Option("--list-missing", help="Print what to copy again, a path a line, and nothing else."),
    ] = False,
) -> None:
    """Check a bundle's signature, manifest and every byte. Code 1 if anything is wrong, 2 if it is none."""
    from orch_local.deploy.bundle import receiving

    signers = receiving.signers_of(allowed_signers, identity, revoked)
    shown = receiving.Shown(as_json, list_missing)
    raise typer.Exit(receiving.guarded(lambda: receiving.verify(bundle, signers, shown)))


def install(
    bundle: Bundle,
    to: Annotated[Path, typer.Option("--to", help="Where to; made if it is not there.")],
    allowed_signers: AllowedSigners = None,
    identity: Identity = None,
    revoked: Revoked = None,
    python: Annotated[
        str, typer.Option("--python", help="Python of the environment.", show_default="this one")
    ] = sys.executable,
    environment: Annotated[
        bool, typer.Option("--environment/--no-environment", help="Make an environment of the wheels.")
    ] = True,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Do not ask who signed a signed bundle.")
    ] = False,
) -> None:
    """Check a bundle, write its files and make its environment. Run again, it goes on where it stopped."""
    from orch_local.deploy.bundle import receiving
    from orch_local.deploy.bundle.installing import Installation

    signers = receiving.signers_of(allowed_signers, identity, revoked)
    wanted = Installation(bundle, to, signers, python, environment, unverified)
    raise typer.Exit(receiving.guarded(lambda: receiving.install(wanted)))
