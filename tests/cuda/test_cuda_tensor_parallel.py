"""A worker of ours over two GPUs: its processes start, and without a driver it ends with an error.

It is started as a run starts it, with a thread that listens on standard input. Forked children hang there,
and the run would end by silence.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lab import Lab
from running import write_run_file
from tiny_models import make_tiny_model

from orch_local.demo.benchmark import write_jsonl

_HANGS_S = 1200
"""Longer than a busy machine takes to import vLLM three times."""


@pytest.mark.timeout(2 * _HANGS_S)
def test_two_gpus_without_a_driver_are_an_error_and_no_silence(tmp_path: Path, lab: Lab) -> None:
    model = make_tiny_model(tmp_path / "models" / "tiny")
    write_jsonl(tmp_path / "questions.jsonl", "test", 2, seed=0)
    config = {"name": "tiny", "path": str(model), "tensor_parallel_size": 2, "max_model_len": 1024}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    write_run_file(
        tmp_path,
        {
            "benchmark": {"name": "jsonl", "path": "questions.jsonl"},
            "agents": [{"name": "solo", "model": "tiny.yaml"}],
            "merge": {"policy": "majority"},
            "answer": {"reasoning_chars": 30},
            "engine": {"device": "cuda", "stall_timeout_s": _HANGS_S},
        },
    )
    done = subprocess.run(
        [sys.executable, "-m", "orch_local", "run", "run.yaml", "--out", "runs/two"],
        env=lab.environment("4xa100", VLLM_LOGGING_LEVEL="INFO"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=2 * _HANGS_S,
    )
    log = "".join(file.read_text() for file in (tmp_path / "runs" / "two" / "workers").glob("*.log"))
    assert done.returncode == 1, done.stderr[-3000:]
    assert "silence" not in done.stderr
    # Both processes came to the point where they ask for their GPU.
    assert "Worker_TP0" in log and "Worker_TP1" in log, log[-3000:]
    assert "Found no NVIDIA driver" in log, log[-3000:]
