"""Rows out of a file, each with its number; a row that cannot be decoded comes as a `RowError`.

JSON is parsed line by line with `json`, because table readers guess one type for a whole column and would
turn the answers ``1`` and ``"1"`` into the same thing. Parquet is read by `pyarrow`, arrow by `datasets`,
imported here and late: it takes seconds.

A file may be made to fill the memory: nothing is read whole that can be read in pieces, and a row larger than
:data:`MAX_ROW_BYTES` is a bad row, known before it is decoded.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from orch_local.benchmarks.arrow_files import check_uncompressed
from orch_local.benchmarks.rows import Layout, LossyFloat, Row, RowError
from orch_local.config.numerals import canonical_number
from orch_local.errors import BenchmarkError
from orch_local.util.offline import SILENCE

if TYPE_CHECKING:
    from datasets import Dataset
    from pyarrow.parquet import ParquetFile

MAX_ROW_BYTES = 16 * 2**20
"""Largest line of a JSONL file, and largest row of a table."""
MAX_ARRAY_BYTES = 128 * 2**20
"""Largest JSON file that is one array: it is parsed whole, into up to twenty times its size."""
MAX_GROUP_BYTES = 2**30
"""Largest row group of a parquet file, uncompressed, as its footer tells."""
_MOST_DECODED = 2**30
"""A batch of a parquet file holds no more, even if each row of it should be the largest of its group."""
_BATCH = 1000
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_LFS_POINTER = b"version https://git-lfs"


def read_rows(path: Path, layout: Layout) -> Iterator[tuple[int, Row | RowError]]:
    """All rows of a file or `save_to_disk` folder, numbered from 1 (JSONL: by line).

    Raises
    ------
    BenchmarkError
        If the file as a whole cannot be read, or is a table without the columns of the layout.
    """
    with _translated(path):
        if path.suffix == ".jsonl" or (path.suffix == ".json" and not _is_array(path)):
            yield from _json_lines(path)
        elif path.suffix == ".json":
            yield from _json_array(path)
        else:
            yield from _table(path, layout)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Make one `BenchmarkError` of what the readers raise about a file that is damaged or not ours."""
    try:
        yield
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        NotImplementedError,
        MemoryError,
        ArithmeticError,
        RecursionError,
    ) as error:
        reason = " ".join(str(error).split())[:300]
        hint = "is the file whole? compare its size with the original"
        if path.is_file() and _starts_with(path, _LFS_POINTER):
            reason, hint = "it is a Git LFS pointer, not the data", "run `git lfs pull` in that folder"
        raise BenchmarkError(f"cannot be read: {reason}", where=str(path), hint=hint) from error


def _starts_with(path: Path, prefix: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(prefix)) == prefix
    except OSError:
        return False


def _is_array(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _json_lines(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    with path.open("rb") as file:
        for number, line in enumerate(_lines(file), 1):
            if isinstance(line, RowError):
                yield number, line
                continue
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield number, _row(line)


def _lines(file: BinaryIO) -> Iterator[bytes | RowError]:
    """The lines of a file; of one that is too long only the length is found out, piece by piece."""
    while line := file.readline(MAX_ROW_BYTES + 1):
        size = len(line)
        if size <= MAX_ROW_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_ROW_BYTES)
            size += len(line)
        yield _too_large(size)


def _too_large(size: int) -> RowError:
    return RowError(f"has {size:,} bytes, more than {MAX_ROW_BYTES:,}")


def _row(line: bytes) -> Row | RowError:
    try:
        return _as_row(parse_json(line))
    except RowError as error:
        return error


def _as_row(value: Any) -> Row:
    if not isinstance(value, dict):
        raise RowError(f"is a JSON {type(value).__name__}, not an object")
    return value


def _json_array(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    size = path.stat().st_size
    if size > MAX_ARRAY_BYTES:
        message = f"is one JSON array of {size:,} bytes; more than {MAX_ARRAY_BYTES:,} are not read at once"
        raise BenchmarkError(message, where=str(path), hint="write it as JSONL: one object a line")
    try:
        values = parse_json(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except RowError as error:
        raise ValueError(error) from None
    for number, value in enumerate(values, 1):
        yield number, value if isinstance(value, dict) else RowError("is not a JSON object")


def parse_json(data: bytes) -> Any:
    """Parse strictly: UTF-8, no key twice, no NaN or infinity, no half of a surrogate pair."""
    try:
        text = data.decode("utf-8")
        value = _DECODER.decode(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(f"is not UTF-8 (byte {error.start + 1})") from None
    except UnicodeEncodeError:
        raise RowError("has half of a surrogate pair (\\ud800 to \\udfff) in a text") from None
    except RecursionError:
        raise RowError("is nested too deeply") from None
    except ValueError as error:
        raise RowError(f"is not JSON: {error}") from None
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise RowError("has a key twice")
    return values


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise RowError(f"has the number {text[:20]}, which is not finite")
    kept = repr(value)
    return value if kept == text or canonical_number(kept) == canonical_number(text) else LossyFloat(value)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_float=_finite, parse_constant=_finite)


def _table(path: Path, layout: Layout) -> Iterator[tuple[int, Row | RowError]]:
    start = 1
    batches = _parquet_batches if path.suffix == ".parquet" and path.is_file() else _arrow_batches
    for batch in batches(path, layout):
        yield from enumerate(_table_rows(batch), start)
        start += batch.num_rows


def _arrow_batches(path: Path, layout: Layout) -> Iterator[Any]:
    data = _dataset(path)
    _check_columns(path, layout, data.column_names)
    yield from data.with_format("arrow").iter(_BATCH)


def _parquet_batches(path: Path, layout: Layout) -> Iterator[Any]:
    """Row group by row group: the whole table may be a thousand times the size of its file.

    Without `datasets`: `load_dataset` would copy the file into a cache in the home folder, which SLURM tasks
    share; its streaming mode imports torch, which the parent process must not.
    """
    import pyarrow.parquet

    with path.open("rb") as file:
        parquet = pyarrow.parquet.ParquetFile(file, page_checksum_verification=True, pre_buffer=False)
        _check_columns(path, layout, parquet.schema_arrow.names)
        for group, rows in _row_groups(parquet):
            for batch in parquet.iter_batches(rows, [group]):
                yield pyarrow.Table.from_batches([batch])


def _row_groups(parquet: ParquetFile) -> Iterator[tuple[int, int]]:
    """The row groups, and how many rows of each may be decoded at once.

    A dictionary makes one long text many rows of a few bits, so all that bounds a row is its row group.
    """
    for number in range(parquet.num_row_groups):
        # What the footer says of each column is not asked for: where that is damaged, pyarrow aborts.
        size = parquet.metadata.row_group(number).total_byte_size
        if not 0 <= size <= MAX_GROUP_BYTES:
            raise ValueError(
                f"row group {number + 1} has {size:,} bytes uncompressed, more than {MAX_GROUP_BYTES:,}"
            )
        yield number, max(1, min(_BATCH, _MOST_DECODED // max(1, size)))


def _check_columns(path: Path, layout: Layout, names: list[str]) -> None:
    """Make sure that a table has the columns that the layout needs, each once."""
    missing = [name for name in layout.columns if name not in names]
    if missing:
        raise BenchmarkError(
            f"has no column {', '.join(missing)} (found: {', '.join(names)})",
            where=str(path),
            hint="does `benchmark.name` fit these files?",
        )
    if len(set(names)) < len(names):
        raise ValueError("it has two columns of one name")


def _table_rows(table: Any) -> Iterator[Row | RowError]:
    """The rows of an arrow table; one text that is not UTF-8, or too long, must not cost the whole table.

    Arrow trusts what a file says about its own length: unchecked, a damaged one is read outside its memory.
    """
    try:
        table.validate(full=True)
        if table.nbytes <= MAX_ROW_BYTES:
            yield from table.to_pylist()
        elif table.num_rows == 1:
            yield _too_large(table.nbytes)
        else:
            for index in range(table.num_rows):
                yield from _table_rows(table.slice(index, 1))
    except (ValueError, ArithmeticError) as error:  # the latter of dates that Python has not
        if table.num_rows == 1:
            yield RowError(f"is damaged, not UTF-8 or out of range: {' '.join(str(error).split())[:200]}")
        else:
            for index in range(table.num_rows):
                yield from _table_rows(table.slice(index, 1))


def _dataset(path: Path) -> Dataset:
    """Open an arrow file or a `save_to_disk` folder as a `datasets` object, without its cache and network."""
    os.environ.setdefault("HF_DATASETS_OFFLINE", SILENCE["HF_DATASETS_OFFLINE"])
    import datasets

    check_uncompressed(path)
    if not path.is_dir():
        return datasets.Dataset.from_file(str(path))
    saved = datasets.load_from_disk(str(path))
    if not isinstance(saved, datasets.Dataset):
        raise ValueError("it holds several splits")
    return saved
