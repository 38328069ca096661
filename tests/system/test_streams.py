"""Commands do their work whatever their standard streams are: closed, or read by somebody who has enough."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = {
    "the command line": "-m orch_local doctor --quick",
    "doctor alone": "-m orch_local.deploy.doctor --quick",
    "another command": "-m orch_local models",
}


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line of bash, with its output in text."""
    words = ["bash", "-c", f"set -o pipefail; {line}"]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, timeout=600, check=False)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_closed_stream_is_no_error(tmp_path: Path, name: str, closed: str) -> None:
    command = f"{sys.executable} {COMMANDS[name]}"
    plain = shell(command, tmp_path)
    done = shell(f"{command} {closed}", tmp_path)
    assert done.returncode == plain.returncode == 0, plain.stdout
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) is not closed.startswith(">")


@pytest.mark.parametrize("name", ["the command line", "doctor alone"])
@pytest.mark.parametrize("option", ["", "--json"])
def test_a_page_that_nobody_reads_to_its_end_has_its_own_code(tmp_path: Path, name: str, option: str) -> None:
    done = shell(f"{sys.executable} {COMMANDS[name]} {option} | true", tmp_path)
    assert done.returncode == 0
    assert not done.stderr
