"""Questions in a file, one a line; only their places and keys are held in memory, 16 bytes a question.

Beside the file lies an index of both, so that a job on one of many shards need not read all questions to
find its own. Without an index, or with one that is not of this file, the questions are read through.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, overload

from orch_local.errors import StoreError
from orch_local.records import Question, canonical_json
from orch_local.store.shards import Shard, number_of
from orch_local.store.store import atomic_write

# Of a question without examples the key is its id. Inside a JSON string a quotation mark stands behind a
# backslash, so the end can match the field only.
_HEAD = struct.Struct("=8sQQQ")
"""Of an index: mark, size of the file of questions, number of questions, CRC-32 of what follows."""
_MARK = b"ORCHKEY1"
_PLAIN = re.compile(rb'\{"id": "([0-9a-f]{16})", .*"examples": \[\]\}\n', re.DOTALL)


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write the questions of a run.

    Raises
    ------
    StoreError
        If the file cannot be written; it is then as it was.
    """
    places, keys, place = array("Q"), array("Q"), 0
    with suppress(OSError):  # whoever looks meanwhile reads the questions through
        _index(path).unlink()
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        for question in questions:
            line = _line(question)
            file.write(line)
            places.append(place)
            keys.append(as_number(question.key))
            place += len(line)
    body = keys.tobytes() + places.tobytes()
    with atomic_write(_index(path)) as temporary:
        temporary.write_bytes(_HEAD.pack(_MARK, place, len(keys), zlib.crc32(body)) + body)


def read_questions(path: Path) -> Questions:
    """The questions of a run, in order.

    Raises
    ------
    StoreError
        If there is no such file.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        message = f"the questions cannot be read: {error.strerror}"
        raise StoreError(message, where=str(path), hint="is this the folder of a run?") from None
    indexed = _read_index(_index(path), os.fstat(file.fileno()).st_size)
    if indexed is not None:
        return Questions(_Open(file), str(path), *indexed)
    offsets, place = array("Q"), 0
    for line in file:
        offsets.append(place)
        place += len(line)
    return Questions(_Open(file), str(path), offsets)


def as_number(key: str) -> int:
    """The number that a key is: 16 hex digits."""
    return int(key, 16)


def as_key(number: int) -> str:
    """Inverse of :func:`as_number`."""
    return f"{number:016x}"


def _index(path: Path) -> Path:
    return path.with_suffix(".index")


def _read_index(path: Path, size: int) -> tuple[array[int], array[int]] | None:
    """Places and keys of the questions in a file of this size; ``None`` where there is no such index."""
    try:
        content = path.read_bytes()
        mark, of_size, count, check = _HEAD.unpack_from(content)
    except (OSError, struct.error):
        return None
    body = memoryview(content)[_HEAD.size :]
    if (mark, of_size, 16 * count, check) != (_MARK, size, len(body), zlib.crc32(body)):
        return None
    keys, places = array("Q", body[: 8 * count].tobytes()), array("Q", body[8 * count :].tobytes())
    return places, keys


def questions_digest(questions: Iterable[Question]) -> str:
    """SHA-256 over the questions in order, as it stands in the plan."""
    total = hashlib.sha256()
    for question in questions:
        total.update(canonical_json(question.to_row()).encode("utf-8", "surrogatepass"))
    return total.hexdigest()


class _Open:
    """A file that is closed when the last of those who read it is gone."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        weakref.finalize(self, file.close)


class Questions(Sequence[Question]):
    """Questions of an open file, parsed when they are asked for."""

    def __init__(self, opened: _Open, name: str, places: array[int], keys: array[int] | None = None) -> None:
        self._opened = opened
        self._file = opened.file
        self._name = name
        self._places = places
        self._keys = keys

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> Questions: ...
    def __getitem__(self, index: int | slice) -> Question | Questions:
        if isinstance(index, slice):
            keys = None if self._keys is None else self._keys[index]
            return Questions(self._opened, self._name, self._places[index], keys)
        return self._parsed(self._places[index])

    def _parsed(self, place: int) -> Question:
        self._file.seek(place)
        try:
            return Question.from_row(json.loads(self._file.readline().decode("utf-8", "surrogatepass")))
        except (ValueError, KeyError, TypeError) as error:
            message = f"line {self._line_number(place)} is no question: {error!r}"
            hint = "the file was changed after it was written: start again with another --out"
            raise StoreError(message, where=self._name, hint=hint) from None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def _line_number(self, place: int) -> int:
        self._file.seek(0)
        return self._file.read(place).count(b"\n") + 1

    def keys(self) -> Iterator[str]:
        """The key of each question, in order; without an index most are read without parsing their line."""
        if self._keys is not None:
            yield from map(as_key, self._keys)
            return
        for place in self._places:
            self._file.seek(place)
            plain = _PLAIN.fullmatch(self._file.readline())
            yield plain[1].decode() if plain else self._parsed(place).key

    def of_shard(self, shard: Shard) -> Questions:
        """Those of one shard, in order."""
        if self._keys is None:
            return self.picked(number for number, key in enumerate(self.keys()) if shard.holds(key))
        return self.picked(shard.held(self._keys))

    def by_shard(self, of: int) -> list[Questions]:
        """Those of each of so many shards; the file is gone through once for all."""
        parts = [array("Q") for _ in range(of)]
        for place, key in zip(self._places, self.keys(), strict=True):
            parts[number_of(key, of) - 1].append(place)
        return [Questions(self._opened, self._name, places) for places in parts]

    def picked(self, order: Iterable[int]) -> Questions:
        """Some of these questions, in this order."""
        numbers = array("Q", order)
        places = array("Q", map(self._places.__getitem__, numbers))
        keys = None if self._keys is None else array("Q", map(self._keys.__getitem__, numbers))
        return Questions(self._opened, self._name, places, keys)


class Pile(Questions):
    """Questions put one by one onto a temporary file, which is gone with the object."""

    def __init__(self) -> None:
        super().__init__(_Open(tempfile.TemporaryFile()), "temporary file", array("Q"))  # noqa: SIM115 - lives on
        self._end = 0

    def add(self, question: Question) -> None:
        """Put one question on top.

        Raises
        ------
        StoreError
            If the folder of temporary files is full.
        """
        line = _line(question)
        try:
            self._file.seek(self._end)
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            message = f"cannot be written: {error.strerror}"
            hint = "free some space there, or set TMPDIR to another folder"
            raise StoreError(message, where=tempfile.gettempdir(), hint=hint) from None
        self._places.append(self._end)
        self._end += len(line)


def _line(question: Question) -> bytes:
    return json.dumps(question.to_row(), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
