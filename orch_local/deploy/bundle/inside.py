"""Files below one folder, opened so that a link in their way leads nowhere.

Each folder on the way is opened on its own, relative to the one before it, and no link is followed. A check
of the resolved path would look at one moment, and the opening would happen at another.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

BLOCK = 2**20
"""Bytes that are read at once."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class NotPlainError(OSError):
    """A link, pipe, device or folder lies where a plain file, or a folder, belongs."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.EINVAL, "a link, or no plain file, lies in its place", name)


@contextmanager
def folder(root: Path, names: list[str], *, create: bool = False) -> Iterator[int]:
    """Open the folder that ``names`` lead to below ``root``; ``root`` itself may be reached through links.

    Raises
    ------
    NotPlainError
        If one of the names is a link, or no folder.
    """
    descriptor = os.open(root, _FOLDER)
    try:
        for depth, name in enumerate(names):
            inner = _step(descriptor, name, create, "/".join(names[: depth + 1]))
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _step(outer: int, name: str, create: bool, shown: str) -> int:
    if create:
        with suppress(FileExistsError):  # a folder; or opening it says what it is
            os.mkdir(name, 0o755, dir_fd=outer)
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=outer)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotPlainError(shown) from None
        raise


@contextmanager
def reading(root: Path, path: str) -> Iterator[BinaryIO]:
    """Open a plain file below ``root``; a pipe in its place is not waited for.

    Raises
    ------
    NotPlainError
        If it, or a folder on the way, is a link, or it is no plain file.
    """
    *above, name = path.split("/")
    with folder(root, above) as where:
        # Before it is opened: opening alone can make a device do something.
        _check_plain(os.stat(name, dir_fd=where, follow_symlinks=False), path)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=where)
        except OSError as error:
            if error.errno == errno.ELOOP:  # it became a link since
                raise NotPlainError(path) from None
            raise
    try:
        _check_plain(os.fstat(descriptor), path)  # again, of what was opened
    except NotPlainError:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        yield file


def _check_plain(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotPlainError(path)


def blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Give up to ``size`` bytes of a file, a block at a time; fewer where it ends before."""
    while size and (block := file.read(min(size, BLOCK))):
        size -= len(block)
        yield block
