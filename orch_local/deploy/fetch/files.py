"""The files of a folder that is being fetched: what is there already, what comes, and what must not stay.

A file that is coming lies below ``.partial`` under the name of its content's digest, so a broken download
goes on where it stopped, whichever commit it is of. It takes its place when its digest is the listed one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from orch_local.deploy.fetch.choosing import Listed, is_read
from orch_local.deploy.fetch.explaining import AGAIN, FetchError, is_full
from orch_local.deploy.fetch.hub import Commit, Hub
from orch_local.deploy.fetch.record import PARTIAL, FetchedFile
from orch_local.deploy.fetch.wanted import Wanted
from orch_local.errors import InputError, StoreError
from orch_local.store.store import read_json, write_json
from orch_local.util.paths import check_path

_BEGUN = "commit.json"
_BLOCK = 4 * 2**20
OnBytes = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Begun:
    """A fetch that was not finished."""

    revision: str = ""
    """Commit hash; empty where nothing was begun."""
    files: tuple[str, ...] = ()


class RepositoryFolder:
    """The folder of one model or benchmark inside of the fetched folder.

    Raises
    ------
    InputError
        If there is a symbolic link in it, through which a file would be written elsewhere.
    """

    def __init__(self, root: Path, one: Wanted) -> None:
        self.root = root
        self.one = one
        self.path = root / one.folder
        self._partial = self.path / PARTIAL
        for link in _links(self.path):
            hint = "remove it, or fetch into another folder"
            raise InputError(
                "is a symbolic link, and files would be written through it", where=str(link), hint=hint
            )

    def begun(self) -> Begun:
        """What an unfinished fetch left; nothing where that cannot be read."""
        file = self._partial / _BEGUN
        try:
            values = read_json(file)
            revision, files = values["revision"], tuple(values["files"])
            for name in files:
                check_path(name)
            int(revision, 16)
        except (StoreError, ValueError, TypeError, KeyError, AttributeError):
            return Begun()
        return Begun(revision, files)

    def begin(self, revision: str, files: Iterable[str]) -> None:
        """Note what is to lie here. Files of an earlier unfinished fetch are remembered until the end."""
        earlier = self.begun().files
        write_json(self._partial / _BEGUN, {"revision": revision, "files": sorted({*earlier, *files})})

    def refuse_foreign(self, ours: Iterable[str]) -> None:
        """Refuse a file that a run would read, and that is not ours: it would make another model of this one.

        Raises
        ------
        InputError
            Naming the first.
        """
        known = set(ours)
        foreign = sorted(path for path in self._there() if path not in known and is_read(self.one, path))
        if foreign:
            hint = "move it away, or fetch into another folder"
            message = f"is not of {self.one.repo}, and a run would read it"
            raise InputError(message, where=str(self.path / foreign[0]), hint=hint)

    def _there(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self.path):
            if PARTIAL in folders:
                folders.remove(PARTIAL)
            for name in names:
                yield (Path(folder) / name).relative_to(self.path).as_posix()

    def sound(self, file: Listed, on_bytes: OnBytes) -> FetchedFile | None:
        """The file as it is here; ``None`` if it is missing or not what the hub lists."""
        path = self.path / file.path
        if not path.is_file() or path.stat().st_size != file.size:
            on_bytes(file.size)
            return None
        sha256 = _matching(path, file, on_bytes)
        return FetchedFile(file.path, file.size, sha256) if sha256 else None

    def partial_size(self, file: Listed) -> int:
        """Bytes of the file that have come."""
        with suppress(OSError):
            return min((self._partial / file.key).stat().st_size, file.size)
        return 0

    def fetch(self, hub: Hub, commit: Commit, file: Listed, on_bytes: OnBytes) -> FetchedFile:
        """Download what is missing of a file, verify it, and move it into place.

        Raises
        ------
        InputError, FetchError
            See :meth:`Hub.download`; also where the file is not what the hub lists.
        """
        coming = self._partial / file.key
        had = self.partial_size(file)
        on_bytes(had)
        self._download(hub, commit, file, on_bytes)
        sha256 = _matching(coming, file, ignore_bytes)
        if sha256 is None:
            coming.unlink()
            if had:  # then its beginning may be what is wrong
                on_bytes(-file.size)
                return self.fetch(hub, commit, file, on_bytes)
            message = (
                f"{file.path} is not what the hub lists for commit {commit.sha[:12]}: its digest is another"
            )
            hint = "run the same command again; if it stays so, look for what changes files on the way"
            raise FetchError(message, where=self.one.repo, hint=hint)
        target = self.path / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        coming.replace(target)
        return FetchedFile(file.path, file.size, sha256)

    def _download(self, hub: Hub, commit: Commit, file: Listed, on_bytes: OnBytes) -> None:
        coming = self._partial / file.key
        coming.parent.mkdir(parents=True, exist_ok=True)
        if coming.exists() and coming.stat().st_size > file.size:
            coming.unlink()
        with coming.open("ab") as stream:
            hub.download(self.one, commit.sha, file, stream, on_bytes)
            stream.flush()
            os.fsync(stream.fileno())

    def finish(self, stale: Iterable[str]) -> None:
        """Remove files of ours that are no longer listed, and what the unfinished fetch needed."""
        for path in stale:
            (self.path / path).unlink(missing_ok=True)
        if self._partial.exists():
            shutil.rmtree(self._partial)


def _links(path: Path) -> Iterator[Path]:
    """Symbolic links among ``path``, its parent and all below."""
    for place in (path.parent, path):
        if place.is_symlink():
            yield place
    for folder, folders, names in os.walk(path):
        yield from (Path(folder) / name for name in (*folders, *names) if (Path(folder) / name).is_symlink())


def _matching(path: Path, file: Listed, on_bytes: OnBytes) -> str | None:
    """SHA-256 of a file that is what the hub lists; ``None`` of another."""
    if path.stat().st_size != file.size:
        return None
    sha256 = hashlib.sha256()
    # Git's name of a file: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    blob = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            sha256.update(block)
            if not file.sha256:
                blob.update(block)
            on_bytes(len(block))
    same = sha256.hexdigest() == file.sha256 if file.sha256 else blob.hexdigest() == file.blob
    return sha256.hexdigest() if same else None


def ignore_bytes(_count: int) -> None:
    """Count nothing."""


def check_space(root: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises
    ------
    StoreError
        With both numbers.
    """
    there = next(place for place in (root, *root.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        message = f"{size(needed)} are to come, and {size(free)} are free"
        raise StoreError(
            message, where=str(root), hint="free some space, or fetch into a folder on another disk"
        )


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Make errors of ours of a disk that is full or cannot be written.

    Raises
    ------
    StoreError
        With what to do.
    """
    try:
        yield
    except OSError as error:
        hint = "free some space" if is_full(error) else "choose a folder that you may write to (--to)"
        where = str(error.filename or root)
        raise StoreError(
            f"cannot be written: {error.strerror or error}", where=where, hint=f"{hint}, then {AGAIN}"
        ) from None


def size(count: int) -> str:
    """Bytes for a reader."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count} bytes"


def total(files: Sequence[Listed]) -> int:
    """Bytes of all of them."""
    return sum(file.size for file in files)
