"""Installing a bundle: everything is checked before anything is written, and written once it is right."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orch_local.deploy.bundle import environment, placing, target
from orch_local.deploy.bundle.checking import (
    WHEELS,
    Bundle,
    BundleFaults,
    OnBytes,
    check_files,
    open_bundle,
    unknown_below,
)
from orch_local.deploy.bundle.environment import REQUIREMENTS, UNFINISHED, VENV
from orch_local.deploy.bundle.parts import open_content
from orch_local.deploy.bundle.signature import SignatureError, Signers
from orch_local.errors import InputError, OrchError, StoreError
from orch_local.util.paths import MANIFEST, SIGNATURE

_OURS = frozenset({VENV, UNFINISHED, MANIFEST, SIGNATURE})
_UNPACKED = 4
"""Bytes of an installed wheel for each byte of it, about: 3.6 for the wheels of a CPU."""
_SHOWN = 20
_MIB = 2**20


class BrokenError(OrchError):
    """Files or parts of a bundle are not what its manifest says."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What is to be installed, and where."""

    bundle: Path
    to: Path
    signers: Signers | None
    python: str
    environment: bool = True
    unverified: bool = False
    """Install a signed bundle without asking whose signature it is."""


@dataclass(frozen=True, slots=True)
class InstallOutput:
    """Where an installation reports what it does."""

    say: Callable[[str], None]
    """A line."""
    on_bytes: OnBytes
    """Bytes that were read."""


def install(wanted: Installation, output: InstallOutput) -> Bundle:
    """Install a bundle below a folder; run again, it goes on where it was stopped.

    Raises
    ------
    OrchError
        If it must not, or cannot, be installed.
    """
    bundle = open_trusted(wanted, output)
    _check_names(bundle)
    root = wanted.to.absolute()
    with_wheels = wanted.environment and bool(bundle.manifest.requirements)
    here = _check_target(wanted, bundle, root, output) if with_wheels else None
    output.say(f"checking {_amount(sum(entry.size for entry in bundle.pieces))} of the bundle")
    _check_whole(check_files(bundle, output.on_bytes))
    pins = (
        () if here is None else environment.pinned_lines(_requirements(bundle), bundle.manifest.requirements)
    )
    survey = placing.survey(root, bundle.manifest.files, output.on_bytes)
    _check_wheels(root, bundle)
    _check_room(root, bundle, survey.missing, with_wheels)
    _make(root)
    with placing.alone(root):
        _write(bundle, root, survey.kept, output)
        if here is not None:
            output.say(f"installing {len(pins):,} wheels into {root / VENV}")
            environment.make(root, here, with_base=bool(bundle.manifest.excluded))
            environment.fill(root, root / WHEELS, pins)
            environment.check_import(root)
            environment.finished(root)
    return bundle


def open_trusted(wanted: Installation, output: InstallOutput) -> Bundle:
    """Open a bundle if its signature is as good as it was asked to be.

    Raises
    ------
    SignatureError
        If it is signed, and nobody said whose signature counts.
    """
    if wanted.signers is not None and wanted.unverified:
        raise InputError(
            "--unverified and --allowed-signers exclude each other", hint="leave one of them away"
        )
    bundle = open_bundle(wanted.bundle, wanted.signers)
    if wanted.signers is not None:
        output.say(f"signed by {bundle.signer}")
    elif bundle.signature is None:
        output.say("not signed: that the bundle is whole is checked, but not who made it")
    elif wanted.unverified:
        output.say("signed, but --unverified: that the bundle is whole is checked, but not who made it")
    else:
        raise SignatureError(
            "is signed, and nothing was said about who may sign",
            where=str(wanted.bundle),
            hint="--allowed-signers FILE names them (docs/airgap.md); --unverified goes on without",
        )
    return bundle


def _check_names(bundle: Bundle) -> None:
    """The environment is made by venv alone: a file of the bundle in it could be run before pip is."""
    for entry in bundle.manifest.files:
        path = entry.path.casefold()
        first, *rest = path.split("/")
        # pip takes what it finds there for wheels, and a page for a list of places to get some from.
        odd = first == WHEELS and not (len(rest) == 1 and path.endswith(".whl"))
        if first in _OURS or placing.TEMPORARY in path or odd:
            hint = "this is no bundle that orch-local makes: ask where it came from"
            raise InputError("no bundle may have a file of this name", where=entry.path, hint=hint)


def _check_target(wanted: Installation, bundle: Bundle, root: Path, output: InstallOutput) -> target.Here:
    manifest = bundle.manifest
    if ":" in str(root):
        hint = "name another folder with --to, or --no-environment"
        raise InputError("no environment can be where the path has a colon", where=str(root), hint=hint)
    there = environment.python_of(root)
    try:
        here = target.ask(
            str(there or wanted.python), [target.split_pin(pin)[0] for pin in manifest.excluded]
        )
        target.check(manifest.target, here)
        target.check_excluded(manifest.excluded, here)
    except InputError as error:
        if there is not None:  # another --python would change nothing
            error.hint = f"it is the environment that is there: move {root / VENV} away, or name another --to"
        raise
    if manifest.target.device == "cuda" and shutil.which("nvidia-smi") is None:
        output.say("note: the bundle is for CUDA, and there is no nvidia-smi here: is the driver installed?")
    return here


def _check_whole(found: BundleFaults) -> None:
    if found.planted:
        raise BrokenError(
            f"files lie among its wheels that are not in its manifest: {_names(found.planted)}",
            hint="remove them, and ask where they came from",
        )
    if found.broken:
        raise BrokenError(
            f"not as its manifest says: {_names(found.broken)}",
            hint="copy these again; `verify --list-missing` prints their names alone, for rsync --files-from",
        )


def _check_wheels(root: Path, bundle: Bundle) -> None:
    """What lies among the wheels from before is an earlier bundle's, or pip must not see it."""
    known = {entry.path for entry in (*bundle.manifest.files, *placing.earlier(root).values())}
    if planted := [path for path in unknown_below(root, WHEELS, known) if not placing.is_temporary(path)]:
        raise InputError(
            f"files lie there that came with no bundle: {_names(planted)}",
            where=str(root / WHEELS),
            hint="remove them, or name another folder with --to",
        )


def _check_room(root: Path, bundle: Bundle, missing: int, with_wheels: bool) -> None:
    wheels = sum(entry.size for entry in bundle.manifest.files if entry.path.startswith(WHEELS + "/"))
    unpacked = _UNPACKED * wheels if with_wheels and environment.python_of(root) is None else 0
    there = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < missing + unpacked:
        message = f"has {_amount(free)} free, and about {_amount(missing + unpacked)} are needed"
        hint = "make room, or name another folder with --to"
        raise StoreError(message, where=str(there), hint=hint)


def _make(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot be made: {error.strerror}"
        raise StoreError(message, where=str(root), hint="name another folder with --to") from error


def _write(bundle: Bundle, root: Path, kept: frozenset[str], output: InstallOutput) -> None:
    files = bundle.manifest.files
    output.say(
        f"writing {len(files) - len(kept):,} files to {root}" + (f", {len(kept):,} are there" if kept else "")
    )
    placing.tidy(root, files)
    for entry, content in open_content(bundle.folder, bundle.manifest):
        if entry.path not in kept:
            placing.place(root, entry, content, output.on_bytes)
    if root.resolve() == bundle.folder.resolve():
        return
    # Wheels that this bundle replaces: the next one could not tell them from planted ones.
    names = {entry.path for entry in files}
    for entry in placing.earlier(root).values():
        if entry.path.startswith(WHEELS + "/") and entry.path not in names:
            placing.remove(root, entry)
    # Last: `verify` of this folder tells from now on whether it is still as it was carried.
    if bundle.signature is None:
        (root / SIGNATURE).unlink(missing_ok=True)
    else:
        placing.place(
            root, placing.of_bytes(SIGNATURE, bundle.signature), [bundle.signature], output.on_bytes
        )
    placing.place(root, placing.of_bytes(MANIFEST, bundle.content), [bundle.content], output.on_bytes)


def _requirements(bundle: Bundle) -> bytes:
    for entry, content in open_content(bundle.folder, bundle.manifest):
        if entry.path == REQUIREMENTS:
            return b"".join(content)
    raise InputError(
        "has wheels to install and no list of them", where=REQUIREMENTS, hint="have it made again"
    )


def _names(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more


def _amount(size: int) -> str:
    return f"{size / _MIB:,.1f} MiB"
