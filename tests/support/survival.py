"""Real runs as processes that tests can interrupt, and what their stores hold afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from orch_local.demo.benchmark import write_jsonl

PATIENCE_S = 600.0
SMALL_CHUNKS = str(Path(__file__).parent / "small_chunks")


@dataclass
class Run:
    """One run of the command line over a run file, executed as often as a test wants."""

    run_file: Path
    out: Path
    env: Mapping[str, str] = field(default_factory=lambda: {"PYTHONPATH": SMALL_CHUNKS})
    options: tuple[str, ...] = ()

    @property
    def store(self) -> Path:
        """The folder of its rows."""
        return self.out.parent / "store"

    def start(self) -> subprocess.Popen[str]:
        """Start the command; it is its own process group."""
        command = [sys.executable, "-m", "orch_local", "run", str(self.run_file), "--out", str(self.out)]
        return subprocess.Popen(
            [*command, *self.options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **self.env},
            start_new_session=True,
            # A test runner in the background of a shell may have been told to ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def finish(self) -> dict[str, Any]:
        """Execute it to its end; returns what metrics.json says."""
        with self.start() as process:
            out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, f"{out}\n{err}"
        values: dict[str, Any] = json.loads((self.out / "metrics.json").read_text())
        return {**values, "out": out, "err": err}

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        return [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if {"orch_local.run.worker", str(self.out)} <= set(process.info["cmdline"] or ())
        ]

    def chunks(self) -> list[Path]:
        """All chunks of its store."""
        return sorted(self.store.glob("*/*.jsonl"))

    def written(self) -> Counter[tuple[str, str]]:
        """How often each row, by spec and key, stands in the store."""
        rows: Counter[tuple[str, str]] = Counter()
        for chunk in self.chunks():
            lines = chunk.read_text(encoding="utf-8").splitlines()
            rows.update((chunk.parent.name, json.loads(line)["key"]) for line in lines)
        return rows

    def log(self) -> str:
        """What run.log says."""
        return (self.out / "run.log").read_text()


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for something to become true, while the process lives."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        if process is not None and process.poll() is not None:
            out, err = process.communicate()
            raise AssertionError(f"the process ended first, with {process.returncode}: {out}\n{err}")
        time.sleep(0.05)


def no_worker_left(run: Run) -> None:
    """Wait until no worker of the run is alive: it ends by itself when its parent is gone."""
    wait_until(lambda: not run.workers())


def make_run(folder: Path, model: Path, questions: int) -> Run:
    """A run of one agent; small batches, so that it takes a few seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "questions.jsonl", "test", questions, seed=5)
    config = {"name": "tiny", "path": str(model), "max_num_seqs": 8, "cpu_kv_cache_gib": 0.1}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    values = {
        "benchmark": {"name": "jsonl", "path": "questions.jsonl"},
        "agents": [{"name": "first", "model": "./tiny.yaml"}],
        "merge": {"policy": "majority"},
        "answer": {"reasoning_chars": 60},
        "engine": {"stall_timeout_s": 200, "models_at_once": 1},  # so that it is known which worker is killed
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return Run(folder / "run.yaml", folder / "runs" / "one")


Reference = tuple[Run, dict[str, Any]]
"""A run that nothing happened to, and its result."""


def check_whole(run: Run, reference: Reference) -> dict[str, Any]:
    """Continue the run to its end; it is as if nothing had happened."""
    result = run.finish()
    assert result["digest"] == reference[1]["digest"]
    written = run.written()
    assert written.keys() == reference[0].written().keys()
    assert set(written.values()) == {1}, "a row was generated twice"
    return result
