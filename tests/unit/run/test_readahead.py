"""Reading ahead: all is read, it ends when told to or when memory is short, and it fails in silence."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from orch_local.run import prefetch
from orch_local.run.prefetch import ReadAhead

MIB = 2**20


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "_BLOCK_BYTES", MIB)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Six MiB in three files."""
    names = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for number, file in enumerate(names):
        file.write_bytes(bytes([number]) * (2 * MIB))
    return names


def available(monkeypatch: pytest.MonkeyPatch, *values: int) -> None:
    """Free memory as it is told from one block to the next; the last value stays."""
    left = list(values)

    def virtual_memory() -> Any:
        return SimpleNamespace(available=left.pop(0) if len(left) > 1 else left[0])

    monkeypatch.setattr(psutil, "virtual_memory", virtual_memory)


def test_all_is_read(files: list[Path]) -> None:
    ahead = ReadAhead(files, spare_bytes=0)
    ahead.start()
    assert ahead.wait(200)
    assert ahead.read_bytes == 6 * MIB


def test_it_begins_only_where_all_of_it_finds_room(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    available(monkeypatch, 8 * MIB - 1)
    ahead = ReadAhead(files, spare_bytes=2 * MIB)
    with caplog.at_level(logging.INFO):
        ahead.start()
        assert ahead.wait(200)
    assert ahead.read_bytes == 0
    assert "too little memory" in caplog.text


def test_what_is_read_already_needs_no_more_room(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A page in the cache still counts as available, so only what is left must fit."""
    ahead = ReadAhead(files, spare_bytes=2 * MIB)
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * MIB - ahead.read_bytes)
    )
    ahead.start()
    assert ahead.wait(200)
    assert ahead.read_bytes == 6 * MIB


def test_it_stops_when_memory_becomes_short(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, 100 * MIB, 100 * MIB, 3 * MIB)
    ahead = ReadAhead(files, spare_bytes=2 * MIB)
    ahead.start()
    assert ahead.wait(200)
    assert ahead.read_bytes == 2 * MIB


def test_it_stops_when_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slow")
    ahead = ReadAhead([tmp_path / "slow"], spare_bytes=0)
    ahead.start()
    with (tmp_path / "slow").open("wb", buffering=0) as writer:
        writer.write(b"x")
        while not ahead.read_bytes:
            time.sleep(0.01)
        ahead.stop()
        with suppress(BrokenPipeError):  # it may have stopped before it asked for more
            writer.write(b"x")
        assert ahead.wait(200)
    assert ahead.read_bytes in (1, 2)


def test_stopping_before_the_start_and_twice_does_no_harm(files: list[Path]) -> None:
    ahead = ReadAhead(files)
    ahead.stop()
    ahead.start()
    ahead.stop()
    assert ahead.wait(200)
    assert ahead.read_bytes == 0


@pytest.mark.parametrize("what", ["missing", "folder"])
def test_a_failure_is_a_line_in_the_log(
    tmp_path: Path,
    files: list[Path],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "folder").mkdir()
    unforeseen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", unforeseen.append)
    ahead = ReadAhead([files[0], tmp_path / what, files[1]], spare_bytes=0)
    with caplog.at_level(logging.INFO):
        ahead.start()
        assert ahead.wait(200)
    assert "reading ahead failed" in caplog.text
    assert unforeseen == []


def test_only_the_thread_makes_way(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = ReadAhead._read

    def read(self: ReadAhead, file: Path, left: int) -> int:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return real(self, file, left)

    monkeypatch.setattr(ReadAhead, "_read", read)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    ahead = ReadAhead(files, spare_bytes=0)
    ahead.start()
    assert ahead.wait(200)
    assert set(seen) == {19}
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
