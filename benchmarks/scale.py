"""A run of very many questions in shards, without models: what does it cost the store and the scoring?

    python benchmarks/scale.py FOLDER --questions 1000000 --shards 64 --agents 5

Questions and plan are written, then each shard is worked on by a process of its own, two side by side: it
looks up what is missing, a table in the place of the engine gives each row, and the real writer, lookups,
panels, merge tasks and evidence do the rest. Then the run is scored as `orch-local score` does it. Prompts,
tokenizers and the parser have no part in it (tests/support/soak.py is for those).

The clock of the writers is simulated: it goes on by 1/``--rate`` seconds a row, so the chunks are those of a
worker that makes so many rows a second. ``--traced`` runs the first shard and the scoring under strace and
counts their system calls; times and memory of these steps are then no measurement. Prints one JSON object
and a Markdown table of the steps. Linux only. The folder is left for inspection: remove it by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orch_local.config.blocks import AnswerConfig
from orch_local.config.model_configs import ModelConfig
from orch_local.config.run_files import RunConfig
from orch_local.engines.base import EngineSettings
from orch_local.plan.files import write_plan
from orch_local.plan.plans import AgentPlan, Plan, QuestionsPlan
from orch_local.records import Analysis, Outcome, Question, Usage, question_id
from orch_local.router.routes import begun_routes
from orch_local.run.context import RunContext
from orch_local.run.missing import MissingRows, WantedMerges, missing_analyses
from orch_local.run.pipeline import score_stored
from orch_local.store.evidence import Evidence, keep_evidence
from orch_local.store.questions import questions_digest, read_questions, write_questions
from orch_local.store.shards import Shard
from orch_local.store.store import RunFolder, Spec

AT_ONCE = 2
LETTERS = "ABCD"
REASONING = (300, 500)
"""Characters of a reasoning."""
TEXTS = 512
RECHECKED = 8
CALLS = ("open", "os.rename", "os.mkdir", "os.remove", "os.chmod", "os.listdir", "os.scandir")
"""Events of Python that stand for operations on metadata."""


class Table:
    """Rows of a realistic size; the same agent and question always look up the same one."""

    def __init__(self) -> None:
        dice = random.Random(0)
        words = [
            "".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 10))) for _ in range(500)
        ]
        self._texts = [" ".join(dice.choices(words, k=90))[: dice.randint(*REASONING)] for _ in range(TEXTS)]

    def row(self, agent: str, key: str) -> Analysis:
        """What the agent says about the question, or about the panel, with this key."""
        number = int.from_bytes(hashlib.blake2b(f"{agent} {key}".encode(), digest_size=8).digest())
        reasoning, answer = self._texts[number % TEXTS], LETTERS[number // TEXTS % 4]
        confidence, share = number // 7 % 101, 0.4 + (number % 999_983) / 2_000_000
        out = tuple(letter for letter in LETTERS if letter != answer)[:2]
        said = f'{{"reasoning":"{reasoning}","answer":"{answer}","eliminated":["{out[0]}","{out[1]}"]'
        return Analysis(
            key,
            Outcome.OK,
            answer,
            confidence,
            reasoning,
            eliminated=out,
            probabilities={one: share if one == answer else (1 - share) / 3 for one in LETTERS},
            text=f'{said},"confidence":{confidence}}}',
            usage=Usage(300 + number % 90, 256, len(reasoning) // 4 + 30),
            seconds=round(2 + number % 1000 / 250, 4),
        )


class Clock:
    """Simulated seconds of a worker."""

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def tick(self) -> None:
        """A row is finished."""
        self._now += self._step


def asked(count: int) -> Iterator[Question]:
    """So many questions of about 500 bytes."""
    for number in range(count):
        text = f"Case {number}: of {number % 97} tested parts {number % 13} fail. " + "Which holds? " * 14
        choices = tuple(
            f"The share of parts that fail is {number * factor} in all" for factor in (1, 3, 7, 9)
        )
        yield Question(question_id(text, choices), text, choices, LETTERS[number % 4], f"part {number % 20}")


def worker(name: str, kind: str) -> AgentPlan:
    """An agent of a plan; there is no model."""
    spec = Spec.of({"format": 0, "kind": kind, "name": name, "environment": {"batch_invariant": True}})
    settings = EngineSettings(
        name="vllm",
        model_path=Path("/nowhere") / name,
        device="cpu",
        grammar="guidance",
        dtype="float32",
        max_model_len=4096,
        args={},
    )
    values = {"name": name, "kind": kind, "settings": settings, "spec": spec.digest}
    fixed = {
        "model": ModelConfig(name=name),
        "template": "[user]\n{{ question }}\n",
        "answer": AnswerConfig(eliminated=True),
    }
    none = {"thinking": None, "max_tokens": None, "spec_content": dict(spec.content)}
    return AgentPlan.model_validate({**values, **fixed, **none})


def plan(folder: RunFolder, questions: int, agents: int) -> None:
    """Write questions and plan."""
    write_questions(folder.questions, asked(questions))
    digest = questions_digest(read_questions(folder.questions))
    names = [f"agent{number}" for number in range(agents)]
    values = {
        "benchmark": {"name": "jsonl", "path": "/nowhere/questions.jsonl"},
        "agents": [{"name": name, "model": name} for name in names],
        "merge": {"policy": "agent", "model": "merge"},
    }
    made = Plan(
        version="0",
        config=RunConfig.model_validate(values),
        agents=tuple(worker(name, "analysis") for name in names),
        merger=worker("merge", "merge"),
        questions=QuestionsPlan(count=questions, bad_rows=0, digest=digest),
        store=folder.root.parent / "store",
        environment={},
    )
    write_plan(folder, made)


def look(folder: RunFolder, shard: Shard | None) -> dict[str, Any]:
    """What the parent of a run, or of a shard, finds out before it starts a worker."""
    _, missing, merges = _missing(folder, shard)
    return {"missing": sum(len(one.rows) for one in missing) + merges.most()}


def _missing(folder: RunFolder, shard: Shard | None) -> tuple[RunContext, list[MissingRows], WantedMerges]:
    context = RunContext.of(folder, shard=shard)
    routes = begun_routes(folder, context.plan)
    return context, missing_analyses(context, context.questions, routes), WantedMerges(context, routes)


def work(folder: RunFolder, shard: Shard, rate: float) -> dict[str, Any]:
    """What the task of a shard does to the store: all its analyses, then its merges."""
    table = Table()
    context, missing, merges = _missing(folder, shard)
    assert context.plan.merger
    for agent in context.plan.workers:
        context.store.declare(agent.full_spec)
    rows = sum(_generate(context, one, table, rate) for one in missing)
    merges.update()  # reads each panel, as the worker of the merge agent does
    return {"rows": rows + _generate(context, merges.missing(context.plan.merger), table, rate)}


def _generate(context: RunContext, missing: MissingRows, table: Table, rate: float) -> int:
    """What a worker does to the store; returns how many rows it wrote."""
    clock, name, spec = Clock(rate), missing.agent.name, missing.agent.spec
    first: list[Analysis] = []
    written = 0
    with context.store.writer(spec, clock) as writer:
        for key in missing.rows.values():
            row = table.row(name, key)
            clock.tick()
            writer.add(row)
            written += 1
            if len(first) < RECHECKED:
                first.append(row)
    if first:
        keep_evidence(context.store, spec, Evidence.of("worker", [(row, row) for row in first]))
    return written


def counted() -> Counter[str]:
    """Counts the operations on metadata from now on."""
    calls: Counter[str] = Counter()

    def note(event: str, _arguments: tuple[Any, ...]) -> None:
        if event in CALLS:
            calls[event.removeprefix("os.")] += 1

    sys.addaudithook(note)
    return calls


def as_step(options: argparse.Namespace) -> dict[str, Any]:
    """One step, in this process."""
    folder = RunFolder(options.folder / "run")
    shard = Shard.parse(options.shard) if options.shard else None
    calls, started, cpu = counted(), time.perf_counter(), time.process_time()
    match options.step:
        case "plan":
            plan(folder, options.questions, options.agents)
            found: dict[str, Any] = {}
        case "look":
            found = look(folder, shard)
        case "work":
            found = work(folder, shard, options.rate)
        case _:
            result = score_stored(RunContext.of(folder))
            found = {"digest": result.digest, "answered": result.metrics.answered}
            found["level"] = str(result.level.level)
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    measured = {"wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}
    return {**found, **measured, "peak_mib": int(peak[1]) / 1024 if peak else 0.0, "calls": dict(calls)}


@dataclass(frozen=True)
class Simulation:
    """All steps, each in a process of its own."""

    folder: Path
    questions: int
    shards: int
    agents: int = 5
    rate: float = 20.0
    traced: bool = False

    def run(self) -> dict[str, Any]:
        """Go through all steps; returns what was measured, step by step."""
        self.folder.mkdir(parents=True)
        started, load = time.time(), os.getloadavg()[0]
        steps = {"plan": self._step("plan"), "look, none there": self._step("look")}
        steps["work"] = self._work()
        steps["look, one shard"] = self._step("look", f"1/{self.shards}")
        assert steps["look, one shard"]["missing"] == 0
        steps["score"] = self._step("score", traced=self.traced)
        return {
            "questions": self.questions,
            "shards": self.shards,
            "agents": self.agents,
            "rate": self.rate,
            "load": [round(load, 1), round(os.getloadavg()[0], 1)],
            "seconds": round(time.time() - started, 1),
            "digest": steps["score"]["digest"],
            "sizes": self._sizes(),
            "steps": steps,
        }

    def _work(self) -> dict[str, Any]:
        """All shards, two at a time."""
        started = time.perf_counter()
        numbers = range(1, self.shards + 1)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = list(pool.map(lambda number: self._shard(number), numbers))
        calls: Counter[str] = Counter()
        for one in found:
            calls.update(one["calls"])
        rows, walls = [one["rows"] for one in found], [one["wall_s"] for one in found]
        assert sum(rows) == self.questions * (self.agents + 1)
        return {
            "wall_s": time.perf_counter() - started,
            "cpu_s": sum(one["cpu_s"] for one in found),
            "peak_mib": max(one["peak_mib"] for one in found),
            "calls": dict(calls),
            "shard_rows": [min(rows), max(rows)],
            "shard_s": [min(walls), max(walls)],
        } | ({"strace": found[0]["strace"]} if self.traced else {})

    def _shard(self, number: int) -> dict[str, Any]:
        return self._step("work", f"{number}/{self.shards}", traced=self.traced and number == 1)

    def _step(self, step: str, shard: str = "", traced: bool = False) -> dict[str, Any]:
        command = [sys.executable, __file__, str(self.folder), "--step", step, "--shard", shard]
        command += [
            "--questions",
            str(self.questions),
            "--agents",
            str(self.agents),
            "--rate",
            str(self.rate),
        ]
        trace = self.folder / "strace.txt"
        prefix = ["strace", "-f", "-c", "-o", str(trace)] if traced else []
        done = subprocess.run([*prefix, *command], check=True, stdout=subprocess.PIPE, text=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found | ({"strace": _traced(trace)} if traced else {})

    def _sizes(self) -> dict[str, Any]:
        """What lies in the store, and in the files of the run."""
        chunks = list((self.folder / "store").rglob("*.jsonl"))
        in_all = sum(file.stat().st_size for file in chunks)
        run = {file.name: file.stat().st_size for file in (self.folder / "run").iterdir() if file.is_file()}
        return {
            "chunks": len(chunks),
            "folders": sum(path.is_dir() for path in (self.folder / "store").glob("*/*")),
            "store_bytes": in_all,
            "row_bytes": in_all / (self.questions * (self.agents + 1)),
            "question_bytes": in_all / self.questions,
            "run_bytes": run,
        }


def _traced(file: Path) -> dict[str, int]:
    """System call -> how often."""
    rows = (line.split() for line in file.read_text().splitlines())
    return {row[-1]: int(row[3]) for row in rows if len(row) >= 5 and row[3].isdigit() and row[-1] != "total"}


def table(found: dict[str, Any]) -> str:
    """The steps as a Markdown table."""
    lines = [
        "| step | wall s | CPU s | peak MiB | opens | renames | lists of folders |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, step in found["steps"].items():
        calls = step["calls"]
        listed = calls.get("listdir", 0) + calls.get("scandir", 0)
        figures = [f"{step['wall_s']:,.1f}", f"{step['cpu_s']:,.1f}", f"{step['peak_mib']:,.0f}"]
        counts = [f"{calls.get('open', 0):,}", f"{calls.get('rename', 0):,}", f"{listed:,}"]
        lines.append(f"| {' | '.join([name, *figures, *counts])} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--agents", type=int, default=5)
    parser.add_argument("--rate", type=float, default=20.0, help="rows a second of one worker")
    parser.add_argument("--traced", action="store_true")
    parser.add_argument("--step", choices=("plan", "look", "work", "score"), help=argparse.SUPPRESS)
    parser.add_argument("--shard", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.folder = options.folder.absolute()
    if options.step:
        print(json.dumps(as_step(options)))
        return
    sizes = options.questions, options.shards, options.agents
    found = Simulation(options.folder, *sizes, options.rate, options.traced).run()
    print(json.dumps(found))
    print(table(found))


if __name__ == "__main__":
    main()
