"""Opening the files of a model folder, which anyone may have made.

A file is opened only if it is a regular one: opening a named pipe waits for ever, and reading a device has no
end. It is read only up to a size that no honest file of its name has. What lies outside of the folder is not
read, whatever links say.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from orch_local.errors import ModelError

INDEX = "model.safetensors.index.json"

_MIB = 2**20
_MOST_BYTES = {
    "tokenizer.json": 256 * _MIB,  # 35 MB are the largest in use
    "tekken.json": 256 * _MIB,
    INDEX: 64 * _MIB,  # 9 MB for a model of 90,000 tensors
    "chat_template.jinja": _MIB,
}
_MOST_BYTES_OF_OTHERS = 16 * _MIB
_FOLDERS_READ = ("additional_chat_templates",)
"""Folders inside of a model folder in which engines look for files."""

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def open_file(file: Path) -> BufferedReader:
    """Open a regular file for reading bytes; never waits.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ModelError
        If it is no regular file or cannot be read.
    """
    try:
        _refuse_irregular(file, file.stat())  # before opening: a device may act on that alone
        # It may be another by now, so it is opened without waiting and looked at again.
        stream = open(file, "rb", opener=_without_waiting)  # noqa: SIM115 - Path.open has no opener
        try:
            _refuse_irregular(file, os.fstat(stream.fileno()))
        except ModelError:
            stream.close()
            raise
        return stream
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unreadable(file, error) from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def read_text(file: Path) -> str:
    """The text of a small file.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ModelError
        If it is no regular file, larger than any of its name, not UTF-8, or cannot be read.
    """
    most = _most_bytes(file)
    with open_file(file) as stream:
        try:
            content = stream.read(most + 1)
        except OSError as error:
            raise _unreadable(file, error) from None
    if len(content) > most:
        raise _too_large(file)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"cannot be read: {error}", where=str(file), hint=_AGAIN) from None


def check_size(file: Path) -> None:
    """Refuse a file that :func:`read_text` would find too large.

    Raises
    ------
    ModelError
        If it is, or cannot be looked at.
    """
    try:
        if file.stat().st_size > _most_bytes(file):
            raise _too_large(file)
    except OSError as error:
        raise _unreadable(file, error) from None


def _most_bytes(file: Path) -> int:
    return _MOST_BYTES.get(file.name, _MOST_BYTES_OF_OTHERS)


def _too_large(file: Path) -> ModelError:
    most = _most_bytes(file) // _MIB
    message = f"is larger than {most} MiB, which no file of that name has a use for"
    return ModelError(message, where=str(file), hint=_AGAIN)


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ModelError
        If :func:`read_text` refuses it, or it is not JSON, or nested too deeply.
    """
    text = read_text(file)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if _LINK_AS_TEXT.fullmatch(text):
            raise ModelError(f"is the text of a link: {text}", where=str(file), hint=_COPY_LINKS) from None
        raise ModelError(f"is not JSON: {error}", where=str(file), hint=_AGAIN) from None


def check_entries(folder: Path) -> None:
    """Make sure that everything in a model folder is a regular file or a folder, and lies inside of it.

    Links inside of the folder are fine, and so are those of the hub's cache
    (``models--ORG--NAME/snapshots/REVISION/FILE -> ../../blobs/HASH``). The folder itself may be a link.

    Raises
    ------
    ModelError
        Naming the file and where it leads, or what it is.
    """
    try:
        allowed = _allowed(folder.resolve(strict=True))
        for entry in _entries(folder):
            _check_entry(entry, allowed)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise _unreadable(folder, error) from None


def _allowed(root: Path) -> tuple[Path, ...]:
    """Where the files of a folder may lie."""
    entry = root.parent.parent
    if root.parent.name == "snapshots" and entry.name.startswith("models--"):
        return root, entry / "blobs"
    return (root,)


def _entries(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        yield entry
        if entry.name in _FOLDERS_READ and entry.is_dir():
            yield from sorted(entry.iterdir())


def _check_entry(entry: Path, allowed: tuple[Path, ...]) -> None:
    if entry.is_symlink():
        target = _target(entry)
        if not any(target.is_relative_to(place) for place in allowed):
            raise ModelError(
                f"is a link out of the model folder, to {target}",
                where=str(entry),
                hint="copy the file into the folder, or link the folder as a whole",
            )
    try:
        state = entry.stat()
    except FileNotFoundError:
        return  # a link to nothing: a reader of the file reports it as missing
    if not stat.S_ISDIR(state.st_mode):
        _refuse_irregular(entry, state)


def _target(link: Path) -> Path:
    try:
        return link.resolve()
    except (OSError, RuntimeError):
        raise ModelError("is a link that leads in a circle", where=str(link), hint=_AGAIN) from None


def _refuse_irregular(file: Path, state: os.stat_result) -> None:
    kind = stat.S_IFMT(state.st_mode)
    if kind != stat.S_IFREG:
        what = _KINDS.get(kind, "no file")
        raise ModelError(f"cannot be read: it is {what}, not a regular file", where=str(file), hint=_AGAIN)


def _unreadable(file: Path, error: Exception) -> ModelError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return ModelError(f"cannot be read: {reason}", where=str(file), hint="check the file and its permissions")


_AGAIN = "fetch the model's folder again"
_LINK_AS_TEXT = re.compile(r"\.\./\.\./blobs/\w{1,64}")
_COPY_LINKS = (
    "the hub cache was copied without its links: copy it again with `cp -a`, `rsync -a` or tar, or copy the "
    "snapshot alone with `cp -rL`"
)
