"""Commands leave the environment of their process alone."""

from __future__ import annotations

import os
from pathlib import Path

from running import Cli


def test_environment_of_the_parent_is_left_alone(cli: Cli, run_file: Path) -> None:
    before = dict(os.environ)
    assert cli("plan", run_file).code == 0
    assert {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"} == {
        k: v for k, v in before.items() if k != "PYTEST_CURRENT_TEST"
    }
