"""No question stands in a log, neither as text nor as token ids: not of a run, nor where an engine dies.

Logs are what people send around when they ask for help.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from running import Cli
from soak import MODELS, write_inputs
from tiny_models import make_tiny_model

from orch_local.engines.base import EngineSettings
from orch_local.engines.registry import environment

SECRET = "quokka zephyr 71 patient Jane Doe"


def leaks(log: str, ids: Sequence[int]) -> list[str]:
    """Where a log holds a part of the secret, or four of its token ids in a row."""
    runs = (ids[start : start + 4] for start in range(len(ids) - 3))
    patterns = [
        *map(re.escape, SECRET.split(" ", 1)),
        *(r"\b" + r"\D{1,3}".join(map(str, run)) for run in runs),
    ]
    return [found[0] for pattern in patterns for found in re.finditer(pattern, log)]


def secret_ids(model: Path) -> list[int]:
    """The secret as a model reads it."""
    from tokenizers import Tokenizer

    ids: list[int] = Tokenizer.from_file(str(model / "tokenizer.json")).encode(SECRET).ids
    assert len(set(ids)) > 8
    return ids


def test_a_leak_is_found() -> None:
    assert leaks("a prompt: quokka", [])
    assert leaks("prompt_token_ids=[1, 5, 6, 7, 8, 9]", [5, 6, 7, 8])
    assert leaks("5,6,7,8", [4, 5, 6, 7, 8])
    assert not leaks("5, 6, 7 and 55, 6, 7, 8", [5, 6, 7, 8])


def write_secret_inputs(folder: Path) -> None:
    """One agent, and questions that are nobody's business; one of them cannot be used."""
    write_inputs(folder, 6)
    config = yaml.safe_load((folder / "run.yaml").read_text())
    config |= {"agents": config["agents"][:1], "merge": {"policy": "majority"}}
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    file = folder / "questions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["question"] = f"{SECRET}: {row['question']}"
        row["choices"][0] = f"{SECRET} {row['choices'][0]}"
    rows.append({"question": SECRET, "choices": ["yes"], "answer": "B"})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


DEATHS = ("engine", "killed", "raised")


def test_our_logs_hold_no_question_whatever_the_workers_die_of(cli: Cli, tmp_path: Path) -> None:
    write_secret_inputs(tmp_path)
    rows = [{"fail": how, "once": how, "message": f"so it {how}"} for how in DEATHS]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = cli("run", "run.yaml", "--skip-bad-rows", "--out", "runs/one")
    assert done.code == 0, done.err
    assert all((tmp_path / how).exists() for how in DEATHS)
    log = (tmp_path / "runs" / "one" / "run.log").read_text()
    workers = "".join(each.read_text() for each in tmp_path.rglob("workers/*.log"))
    assert log.count("the worker of quant died (") == 3
    assert "RuntimeError: so it raised" in workers
    assert not leaks(log + workers + done.out + done.err, secret_ids(MODELS / "quant"))


VLLM = """\
import json, sys
from concurrent.futures import Future
from pathlib import Path
from orch_local.engines.registry import open_engine
from orch_local.engines.base import EngineSettings, Request, RequestError
from orch_local.errors import EngineError

model, ids = Path(sys.argv[1]), tuple(json.loads(sys.argv[2]))
small = {"cpu_kv_cache_gib": 0.1}
engine = open_engine(EngineSettings("vllm", model, "cpu", "guidance", "float32", 256, args=small))
pattern = '"[a-z]{1,8}"'

def ask(name, prompt, **more):
    engine.submit(Request(name, prompt, 20, logprobs=4, **more))

ask("plain", ids)
ask("constrained", ids, pattern=pattern)
finished = []
while len(finished) < 2:
    finished += engine.step()
for prompt, more in ((ids * 100, {}), ((*ids, 10**6), {}), (ids, {"pattern": "("})):
    try:
        ask("bad", prompt, **more)
    except RequestError as error:
        print("refused:", error)

def falls_over(*args, **kwargs):
    future = Future()
    future.set_exception(RuntimeError("the model fell over"))
    return future

engine._engine.engine_core.engine_core.model_executor.execute_model = falls_over
ask("last", ids)
try:
    engine.step()
except EngineError as error:
    print("died:", error)
"""


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_writes_no_prompt_into_the_log_even_when_it_dies(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", max_positions=256)
    ids = secret_ids(model)
    settings = EngineSettings("vllm", model, "cpu", "guidance", "float32", 256)
    command = [sys.executable, "-c", VLLM, str(model), json.dumps(ids)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, env={**env, **environment(settings)}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused:") >= 2 and "the model fell over" in done.stdout
    # It did dump what it was working on, without the prompts.
    assert "Dumping scheduler output" in done.stderr and f"prompt_token_ids_len={len(ids)}" in done.stderr
    assert not leaks(done.stdout + done.stderr, ids)
