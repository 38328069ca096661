"""Waiting for a lock file without looking like a hang; the lock goes with its process, however that ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOOK_SECONDS = 2.0
"""So often is said that somebody waits."""


@contextmanager
def held(path: Path, waiting: Callable[[float], None]) -> Iterator[None]:
    """Hold the lock file ``path``; ``waiting`` is called with the seconds waited, every few of them.

    Raises
    ------
    OSError
        If the file cannot be made, or its file system has no locks.
    """
    lock = FileLock(path)
    started = time.monotonic()
    while not _taken(lock):
        waiting(time.monotonic() - started)
    try:
        yield
    finally:
        lock.release()


def _taken(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=LOOK_SECONDS)
    except Timeout:
        return False
    return True
