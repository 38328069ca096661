"""The three commands of the receiving side, for both command lines: each prints and returns an exit code."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orch_local.deploy.bundle import describing, installing
from orch_local.deploy.bundle.checking import Bundle, BundleFaults, check_files, open_bundle, unchecked_key
from orch_local.deploy.bundle.describing import Progress, harmless
from orch_local.deploy.bundle.environment import PROJECT, VENV
from orch_local.deploy.bundle.installing import Installation, InstallOutput
from orch_local.deploy.bundle.signature import Signers
from orch_local.errors import InputError, OrchError, StoreError

INTERRUPTED = 130
WRONG = 1


@dataclass(frozen=True, slots=True)
class Shown:
    """How the result of a check is printed."""

    as_json: bool = False
    missing_only: bool = False
    """The paths alone that must be copied again, a line each."""


def signers_of(allowed: Path | None, identity: str | None, revoked: Path | None) -> Signers | None:
    """Make what was given on a command line into whose signature counts.

    Raises
    ------
    InputError
        If there is an identity, or revoked keys, but no list that they are of.
    """
    if allowed is not None:
        return Signers(allowed, identity, revoked)
    if identity is not None or revoked is not None:
        raise InputError(
            "--identity and --revoked need --allowed-signers", hint="the list that names who may sign"
        )
    return None


def inspect(folder: Path, signers: Signers | None, *, as_json: bool) -> int:
    """Print what a bundle is; its files are not read."""
    bundle = open_bundle(folder, signers)
    key, signed = _signed(bundle)
    if as_json:
        print(describing.json_of(bundle, key))
    else:
        for line in describing.lines_of(bundle, signed):
            print(line)
    return 0


def verify(folder: Path, signers: Signers | None, shown: Shown) -> int:
    """Check a bundle, and print what is wrong with it."""
    bundle = open_bundle(folder, signers)
    key, signed = _signed(bundle)
    progress = Progress()
    try:
        found = check_files(bundle, progress.on_bytes)
    finally:
        progress.done()
    if shown.as_json:
        print(describing.found_json(bundle, found, key))
    elif shown.missing_only:
        for path in found.broken:
            print(path)
    else:
        _print_check(bundle, found, signed)
    return 0 if found.passed else WRONG


def install(wanted: Installation) -> int:
    """Install a bundle, and print what to do next."""
    progress = Progress()

    def say(line: str) -> None:
        progress.done()
        print(harmless(line), flush=True)

    try:
        bundle = installing.install(wanted, InstallOutput(say, progress.on_bytes))
    finally:
        progress.done()
    for line in _next(wanted, bundle):
        print(line)
    return 0


def guarded(action: Callable[[], int]) -> int:
    """Run a command; whatever goes wrong becomes a message and an exit code."""
    try:
        code = action()
        sys.stdout.flush()
        return code
    except OrchError as error:
        message = str(error)
        code = error.exit_code
    except KeyboardInterrupt:
        message, code = "interrupted; run the same command again: what is whole is kept", INTERRUPTED
    except BrokenPipeError:  # whoever read our output, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = "" if error.filename is None else str(error.filename)
        failed = StoreError(
            error.strerror or "input or output failed", where=where, hint="may you read and write there?"
        )
        message, code = str(failed), failed.exit_code
        if not where:  # output to a full disk: it would fail once more at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print("error: " + "\n".join(map(harmless, message.split("\n"))), file=sys.stderr)
    return code


def _signed(bundle: Bundle) -> tuple[str, str]:
    """Name the key of the signature, and say what is known about it."""
    if bundle.signature is None:
        return "", "no: whether it is whole can be checked, not who made it"
    try:
        key = unchecked_key(bundle)
    except InputError as error:  # no ssh-keygen here
        return "", f"yes, by whom is not known: {harmless(error.message)}"
    if bundle.signer:
        return key, f"by {harmless(bundle.signer)}, with the key {harmless(key)}"
    return key, f"with the key {harmless(key)}; whose that is was not checked (--allowed-signers)"


def _print_check(bundle: Bundle, found: BundleFaults, signed: str) -> None:
    print(f"signed: {signed}")
    for line in describing.problem_lines(found):
        print(line)
    size = describing.amount(sum(entry.size for entry in bundle.pieces))
    if found.passed:
        print(f"whole: {len(bundle.pieces):,} files, {size}")
    elif found.broken:
        print(
            f"broken: copy {len(found.broken):,} of {len(bundle.pieces):,} files again "
            "(--list-missing prints their names alone)"
        )
    else:
        print("whole, but not to be installed: remove what lies among the wheels, and ask where it came from")


def _next(wanted: Installation, bundle: Bundle) -> list[str]:
    root, manifest = wanted.to.absolute(), bundle.manifest
    quoted = shlex.quote(str(root))
    lines = [f"installed in {harmless(str(root))}; next:"]
    if wanted.environment and manifest.requirements:
        lines.append(f"  source {quoted}/{VENV}/bin/activate")
    if manifest.models:
        lines.append(f"  export ORCH_MODELS_DIR={quoted}/models")
    first = manifest.run_files[0] if manifest.run_files else ""
    run_file = shlex.quote(str(root / first)) if first else ""
    lines.append(f"  {PROJECT} doctor {run_file}".rstrip())
    lines.append(f"  {PROJECT} demo")
    lines += [f"  {PROJECT} run {shlex.quote(str(root / path))}" for path in manifest.run_files]
    return [harmless(line) for line in lines]
