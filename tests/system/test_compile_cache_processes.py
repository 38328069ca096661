"""Compiled kernels and several processes: the first load is alone, and a killed one leaves nothing."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orch_local.run.compile_cache import first_alone, variables

KEY = "ab" * 16


NAMES = ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def _load(log: Path, fails: bool) -> None:
    """A worker that loads for a while."""
    os.environ.update(variables(KEY))
    try:
        with first_alone(KEY):
            begun = time.monotonic()
            time.sleep(0.3)
            with log.open("a") as lines:
                lines.write(f"{begun} {time.monotonic()}\n")
            if fails:
                raise RuntimeError("does not load")
    except RuntimeError:
        pass


def loads(log: Path, fails: bool) -> list[tuple[float, float]]:
    """Begin and end of eight loads by processes that start together, in order."""
    processes = [SPAWN.Process(target=_load, args=(log, fails)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8
    lines = log.read_text().splitlines()
    log.unlink()
    assert len(lines) == 8
    return sorted((float(begun), float(ended)) for begun, ended in map(str.split, lines))


def overlaps(spans: list[tuple[float, float]]) -> Iterator[bool]:
    """For each load but the first whether it began before the one before had ended."""
    return (before[1] > after[0] for before, after in itertools.pairwise(spans))


def test_until_one_has_loaded_the_others_wait_and_then_go_freely(tmp_path: Path) -> None:
    first, *rest = loads(tmp_path / "log", fails=False)
    assert first[1] <= rest[0][0]
    assert any(overlaps(rest))
    assert any(overlaps(loads(tmp_path / "log", fails=False)))


def test_as_long_as_none_succeeds_they_load_one_after_another(tmp_path: Path) -> None:
    assert not any(overlaps(loads(tmp_path / "log", fails=True)))


def _load_for_ever(begun: Path) -> None:
    os.environ.update(variables(KEY))
    with first_alone(KEY):
        half = Path(os.environ["TRITON_CACHE_DIR"]) / "half"
        half.parent.mkdir(parents=True)
        half.touch()
        begun.touch()
        time.sleep(600)


def test_what_a_killed_load_left_is_removed_and_its_lock_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = SPAWN.Process(target=_load_for_ever, args=(tmp_path / "begun",))
    process.start()
    deadline = time.monotonic() + 200
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.05)
    process.kill()
    process.join()
    cache = Path(variables(KEY)["TRITON_CACHE_DIR"])
    for name, value in variables(KEY).items():
        monkeypatch.setenv(name, value)
    with first_alone(KEY):
        assert not cache.exists()
        cache.mkdir()
    with first_alone(KEY):
        assert cache.exists()
