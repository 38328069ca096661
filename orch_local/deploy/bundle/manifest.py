"""The manifest of a bundle: what it holds, byte by byte, and what it is for.

A manifest may come from a stranger. :func:`parse` checks all of it before anything is done with any of it; a
path that it lets through lies inside of the bundle's folder on every file system.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orch_local.errors import InputError
from orch_local.util.paths import MAX_PATH, PART, check_distinct, check_path, is_sha256

INSTALLER = "install.pyz"
FORMAT = 1
MAX_BYTES = 64 * 2**20
"""Longest manifest that is read; one of 100,000 files has a fifth of that."""
_MAX_SIZE = 2**50


class ManifestError(InputError):
    """A manifest is not one, or names what a bundle may not hold."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the bundle, or a part."""

    path: str
    """Relative to the bundle's folder, parts joined by ``/``; of a part, its name."""
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True, slots=True)
class Target:
    """The machine that a bundle is for."""

    python: str
    """Such as ``3.12``."""
    platform: str
    """As Python names it, such as ``linux_x86_64``."""
    glibc: str
    """Oldest glibc that the wheels may need, such as ``2.28``."""
    device: str
    """``cpu`` or ``cuda``."""


@dataclass(frozen=True, slots=True)
class Content:
    """A model or benchmark of the bundle."""

    name: str
    folder: str
    """Where it lies in the bundle."""
    source: str = ""
    """Where it came from, as owner/name on the hub; empty where it is not known."""
    revision: str = ""
    """Commit hash there."""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """See the module docstring. The same content makes the same manifest: there is no time in it."""

    version: str
    """Of orch-local."""
    target: Target
    files: tuple[Entry, ...]
    """In order of their paths, which is the order of their bytes in the parts."""
    parts: tuple[Entry, ...] = ()
    """Empty where the files lie in the bundle as they are."""
    requirements: tuple[str, ...] = ()
    """``name==version`` of every wheel that is to be installed, the project's own among them."""
    excluded: tuple[str, ...] = ()
    """``name==version`` of what the target has already and the bundle leaves out."""
    models: tuple[Content, ...] = ()
    benchmarks: tuple[Content, ...] = ()
    run_files: tuple[str, ...] = ()
    """Paths in the bundle."""

    def to_bytes(self) -> bytes:
        """The file, as it is signed."""
        values = {"format": FORMAT, **asdict(self)}
        return (json.dumps(values, indent=1, ensure_ascii=True) + "\n").encode()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)


def parse(content: bytes, where: str) -> Manifest:
    """Read a manifest, and refuse what is no plain list of files inside of one folder.

    Raises
    ------
    ManifestError
        If it is no manifest, of a newer format, or has a path, size or digest that may not be.
    """
    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has {len(content):,} bytes, more than {MAX_BYTES:,}")
        values = json.loads(content)
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
        if values.pop("format", None) != FORMAT:
            raise ValueError(f"its format is not {FORMAT}: is it from another version of orch-local?")
        manifest = _manifest(values)
        _check(manifest)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        hint = "copy the bundle again, or have it made again"
        raise ManifestError(f"is not the manifest of a bundle: {error}", where=where, hint=hint) from None
    return manifest


def _manifest(values: Mapping[str, Any]) -> Manifest:
    lists: dict[str, Any] = {
        name: tuple(_texts(values[name])) for name in ("requirements", "excluded", "run_files")
    }
    return Manifest(
        version=_text(values["version"]),
        target=Target(**_all_texts(values["target"])),
        files=tuple(map(_entry, values["files"])),
        parts=tuple(map(_entry, values["parts"])),
        models=tuple(Content(**_all_texts(item)) for item in values["models"]),
        benchmarks=tuple(Content(**_all_texts(item)) for item in values["benchmarks"]),
        **lists,
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_PATH or not value.isprintable():
        raise ValueError(f"{str(value)[:40]!r} is no short text")
    return value


def _texts(values: Iterable[object]) -> Sequence[str]:
    return [_text(value) for value in values]


def _all_texts(values: Mapping[str, object]) -> dict[str, str]:
    return {str(name): _text(value) for name, value in values.items()}


def _entry(values: Mapping[str, Any]) -> Entry:
    path, size, sha256 = _text(values["path"]), values["size"], _text(values["sha256"])
    if type(size) is not int or not 0 <= size <= _MAX_SIZE:  # True is an int, too
        raise ValueError(f"{path[:80]!r} has a size that is none")
    if not is_sha256(sha256):
        raise ValueError(f"{path[:80]!r} has no SHA-256")
    return Entry(path, size, sha256)


def _check(manifest: Manifest) -> None:
    paths = [entry.path for entry in manifest.files]
    for path in paths:
        check_path(path)
    if paths != sorted(paths):
        raise ValueError("its files are not in order")
    check_distinct(paths)
    names = [part.path for part in manifest.parts]
    if not all(map(PART.fullmatch, names)):
        raise ValueError("a part has another name than part-00001 and so on")
    if names != sorted(set(names)):
        raise ValueError("its parts are not in order")
    if names and sum(part.size for part in manifest.parts) != manifest.size:
        raise ValueError("its parts are not as long as its files")
    _check_folders(manifest, set(paths))


def _check_folders(manifest: Manifest, paths: set[str]) -> None:
    for content in (*manifest.models, *manifest.benchmarks):
        check_path(content.folder)
    unknown = [path for path in manifest.run_files if path not in paths]
    if unknown:
        raise ValueError(f"the run file {unknown[0][:80]!r} is not among its files")
