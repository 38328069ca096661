"""What memory for what is written gains over memory for the whole bound, where the KV cache is small.

    python benchmarks/admission.py [--questions 300] [--rounds 3] [--bound 120] [--holds 8]

One process, one engine, loaded once and not timed: the demo's model ``quant`` on its own questions. Each
answer may have ``bound`` tokens, of which it writes a small part, and the KV cache holds ``holds`` requests
of that length. Each round times, in turn:

* ``full``: as many requests run as the cache holds at their full length;
* ``written``: as many as it holds by what the finished ones have written (`orch_local/engines/admission.py`),
  beginning with nothing known, as a worker does.

Told are the steps of the engine, the requests that ran at once, how many were generated again since memory
ran out, and a digest over all token ids and log-probabilities, which has to be the same. The ratios are
full / written, of the median seconds and of the steps. Seconds are those of the processor, since the engine
has one thread and the machine may do other work.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from overhead import request_of

from orch_local.config.run_files import load_run
from orch_local.demo.settings import RUN_FILE, demo_overrides
from orch_local.engines import vllm
from orch_local.engines.admission import _SEEN, Admission
from orch_local.engines.base import Completion, EngineSettings, Request
from orch_local.engines.registry import environment
from orch_local.models.folders import open_model_folder
from orch_local.models.kv_cache import DTYPE_BYTES, kv_cache
from orch_local.plan.plans import AgentPlan
from orch_local.prompts.tasks import analysis_task
from orch_local.prompts.tokenizer import PromptTokenizer
from orch_local.records import digest
from orch_local.run.generating import PromptWriter, Unit
from orch_local.run.planning import plan_run

_BLOCK = 32
_NEVER = 10**9


def main() -> None:
    """Measure and print one line a system, and the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bound", type=int, default=120, help="tokens that an answer may have")
    parser.add_argument("--holds", type=int, default=8, help="requests that the cache holds at full length")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Time both in turn."""
    config = load_run(RUN_FILE, demo_overrides(folder, options.questions, "vllm"))
    plan, asked, *_ = plan_run(config, folder / "store")
    agent = plan.agents[0]
    prompts = PromptWriter(agent, PromptTokenizer(agent.settings.model_path))
    units = [Unit(question.key, analysis_task(question, agent.answer)) for question in asked]
    requests = [replace(request_of(prompts, unit), max_tokens=options.bound) for unit in units]
    longest = max(len(request.prompt_ids) for request in requests) + options.bound
    settings = tight(agent, longest, options.holds)
    os.environ.update(environment(settings))
    engine = vllm.VllmEngine(settings)
    loop(engine, requests[:50])  # the first grammars are compiled here, for no one's account
    seconds: dict[str, list[float]] = {"full": [], "written": []}
    told, steps = {}, {}
    for _ in range(options.rounds):
        for name, seen in (("full", _NEVER), ("written", _SEEN)):
            before = engine.preempted
            engine._admission = Admission(engine._admission.cache, engine.capacity, seen=seen)
            started = time.process_time()
            completions, running = loop(engine, requests)
            seconds[name].append(time.process_time() - started)
            steps[name] = len(running)
            told[name] = (
                f"{len(running)} steps, {statistics.mean(running):.1f} at once, {max(running)} at most, "
                f"{engine.preempted - before} generated again, digest {digest_of(completions)[:16]}"
            )
    written = statistics.mean(len(one.token_ids) for one in completions)
    share = written / options.bound
    print(f"{len(requests)} requests, {written:.0f} of {options.bound} tokens written ({share:.0%})")
    for name, values in seconds.items():
        runs = " ".join(f"{value:.1f}" for value in values)
        print(f"{name:8} {statistics.median(values):6.1f} s   (rounds: {runs})   {told[name]}")
    ratio = statistics.median(seconds["full"]) / statistics.median(seconds["written"])
    print(f"ratio {ratio:.2f} in seconds of the processor, {steps['full'] / steps['written']:.2f} in steps")


def tight(agent: AgentPlan, longest: int, holds: int) -> EngineSettings:
    """Settings with a KV cache of so many requests of that length."""
    settings = agent.settings
    cache = kv_cache(open_model_folder(agent.model).text_config, DTYPE_BYTES[settings.dtype])
    blocks = holds * -(-(longest + 2) // _BLOCK) + 1
    args = {
        **settings.args,
        "cpu_kv_cache_gib": (cache.whole_bytes(blocks * _BLOCK) + 1) / 2**30,
        "vllm_args": {"block_size": _BLOCK},
    }
    return replace(settings, args=args, longest=longest + 1)


def loop(engine: vllm.VllmEngine, requests: Sequence[Request]) -> tuple[list[Completion], list[int]]:
    """Generate all; returns what came out, and how many ran in each step."""
    for request in requests:
        engine.submit(request)
    completions: list[Completion] = []
    running = []
    while len(completions) < len(requests):
        completions += engine.step()
        running.append(len(engine._scheduler.running))
    return completions, running


def digest_of(completions: Sequence[Completion]) -> str:
    """Of all ids and log-probabilities, bit by bit, whatever the order in which they came."""
    rows = sorted(
        (
            one.id,
            list(one.token_ids),
            [sorted((key, value.hex()) for key, value in at.items()) for at in one.logprobs],
        )
        for one in completions
    )
    return digest(rows)


if __name__ == "__main__":
    main()
