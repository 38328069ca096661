"""Questions a second through orch-local's worker loop against a bare vLLM loop over the very same prompts.

    python benchmarks/overhead.py [--questions 1000] [--rounds 3]

One process, one engine, loaded once and not timed. Each round times, in turn:

* ``bare``: the token ids are added to vLLM's engine, which steps until all are done; nothing is parsed.
* ``orch``: what a worker does: prompts rendered and tokenized, answers parsed and checked, probabilities
  read, rows written to a store on disk.
* ``plain``: as ``bare`` without log-probabilities, which no run of ours goes without.

The ratio is bare / orch of the median seconds. The demo's tiny models are the hardest case: the smaller the
model, the more our own work shows.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from orch_local.config.run_files import load_run
from orch_local.demo.settings import RUN_FILE, demo_overrides
from orch_local.engines import vllm
from orch_local.engines.base import Request
from orch_local.engines.registry import environment
from orch_local.engines.vllm.translation import sampling
from orch_local.plan.plans import AgentPlan
from orch_local.prompts.tasks import analysis_task
from orch_local.prompts.tokenizer import PromptTokenizer
from orch_local.run.generating import LOGPROBS, Hooks, PromptWriter, Unit, generate
from orch_local.run.planning import plan_run
from orch_local.store.store import Store


def main() -> None:
    """Measure and print one line a system, and the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.questions, options.rounds)


def measure(folder: Path, questions: int, rounds: int) -> None:
    """Time the three loops in turn."""
    config = load_run(RUN_FILE, demo_overrides(folder, questions, "vllm"))
    plan, asked, *_ = plan_run(config, folder / "store")
    agent = plan.agents[0]
    os.environ.update(environment(agent.settings))
    prompts = PromptWriter(agent, PromptTokenizer(agent.settings.model_path))
    units = [Unit(question.key, analysis_task(question, agent.answer)) for question in asked]
    requests = [request_of(prompts, unit) for unit in units]
    engine = vllm.VllmEngine(agent.settings)
    plain = [replace(request, logprobs=0) for request in requests]
    loops: dict[str, Callable[[], None]] = {
        "bare": lambda: bare_loop(engine, requests),
        "orch": lambda: worker_loop(engine, prompts, units, agent, folder),
        "plain": lambda: bare_loop(engine, plain),
    }
    bare_loop(engine, requests[:100])  # the first grammars are compiled here, for no one's account
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            started = time.perf_counter()
            loop()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        runs = " ".join(f"{second:.1f}" for second in seconds[name])
        print(f"{name:6} {len(asked) / value:8.1f} questions/s   (seconds: {runs})")
    for name in ("bare", "plain"):
        print(f"ratio {name}/orch {medians[name] / medians['orch']:.3f}")


def request_of(prompts: PromptWriter, unit: Unit) -> Request:
    """The very request that a worker makes of a unit."""
    task = unit.task
    return Request(
        unit.name, tuple(prompts.prompt(task)), prompts.budget(task), task.schema.pattern, LOGPROBS
    )


def bare_loop(engine: vllm.VllmEngine, requests: Sequence[Request]) -> None:
    """The shortest loop that vLLM's own engine allows."""
    from vllm.inputs import tokens_input

    inner = engine._engine
    for request in requests:
        inner.add_request(request.id, tokens_input(list(request.prompt_ids)), sampling(request))
    while inner.has_unfinished_requests():
        inner.step()


def worker_loop(
    engine: vllm.VllmEngine, prompts: PromptWriter, units: Sequence[Unit], agent: AgentPlan, folder: Path
) -> None:
    """The loop of a worker process, into a store of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as store, Store(Path(store)).writer(agent.spec) as writer:
        hooks = Hooks(
            lambda _: None, lambda row: writer.add(row) and None, lambda: writer.flush_if_due() and None
        )
        generate(engine, prompts, units, agent.settings.max_model_len, hooks)


def _ignore(_: object) -> None:
    """Hooks return nothing."""


if __name__ == "__main__":
    main()
