"""Model folders: is everything there and safe to load, how large is it, and what are its digests.

Nothing here imports torch; the weights are only looked at through their safetensors headers.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from orch_local.config import ModelConfig
from orch_local.errors import ModelError, StoreError
from orch_local.prompts.tokenizer import TOKENIZER_FILES
from orch_local.store import write_json

_SHARD = re.compile(r"-[0-9]{5}-of-([0-9]{5})\.safetensors$")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format itself
_DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "BOOL": 1} | {
    f"{sign}{8 * size}": size for sign in "IU" for size in (1, 2, 4, 8)
}


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model folder that passed :func:`open_model_folder`."""

    path: Path
    config: Mapping[str, Any]
    """Its ``config.json``."""
    weights: tuple[Path, ...]

    @property
    def architecture(self) -> str:
        """Class name of the model, e.g. ``Qwen3ForCausalLM``."""
        return str((self.config.get("architectures") or ["unknown"])[0])

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The part of the config about the language model (multimodal models nest it)."""
        nested = self.config.get("text_config")
        return nested if isinstance(nested, dict) else self.config

    @property
    def context(self) -> int:
        """The longest sequence that the model was made for, in tokens."""
        return int(self.text_config.get("max_position_embeddings") or 4096)

    @property
    def weight_bytes(self) -> int:
        """Size of the weights on disk."""
        return sum(file.stat().st_size for file in self.weights)

    def kv_bytes_per_token(self, dtype_bytes: int = 2) -> int:
        """KV cache of one token: 2 x layers x KV heads x head size x bytes (for MLA models too much)."""
        text = self.text_config
        layers = int(text.get("num_hidden_layers") or 1)
        heads = int(text.get("num_attention_heads") or 1)
        kv_heads = int(text.get("num_key_value_heads") or heads)
        head_size = int(text.get("head_dim") or int(text.get("hidden_size") or 0) // heads)
        return 2 * layers * kv_heads * head_size * dtype_bytes


def open_model_folder(config: ModelConfig) -> ModelFolder:
    """Check that the folder of ``config`` holds a complete, safe model.

    Raises
    ------
    ModelError
        Folder or ``config.json`` missing; no safetensors, a shard missing, cut short or damaged; pickles
        instead of safetensors; remote code; sizes in ``config.json`` that are no numbers.
    """
    path = config.path
    if path is None or not _is_folder(path):
        raise ModelError(
            f"the folder of model {config.name!r} does not exist: {path}",
            hint=_where_to_get(config),
        )
    settings = _read_config(path)
    if "auto_map" in settings and not settings.get("architectures"):
        raise ModelError("needs code from its own folder, which is never run", where=str(path))
    weights = _weight_files(path)
    for file in weights:
        read_header(file)
    folder = ModelFolder(path, settings, weights)
    _check_sizes(folder)
    return folder


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path), hint="check `path:`") from None


def _check_sizes(folder: ModelFolder) -> None:
    """Read everything that is read of the config later on, where an error would name no file."""
    try:
        _ = folder.architecture, folder.context, folder.kv_bytes_per_token()
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        where = str(folder.path / "config.json")
        message = f"has a size that is no number, or `architectures` that is no list: {error}"
        raise ModelError(message, where=where, hint="download the file again") from None


def _where_to_get(config: ModelConfig) -> str:
    where = "set `path:` in the model config, or ORCH_MODELS_DIR to the folder that holds it"
    if not config.hub_id:
        return where
    name = config.hub_id.split("/")[-1]
    fetch = f"`hf download {config.hub_id} --local-dir {name}` on a connected machine"
    return f"{where} (as {config.hub_id}, {name} or {config.name}); it comes by {fetch}"


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError("the model folder has no `config.json`", where=str(path)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot be read: {error}", where=str(file)) from None
    if not isinstance(value, dict):
        raise ModelError("is not a model config", where=str(file))
    return value


def _weight_files(path: Path) -> tuple[Path, ...]:
    index = path / "model.safetensors.index.json"
    if index.exists():
        return _indexed_files(index)
    files = tuple(sorted(path.glob("*.safetensors")))
    if files:
        _refuse_lone_shards(files)
        return files
    pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
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
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("`weight_map` must name files of this folder")
    except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"is not a safetensors index: {error}", where=str(index)) from None
    files = tuple(index.parent / str(name) for name in names)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ModelError(
            f"{len(missing)} of {len(files)} weight files are missing, the first is {missing[0]}",
            where=str(index.parent),
            hint="download the model again; a resumed download fetches only what is missing",
        )
    return files


def read_header(file: Path) -> dict[str, Any]:
    """Header of a safetensors file, with its bounds checked against the file.

    Raises
    ------
    ModelError
        If the file is cut short, is not safetensors, or a tensor lies outside of it.
    """
    try:
        with file.open("rb") as stream:
            size = file.stat().st_size
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
                raise ValueError(f"header of {length} bytes in a file of {size}")
            header = json.loads(stream.read(length))
        end = _end_of_tensors(header)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(file, str(error)) from None
    if 8 + length + end != size:
        raise _damaged(file, f"{size} bytes where {8 + length + end} were expected")
    return dict(header)


def _end_of_tensors(header: Mapping[str, Any]) -> int:
    """Where the last tensor ends; the format has them one behind the other, without gap or overlap."""
    end = 0
    tensors = [item for item in header.items() if item[0] != "__metadata__"]
    for name, tensor in sorted(tensors, key=lambda item: item[1]["data_offsets"]):
        begin, after = tensor["data_offsets"]
        # `type() is int`, since True and 4.0 would pass for numbers in what follows.
        if not all(type(number) is int and number >= 0 for number in (begin, after, *tensor["shape"])):
            raise ValueError(f"tensor {name!r} has a shape or offset that is no number")
        if begin != end or after < begin:
            raise ValueError(f"tensor {name!r} lies at {begin} to {after}, the one before it ends at {end}")
        size = _DTYPE_BYTES.get(tensor["dtype"])  # None for a dtype that is newer than this list
        expected = after - begin if size is None else size * math.prod(tensor["shape"])
        if after - begin != expected:
            raise ValueError(f"tensor {name!r} has {after - begin} bytes, its shape needs {expected}")
        end = after
    return end


def _damaged(file: Path, reason: str) -> ModelError:
    return ModelError(
        f"is not a whole safetensors file: {reason}",
        where=str(file),
        hint="download the file again and compare its SHA-256 with the hub's",
    )


def digests(folder: ModelFolder, *, fresh: bool = False) -> dict[str, str]:
    """SHA-256 by file name of everything that decides what the model answers.

    A digest is remembered by path, size and times of change, since hashing 100 GB takes minutes; ``fresh``
    hashes all files anew.
    """
    memory = _DigestMemory(fresh)
    found = {file.name: memory.digest(file) for file in _digested_files(folder)}
    memory.save()
    return found


def remember(found: Mapping[Path, str]) -> None:
    """Take SHA-256s from one who has just written the files, so that :func:`digests` need not read them."""
    memory = _DigestMemory(fresh=False)
    for file, value in found.items():
        memory.note(_state(file), value)
    memory.save()


def _digested_files(folder: ModelFolder) -> Iterator[Path]:
    yield from folder.weights
    for name in ("config.json", "generation_config.json", *TOKENIZER_FILES):
        if (folder.path / name).exists():
            yield folder.path / name


class _DigestMemory:
    """Digests of files seen before; losing the file costs time only."""

    def __init__(self, fresh: bool) -> None:
        self._file = Path(platformdirs.user_cache_dir("orch-local")) / "digests.json"
        self._known = self._load()
        self._trusted = set() if fresh else set(self._known)
        self._changed = False

    def _load(self) -> dict[str, str]:
        try:
            value = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def digest(self, file: Path) -> str:
        key = _state(file)
        if key not in self._trusted:
            with file.open("rb") as stream:
                self.note(key, hashlib.file_digest(stream, "sha256").hexdigest())
        return self._known[key]

    def note(self, key: str, value: str) -> None:
        self._known[key] = value
        self._trusted.add(key)
        self._changed = True

    def save(self) -> None:
        if not self._changed:
            return
        try:
            # Others may have written since; a digest of theirs that is lost costs minutes.
            write_json(self._file, self._load() | self._known)
        except StoreError:
            return  # a read-only home: the digests are computed again next time


def _state(file: Path) -> str:
    state = file.stat()
    # Anyone can set the time of modification back; that of the inode is the system's own.
    times = f"{state.st_mtime_ns}|{state.st_ctime_ns}"
    return f"{file.resolve()}|{state.st_size}|{times}|{state.st_ino}"
