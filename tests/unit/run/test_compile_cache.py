"""Compiled kernels: a folder for each engine and host, and the first load alone."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from orch_local.run import compile_cache
from orch_local.run.compile_cache import first_alone, variables
from orch_local.util import locks

KEY = "ab" * 16
NAMES = ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_each_key_and_each_host_has_folders_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = variables(KEY), variables("cd" * 16)
    monkeypatch.setattr("platform.node", lambda: "node17/../x")
    elsewhere = variables(KEY)
    assert tuple(mine) == NAMES
    assert len({*mine.values(), *other.values(), *elsewhere.values()}) == 9
    assert all(KEY in folder and ".." not in Path(folder).parts for folder in elsewhere.values())
    assert variables(KEY) == elsewhere


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/mine")
    monkeypatch.setenv("VLLM_CACHE_ROOT", "")
    found = variables(KEY)
    assert found["TRITON_CACHE_DIR"] == "/mine"
    assert KEY in found["VLLM_CACHE_ROOT"]


@pytest.fixture
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that cannot be written; returns the folder for temporary files."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    return temporary


def test_an_unwritable_home_is_replaced(no_home: Path) -> None:
    found = variables(KEY)
    assert all(Path(folder).is_relative_to(no_home) for folder in found.values())
    assert variables(KEY) == found
    (folder,) = no_home.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("trap", ["link", "open"])
def test_a_folder_that_others_can_write_is_not_used(no_home: Path, tmp_path: Path, trap: str) -> None:
    name = no_home / f"orch-local-{os.getuid()}"
    if trap == "link":
        (tmp_path / "theirs").mkdir()
        name.symlink_to(tmp_path / "theirs")
    else:
        name.mkdir()
        name.chmod(0o777)
    root = Path(variables(KEY)["VLLM_CACHE_ROOT"])
    assert not root.is_relative_to(name)
    assert not root.resolve().is_relative_to(tmp_path / "theirs")


# --- several processes ----------------------------------------------------------------------------


def test_a_folder_of_the_user_is_shared_by_all_keys_and_never_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "mine"
    (root / "triton").mkdir(parents=True)
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(root))
    order: list[str] = []
    inside, go = threading.Event(), threading.Event()

    def other() -> None:
        with first_alone("cd" * 16):
            inside.set()
            go.wait(200)
            order.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(200)
    threading.Timer(0.3, go.set).start()
    with first_alone(KEY):
        order.append("mine")
    thread.join()
    assert order == ["other", "mine"]
    assert (root / "triton").exists()


def test_waiting_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LOOK_SECONDS", 0.05)
    inside, go = threading.Event(), threading.Event()

    def other() -> None:
        with first_alone(KEY):
            inside.set()
            go.wait(200)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(200)
    signs: list[int] = []

    def alive() -> None:
        signs.append(1)
        if len(signs) == 3:
            go.set()

    with first_alone(KEY, alive):
        assert len(signs) >= 3
    thread.join()


def test_a_folder_without_locks_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(compile_cache, "held", refuse)
    with first_alone(KEY):
        pass
    assert "Operation not supported" in caplog.text
