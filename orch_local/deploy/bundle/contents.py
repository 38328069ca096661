"""Which files of a model or a benchmark go into a bundle, and what is known about where they came from."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from orch_local.benchmarks.files import SUFFIXES, find_few_shot, find_split
from orch_local.config.blocks import BenchmarkConfig
from orch_local.config.model_configs import ModelConfig
from orch_local.deploy.bundle.manifest import Content
from orch_local.deploy.fetch.record import UNKNOWN, read_record
from orch_local.errors import BenchmarkError, ModelError
from orch_local.models.folders import digests, open_model_folder

_COMPANIONS = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".md")
"""Endings of small files that a tokenizer or a config may need, or that tell about the model."""
_COMPANION_BYTES = 100 * 2**20
_PAPERS = re.compile(r"(licen[cs]e|notice|readme|use_policy|copyright)([._-].*)?", re.IGNORECASE)
_CACHE = re.compile(r"(?:models|datasets)--(?P<owner>[^/]+?)--(?P<name>[^/]+)")


class BundleSource(NamedTuple):
    """A file, and where it will lie in the bundle."""

    file: Path
    to: str
    sha256: str = ""
    """Where it is known already."""


def model_files(config: ModelConfig, folder: str) -> list[BundleSource]:
    """The files of a checked model folder: those that decide answers, what loads them, and its papers.

    Raises
    ------
    ModelError
        If it is not complete and safe, or a file of it is a link to somewhere else.
    """
    model = open_model_folder(config)
    files = [*model.weights, *(file for file in sorted(model.path.iterdir()) if _is_companion(file))]
    for file in files:
        _check_inside(file, model.path)
    known = digests(model)
    return [
        BundleSource(file, f"{folder}/{file.name}", known.get(file.name, "")) for file in dict.fromkeys(files)
    ]


def _is_companion(file: Path) -> bool:
    named = file.suffix in _COMPANIONS or _PAPERS.fullmatch(file.name) is not None
    return named and file.name[0] != "." and file.is_file() and file.stat().st_size <= _COMPANION_BYTES


def _check_inside(file: Path, folder: Path) -> None:
    """Refuse a link out of the folder; the blobs of the hub cache that the folder is a part of may be."""
    real, inside = file.resolve(), folder.resolve()
    blobs = inside.parent.parent / "blobs" if inside.parent.name == "snapshots" else inside
    if not (real.is_relative_to(inside) or real.is_relative_to(blobs)):
        hint = "copy the file into its place; nothing from outside goes into a bundle unasked"
        raise ModelError("is a link out of its folder", where=str(file), hint=hint)


def model_content(config: ModelConfig, folder: str) -> Content:
    """What the manifest says of a model."""
    assert config.path is not None
    origin = _origin(config.path)
    licence = origin.licence if origin.licence not in ("", UNKNOWN) else config.licence
    source = origin.source or config.hub_id
    return Content(folder.rpartition("/")[2], folder, source, origin.revision, _line(licence))


class _Origin(NamedTuple):
    source: str = ""
    revision: str = ""
    licence: str = ""


def _origin(path: Path) -> _Origin:
    """From the record of `orch-local fetch`, or the folder's place in the cache of the hub's own tools."""
    folder = path if path.is_dir() else path.parent
    for root in list(folder.parents)[:3]:
        fetched = read_record(root).get(folder.relative_to(root).as_posix())
        if fetched is not None:
            return _Origin(fetched.repo, fetched.revision, fetched.licence)
    if folder.parent.name == "snapshots" and (match := _CACHE.fullmatch(folder.parent.parent.name)):
        return _Origin(f"{match['owner']}/{match['name']}", folder.name)
    return _Origin()


def _line(text: str) -> str:
    return "".join(sign for sign in " ".join(text.split()) if sign.isprintable())[:200]


def folder_name(path: Path, names: Iterable[str]) -> str:
    """A plain name for the copy of a folder or file, none of ``names``, whatever the case."""
    origin = _origin(path).source.rpartition("/")[2]
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", origin or (path.stem if path.is_file() else path.name))
    return free_name(plain.strip("._-")[:64] or "data", names)


def free_name(name: str, names: Iterable[str]) -> str:
    """The name, or with a number behind it where it is taken."""
    taken = {one.casefold() for one in names}
    number, found = 1, name
    while found.casefold() in taken:
        number += 1
        found = f"{name}-{number}"
    return found


def split_files(config: BenchmarkConfig) -> list[Path]:
    """The files that a run reads: of its split, and of the one with the solved examples.

    Raises
    ------
    BenchmarkError
        If they are not there.
    """
    # One module for each of them, by its name; see `orch_local/benchmarks/loading.py`.
    layout = importlib.import_module(f"orch_local.benchmarks.{config.name}").LAYOUT
    together = layout.configs_together
    found = find_split(config.path, config.split, configs_together=together)
    if config.few_shot:
        split = config.few_shot_split or layout.few_shot_split
        found += find_few_shot(config.path, split, configs_together=together)
    return list(_files_of(dict.fromkeys(found)))


def whole_benchmark(path: Path) -> list[Path]:
    """All data files below a folder, or the one file.

    Raises
    ------
    BenchmarkError
        If there are none.
    """
    files = list(_files_of([path]))
    if not any(file.suffix in SUFFIXES for file in files):
        raise BenchmarkError("no data of a benchmark is there", where=str(path), hint="check the path")
    return files


def _files_of(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_file():
            yield path
            continue
        for file in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            if file.is_file() and not hidden and (file.suffix in SUFFIXES or _PAPERS.fullmatch(file.name)):
                yield file


def benchmark_files(path: Path, files: Iterable[Path], folder: str) -> list[BundleSource]:
    """Where the files of a benchmark lie in the bundle, with its papers; ``path`` is what a run file names.

    Raises
    ------
    BenchmarkError
        If one of them is a link to somewhere else.
    """
    root = path if path.is_dir() else path.parent
    beside = sorted(root.iterdir()) if path.is_dir() else []
    papers = [file for file in beside if file.is_file() and _PAPERS.fullmatch(file.name)]
    sources = []
    for file in dict.fromkeys([*files, *papers]):
        try:
            _check_inside(file, root)
        except ModelError as error:
            raise BenchmarkError(error.message, where=error.where, hint=error.hint) from None
        sources.append(BundleSource(file, f"{folder}/{file.relative_to(root).as_posix()}"))
    return sources


def benchmark_content(path: Path, folder: str) -> Content:
    """What the manifest says of a benchmark."""
    origin = _origin(path)
    licence = "" if origin.licence == UNKNOWN else origin.licence
    return Content(folder.rpartition("/")[2], folder, origin.source, origin.revision, _line(licence))
