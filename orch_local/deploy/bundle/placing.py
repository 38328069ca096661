"""Files of a bundle put below a folder: each whole and right, or not there at all.

A file is written under another name, hashed on its way, and renamed once its SHA-256 is the manifest's: the
bytes that were checked are the bytes that are there, whatever happens to the bundle meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orch_local.deploy.bundle.checking import OnBytes, check_file
from orch_local.deploy.bundle.inside import NotPlainError, blocks, folder, reading
from orch_local.deploy.bundle.manifest import MAX_BYTES, Entry, ManifestError, parse
from orch_local.errors import InputError, StoreError
from orch_local.util.paths import MANIFEST, SIGNATURE

TEMPORARY = ".orch-local-"
"""How the name of a file begins until it is whole."""
_SHOWN = 10
_AGAIN = "then run the same command again: what is whole is kept"


@dataclass(frozen=True, slots=True)
class Survey:
    """What is to be written below a folder."""

    kept: frozenset[str]
    """Paths of the files that are there as they should be."""
    missing: int
    """Bytes that are to be written."""


def survey(root: Path, files: Iterable[Entry], on_bytes: OnBytes) -> Survey:
    """Look what of a bundle is there already; writes nothing.

    Raises
    ------
    InputError
        If a link, or a file that no bundle put there, is in the way.
    """
    before = earlier(root)
    _refuse_other_papers(root, before)
    kept, missing, problems = set(), 0, []
    for entry in files:
        state = check_file(root, entry, on_bytes) if root.is_dir() else "missing"
        if not state:
            kept.add(entry.path)
            continue
        missing += entry.size
        if state != "missing" and (problem := _in_the_way(root, entry.path, state, before)):
            problems.append(problem)
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InputError(
            f"there is something else where the bundle has a file: {'; '.join(problems[:_SHOWN])}{more}",
            where=str(root),
            hint="move it away, or name another folder with --to",
        )
    return Survey(frozenset(kept), missing)


def _in_the_way(root: Path, path: str, state: str, before: Mapping[str, Entry]) -> str:
    if state == "not_plain":
        return f"{path} (a link, or no plain file)"
    if state == "unreadable":
        return f"{path} (cannot be read)"
    # Of an earlier bundle, and as it was then: an update. Else it is somebody's work.
    if path in before and not check_file(root, before[path], lambda _path, _size: None):
        return ""
    return f"{path} (other bytes)"


def earlier(root: Path) -> dict[str, Entry]:
    """Read what the bundle held that was installed there before."""
    try:
        with reading(root, MANIFEST) as file:
            content = b"".join(blocks(file, MAX_BYTES + 1))
        return {entry.path: entry for entry in parse(content, str(root)).files}
    except (OSError, ManifestError):
        return {}


def _refuse_other_papers(root: Path, before: Mapping[str, Entry]) -> None:
    """A manifest, or a signature, that is of no bundle is somebody's work."""
    for name in (MANIFEST, SIGNATURE):
        file = root / name
        if os.path.lexists(file) and (not before or file.is_symlink() or not file.is_file()):
            hint = "move it away, or name another folder with --to"
            raise InputError(f"there is a {name} that came with no bundle", where=str(root), hint=hint)


def is_temporary(path: str) -> bool:
    """Whether a file is half of one, from an installation that was killed."""
    return path.rpartition("/")[2].startswith(TEMPORARY)


def of_bytes(path: str, content: bytes) -> Entry:
    """Describe a file that is at hand."""
    return Entry(path, len(content), hashlib.sha256(content).hexdigest())


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keep other installations out of a folder.

    Raises
    ------
    StoreError
        If there is one already.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        hint = "wait until it is done, " + _AGAIN
        raise StoreError("another installation writes there", where=str(root), hint=hint) from None
    except OSError:
        pass  # a file system without locks: names of temporary files are random, so nothing gets mixed up
    try:
        yield
    finally:
        os.close(descriptor)


def tidy(root: Path, files: Iterable[Entry]) -> None:
    """Remove what an installation left that was killed."""
    for above in {"", *(entry.path.rpartition("/")[0] for entry in files)}:
        # Not there yet, or a link: whoever writes there says so.
        with suppress(FileNotFoundError, NotPlainError), folder(root, _names(above)) as where:
            for name in os.listdir(where):  # noqa: PTH208  # an open folder has no path
                if name.startswith(TEMPORARY):
                    os.unlink(name, dir_fd=where)


def place(root: Path, entry: Entry, content: Iterable[bytes], on_bytes: OnBytes) -> None:
    """Write one file below a folder, if its bytes are the right ones.

    Raises
    ------
    InputError
        If the bytes are not those of ``entry``: there is no file then, or still the one before.
    StoreError
        If it cannot be written, or a link is on its way.
    """
    above, _, name = entry.path.rpartition("/")
    try:
        with folder(root, _names(above), create=True) as where:
            temporary = TEMPORARY + secrets.token_hex(8)
            try:
                _write(where, temporary, entry, _counted(content, entry, on_bytes))
                os.replace(temporary, name, src_dir_fd=where, dst_dir_fd=where)
            finally:
                with suppress(FileNotFoundError):  # which it is, once it has its own name
                    os.unlink(temporary, dir_fd=where)
    except NotPlainError as error:
        message = f"{error.filename} is a link, or no folder: nothing is written through it"
        raise StoreError(message, where=str(root), hint="move it away, " + _AGAIN) from None
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "make room there, or name another folder with --to; " if full else "may you write there? "
        message = f"cannot be written: {error.strerror}"
        raise StoreError(message, where=str(root / entry.path), hint=hint + _AGAIN) from None


def remove(root: Path, entry: Entry) -> None:
    """Remove a file, if it is the one that is meant."""
    above, _, name = entry.path.rpartition("/")
    if not check_file(root, entry, lambda _path, _size: None):
        with folder(root, _names(above)) as where:
            os.unlink(name, dir_fd=where)


def _write(where: int, temporary: str, entry: Entry, content: Iterable[bytes]) -> None:
    # Never executable, and new: a link of this name would be an error.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    digest, size = hashlib.sha256(), 0
    with os.fdopen(os.open(temporary, flags, 0o644, dir_fd=where), "wb", buffering=0) as file:
        for block in content:
            digest.update(block)
            size += len(block)
            if size > entry.size:
                break
            _write_all(file.fileno(), block)
        os.fsync(file.fileno())
    if size != entry.size or digest.hexdigest() != entry.sha256:
        raise InputError(
            "does not have the bytes that the manifest tells; it was not installed",
            where=entry.path,
            hint="something writes to the bundle while it is read; verify it again",
        )


def _write_all(descriptor: int, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _counted(content: Iterable[bytes], entry: Entry, on_bytes: OnBytes) -> Iterator[bytes]:
    """Give the bytes on; an error of reading them is one of the bundle, not of where they go."""
    try:
        for block in content:
            on_bytes(entry.path, len(block))
            yield block
    except OSError as error:
        message = f"cannot be read from the bundle: {error.strerror} ({error.filename or 'a part'})"
        raise InputError(message, where=entry.path, hint="verify the bundle again") from error


def _names(above: str) -> list[str]:
    return above.split("/") if above else []
