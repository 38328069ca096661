"""Arrow files that would fill the memory as soon as they are opened: those with compressed buffers.

`datasets` maps an arrow file into memory, and reads of it what is asked for. Where its buffers are
compressed, which `datasets` itself never does, all of them are decompressed at once, to whatever size the
file says.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

_HEADER, _DATA, _COMPRESSION = 2, 1, 3
"""Places of `Message.header`, `DictionaryBatch.data` and `RecordBatch.compression`.

Source: format/Message.fbs of Apache Arrow.
"""
_PATHS = {"record batch": (_HEADER,), "dictionary": (_HEADER, _DATA)}
"""By type of message: the way to its record batch."""


def check_uncompressed(path: Path) -> None:
    """Refuse a file, or a folder of files, with compressed buffers.

    Raises
    ------
    ValueError
        If there is one.
    """
    for file in _files_of(path) if path.is_dir() else [path]:
        try:
            compressed = any(_is_compressed(*header) for header in _headers(file))
        except struct.error:
            raise ValueError(f"{file.name} is damaged") from None
        if compressed:
            raise ValueError(f"{file.name} is compressed inside; save it as parquet, or uncompressed")


def _files_of(folder: Path) -> list[Path]:
    """What `datasets` reads of a `save_to_disk` folder: the files that its state names, wherever they are."""
    if not (folder / "state.json").exists():
        raise ValueError("it holds several splits, or no state.json")
    try:
        state = json.loads((folder / "state.json").read_bytes())
        names = [str(one["filename"]) for one in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"its state.json names no files: {error!r}") from None
    for name in names:
        if Path(name).name != name or (folder / name).is_symlink() or not (folder / name).is_file():
            raise ValueError(f"its state.json names {name[:80]!r}, which is no file of the folder")
    return [folder / name for name in names]


def _headers(path: Path) -> Iterator[tuple[bytes, tuple[int, ...]]]:
    """The headers of all messages with buffers, and where their record batches stand; no body is read."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        for message in pyarrow.ipc.MessageReader.open_stream(source):
            if message.type in _PATHS:
                yield message.metadata.to_pybytes(), _PATHS[message.type]


def _is_compressed(message: bytes, path: tuple[int, ...]) -> bool:
    (table,) = struct.unpack_from("<I", message)
    for number in path:
        place = _field(message, table, number)
        if place is None:
            raise ValueError("it has a message without data")
        (offset,) = struct.unpack_from("<I", message, place)
        table = place + offset
    return _field(message, table, _COMPRESSION) is not None


def _field(message: bytes, table: int, number: int) -> int | None:
    """Where a field of a flatbuffer's table stands; ``None`` where the table does not have it."""
    (back,) = struct.unpack_from("<i", message, table)
    (size,) = struct.unpack_from("<H", message, table - back)
    place = 4 + 2 * number
    if place >= size:
        return None
    (offset,) = struct.unpack_from("<H", message, table - back + place)
    return table + offset if offset else None
