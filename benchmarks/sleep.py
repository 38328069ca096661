"""Is a model woken sooner than loaded? vLLM's sleep mode on a GPU.

    python benchmarks/sleep.py MODEL_FOLDER [--arguments JSON]

Three processes, one after another, each answering the same random prompts greedily:

* ``load``: a fresh process loads the model, its files being in the page cache. That is what a worker costs.
* ``level 1``: the engine sleeps (weights go to the host's memory, the KV cache is given up) and is woken.
* ``level 2``: it sleeps and keeps nothing; waking reads the weights from their files again.

The answers after waking must be the same bytes as before, and as those of the fresh process: token ids, and
the log-probability of each token. Prints a Markdown table; exit code 1 where answers differ, 2 where there is
no GPU, since vLLM refuses sleep mode on a CPU.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from orch_local.engines.base import EngineSettings
from orch_local.engines.registry import environment

PROMPTS = 64
PROMPT_TOKENS = 200
ANSWER_TOKENS = 64
CONTEXT = PROMPT_TOKENS + ANSWER_TOKENS
VARIANTS = {"load": 0, "level 1": 1, "level 2": 2}
BLOCK_BYTES = 16 * 2**20


# In the process of an engine.


def serve(model: str, level: int, arguments: dict[str, Any]) -> dict[str, Any]:
    """Load, answer, and for a level sleep, wake and answer again; returns seconds and digests."""
    import psutil
    import torch
    from vllm import LLM

    def taken_gib() -> float:
        free, total = torch.cuda.mem_get_info()
        return (total - free) / 2**30

    engine = LLM(
        model=model,
        seed=0,
        enable_prefix_caching=False,
        max_model_len=CONTEXT,
        enable_sleep_mode=level > 0,
        **arguments,
    )
    since_start = time.time() - psutil.Process().create_time()
    found: dict[str, Any] = {"load_s": since_start, "taken_gib": taken_gib()}
    found["answers"] = [answers(engine)]
    if level:
        started = time.perf_counter()
        engine.sleep(level=level)
        found["sleep_s"], found["asleep_gib"] = time.perf_counter() - started, taken_gib()
        started = time.perf_counter()
        wake(engine, level)
        found["wake_s"] = time.perf_counter() - started
        found["answers"].append(answers(engine))
    return found


def wake(engine: Any, level: int) -> None:
    """Wake an engine; at level 2 its weights are gone and are read again before the KV cache is made."""
    if level == 1:
        engine.wake_up()
        return
    engine.wake_up(tags=["weights"])
    engine.collective_rpc("reload_weights")
    engine.wake_up(tags=["kv_cache"])


def answers(engine: Any) -> str:
    """SHA-256 of all answers."""
    from vllm import SamplingParams

    chance = random.Random(0)
    words = min(engine.get_tokenizer().vocab_size, 30_000)
    prompts = [
        {"prompt_token_ids": [chance.randrange(100, words) for _ in range(PROMPT_TOKENS)]}
        for _ in range(PROMPTS)
    ]
    greedy = SamplingParams(temperature=0, max_tokens=ANSWER_TOKENS, ignore_eos=True, logprobs=0)
    digest = hashlib.sha256()
    for output in engine.generate(prompts, greedy, use_tqdm=False):
        (answer,) = output.outputs
        for token, alternatives in zip(answer.token_ids, answer.logprobs, strict=True):
            digest.update(struct.pack("<qd", token, alternatives[token].logprob))
    return digest.hexdigest()


# In the process of this script.


def measure(model: Path, level: int, arguments: str) -> dict[str, Any]:
    """One variant in a process of its own."""
    warm(model)
    command = [sys.executable, __file__, str(model), "--arguments", arguments, "--serve", str(level)]
    variables = environment(EngineSettings("vllm", model, "cuda", "guidance", "auto", CONTEXT))
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **variables}
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def warm(model: Path) -> None:
    """Bring the weights into the page cache."""
    block = bytearray(BLOCK_BYTES)
    for file in model.glob("*.safetensors"):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(block):
                pass


def table(found: dict[str, dict[str, Any]]) -> None:
    """Print what was found."""
    print(
        "| variant | process start to loaded, s | sleep s | wake s | GiB taken awake | asleep | same bytes |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    reference = found["load"]["answers"][0]
    for name, one in found.items():
        names = ("load_s", "sleep_s", "wake_s", "taken_gib", "asleep_gib")
        cells = [f"{one[key]:.2f}" if key in one else "" for key in names]
        same = "yes" if set(one["answers"]) == {reference} else "NO"
        print(f"| {' | '.join([name, *cells, same])} |")
    loaded = found["load"]["load_s"]
    for name in ("level 1", "level 2"):
        times = loaded / found[name]["wake_s"]
        print(f"\nWaking from {name} against a fresh process: {times:.1f} times as fast.")


def gpu() -> str:
    """Name of the GPU; empty where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    query = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    """Measure the three variants."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="model folder with safetensors")
    parser.add_argument("--arguments", default="{}", help="further arguments of vllm.LLM, as JSON")
    parser.add_argument("--serve", type=int, choices=VARIANTS.values(), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        print(json.dumps(serve(str(options.model), options.serve, json.loads(options.arguments))))
        return
    name = gpu()
    if not name:
        print("No GPU: vLLM's sleep mode is for GPUs, and refused on a CPU.", file=sys.stderr)
        sys.exit(2)
    if not list(options.model.glob("*.safetensors")):
        parser.error(f"{options.model} holds no *.safetensors")
    print(f"`python benchmarks/sleep.py {options.model.name} --arguments '{options.arguments}'`, {name}\n")
    found = {variant: measure(options.model, level, options.arguments) for variant, level in VARIANTS.items()}
    table(found)
    sys.exit(any(set(one["answers"]) != set(found["load"]["answers"]) for one in found.values()))


if __name__ == "__main__":
    main()
