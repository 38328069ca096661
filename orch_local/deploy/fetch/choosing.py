"""Which files of a repository are taken: data and weights that cannot run code, and what explains them.

All of it is decided from the listing of the hub, which is foreign text: a path that could lead out of its
folder refuses the repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from orch_local.benchmarks.files import SUFFIXES
from orch_local.deploy.fetch.wanted import Wanted
from orch_local.errors import BenchmarkError, InputError, ModelError
from orch_local.models.folders import TOKENIZER_FILES
from orch_local.models.opening import INDEX
from orch_local.util.paths import check_path

_ABOUT = re.compile(r"README\.md|(LICEN[CS]E|NOTICE|USE_POLICY)([._-][A-Za-z0-9._-]*)?", re.IGNORECASE)
"""What tells the terms of use."""
_MODEL_FILES = frozenset(
    {
        "config.json",
        "generation_config.json",
        INDEX,
        *TOKENIZER_FILES,
        "tokenizer.model",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        # How weights were quantised, where config.json does not say it itself.
        "quant_config.json",
        "quantize_config.json",
        "hf_quant_config.json",
        # Numbers only, for engines that load a model which also reads images (Gemma 3).
        "preprocessor_config.json",
        "processor_config.json",
    }
)
_OTHER_MODEL = frozenset({"adapter_config.json", "tekken.json", "params.json"})
"""Never taken; where they lie in a folder, engines may load something else than is recorded."""
_SHARD = re.compile(r".*-[0-9]{5}-of-[0-9]{5}\.safetensors")
_DUPLICATES = re.compile(r"consolidated.*\.safetensors")
"""Weights once more, in the layout of their maker's own program."""
_PICKLES = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|gguf|onnx|h5|msgpack)")
_WHOLE = {"cais/mmlu": "all", "openai/gsm8k": "main"}
"""Folder that the loader takes where a repository also has its questions in parts, or in another form."""
_NOT_DATA = frozenset({"dataset_dict.json", "dataset_infos.json"})


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as the hub lists it for a commit."""

    path: str
    size: int
    blob: str
    """Git's SHA-1 of the blob; of a large file, that of the pointer to it."""
    sha256: str = ""
    """Of a large file; git knows no other."""

    @property
    def key(self) -> str:
        """Names the content."""
        return self.sha256 or self.blob


def choose(one: Wanted, listing: Sequence[Listed]) -> tuple[Listed, ...]:
    """The files of ``listing`` that a run needs, in order of their paths.

    Raises
    ------
    InputError
        If a path could lead out of the folder.
    ModelError, BenchmarkError
        If there is nothing that a run could use.
    """
    _refuse_hostile(one, listing)
    found = _of_model(one, listing) if one.kind == "model" else _of_benchmark(one, listing)
    chosen = sorted(found, key=lambda file: file.path)
    _refuse_unclear(one, chosen)
    return tuple(chosen)


def _refuse_hostile(one: Wanted, listing: Iterable[Listed]) -> None:
    """No repository has such a path by accident: git itself does not take one."""
    for file in listing:
        parts = file.path.replace("\\", "/").split("/")
        if file.path.startswith(("/", "\\")) or ".." in parts or "\0" in file.path:
            raise _hostile(
                one, f"it lists the file {file.path[:80]!r}, which would lie outside of its folder"
            )


def _refuse_unclear(one: Wanted, chosen: Sequence[Listed]) -> None:
    try:
        for file in chosen:
            check_path(file.path)
    except ValueError as error:
        raise _hostile(one, str(error)) from None
    if len({file.path.casefold() for file in chosen}) < len(chosen):
        raise _hostile(one, "it lists a file twice, or two that differ in case alone")


def _hostile(one: Wanted, reason: str) -> InputError:
    hint = "do not use this repository; if it should be in order, tell its owner, or check HF_ENDPOINT"
    return InputError(f"is refused, nothing was downloaded: {reason}", where=one.repo, hint=hint)


def _of_model(one: Wanted, listing: Iterable[Listed]) -> list[Listed]:
    """Files at the top only: what lies deeper is the same weights for another program."""
    top = [file for file in listing if "/" not in file.path]
    names = {file.path for file in top}
    weights = [
        file for file in top if file.path.endswith(".safetensors") and not _DUPLICATES.fullmatch(file.path)
    ]
    if INDEX in names:
        weights = [file for file in weights if _SHARD.fullmatch(file.path)] or weights
    if not weights:
        others = sorted(name for name in names if _PICKLES.fullmatch(name))
        instead = f" but {others[0]}" if others else ""
        hint = "take a repository that has the model as safetensors: other weights can run code when loaded"
        raise ModelError(f"holds no *.safetensors weights{instead}", where=one.repo, hint=hint)
    if "config.json" not in names:
        hint = "take a repository in the layout of transformers"
        raise ModelError("holds no `config.json`", where=one.repo, hint=hint)
    return weights + [file for file in top if file.path in _MODEL_FILES or _ABOUT.fullmatch(file.path)]


def _of_benchmark(one: Wanted, listing: Sequence[Listed]) -> list[Listed]:
    data = [file for file in listing if _is_data(PurePosixPath(file.path))]
    # Several formats hold the same questions, and the loader refuses a split that is there twice.
    by_suffix = ([file for file in data if file.path.endswith(suffix)] for suffix in SUFFIXES)
    data = next(filter(None, by_suffix), [])
    if not data:
        hint = f"the hub often has a parquet copy: `--dataset {one.repo}@refs/convert/parquet`"
        raise BenchmarkError(f"holds no data files ({', '.join(SUFFIXES)})", where=one.repo, hint=hint)
    whole = [file for file in data if file.path.startswith(f"{_WHOLE.get(one.repo, '')}/")]
    return (whole or data) + [file for file in listing if _ABOUT.fullmatch(file.path)]


def _is_data(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix in SUFFIXES and not hidden and path.name not in _NOT_DATA


def is_read(one: Wanted, path: str) -> bool:
    """Whether a run would read the file ``path`` of its folder."""
    if one.kind == "benchmark":
        return _is_data(PurePosixPath(path))
    return path in _MODEL_FILES | _OTHER_MODEL or ("/" not in path and path.endswith(".safetensors"))
