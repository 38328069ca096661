"""The log of vLLM holds no prompt, even when the engine dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from secrets_in_logs import leaks, secret_ids
from tiny_models import make_tiny_model

from orch_local.engines.base import EngineSettings
from orch_local.engines.registry import environment

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
        command, capture_output=True, text=True, timeout=600, env={**env, **environment(settings)}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused:") >= 2 and "the model fell over" in done.stdout
    # It did dump what it was working on, without the prompts.
    assert "Dumping scheduler output" in done.stderr and f"prompt_token_ids_len={len(ids)}" in done.stderr
    assert not leaks(done.stdout + done.stderr, ids)
