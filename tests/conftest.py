"""Shared fixtures: tiny model folders and a run file over them, made once a session."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from fuzzing import examples
from running import AGENTS, Cli, CliResult, write_run_file
from tiny_models import make_models, make_tiny_model

from orch_local.cli.app import main
from orch_local.demo.benchmark import write_jsonl

# How long an example takes tells how busy the machine is.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# A tier of its own, in an environment of its own: `scripts/test.sh cuda`.
collect_ignore = [] if os.environ.get("ORCH_CUDA_TIER") else ["cuda"]


@pytest.fixture(scope="session", autouse=True)
def _online() -> Iterator[None]:
    """A test that calls the command line must not cut its own process off: that cannot be undone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orch_local.cli.app.go_offline", lambda: None)
        yield


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four tiny random models, named after the agents and `merge`."""
    return make_models(tmp_path_factory.mktemp("models"), (*AGENTS, "merge"), make_tiny_model)


@pytest.fixture
def run_values(tmp_path: Path, models_dir: Path) -> dict[str, object]:
    """A run file as a dict: three agents of different roles, a merge agent, twelve questions."""
    write_jsonl(tmp_path / "questions.jsonl", "test", 12, seed=0)
    roles: tuple[dict[str, object], ...] = ({"role": "solve"}, {"role": "eliminate"}, {"mode": "direct"})
    agents = [
        {"name": name, "model": str(models_dir / name), **role}
        for name, role in zip(AGENTS, roles, strict=True)
    ]
    short = {"reasoning_chars": 30}
    return {
        "benchmark": {"name": "jsonl", "path": "questions.jsonl"},
        "agents": agents,
        "merge": {
            "policy": "agent",
            "model": str(models_dir / "merge"),
            "answer": {**short, "eliminated": False},
        },
        "answer": dict(short),
        "engine": {"name": "vllm", "models_at_once": 2},
    }


@pytest.fixture
def run_file(tmp_path: Path, run_values: dict[str, object]) -> Path:
    """The run file, written."""
    return write_run_file(tmp_path, run_values)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line in this process, in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> CliResult:
        monkeypatch.setattr(sys, "argv", ["orch-local", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        streams = capfd.readouterr()
        return CliResult(int(left.value.code or 0), streams.out, streams.err)

    return call


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real engines get more time than other tests; ``ORCH_FUZZ`` says how many examples a property draws."""
    drawn: set[object] = set()
    for item in items:
        if item.get_closest_marker("vllm") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1200))
        test = getattr(getattr(item, "obj", None), "__func__", getattr(item, "obj", None))
        if hypothesis.is_hypothesis_test(test) and test not in drawn:
            drawn.add(test)
            # Where hypothesis itself keeps what `@settings` says: there is no public way to it.
            own = getattr(test, "_hypothesis_internal_use_settings", hypothesis.settings())
            test._hypothesis_internal_use_settings = hypothesis.settings(
                own, max_examples=examples(own.max_examples)
            )
