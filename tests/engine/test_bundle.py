"""A bundle from one machine to another: real wheels, no index and no network there, the same digest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from isolation import alone
from paths import ROOT

from orch_local.demo.benchmark import write_jsonl

DEMO = ROOT / "orch_local" / "demo"
NO_INDEX = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
_ROOM = 6 * 2**30


def run(command: Sequence[object], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program; its output is in the error where it fails."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def run_file(folder: Path) -> Path:
    """The demo as a run file of one's own, with its models and questions beside it."""
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    write_jsonl(folder / "benchmark.jsonl", "test", 1000, seed=0)
    return folder / "demo.yaml"


def signing(folder: Path) -> tuple[list[object], list[object]]:
    """Options to sign with a throw-away key, and to have the signature checked; none without ssh-keygen."""
    if not shutil.which("ssh-keygen"):
        return [], []
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text(encoding="utf-8")
    (folder / "signers").write_text(f"maker {public}", encoding="utf-8")
    return ["--sign", key], ["--allowed-signers", folder / "signers"]


def digest(run: Path) -> str:
    """Of the decisions of a finished run."""
    return str(json.loads((run / "metrics.json").read_text(encoding="utf-8"))["digest"])


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_of_an_installed_bundle_has_the_same_digest(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < _ROOM:
        pytest.skip("needs 6 GiB of disk")
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    sign, signers = signing(here)
    mine = run_file(here / "mine")
    create = ["bundle", "create", here / "bundle", "--run", mine, "--part-size", "60MiB", *sign]
    made = run([sys.executable, "-m", "orch_local", *create], here)
    if made.returncode and "is a package index within reach?" in made.stderr:
        pytest.skip("no package index within reach")
    assert made.returncode == 0, made.stderr
    parts = sorted((here / "bundle").glob("part-*"))
    assert len(parts) > 5
    assert all(part.stat().st_size == 60 * 2**20 for part in parts[:-1])

    # What a carrier takes over; the other machine has a Python, and nothing else of all this.
    there.mkdir()
    (here / "bundle").rename(there / "bundle")
    python = getattr(sys, "_base_executable", sys.executable)
    install = [python, "-I", "bundle/install.pyz", "install", "--to", "orch", *signers]
    installed = run([*alone(), *install], there, **NO_INDEX)
    assert installed.returncode == 0, installed.stderr + installed.stdout
    shutil.rmtree(there / "bundle")

    options = ["--limit", "20", "--quiet", "--out"]
    program = there / "orch" / "venv" / "bin" / "orch-local"
    file = there / "orch" / "run-files" / "demo.yaml"
    for command, out in ((["demo"], "demo"), (["run", file], "mine")):
        done = run([*alone(), program, *command, *options, f"runs/{out}"], there, **NO_INDEX)
        assert done.returncode == 0, done.stderr[-3000:]
    at_home = run([sys.executable, "-m", "orch_local", "demo", *options, "runs/demo"], here)
    assert at_home.returncode == 0, at_home.stderr[-3000:]
    assert (
        digest(there / "runs" / "demo") == digest(there / "runs" / "mine") == digest(here / "runs" / "demo")
    )
    shutil.rmtree(tmp_path)  # 3 GB that pytest would keep
