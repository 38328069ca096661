"""The rows of one spec as an index: where each row lies in which chunk; a row is read when asked for.

A row costs some 40 bytes of memory whatever its size, so a run of millions of rows can be looked up, decided
and scored without holding an analysis longer than its own question takes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orch_local.errors import StoreError
from orch_local.records import Analysis, Outcome, digest
from orch_local.shards import Shard

# Inside a JSON string a quotation mark stands behind a backslash, so these match fields only.
_KEY = re.compile(rb'"key":"([^"\\]*)"')
_FAILED = f'"outcome":"{Outcome.FAILED}"'.encode()
_OPEN_FILES = 32


@dataclass(frozen=True, slots=True)
class Violation:
    """Two different answers under one key: determinism was broken (or the store was edited)."""

    spec: str
    key: str
    kept: str
    other: str


class Rows(Mapping[str, Analysis]):
    """Rows of one spec by key, as they stand in the chunks of a folder and of the folders of its shards.

    With ``shard`` only what may hold rows of its questions is read. A row that failed gives way to one that
    did not. Of rows that differ in content the one whose content digest sorts first is kept, and each other
    is a :class:`Violation`. So what is found does not depend on the order in which chunks were written.

    Raises
    ------
    StoreError
        If a chunk cannot be read, or holds rows of another form.
    """

    def __init__(self, folder: Path, shard: Shard | None = None) -> None:
        self._folder = folder
        self._shard = shard
        self._files: list[Path] = []
        self._open: dict[int, int] = {}
        self._keys = array("Q")
        self._chunks = array("I")
        self._offsets = array("Q")
        self._lengths = array("I")
        self._checks = array("I")
        self._failed = bytearray()
        self._sorted: npt.NDArray[np.uint64] = np.empty(0, np.uint64)
        self._places: npt.NDArray[np.uint32] = np.empty(0, np.uint32)
        self.violations: list[Violation] = []
        self.damaged: list[Path] = []
        """Chunks whose bytes do not match their name; their rows count as missing."""
        self.update()

    def update(self) -> Rows:
        """Take in the chunks that were written since; returns itself."""
        there = (file for folder in self._folders() for file in folder.glob("*.jsonl"))
        found = sorted(set(there) - set(self._files))
        self.damaged.clear()  # they may have been made again
        for file in found:
            with suppress(FileNotFoundError):  # set aside by another run in this moment
                self._add_chunk(file)
        if found:
            self._sort()
        return self

    def close(self) -> None:
        """Close the files that are held open; they are opened again when needed."""
        for handle in self._open.values():
            os.close(handle)
        self._open.clear()

    def __del__(self) -> None:
        self.close()

    def __contains__(self, key: object) -> bool:
        return self._find(str(key)) is not None

    def __getitem__(self, key: str) -> Analysis:
        place = self._find(key)
        row = None if place is None else self._read(place)
        if row is None or row.key != key:
            raise KeyError(key)
        return row

    def __iter__(self) -> Iterator[str]:
        return (self._read(place).key for place in np.sort(self._places).tolist())

    def __len__(self) -> int:
        return len(self._places)

    def failed(self, key: str) -> bool:
        """Whether the row of ``key`` is there and failed; read from the index alone."""
        place = self._find(key)
        return place is not None and bool(self._failed[place])

    def _folders(self) -> list[Path]:
        """The folder itself and those of shards that share questions with ours."""
        if not self._folder.is_dir():
            return []
        named = ((Shard.named(folder.name), folder) for folder in self._folder.iterdir())
        mine = self._shard
        return [self._folder] + [
            folder for shard, folder in named if shard is not None and (mine is None or mine.meets(shard))
        ]

    def _add_chunk(self, file: Path) -> None:
        content = _content(file)
        if hashlib.sha256(content).hexdigest() != file.stem:
            self.damaged.append(file)
            return
        offset = 0
        self._files.append(file)
        for line in content.split(b"\n"):
            if line:
                self._add_line(file, line, offset)
            offset += len(line) + 1

    def _add_line(self, file: Path, line: bytes, offset: int) -> None:
        key = _KEY.search(line)
        if key is None:
            raise _foreign(file, "a line without a key")
        self._keys.append(_hash(key[1]))
        self._chunks.append(len(self._files) - 1)
        self._offsets.append(offset)
        self._lengths.append(len(line))
        self._checks.append(zlib.crc32(line))
        self._failed.append(_FAILED in line)

    def _sort(self) -> None:
        """Order the index by key, and choose one of the rows that share a key."""
        self.violations.clear()
        keys = np.array(self._keys, dtype=np.uint64)
        order = np.argsort(keys, kind="stable").astype(np.uint32)
        unique, first, counts = np.unique(keys[order], return_index=True, return_counts=True)
        self._sorted, self._places = unique, order[first]
        for number in np.flatnonzero(counts > 1):
            start = first[number]
            self._places[number] = self._choose(order[start : start + counts[number]].tolist())

    def _choose(self, places: list[int]) -> int:
        good = [place for place in places if not self._failed[place]]
        if len(good) == 1:
            return good[0]
        contents: dict[str, int] = {}
        for place in good or places:
            contents.setdefault(digest(self._read(place).content()), place)
        kept, *others = sorted(contents)
        if good:  # failures need not agree
            key = self._read(contents[kept]).key
            self.violations += [Violation(self._folder.name, key, kept, other) for other in others]
        return contents[kept]

    def _find(self, key: str) -> int | None:
        wanted = np.uint64(_hash(key.encode("utf-8", "surrogatepass")))
        at = int(np.searchsorted(self._sorted, wanted))
        if at == len(self._sorted) or self._sorted[at] != wanted:
            return None
        return int(self._places[at])

    def _read(self, place: int) -> Analysis:
        file = self._files[self._chunks[place]]
        try:
            line = os.pread(self._handle(self._chunks[place]), self._lengths[place], self._offsets[place])
        except OSError as error:
            raise _unreadable(file, error) from None
        if zlib.crc32(line) != self._checks[place]:
            hint = "run the same command again: a damaged file is set aside and its rows are made again"
            raise StoreError("has changed while it was read", where=str(file), hint=hint)
        try:
            return Analysis.from_row(json.loads(line.decode("utf-8", "surrogatepass")))
        except (ValueError, KeyError, TypeError) as error:
            raise _foreign(file, repr(error)) from None

    def _handle(self, chunk: int) -> int:
        if chunk not in self._open:
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[chunk] = os.open(self._files[chunk], os.O_RDONLY)
        return self._open[chunk]


def _hash(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest())


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: OSError) -> StoreError:
    hint = "its rows are not lost: repair the disk or the permissions, or delete the file to make them again"
    return StoreError(f"cannot be read: {error.strerror}", where=str(file), hint=hint)


def _foreign(file: Path, what: str) -> StoreError:
    hint = "it is whole, so another version of orch-local wrote it: use that one, or another --store"
    return StoreError(f"holds rows of another form: {what}", where=str(file), hint=hint)
