"""Rows out of a file, each with its number; a row that cannot be decoded comes as a `RowError`.

JSON is parsed line by line with `json`, because table readers guess one type for a whole column and would
turn the answers ``1`` and ``"1"`` into the same thing. Parquet and arrow are read with `datasets`, imported
here and late: it takes seconds.
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
from typing import TYPE_CHECKING, Any

from orch_local.benchmarks.rows import Layout, LossyFloat, Row, RowError
from orch_local.errors import BenchmarkError
from orch_local.numbers import canonical_number

if TYPE_CHECKING:
    from datasets import Dataset

_BATCH = 1000
_UNUSED_COLUMNS = ("cot_content",)
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
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield number, _row(line)


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
    data = _dataset(path)
    missing = [name for name in layout.columns if name not in data.column_names]
    if missing:
        raise BenchmarkError(
            f"has no column {', '.join(missing)} (found: {', '.join(data.column_names)})",
            where=str(path),
            hint="does `benchmark.name` fit these files?",
        )
    data = data.remove_columns([name for name in _UNUSED_COLUMNS if name in data.column_names])
    start = 1
    for batch in data.with_format("arrow").iter(_BATCH):
        yield from enumerate(_table_rows(batch), start)
        start += batch.num_rows


def _table_rows(table: Any) -> Iterator[Row | RowError]:
    """The rows of an arrow table; one text that is not UTF-8 must not cost the whole table.

    Arrow trusts what a file says about its own length: unchecked, a damaged one is read outside its memory.
    """
    try:
        table.validate(full=True)
        yield from table.to_pylist()
    except ValueError as error:
        if table.num_rows == 1:
            yield RowError(f"is damaged or not UTF-8: {' '.join(str(error).split())[:200]}")
        else:
            for index in range(table.num_rows):
                yield from _table_rows(table.slice(index, 1))


def _dataset(path: Path) -> Dataset:
    """Open a table as a `datasets` object, without its cache, its network and torch.

    `load_dataset` would copy parquet into a cache in the home folder, which SLURM tasks share; its streaming
    mode imports torch, which the parent process must not.
    """
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    import datasets
    import pyarrow.parquet

    if path.is_dir():
        saved = datasets.load_from_disk(str(path))
        if not isinstance(saved, datasets.Dataset):
            raise ValueError("it holds several splits")
        return saved
    if path.suffix == ".arrow":
        return datasets.Dataset.from_file(str(path))
    with path.open("rb") as file:
        # Without the metadata: a newer `datasets` may have written feature types that this one cannot parse.
        table = pyarrow.parquet.read_table(file, page_checksum_verification=True).replace_schema_metadata()
    return datasets.Dataset(table, fingerprint="parquet")
