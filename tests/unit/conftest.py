"""The unit tier: a test marked ``child`` may start a process, others only that which reads templates."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from running import AGENTS
from tiny_models import make_models, make_weightless_model

from orch_local.prompts import child

_TIER = Path(__file__).parent
_WHAT_TO_DO = "a unit test starts a process: mark it `child`, or move it to tests/system"


def _is_confined(command: object) -> bool:
    return isinstance(command, list) and command[-1] == child.__file__


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Covers fixtures of any scope: they run inside the first test that asks for them."""
    start = subprocess.Popen.__init__

    def popen(self: Any, command: Any, *arguments: Any, **options: Any) -> None:
        if not _is_confined(command):
            pytest.fail(f"{_WHAT_TO_DO}: {command}")
        start(self, command, *arguments, **options)

    def refuse(*arguments: Any, **options: Any) -> Any:
        pytest.fail(_WHAT_TO_DO)

    with pytest.MonkeyPatch.context() as patch:
        # The hook sees the tests of all tiers.
        if _TIER in item.path.parents and not item.get_closest_marker("child"):
            patch.setattr(subprocess.Popen, "__init__", popen)
            for owner, name in ((BaseProcess, "start"), (os, "fork"), (os, "posix_spawn")):
                patch.setattr(owner, name, refuse)
        return (yield)


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As in the other tiers, but no engine could load these: no unit test does."""
    return make_models(tmp_path_factory.mktemp("models"), (*AGENTS, "merge"), make_weightless_model)
