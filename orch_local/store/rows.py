"""The rows of one spec as an index: where each row lies in which chunk; a row is read when asked for.

A row costs some 33 bytes of memory whatever its size, so a run of millions of rows can be looked up, decided
and scored without holding an analysis longer than its own question takes. Chunks that come later are merged
into the index, which costs one pass over it and no sorting.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orch_local.errors import StoreError
from orch_local.records import Analysis, Outcome, digest
from orch_local.store.shards import Shard

# Inside a JSON string a quotation mark stands behind a backslash, so these match fields only.
_KEY = re.compile(rb'"key":"([^"\\]*)"')
_FAILED = f'"outcome":"{Outcome.FAILED}"'.encode()
_OPEN_FILES = max(32, min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 16))
"""Files that the rows of one spec hold open: in the order of the questions each shard has a chunk in use."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Two different answers under one key: determinism was broken (or the store was edited)."""

    spec: str
    key: str
    kept: str
    other: str


class Rows(Mapping[str, Analysis]):
    """Rows of one spec by key, as they stand in the chunks of a folder and of the folders of its shards.

    With ``shard`` only what may hold rows of its questions is read; with ``only`` no other keys are known,
    which is several times faster for a few rows of a large store. A row that failed gives way to one that
    did not. Of rows that differ in content the one whose content digest sorts first is kept, and each other
    is a :class:`Violation`. So what is found does not depend on the order in which chunks were written.

    Raises
    ------
    StoreError
        If a chunk cannot be read, or holds rows of another form.
    """

    def __init__(self, folder: Path, shard: Shard | None = None, only: Container[str] | None = None) -> None:
        self._folder = folder
        self._shard = shard
        self._only = only
        self._files: list[str] = []
        self._known: set[str] = set()
        self._open: dict[int, int] = {}
        self._chunks = array("I")
        self._offsets = array("Q")
        self._lengths = array("I")
        self._checks = array("I")
        self._failed = bytearray()
        # Hashes of the keys in order, and where the row of each is; read through memoryviews, which give a
        # single number several times faster than numpy does.
        self._keys: npt.NDArray[np.uint64] = np.empty(0, np.uint64)
        self._places: npt.NDArray[np.uint32] = np.empty(0, np.uint32)
        self._sorted, self._placed = self._keys.data, self._places.data
        self._rivals: dict[int, list[int]] = {}
        """Hash of a key -> places of its contents, where they differ."""
        self._violations: dict[int, list[Violation]] = {}
        self.damaged: list[Path] = []
        """Chunks whose bytes do not match their name; their rows count as missing."""
        self.update()

    @property
    def violations(self) -> list[Violation]:
        """Different answers under one key, in a fixed order."""
        return [violation for _, found in sorted(self._violations.items()) for violation in found]

    def update(self) -> Rows:
        """Take in the chunks that were written since; returns itself."""
        found, start, hashes = sorted(self._new_files()), len(self._chunks), array("Q")
        self.damaged.clear()  # they may have been made again
        for file in found:
            with suppress(FileNotFoundError):  # set aside by another run in this moment
                self._add_chunk(file, hashes)
        if hashes:
            self._index(np.array(hashes, dtype=np.uint64), start)
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

    def _new_files(self) -> Iterator[str]:
        for folder in self._folders():
            with os.scandir(folder) as entries:
                paths = (entry.path for entry in entries if entry.name.endswith(".jsonl"))
                yield from (path for path in paths if path not in self._known)

    def _add_chunk(self, file: str, hashes: array[int]) -> None:
        content = _content(file)
        if hashlib.sha256(content).hexdigest() != Path(file).stem:
            self.damaged.append(Path(file))
            return
        offset = 0
        self._files.append(file)
        self._known.add(file)
        for line in content.split(b"\n"):
            if line:
                key = _KEY.search(line)
                if key is None:
                    raise _foreign(file, "a line without a key")
                if self._only is None or key[1].decode() in self._only:
                    hashes.append(self._add_line(key[1], line, offset))
            offset += len(line) + 1

    def _add_line(self, key: bytes, line: bytes, offset: int) -> int:
        """Note where a row lies; returns the hash of its key."""
        self._chunks.append(len(self._files) - 1)
        self._offsets.append(offset)
        self._lengths.append(len(line))
        self._checks.append(zlib.crc32(line))
        self._failed.append(_FAILED in line)
        return _hash(key)

    def _index(self, hashes: npt.NDArray[np.uint64], start: int) -> None:
        """Merge the rows from place ``start`` on, with these hashes of keys, into the order by key."""
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        first = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1]))
        keys, places = hashes[first], (order[first] + start).astype(np.uint32)
        at = np.searchsorted(self._keys, keys)
        known = at < len(self._keys)
        known[known] = self._keys[at[known]] == keys[known]
        rivals = {int(key): self._rivals_of(int(key)) for key in keys[known]}
        self._keys = np.insert(self._keys, at[~known], keys[~known])
        self._places = np.insert(self._places, at[~known], places[~known])
        self._sorted, self._placed = self._keys.data, self._places.data
        ends = np.append(first[1:], len(hashes))
        for number in np.flatnonzero(known | (ends - first > 1)):
            new = order[first[number] : ends[number]] + start
            key = int(keys[number])
            self._places[bisect_left(self._sorted, key)] = self._choose(
                key, rivals.get(key, []) + new.tolist()
            )

    def _rivals_of(self, key: int) -> list[int]:
        """Places of the contents that are known under a key."""
        return self._rivals.get(key) or [self._placed[bisect_left(self._sorted, key)]]

    def _choose(self, hashed: int, places: list[int]) -> int:
        """The one of several rows under a key that is kept; notes the others if they differ from it."""
        good = [place for place in places if not self._failed[place]]
        if len(good) == 1:
            return good[0]
        contents: dict[str, int] = {}
        for place in good or places:
            contents.setdefault(digest(self._read(place).content()), place)
        kept, *others = sorted(contents)
        if good and others:  # failures need not agree
            key = self._read(contents[kept]).key
            self._rivals[hashed] = list(contents.values())
            self._violations[hashed] = [Violation(self._folder.name, key, kept, other) for other in others]
        return contents[kept]

    def _find(self, key: str) -> int | None:
        wanted = _hash(key.encode("utf-8", "surrogatepass"))
        at = bisect_left(self._sorted, wanted)
        if at == len(self._sorted) or self._sorted[at] != wanted:
            return None
        return self._placed[at]

    def _read(self, place: int) -> Analysis:
        file = self._files[self._chunks[place]]
        try:
            line = os.pread(self._handle(self._chunks[place]), self._lengths[place], self._offsets[place])
        except OSError as error:
            raise _unreadable(file, error) from None
        if zlib.crc32(line) != self._checks[place]:
            hint = "run the same command again: a damaged file is set aside and its rows are made again"
            raise StoreError("has changed while it was read", where=file, hint=hint)
        try:
            return Analysis.from_row(json.loads(line.decode("utf-8", "surrogatepass")))
        except (ValueError, KeyError, TypeError) as error:
            raise _foreign(file, repr(error)) from None

    def _handle(self, chunk: int) -> int:
        handle = self._open.pop(chunk, None)
        if handle is None:
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.pop(next(iter(self._open))))  # the one that was used longest ago
            handle = os.open(self._files[chunk], os.O_RDONLY)
        self._open[chunk] = handle
        return handle


def _hash(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest())


def _content(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(file: str, error: OSError) -> StoreError:
    hint = "its rows are not lost: repair the disk or the permissions, or delete the file to make them again"
    return StoreError(f"cannot be read: {error.strerror}", where=file, hint=hint)


def _foreign(file: str, what: str) -> StoreError:
    hint = "it is whole, so another version of orch-local wrote it: use that one, or another --store"
    return StoreError(f"holds rows of another form: {what}", where=file, hint=hint)
