"""The bytes of a bundle: its files one behind the other, cut into parts of one size, and read back.

A part is no archive and has no header. Which bytes belong to which file is said by the manifest alone.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from orch_local.deploy.bundle.inside import BLOCK, blocks, reading
from orch_local.deploy.bundle.manifest import Entry, Manifest
from orch_local.errors import InputError, StoreError

MOST_PARTS = 99_999
"""As many as have a name of five digits."""


def write_parts(folder: Path, sources: Iterable[tuple[Path, Entry]], part_size: int) -> tuple[Entry, ...]:
    """Write files as ``part-00001`` and so on, and check each against its entry while it is read.

    Parameters
    ----------
    folder:
        Exists, and has no parts yet.
    sources:
        Each file and what the manifest says about it, in the manifest's order.
    part_size:
        Bytes of each part but the last. There is one part at least, be it empty.

    Raises
    ------
    InputError
        If a file is not what its entry says, or there would be too many parts.
    StoreError
        If a part cannot be written.
    """
    if part_size < 1:
        raise InputError(f"a part of {part_size} bytes cannot be", hint="for example --part-size 60MiB")
    writer = _PartWriter(folder, part_size)
    try:
        for path, entry in sources:
            for block in _checked(path, entry):
                writer.write(block)
        return writer.close()
    except OSError as error:
        message = f"cannot be written: {error.strerror or error}"
        hint = "make room there, or name a new folder"
        raise StoreError(message, where=str(folder / writer.name), hint=hint) from error
    finally:
        writer.abandon()


def open_content(folder: Path, manifest: Manifest) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """Give each file of a bundle in turn, and its bytes in blocks of up to a MiB.

    The bytes are as they lie there: who uses them compares their SHA-256 with the entry's. They end early
    where a file or part is cut short. Nothing is opened for an entry whose blocks are not asked for.

    Raises
    ------
    OSError
        From the blocks, if a file or part is missing or no plain file.
    """
    parts = _Joined(manifest.parts)
    start = 0
    for entry in manifest.files:
        if manifest.parts:
            yield entry, _from_parts(folder, parts.pieces(start, entry.size))
        else:
            yield entry, _from_file(folder, entry)
        start += entry.size


class _Joined:
    """The parts one behind the other."""

    def __init__(self, parts: tuple[Entry, ...]) -> None:
        self._parts = parts
        self._starts = [0, *accumulate(part.size for part in parts)]

    def pieces(self, start: int, size: int) -> Iterator[tuple[Entry, int, int]]:
        """Give the parts that hold these bytes, with the first byte in each and how many."""
        index = bisect_right(self._starts, start) - 1
        while size > 0 and index < len(self._parts):
            part, first = self._parts[index], start - self._starts[index]
            count = min(size, part.size - first)
            if count:
                yield part, first, count
            start, size, index = start + count, size - count, index + 1


class _PartWriter:
    """Where the bytes go: a part is opened when there is a byte for it."""

    def __init__(self, folder: Path, size: int) -> None:
        self.name = "part-00001"
        self._folder = folder
        self._size = size
        self._done: list[Entry] = []
        self._file: BinaryIO | None = None
        self._left = 0
        self._hash = hashlib.sha256()

    def write(self, block: bytes) -> None:
        rest = memoryview(block)
        while rest:
            if not self._left:
                self._next()
            piece, rest = rest[: self._left], rest[self._left :]
            assert self._file is not None
            self._file.write(piece)
            self._hash.update(piece)
            self._left -= len(piece)

    def close(self) -> tuple[Entry, ...]:
        """End the last part, and tell about all of them."""
        if self._file is None:
            self._next()
        self._end()
        return tuple(self._done)

    def abandon(self) -> None:
        """Let go of the file, after an error."""
        if self._file is not None:
            self._file.close()

    def _next(self) -> None:
        self._end()
        if len(self._done) == MOST_PARTS:
            raise InputError(
                f"there would be more than {MOST_PARTS:,} parts", hint="choose a larger --part-size"
            )
        self.name = f"part-{len(self._done) + 1:05}"
        self._file = (self._folder / self.name).open("xb")
        self._left = self._size
        self._hash = hashlib.sha256()

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()  # an error of the last bytes is one of this part
            self._file = None
            self._done.append(Entry(self.name, self._size - self._left, self._hash.hexdigest()))


def _checked(path: Path, entry: Entry) -> Iterator[bytes]:
    digest, size = hashlib.sha256(), 0
    for block in _source(path, entry):
        digest.update(block)
        size += len(block)
        if size > entry.size:
            break
        yield block
    if size != entry.size or digest.hexdigest() != entry.sha256:
        raise InputError(
            "changed while the bundle was made",
            where=f"{path} ({entry.path} in the bundle)",
            hint="let nobody write there, and make the bundle again",
        )


def _source(path: Path, entry: Entry) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK):
                yield block
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}"
        raise InputError(message, where=f"{path} ({entry.path} in the bundle)") from error


def _from_parts(folder: Path, pieces: Iterable[tuple[Entry, int, int]]) -> Iterator[bytes]:
    for part, first, count in pieces:
        with reading(folder, part.path) as file:
            file.seek(first)
            yield from blocks(file, count)


def _from_file(folder: Path, entry: Entry) -> Iterator[bytes]:
    with reading(folder, entry.path) as file:
        # One byte more than it may have: a longer file is not taken for the right one.
        yield from blocks(file, entry.size + 1)
