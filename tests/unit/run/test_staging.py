"""Copies of models on a node's own disk: whole or not there, made once, and never of another file."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_engine import agent_plan
from staged_models import PLANNED, agent_of, hub_snapshot, left_in

from orch_local.errors import ConfigError, ModelError, StoreError
from orch_local.models.folders import digests, open_model_folder
from orch_local.plan.unchanged import changed_files
from orch_local.run import staging
from orch_local.run.staging import expanded, stage
from orch_local.util import locks


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return hub_snapshot(tmp_path)


def test_a_copy_has_what_is_needed_and_no_more(model: Path, tmp_path: Path) -> None:
    folder = stage(agent_of(model), tmp_path / "scratch")
    wanted = {*PLANNED, "model.safetensors.index.json", "merges.txt"}
    assert {file.name for file in folder.iterdir()} == wanted
    assert not any(file.is_symlink() for file in folder.iterdir())
    assert all((folder / name).read_bytes() == (model / name).read_bytes() for name in wanted)
    assert left_in(tmp_path / "scratch") == [folder.name]


def test_a_finished_copy_is_used_again(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stage(agent_of(model), tmp_path)
    monkeypatch.setattr(staging, "_copied", lambda *_: pytest.fail("copied again"))
    assert stage(agent_of(model), tmp_path) == first


def test_another_model_has_another_copy(model: Path, tmp_path: Path) -> None:
    first = stage(agent_of(model), tmp_path)
    assert stage(agent_of(model, PLANNED[:2]), tmp_path) != first


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: os.truncate(file, 1), shutil.rmtree])
def test_a_copy_that_lost_something_is_made_anew(
    model: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    folder = stage(agent_of(model), tmp_path / "scratch")
    harm(folder if harm is shutil.rmtree else folder / PLANNED[0])
    assert stage(agent_of(model), tmp_path / "scratch") == folder
    assert (folder / PLANNED[0]).read_bytes() == (model / PLANNED[0]).read_bytes()


@pytest.mark.parametrize("name", PLANNED)
def test_a_file_that_is_not_the_planned_one_is_refused(model: Path, tmp_path: Path, name: str) -> None:
    agent = agent_of(model)
    (model / name).resolve().write_bytes(b"\xff" * (model / name).stat().st_size)
    with pytest.raises(ModelError, match="SHA-256") as refusal:
        stage(agent, tmp_path / "scratch")
    assert refusal.value.where == str(model / name)
    assert left_in(tmp_path / "scratch") == []


def test_a_file_that_is_gone_is_named(model: Path, tmp_path: Path) -> None:
    agent = agent_of(model)
    (model / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json is not there any more"):
        stage(agent, tmp_path)


def test_a_folder_or_a_link_that_leads_nowhere_is_named(model: Path, tmp_path: Path) -> None:
    agent = agent_of(model)
    (model / "config.json").resolve().unlink()
    with pytest.raises(ModelError, match="No such file or directory"):
        stage(agent, tmp_path)
    shutil.rmtree(model)
    with pytest.raises(ModelError, match="No such file or directory") as refusal:
        stage(agent, tmp_path)
    assert refusal.value.where == str(model)


def test_a_file_that_cannot_be_read_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, real = agent_of(model), Path.open

    def broken(file: Path, *arguments: Any, **named: Any) -> Any:
        if file == model / PLANNED[1] and arguments == ("rb",):
            raise OSError(5, "Input/output error")
        return real(file, *arguments, **named)

    monkeypatch.setattr(Path, "open", broken)
    with pytest.raises(ModelError, match="Input/output error") as refusal:
        stage(agent, tmp_path / "scratch")
    assert refusal.value.where == str(model / PLANNED[1])
    assert left_in(tmp_path / "scratch") == []


def test_a_root_that_is_no_folder(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be copied there") as refusal:
        stage(agent_of(model), tmp_path / "file")
    assert "stage_to" in refusal.value.hint


def test_the_worker_need_not_read_the_copy_again(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = models_dir / "first"
    plan = agent_plan(path=source)
    files = digests(open_model_folder(plan.model))
    settings = dataclasses.replace(plan.settings, model_path=source)
    plan = plan.model_copy(update={"settings": settings, "spec_content": {"model": {"files": files}}})
    staged = staging.at(plan, stage(plan, tmp_path / "scratch"))
    assert staged.settings.model_path == staged.model.path != source
    with monkeypatch.context() as now:
        now.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
        assert changed_files(staged) == []
    assert changed_files(staged, fresh=True) == []


# --- several processes ----------------------------------------------------------------------------


def test_who_waits_says_so(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "LOOK_SECONDS", 0.05)
    agent, holding, release = agent_of(model), threading.Event(), threading.Event()
    folder = stage(agent, tmp_path)
    shutil.rmtree(folder)

    def hold() -> None:
        with locks.held(folder.with_suffix(".lock"), lambda _: None):
            holding.set()
            release.wait(200)

    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait(200)
    signs: list[int] = []

    def alive() -> None:
        signs.append(1)
        if len(signs) == 3:
            assert not folder.exists()
            release.set()

    with caplog.at_level(logging.INFO):
        assert stage(agent, tmp_path, alive) == folder
    holder.join()
    assert "another process is copying the model to" in caplog.text
    assert len(signs) > 3


# --- the disk -------------------------------------------------------------------------------------


# --- names ----------------------------------------------------------------------------------------


def test_variables_and_the_home_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/local/$USER")
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("$SCRATCH/a") == Path("/local/$USER/a")
    assert expanded("${SCRATCH}x/$HOME") == Path("/local/$USERx//home/me")
    assert expanded("~/b") == Path("/home/me/b")
    assert expanded("c").is_absolute()


@pytest.mark.parametrize("text", ["$NOWHERE_SET/a", "/b/${NOWHERE_SET}", "$EMPTY"])
def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.delenv("NOWHERE_SET", raising=False)
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(ConfigError, match=r"^stage_to: .*\$(NOWHERE_SET|EMPTY) is not set"):
        expanded(text)


def test_an_unknown_user_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such user"):
        expanded("~nobody-of-that-name/x")
