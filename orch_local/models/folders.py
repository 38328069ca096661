"""Model folders: is everything there and safe to load, how large is it, and what are its digests.

A model folder is foreign: its files are opened by `models/opening.py` and its weights looked at, through
their headers only, by `models/weights.py`. Nothing here imports torch.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs

from orch_local.config.model_configs import ModelConfig
from orch_local.errors import ModelError, StoreError
from orch_local.models.kv_cache import kv_cache
from orch_local.models.opening import check_entries, check_size, open_file, read_json
from orch_local.models.weights import PICKLES, weight_files
from orch_local.store.store import write_json

_MOST = 10**9
"""Above every layer count, head count and context of a model; sums of such sizes stay finite."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)
"""The files that decide how a prompt is encoded; their digests are in the spec."""

_DECIDING_FILES = (
    "config.json",
    "generation_config.json",
    *TOKENIZER_FILES,
    # Engines read these where they are there: tokens added to the tokenizer, another tokenizer and another
    # config in the format of Mistral, the quantization of weights.
    "added_tokens.json",
    "tekken.json",
    "tokenizer.model.v*",
    "params.json",
    "*quant_config.json",
    "*quantize_config.json",
)
"""Patterns of the files, besides the weights, that can change an answer."""

_ELSEWHERE = {
    "config.json": ("speculators_config", "text_model_id", "audio_model_id"),
    "adapter_config.json": ("base_model_name_or_path",),
}
"""Keys by which a folder makes an engine load another model than the one in it."""


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

    @property
    def notes(self) -> tuple[str, ...]:
        """What lies in the folder and is not used, in words for the user."""
        names = sorted(file.name for file in self.path.iterdir())
        pickles = [name for name in names if any(fnmatch.fnmatchcase(name, kind) for kind in PICKLES)]
        code = [name for name in names if name.endswith(".py")]
        return (
            *([f"pickled weights are not loaded: {_some(pickles)}"] if pickles else []),
            *([f"code of the folder is not run: {_some(code)}"] if code else []),
        )


def open_model_folder(config: ModelConfig) -> ModelFolder:
    """Check that the folder of ``config`` holds a complete, safe model.

    Raises
    ------
    ModelError
        Folder or ``config.json`` missing; no safetensors, a shard missing, cut short or damaged; pickles
        instead of safetensors; remote code; invalid sizes in ``config.json``; links out of the folder,
        pipes and devices; a reference to another model.
    """
    path = config.path
    if path is None or not _is_folder(path):
        raise ModelError(
            f"the folder of model {config.name!r} does not exist: {path}",
            hint=_where_to_get(config),
        )
    check_entries(path)
    for file in _deciding_files(path):
        check_size(file)
    settings = _read_config(path)
    if "auto_map" in settings and not settings.get("architectures"):
        raise ModelError("needs code from its own folder, which is never run", where=str(path))
    _refuse_other_models(path)
    folder = ModelFolder(path, settings, weight_files(path))
    _check_sizes(folder)
    return folder


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path), hint="check `path:`") from None


def _refuse_other_models(path: Path) -> None:
    """No digest would cover what is loaded from elsewhere."""
    for name, keys in _ELSEWHERE.items():
        file = path / name
        values = _object(file) if file.exists() else {}
        for key in keys:
            if values.get(key) is not None:
                raise ModelError(
                    f"`{key}` makes engines load another model than the one in this folder",
                    where=str(file),
                    hint="use the folder of that model, or take the key out",
                )


def _check_sizes(folder: ModelFolder) -> None:
    """Read everything that is read of the config later on, where an error would name no file."""
    where = str(folder.path / "config.json")
    hint = "download the file again"
    try:
        _ = folder.architecture
        for name in _SIZES:
            value = folder.text_config.get(name)
            if value and not 1 <= int(value) <= _MOST:
                raise ValueError(f"`{name}` is {str(value)[:40]}")
        _ = folder.context, kv_cache(folder.text_config)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        message = f"has a size that is none, or `architectures` that is no list: {str(error)[:200]}"
        raise ModelError(message, where=where, hint=hint) from None


_SIZES = (
    "max_position_embeddings",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "num_global_key_value_heads",
    "num_kv_shared_layers",
    "head_dim",
    "global_head_dim",
    "hidden_size",
    "sliding_window",
    "kv_lora_rank",
    "qk_rope_head_dim",
    "linear_num_value_heads",
    "linear_num_key_heads",
    "linear_value_head_dim",
    "linear_key_head_dim",
    "mamba_num_heads",
    "mamba_head_dim",
    "ssm_state_size",
    "intermediate_size",
    "vocab_size",
)


def _some(names: Sequence[str]) -> str:
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


def _where_to_get(config: ModelConfig) -> str:
    where = "set `path:` in the model config, or ORCH_MODELS_DIR to the folder that holds it"
    if not config.hub_id:
        return where
    name = config.hub_id.split("/")[-1]
    fetch = f"`orch-local fetch --model {config.hub_id} --to DIR --allow-network`, on a connected machine"
    looked = f"as {config.hub_id}, {name} or {config.name}; the hub's own cache does not have it either"
    return f"{where} ({looked}); it comes by {fetch}"


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return _object(path / "config.json")
    except FileNotFoundError:
        raise ModelError("the model folder has no `config.json`", where=str(path)) from None


def _object(file: Path) -> dict[str, Any]:
    value = read_json(file)
    if not isinstance(value, dict):
        raise ModelError("is not a model config", where=str(file))
    return value


def digests(folder: ModelFolder, *, fresh: bool = False) -> dict[str, str]:
    """SHA-256 by file name of everything that decides what the model answers.

    A digest is remembered by path, size and times of change, since hashing 100 GB takes minutes; ``fresh``
    hashes all files again.
    """
    memory = _DigestMemory(fresh)
    found = {file.name: memory.digest(file) for file in _digested_files(folder)}
    memory.save()
    return found


def remember(found: Mapping[Path, str]) -> None:
    """Take SHA-256s of files that were just written, so that :func:`digests` need not read them."""
    memory = _DigestMemory(fresh=False)
    for file, value in found.items():
        memory.note(_state(file), value)
    memory.save()


def not_remembered(files: Iterable[Path]) -> list[Path]:
    """The files that :func:`digests` would have to read."""
    memory = _DigestMemory(fresh=False)
    return [file for file in files if not memory.knows(file)]


def _digested_files(folder: ModelFolder) -> Iterator[Path]:
    yield from folder.weights
    yield from _deciding_files(folder.path)


def _deciding_files(path: Path) -> Iterator[Path]:
    """What can change an answer besides the weights, in the order of the patterns."""
    names = sorted(file.name for file in path.iterdir() if file.is_file())
    for pattern in _DECIDING_FILES:
        yield from (path / name for name in fnmatch.filter(names, pattern))


@lru_cache(maxsize=1)
def _remembered(file: Path, *_state: int) -> dict[str, str]:
    """The content of the memory, read once for each state of its file."""
    value = json.loads(file.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}


class _DigestMemory:
    """Digests of files seen before; losing the file costs time only."""

    def __init__(self, fresh: bool) -> None:
        self._file = Path(platformdirs.user_cache_dir("orch-local")) / "digests.json"
        self._known = self._load()
        self._trusted = set() if fresh else set(self._known)
        self._changed = False

    def _load(self) -> dict[str, str]:
        try:
            state = self._file.stat()
            return dict(_remembered(self._file, state.st_ino, state.st_size, state.st_mtime_ns))
        except (OSError, ValueError):
            return {}

    def knows(self, file: Path) -> bool:
        return _state(file) in self._trusted

    def digest(self, file: Path) -> str:
        key = _state(file)
        if key not in self._trusted:
            with open_file(file) as stream:
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
