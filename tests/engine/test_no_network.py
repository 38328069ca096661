"""Plan, run, report, replay and verify, with vLLM, where there is no network: no attempt to reach any."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from isolation import Call, obstacle, watched

from orch_local.demo.benchmark import write_jsonl
from orch_local.demo.settings import RUN_FILE

DEMO = RUN_FILE.parent
needs_tracing = pytest.mark.skipif(bool(obstacle()), reason=f"nothing can be watched here: {obstacle()}")


def outward(calls: Sequence[Call]) -> Counter[Call]:
    """The calls that ask for more than this machine."""
    return Counter(call for call in calls if call.outward)


def without_advice() -> dict[str, str]:
    """The environment of a user who has silenced nothing."""
    words = ("OFFLINE", "TRACK", "TELEMETRY", "USAGE", "PROXY", "proxy", "IFNAME", "HOST_IP", "VLLM")
    return {name: value for name, value in os.environ.items() if not any(word in name for word in words)}


def write_run(folder: Path) -> Path:
    """One agent and the merge agent of the demo."""
    write_jsonl(folder / "questions.jsonl", "test", 4, seed=3)
    short = {"reasoning_chars": 120, "eliminated": False}
    agent, merge = ({"prompt": str(DEMO / "prompts" / f"{kind}.txt")} for kind in ("agent", "merge"))
    values = {
        "benchmark": {"name": "jsonl", "path": "questions.jsonl"},
        "agents": [{"name": "quant", "model": str(DEMO / "models" / "quant.yaml"), **agent}],
        "merge": {
            "policy": "agent",
            "when": "always",
            "model": str(DEMO / "models" / "merge.yaml"),
            "answer": short,
            **merge,
        },
        "answer": short,
        "engine": {"name": "vllm"},
    }
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


@needs_tracing
@pytest.mark.vllm
@pytest.mark.slow
def test_no_command_tries_to_reach_anything(tmp_path: Path) -> None:
    file, run = write_run(tmp_path), tmp_path / "runs" / "one"
    commands = (
        ("plan", file),
        ("run", file, "--out", run),
        ("report", run),
        ("replay", run),
        ("verify", run, "--sample", 2),
        ("show", run, "--timeline"),
    )
    orch_local = (sys.executable, "-m", "orch_local")
    script = " &&\n".join(shlex.join(map(str, (*orch_local, *command))) for command in commands)
    done, calls = watched(["sh", "-c", script], tmp_path / "trace", without_advice(), 1000)
    logs = "".join(log.read_text(encoding="utf-8") for log in run.rglob("*.log"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    assert (run / "report.html").is_file()
    assert not outward(calls)
    # The engine was seen: Gloo takes an address for itself, that of loopback.
    assert any(call.name == "bind" and call.family == "AF_INET" for call in calls)
    # Nor did anything have to be refused: the variables were enough.
    assert "opens no connection" not in logs + done.stderr
