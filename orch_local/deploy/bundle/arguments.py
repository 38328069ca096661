"""The command line of ``install.pyz``; ``orch-local bundle`` has the same options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from orch_local.deploy.bundle import receiving
from orch_local.deploy.bundle.installing import Installation
from orch_local.deploy.bundle.receiving import Shown, guarded, signers_of


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Do what the command line says, and leave with its exit code."""
    # A terminal that cannot show a character gets its number.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    given = _parser().parse_args(arguments)
    code = guarded(lambda: _do(given))
    sys.stdout.flush()
    sys.exit(code)


def _do(given: argparse.Namespace) -> int:
    signers = signers_of(given.allowed_signers, given.identity, given.revoked)
    if given.command == "inspect":
        return receiving.inspect(given.bundle, signers, as_json=given.json)
    if given.command == "verify":
        return receiving.verify(given.bundle, signers, Shown(given.json, given.list_missing))
    wanted = Installation(
        given.bundle, given.to, signers, given.python, not given.no_environment, given.unverified
    )
    return receiving.install(wanted)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="install.pyz", description="Look at, check and install the bundle that this file lies in."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = _command(commands, "inspect", "Print what the bundle is and holds.")
    inspect.add_argument("--json", action="store_true", help="as JSON")
    verify = _command(
        commands, "verify", "Check signature, manifest and every byte. Code 1 if anything is wrong."
    )
    verify.add_argument("--json", action="store_true", help="as JSON")
    verify.add_argument(
        "--list-missing", action="store_true", help="print what to copy again, and nothing else"
    )
    install = _command(commands, "install", "Check the bundle, write its files and make its environment.")
    install.add_argument("--to", type=Path, required=True, metavar="DIR", help="where to")
    install.add_argument("--python", default=sys.executable, metavar="PATH", help="Python of the environment")
    install.add_argument("--no-environment", action="store_true", help="write the files only")
    install.add_argument("--unverified", action="store_true", help="do not ask who signed a signed bundle")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    beside = Path(sys.argv[0]).absolute().parent
    parser.add_argument(
        "bundle", nargs="?", type=Path, default=beside, help="folder of the bundle [default: this one]"
    )
    parser.add_argument(
        "--allowed-signers", type=Path, metavar="FILE", help="who may sign; not out of the bundle"
    )
    parser.add_argument("--identity", metavar="ID", help="the one of them who has to have signed")
    parser.add_argument("--revoked", type=Path, metavar="FILE", help="keys that count no more")
    return parser
