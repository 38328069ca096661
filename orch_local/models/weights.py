"""Weights files: which they are, whether they are whole, and what tensors they hold, by their headers alone.

The judge is the safetensors library itself, for the engines read the files through it: what it refuses here
cannot fail there, and nothing that it takes is refused. Source of the format and its rules:
github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from orch_local.errors import ModelError
from orch_local.models.opening import INDEX, open_file, read_json

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
"""Names of weights that can run code when loaded, and never are."""

_SHARD = re.compile(r"-[0-9]{5}-of-([0-9]{5})\.safetensors$")
_MOST_SHARDS = 10_000
_LONGEST_NAME = 200
_MAX_HEADER_BYTES = 100_000_000  # the limit of the format
_LONGEST_REASON = 300


def weight_files(path: Path) -> tuple[Path, ...]:
    """The weights of a model folder, each checked by its header.

    Raises
    ------
    ModelError
        If there are none or pickles only, or one is missing, damaged, or there twice.
    """
    files = _indexed_files(path / INDEX) if (path / INDEX).exists() else _all_files(path)
    _check_weights(files)
    return files


def _all_files(path: Path) -> tuple[Path, ...]:
    files = tuple(sorted(path.glob("*.safetensors")))
    if files:
        _refuse_lone_shards(files)
        return files
    pickles = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
    if pickles:
        raise ModelError(
            f"holds pickled weights only ({pickles[0]}), which can run code when loaded",
            where=str(path),
            hint="use a safetensors copy of the model",
        )
    raise ModelError(
        "holds no *.safetensors weights", where=str(path), hint="download the whole model folder"
    )


def _refuse_lone_shards(files: Sequence[Path]) -> None:
    """Shards name their number; without an index only the names can tell that some are missing."""
    counts = [int(match[1]) for file in files if (match := _SHARD.search(file.name))]
    if counts and len(counts) < max(counts):
        raise ModelError(
            f"{len(counts)} of {max(counts)} weight files and no index are there",
            where=str(files[0].parent),
            hint="download the model again; a resumed download fetches only what is missing",
        )


def _indexed_files(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
        if not names or not all(_is_weights_name(name) for name in names):
            raise ValueError("`weight_map` must name *.safetensors files of this folder")
        if len(names) > _MOST_SHARDS:
            raise ValueError(f"`weight_map` names {len(names):,} files")
    except (ModelError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = error.message if isinstance(error, ModelError) else str(error)
        message = f"is not a safetensors index: {reason[:200]}"
        raise ModelError(message, where=str(index), hint="download the file again") from None
    files = tuple(index.parent / str(name) for name in names)
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise ModelError(
            f"{len(missing)} of {len(files)} weight files are missing, the first is {missing[0][:200]}",
            where=str(index.parent),
            hint="download the model again; a resumed download fetches only what is missing",
        )
    return files


def _is_weights_name(name: str) -> bool:
    return Path(name).name == name and name.endswith(".safetensors") and len(name) <= _LONGEST_NAME


def _check_weights(files: Sequence[Path]) -> None:
    """Check every header; a tensor that is there twice would be the one that the engine happens to take."""
    found: dict[str, Path] = {}
    for file in files:
        for name in tensor_names(file):
            if found.setdefault(name, file) is not file:
                raise ModelError(
                    f"holds the tensor {name[:200]!r}, and so does {found[name].name}",
                    where=str(file),
                    hint="remove the file that is a copy of the weights in another form",
                )


def tensor_names(file: Path) -> list[str]:
    """Names of the tensors of a safetensors file, all of which lie inside of it.

    Raises
    ------
    ModelError
        If the file is missing, no regular file, cut short or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        _check_length(file)
        # Mapped, not read: a header of the right length is all that is looked at.
        with safe_open(file, framework="np") as opened:
            return list(opened.keys())
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(file, error) from None


def _check_length(file: Path) -> None:
    """Refuse what is no weights file at all in words that say so; the library's speak of its own reading."""
    with open_file(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
    if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
        raise ValueError(f"header of {length} bytes in a file of {size}")


def _damaged(file: Path, error: Exception) -> ModelError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ModelError(
        f"is not a whole safetensors file: {reason[:_LONGEST_REASON]}",
        where=str(file),
        hint="download the file again and compare its SHA-256 with the hub's",
    )
