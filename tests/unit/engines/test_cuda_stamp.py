"""When CI runs the CUDA tier: where a file that it depends on is not what it passed with."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from paths import ROOT

from orch_local.config.yaml_files import read_yaml

WATCHED = (
    "requirements/cuda.txt",
    "orch_local/engines/vllm/arguments.py",
    "orch_local/engines/vllm/loading.py",
    "tests/cuda/stubs/libcuda.c",
)


@pytest.fixture(scope="module")
def stamp() -> ModuleType:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("stamp", ROOT / "tests" / "cuda" / "stamp.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of a few files."""
    for name in (*WATCHED, "orch_local/cli/app.py", "README.md"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path


def test_a_pass_holds_until_a_file_changes_that_the_tier_looks_at(stamp: ModuleType, checkout: Path) -> None:
    assert stamp.main(["check"], checkout) == 1
    assert stamp.main(["write"], checkout) == 0
    assert stamp.main(["check"], checkout) == 0
    (checkout / "README.md").write_text("other words")
    (checkout / "tests/cuda/__pycache__").mkdir()
    (checkout / "tests/cuda/__pycache__/stamp.pyc").write_text("compiled")
    assert stamp.main(["check"], checkout) == 0


@pytest.mark.parametrize("name", WATCHED)
def test_each_file_counts_by_content_and_name(stamp: ModuleType, checkout: Path, name: str) -> None:
    stamp.main(["write"], checkout)
    text = (checkout / name).read_text()
    (checkout / name).write_text(f"{text}.")
    assert stamp.main(["check"], checkout) == 1
    (checkout / name).write_text(text)
    assert stamp.main(["check"], checkout) == 0
    (checkout / name).rename(checkout / f"{name.removesuffix('.py')}_2.py")
    assert stamp.main(["check"], checkout) == 1


def test_the_files_of_this_checkout_are_found(stamp: ModuleType) -> None:
    found = {file.relative_to(ROOT).as_posix() for file in stamp.watched(ROOT)}
    assert {"requirements/cuda.txt", "orch_local/engines/vllm/loading.py", "tests/cuda/driving.py"} <= found
    assert "tests/cuda/passed" not in found


def test_families_have_the_arguments_of_the_shipped_model_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "cuda"))
    families = importlib.import_module("families").FAMILIES
    shipped = {file.stem: file for file in (ROOT / "model_configs").glob("*.yaml")}
    both = {name: shipped[name.lower()] for name in families if name.lower() in shipped}
    assert "gemma-3-27b-it" in both
    for name, file in both.items():
        assert families[name].vllm_args == (read_yaml(file).get("vllm_args") or {}), name


def test_other_words_are_refused(stamp: ModuleType, checkout: Path) -> None:
    assert stamp.main([], checkout) == 2
