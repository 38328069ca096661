"""A worker of ours over two GPUs: its processes start, and without a driver it ends with an error.

It is started as a run starts it, with a thread that listens on standard input: a forked child would wait for
that thread's lock for ever when it closes standard input, and the load would run into its limit.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from families import write_folder
from lab import Lab
from running import write_run_file

from orch_local.demo.benchmark import write_jsonl

_HANGS_S = 900
"""Two busy cores (load 20) took 140 s from the start of the worker to the error."""


@pytest.mark.timeout(2 * _HANGS_S)
def test_two_gpus_without_a_driver_are_an_error_and_no_hang(tmp_path: Path, lab: Lab) -> None:
    # No weight is read before each process has asked for its GPU, so there need be none.
    model = write_folder(tmp_path, "Qwen3-8B", weights_gb=0.001)
    write_jsonl(tmp_path / "questions.jsonl", "test", 2, seed=0)
    config = {"name": "two", "path": str(model), "tensor_parallel_size": 2, "max_model_len": 1024}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    write_run_file(
        tmp_path,
        {
            "benchmark": {"name": "jsonl", "path": "questions.jsonl"},
            "agents": [{"name": "solo", "model": "two.yaml"}],
            "merge": {"policy": "majority"},
            "answer": {"reasoning_chars": 30},
            "engine": {"device": "cuda", "load_timeout_s": _HANGS_S},
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
    assert "load_timeout_s" not in done.stderr
    assert "vLLM cannot load the model" in done.stderr, done.stderr[-3000:]
    # vLLM ends both as soon as one has failed, so the other need not have come as far.
    assert re.search(r"\(Worker pid=\d+\).*Found no NVIDIA driver", log), log[-3000:]
    assert "waiting for worker exit count=2" in log, log[-3000:]
