"""Reads the weights of the next model into the page cache while the current one generates.

The next worker then finds them in memory instead of on a disk. Plain sequential reads: asking the kernel by
``posix_fadvise(WILLNEED)`` was no faster where it was measured, and could not be stopped half-way.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

log = logging.getLogger(__name__)

_BLOCK_BYTES = 16 * 2**20
_LOWEST_PRIORITY = 19
_WORTH_TELLING_GIB = 0.1
SPARE_BYTES = 4 * 2**30
"""Memory that stays free for what runs beside: the cache is given up first, but not without cost."""


class ReadAhead:
    """A thread that reads files and forgets them; a failure of it is no more than a line in the log.

    Parameters
    ----------
    files:
        In the order in which they will be needed.
    spare_bytes:
        It stops where less than this would stay available beside all that is left to read.
    """

    def __init__(self, files: Sequence[Path], spare_bytes: int = SPARE_BYTES) -> None:
        self._files = tuple(files)
        self._spare_bytes = spare_bytes
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self.read_bytes = 0
        """So many were read so far."""

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End early; what was read stays in the cache."""
        self._stopped.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; returns whether it has come."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        started = time.monotonic()
        try:
            _make_way()
            left = sum(file.stat().st_size for file in self._files)
            for file in self._files:
                left = self._read(file, left)
        except (OSError, psutil.Error) as error:
            log.info("reading ahead failed: %s", error)
        read, seconds = self.read_bytes / 2**30, time.monotonic() - started
        if read >= _WORTH_TELLING_GIB:
            log.info("read %.1f GiB of weights ahead in %.1f s", read, seconds)

    def _read(self, file: Path, left: int) -> int:
        """Read a file; returns how many bytes of all files are then left."""
        block = bytearray(_BLOCK_BYTES)
        with file.open("rb", buffering=0) as stream:
            while self._may_go_on(left) and (count := stream.readinto(block)):
                self.read_bytes += count
                left -= count
        return left

    def _may_go_on(self, left: int) -> bool:
        if not self._stopped.is_set() and psutil.virtual_memory().available < left + self._spare_bytes:
            log.info("not reading further ahead: too little memory is free for %.2f GiB", left / 2**30)
            self._stopped.set()
        return not self._stopped.is_set()


def _make_way() -> None:
    """Let everything else go before this thread; Linux has a priority for each thread by itself."""
    thread = threading.get_native_id()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, _LOWEST_PRIORITY)
    with suppress(psutil.Error, AttributeError, OSError):
        psutil.Process(thread).ionice(psutil.IOPRIO_CLASS_IDLE)
