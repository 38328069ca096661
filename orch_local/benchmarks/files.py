"""Which files hold a split: the folder layouts of the hub, of `save_to_disk`, and plain files."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from orch_local.errors import BenchmarkError

SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json")
_SPLIT_FILE = re.compile(
    r"(?P<split>[^.].*?)(?:-(?P<index>\d{5})-of-(?P<count>\d{5})(?:-[0-9a-f]+)?)?\.(?:parquet|arrow|jsonl|json)"
)
_NOT_DATA = {"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"}
_PREFERRED = ("all", "main", "default", "data")
"""Folders that stand for the whole benchmark, where a hub copy has several."""
_FORMATS = "parquet, arrow, JSONL or JSON"


def find_split(path: Path, split: str, *, configs_together: bool) -> list[Path]:
    """Files (or `save_to_disk` folders) of a split, in order. A path to one file is that file.

    Raises
    ------
    BenchmarkError
        If the split is not there, not whole, or in several places.
    """
    with _translated(path):
        if path.is_file():
            return [_known_format(path)]
        if not path.is_dir():
            raise BenchmarkError("no such file or folder", where=str(path), hint="check `benchmark.path`")
        if _is_saved(path):
            return [_saved_as(path, split)]
        return _in_folder(path, split) or _in_configs(path, split, configs_together)


def find_few_shot(path: Path, split: str, *, configs_together: bool) -> list[Path]:
    """Like :func:`find_split`; where the path is one file, the split is looked for beside it."""
    with _translated(path):
        if path.is_dir() and not _is_saved(path):
            return find_split(path, split, configs_together=configs_together)
        beside = [file for file in _in_folder(path.parent, split) if file != path]
    if not beside:
        hint = f"put {split}.jsonl (or .parquet) into that folder, or set `few_shot_split` or `few_shot: 0`"
        raise BenchmarkError(
            f"no split {split!r} for the few-shot examples", where=str(path.parent), hint=hint
        )
    return beside


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Make a `BenchmarkError` of a path that may not be looked at, or is longer than paths may be."""
    try:
        yield
    except OSError as error:
        hint = "check `benchmark.path` and `benchmark.split`"
        raise BenchmarkError(f"cannot be read: {error.strerror}", where=str(path), hint=hint) from None


def _known_format(file: Path) -> Path:
    if file.suffix not in SUFFIXES:
        raise BenchmarkError(f"not a format that is read here ({_FORMATS})", where=str(file))
    return file


def _is_saved(folder: Path) -> bool:
    return (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()


def _saved_as(folder: Path, split: str) -> Path:
    """The folder itself, unless it says that it was saved from another split."""
    try:
        state = json.loads((folder / "state.json").read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BenchmarkError(f"cannot be read: {error}", where=str(folder / "state.json")) from None
    saved = state.get("_split") if isinstance(state, dict) else None
    if saved not in (None, split):
        raise BenchmarkError(f"holds the split {saved!r}, not {split!r}", where=str(folder))
    return folder


def _in_folder(folder: Path, split: str) -> list[Path]:
    if split in ("", "..") or Path(split).name != split:
        # As a path it would be another folder, or all splits of this one.
        hint = "set `split` (or `few_shot_split`) to a name such as `test`"
        raise BenchmarkError(f"{split!r} is not the name of a split", where=str(folder), hint=hint)
    if _is_saved(folder / split):
        return [folder / split]
    files = [file for file in _data_files(folder) if _split_of(file) == split]
    if not files and (folder / split).is_dir():
        # The hub's own parquet conversion: test/0000.parquet, test/0001.parquet ...
        files = _data_files(folder / split)
    return _whole(files)


def _data_files(folder: Path) -> list[Path]:
    return [
        file
        for file in sorted(_children(folder))
        if file.suffix in SUFFIXES and file.name not in _NOT_DATA and file.is_file()
    ]


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise BenchmarkError(f"cannot be read: {error.strerror}", where=str(folder)) from None


def _split_of(file: Path) -> str | None:
    match = _SPLIT_FILE.fullmatch(file.name)
    return match["split"] if match else None


def _whole(files: list[Path]) -> list[Path]:
    """The files of one split, refused where a shard is missing or the split is there twice."""
    matches = [match for file in files if (match := _SPLIT_FILE.fullmatch(file.name))]
    shards = [int(match["index"]) for match in matches if match["index"]]
    count = next((int(match["count"]) for match in matches if match["count"]), 0)
    twice = len({file.suffix for file in files}) > 1 or len(set(shards)) < len(shards)
    if twice or (shards and len(shards) < len(files)):
        names = ", ".join(file.name for file in files[:4])
        raise BenchmarkError(
            f"the split is there more than once: {names}",
            where=str(files[0].parent),
            hint="point at one file",
        )
    if shards and len(shards) != count:
        raise BenchmarkError(
            f"only {len(shards)} of the {count} files of the split are there", where=str(files[0].parent)
        )
    return files


def _in_configs(folder: Path, split: str, together: bool) -> list[Path]:
    subfolders = sorted(child for child in _children(folder) if child.is_dir() and child.name[0] != ".")
    configs = {child.name: files for child in subfolders if (files := _in_folder(child, split))}
    preferred = next((name for name in _PREFERRED if name in configs), None)
    if preferred:
        return configs[preferred]
    if not configs:
        found = "; ".join(filter(None, map(_summary, [folder, *subfolders[:8]]))) or f"no {_FORMATS} files"
        raise BenchmarkError(f"no split {split!r} (found {found})", where=str(folder), hint="set `split`")
    if len(configs) > 1 and not together:
        hint = f"point `benchmark.path` at one of them, e.g. {folder / next(iter(configs))}"
        raise BenchmarkError(f"holds several benchmarks: {', '.join(configs)}", where=str(folder), hint=hint)
    return [file for files in configs.values() for file in files]


def _summary(folder: Path) -> str:
    """What a folder has instead of the split that was asked for."""
    saved = {child.name for child in _children(folder) if child.is_dir() and _is_saved(child)}
    splits = sorted(saved | {split for file in _data_files(folder) if (split := _split_of(file))})
    return f"{', '.join(splits[:8])} in {folder.name}/" if splits else ""
