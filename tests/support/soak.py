"""Soak: a run of many questions through the whole pipeline, with the fake engine.

    python tests/support/soak.py FOLDER --questions 100000 [--kills 10]

Two agents and a merge agent, whose real tokenizers, prompts, grammar, parser, store and worker processes
are used; the table of the fake engine is empty, so that a hash of the prompt chooses the answer. With
``--kills`` the run is killed (SIGKILL to parent and worker) so many times at random points, and continued
each time.
Prints one JSON object: seconds, digest, and the greatest memory of the parent and of a worker, in MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from orch_local.demo.settings import RUN_FILE

MODELS, PROMPTS = RUN_FILE.parent / "models", RUN_FILE.parent / "prompts"
LOAD_S = 1.0
"""No kill falls sooner after the start of a run than this."""


def write_inputs(folder: Path, questions: int) -> None:
    """Write run file and questions; each question is another one."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "questions.jsonl").open("w") as file:
        for number in range(questions):
            choices = [str(number + offset) for offset in (3, 1, 4, 15)]
            row = {"question": f"What is {number} + 4?", "choices": choices, "answer": "C"}
            file.write(json.dumps(row) + "\n")
    (folder / "table.jsonl").touch()
    answer = {"reasoning_chars": 0, "eliminated": False}
    values = {
        "benchmark": {"name": "jsonl", "path": "questions.jsonl"},
        "agents": [
            {"name": name, "model": str(MODELS / name), "prompt": str(PROMPTS / "agent.txt")}
            for name in ("quant", "verbal")
        ],
        "merge": {
            "policy": "agent",
            "model": str(MODELS / "merge"),
            "prompt": str(PROMPTS / "merge.txt"),
            "answer": answer,
        },
        "answer": answer,
        "engine": {"name": "fake", "table": "table.jsonl", "models_at_once": 1},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(values))


def soak(folder: Path, questions: int, kills: int, seed: int = 0) -> dict[str, Any]:
    """Run to the end, killed and continued ``kills`` times; returns what it came to."""
    write_inputs(folder, questions)
    dice, started = random.Random(seed), time.monotonic()
    # Kills are spread over about the time that the whole run takes.
    longest = max(4.0, questions / 400 / max(kills, 1))
    stops = [_run(folder, LOAD_S + dice.random() * longest) for _ in range(kills)]
    assert _run(folder, None) == 0
    metrics = json.loads((folder / "runs" / "soak" / "metrics.json").read_text())
    memory = [json.loads(line) for line in (folder / "memory.jsonl").read_text().splitlines()]
    return {
        "questions": questions,
        "killed": sum(code != 0 for code in stops),
        "seconds": round(time.monotonic() - started, 1),
        "digest": metrics["digest"],
        "answered": metrics["answered"],
        "rows_twice": rows_twice(folder / "runs" / "store"),
        "parent_mib": max(one["mib"] for one in memory if one["role"] == "parent"),
        "worker_mib": max(one["mib"] for one in memory if one["role"] == "worker"),
    }


def rows_twice(store: Path) -> int:
    """Rows that were written more than once."""
    twice = 0
    for spec in store.iterdir():
        keys = [json.loads(line)["key"] for file in spec.glob("*.jsonl") for line in file.open()]
        twice += len(keys) - len(set(keys))
    return twice


def _run(folder: Path, kill_after_s: float | None) -> int:
    """One execution; returns its exit code."""
    command = [sys.executable, __file__, str(folder), "--role", "parent"]
    with (folder / "out.txt").open("w") as out:
        parent = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        try:
            return parent.wait(timeout=kill_after_s)
        except subprocess.TimeoutExpired:
            workers = _children(parent.pid)
            for pid in (parent.pid, *workers):
                os.kill(pid, signal.SIGKILL)
            return parent.wait()


def _children(pid: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in found.stdout.split()]


def _note_memory(folder: Path, role: str) -> None:
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with (folder / "memory.jsonl").open("a") as file:
        file.write(json.dumps({"role": role, "mib": round(mib)}) + "\n")


def as_parent(folder: Path) -> None:
    """The command line of the project, with workers of ours."""
    from orch_local.cli import app
    from orch_local.run import supervisor

    supervisor.WORKER_COMMAND = (sys.executable, __file__, str(folder), "--role", "worker")
    run = ["run", str(folder / "run.yaml"), "--out", str(folder / "runs" / "soak"), "--quiet"]
    sys.argv = ["orch-local", *run]
    try:
        app.main()
    finally:
        _note_memory(folder, "parent")


def as_worker(folder: Path, arguments: Sequence[str]) -> None:
    """The worker of the project, which notes its memory when it ends."""
    from orch_local.run import worker

    def leave(code: int) -> NoReturn:
        _note_memory(folder, "worker")
        os._exit(code)

    patched: Any = worker
    patched._leave = leave
    leave(worker.main(arguments))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--role", choices=("parent", "worker"), help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_intermixed_args()
    if options.role == "parent":
        as_parent(options.folder)
    elif options.role == "worker":
        as_worker(options.folder, options.rest)
    else:
        print(json.dumps(soak(options.folder.absolute(), options.questions, options.kills)))


if __name__ == "__main__":
    main()
