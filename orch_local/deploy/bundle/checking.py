"""Checks of a bundle as it lies there: whose it is, then what it says, then each byte of it.

The order matters. The signature is checked over the bytes of the manifest before they are read as one, and
the same bytes, not the file again, are read then.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from orch_local.deploy.bundle import signature as signatures
from orch_local.deploy.bundle.inside import NotPlainError, blocks, reading
from orch_local.deploy.bundle.manifest import INSTALLER, MAX_BYTES, Entry, Manifest, parse
from orch_local.deploy.bundle.signature import Signers
from orch_local.errors import InputError
from orch_local.util.paths import MANIFEST, SIGNATURE

WHEELS = "wheels"
OnBytes = Callable[[str, int], None]
"""Called with what is read and how many bytes of it were, for a line of progress."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose manifest was read."""

    folder: Path
    manifest: Manifest
    """Without its parts where the files lie there instead, as they do where the bundle was installed."""
    content: bytes
    """Of the manifest, as it was checked."""
    signature: bytes | None
    signer: str = ""
    """The principal whose signature it has, as far as this was checked."""

    @property
    def pieces(self) -> tuple[Entry, ...]:
        """All that lies in the folder, besides the manifest and its signature."""
        if not self.manifest.parts:
            return self.manifest.files
        return (*(entry for entry in self.manifest.files if entry.path == INSTALLER), *self.manifest.parts)


@dataclass(frozen=True, slots=True)
class BundleFaults:
    """What is wrong with the files of a bundle, each by its path."""

    missing: tuple[str, ...] = ()
    wrong_size: tuple[str, ...] = ()
    """Mostly copies that were cut short."""
    wrong_bytes: tuple[str, ...] = ()
    not_plain: tuple[str, ...] = ()
    """Links, pipes, devices or folders in place of files."""
    unreadable: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    """There, but not in the manifest: nothing is done with them."""

    @property
    def broken(self) -> tuple[str, ...]:
        """What must be copied again."""
        lists = (self.missing, self.wrong_size, self.wrong_bytes, self.not_plain, self.unreadable)
        return tuple(sorted(path for paths in lists for path in paths))

    @property
    def planted(self) -> tuple[str, ...]:
        """Unknown files where pip would see them."""
        return tuple(path for path in self.unknown if path.split("/")[0].casefold() == WHEELS)

    @property
    def passed(self) -> bool:
        """Whether the bundle can be installed."""
        return not self.broken and not self.planted


def open_bundle(folder: Path, signers: Signers | None) -> Bundle:
    """Read the manifest of a bundle, after its signature was checked.

    Parameters
    ----------
    signers:
        Whose signature it must have. Without them a signature is not looked at.

    Raises
    ------
    InputError
        If there is no bundle, or its manifest is none.
    SignatureError
        If it has no signature of one of ``signers``.
    """
    content = _manifest_bytes(folder)
    signature = signatures.read_signature(folder)
    signer = ""
    if signers is not None:
        if signature is None:
            raise signatures.unsigned(folder)
        _check_apart(folder, signers)
        signer = signatures.check_bytes(content, signature, signers)
    manifest = parse(content, str(folder / MANIFEST))
    if manifest.parts and _unpacked(folder, manifest):
        manifest = replace(manifest, parts=())
    return Bundle(folder, manifest, content, signature, signer)


def unchecked_key(bundle: Bundle) -> str:
    """Name the key that signed a bundle, without a word about whose it is; empty where it is not signed.

    Raises
    ------
    SignatureError
        If the signature is not one of this manifest.
    """
    if bundle.signature is None:
        return ""
    return signatures.fingerprint(bundle.content, bundle.signature)


def check_files(bundle: Bundle, on_bytes: OnBytes) -> BundleFaults:
    """Compare each file or part with the manifest: what it is, its size, then its SHA-256."""
    found: dict[str, list[str]] = {}
    for entry in bundle.pieces:
        on_bytes(entry.path, 0)
        if problem := check_file(bundle.folder, entry, on_bytes):
            found.setdefault(problem, []).append(entry.path)
    found["unknown"] = unknown_files(bundle)
    return BundleFaults(**{problem: tuple(paths) for problem, paths in found.items()})


def check_file(root: Path, entry: Entry, on_bytes: OnBytes) -> str:
    """Name what is wrong with a file: a field of :class:`BundleFaults`; empty where it is right."""
    try:
        with reading(root, entry.path) as file:
            if os.fstat(file.fileno()).st_size != entry.size:
                return "wrong_size"
            digest = hashlib.sha256()
            for block in blocks(file, entry.size + 1):
                digest.update(block)
                on_bytes(entry.path, len(block))
    except FileNotFoundError:
        return "missing"
    except NotPlainError:
        return "not_plain"
    except OSError:
        return "unreadable"
    return "" if digest.hexdigest() == entry.sha256 else "wrong_bytes"


def unknown_files(bundle: Bundle) -> list[str]:
    """List what lies in the folder and not in the manifest; of a folder that is not in it, the name alone."""
    # Of a bundle in parts its files may lie there as well: it was installed in its own folder.
    named = (entry.path for entry in (*bundle.pieces, *bundle.manifest.files))
    return unknown_below(bundle.folder, "", {MANIFEST, SIGNATURE, *named})


def unknown_below(root: Path, inner: str, known: set[str]) -> list[str]:
    """List what lies below a folder of ``root`` and is not known, by paths that start at ``root``."""
    folders = {path[:end] for path in known for end, sign in enumerate(path) if sign == "/"}
    return sorted(_unknown(root, inner, known, folders))


def _unknown(root: Path, inner: str, known: set[str], folders: set[str]) -> Iterator[str]:
    try:
        with os.scandir(root / inner) as found:
            there = list(found)
    except OSError:
        return  # a folder that cannot be listed: each file in it is unreadable by name
    for item in there:
        path = f"{inner}/{item.name}" if inner else item.name
        if item.is_dir(follow_symlinks=False) and (path in folders or path.casefold() == WHEELS):
            yield from _unknown(root, path, known, folders)
        elif path not in known:
            yield path + ("/" if item.is_dir(follow_symlinks=False) else "")


def _manifest_bytes(folder: Path) -> bytes:
    hint = f"name the folder that has {MANIFEST} in it"
    try:
        with reading(folder, MANIFEST) as file:
            content = file.read(MAX_BYTES + 1)  # the parser refuses what is longer
            while len(content) <= MAX_BYTES and (more := file.read(MAX_BYTES + 1 - len(content))):
                content += more
            return content
    except (FileNotFoundError, NotADirectoryError):
        raise InputError("is no bundle", where=str(folder), hint=hint) from None
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", where=str(folder / MANIFEST), hint=hint
        ) from None


def _check_apart(folder: Path, signers: Signers) -> None:
    """A list of signers that came with the bundle says nothing about it."""
    for file in filter(None, (signers.allowed, signers.revoked)):
        if file.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                "came with the bundle: whoever made the one could make the other",
                where=str(file),
                hint="get the lists of keys by another way, and keep them elsewhere",
            )


def _unpacked(folder: Path, manifest: Manifest) -> bool:
    if any(_is_file(folder / part.path) for part in manifest.parts):
        return False
    return any(_is_file(folder / entry.path) for entry in manifest.files if entry.path != INSTALLER)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
