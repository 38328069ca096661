"""Statistics and reports of very large runs: time and memory, each step in a process of its own.

    python benchmarks/report.py FOLDER --questions 10000 100000 1000000 --agents 5

For each number of questions a finished run is made without models: agents of different skill that share hard
questions, 57 categories, sources of four questions, probabilities and stated confidences, a few analyses that
failed and a few questions without gold; its files are written by the functions that end a real run. The
store of a million questions takes 6 GB, and the page shows the analyses of some questions only: it holds the
rows of those ``--stored`` questions that the page shows first. Whoever opens the store of a real run indexes
all its rows, so ``--whole`` fills it up with copies of rows under the keys of the other questions.

Prints a Markdown table of wall seconds, CPU seconds and peak memory. Linux only. The folder is left for
inspection: remove it by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scale import LETTERS, Table, plan

from orch_local.merge.deciding import RunDigest
from orch_local.merge.merging import Panel, merge_task
from orch_local.placement.machine import Machine
from orch_local.placement.replicas import Placement
from orch_local.plan.files import load_plan
from orch_local.plan.plans import Plan
from orch_local.records import Analysis, Decision, How, Level, LevelAssessment, Outcome, Question, Usage
from orch_local.report.page.index import choose
from orch_local.results.files import write_decisions, write_metrics
from orch_local.results.scoring import Cost, Scorer
from orch_local.results.tables import read_table
from orch_local.results.timeline import Span, Timeline, keep, read_all
from orch_local.store.questions import read_questions
from orch_local.store.store import RunFolder, Store, write_json, write_text

BATCH = 8192
CATEGORIES = 57
QUESTIONS_A_SOURCE = 4
UNUSABLE, NO_GOLD = 0.02, 0.01
SHARDS = 64
ROWS_A_CHUNK = 108
"""As in the store of the million questions of `results/scale.md`."""
STEPS = ("summarise", "markdown", "page")
_LETTERS = np.array(list(LETTERS))


@dataclass(frozen=True)
class Batch:
    """Columns of some questions; the last row of ``answer``, ``share``, ``stated`` is the merge agent's."""

    gold: npt.NDArray[np.int64]
    answer: npt.NDArray[np.int64]
    usable: npt.NDArray[np.bool_]
    share: npt.NDArray[np.float64]
    stated: npt.NDArray[np.int64]


def columns(number: int, size: int, agents: int) -> Batch:
    """A batch; the same number gives the same one."""
    dice = np.random.default_rng(number)
    gold = dice.integers(0, 4, size)
    hard, skill = dice.normal(0, 0.8, size), np.linspace(-0.4, 0.9, agents)[:, None]
    known = dice.normal(0, 1, (agents, size)) < skill - hard
    wrong = (gold + dice.integers(1, 4, (agents, size))) % 4
    answer = np.where(known, gold, wrong)
    merged = np.where(dice.random(size) < 0.9, answer[-1], answer[0])
    share = 1 - 0.75 * dice.random((agents + 1, size)) ** np.where(np.vstack([known, merged == gold]), 3, 1)
    stated = np.clip((100 * share).astype(int) // 5 * 5, 0, 100)
    return Batch(gold, np.vstack([answer, merged]), dice.random((agents, size)) >= UNUSABLE, share, stated)


def decisions(made: Plan, ids: Sequence[str]) -> Iterator[Decision]:
    """The decisions of all questions, in order."""
    names = made.names
    for start in range(0, len(ids), BATCH):
        part = ids[start : start + BATCH]
        batch = columns(start, len(part), len(names))
        letters, usable = _LETTERS[batch.answer].tolist(), batch.usable.tolist()
        gold, share, stated = _LETTERS[batch.gold].tolist(), batch.share.tolist(), batch.stated.tolist()
        for i, question_id in enumerate(part):
            use = [row[i] for row in usable]
            given = [letters[a][i] if ok else None for a, ok in enumerate(use)]
            votes = [answer for answer in given if answer is not None]
            yield Decision(
                question_id=question_id,
                category=f"part {(start + i) % CATEGORIES:02}",
                gold=None if (start + i) % round(1 / NO_GOLD) == 7 else gold[i],
                answers=dict(zip(names, given, strict=True)),
                confidences={n: stated[a][i] if use[a] else None for a, n in enumerate(names)},
                outcomes={n: "ok" if use[a] else "truncated" for a, n in enumerate(names)},
                answer=letters[-1][i] if votes else None,
                how=How.MERGE if votes else How.UNSCORED,
                reason="" if votes else "quorum",
                majority=max(votes, key=votes.count) if votes else None,
                probabilities={n: share[a][i] if use[a] else None for a, n in enumerate(names)},
                confidence=stated[-1][i] if votes else None,
                probability=share[-1][i] if votes else None,
                cluster=f"source {(start + i) // QUESTIONS_A_SOURCE}",
            )


def make(folder: RunFolder, questions: int, agents: int) -> None:
    """Write a finished run, without its store."""
    plan(folder, questions, agents)
    made, asked = load_plan(folder), read_questions(folder.questions)
    scorer, digest = Scorer(made.names), RunDigest(made.names)

    def counted() -> Iterator[Decision]:
        for one in decisions(made, list(asked.keys())):
            scorer.add(one)
            digest.add(one)
            yield one

    write_decisions(folder.root, counted(), made.names)
    cost = Cost(questions, 0, Usage(300 * questions, 256 * questions, 120 * questions), 0.0, 0.0)
    costs = {one.name: cost for one in made.workers}
    standing = LevelAssessment(Level.BITWISE, 8 * len(costs), 8 * len(costs), ())
    write_metrics(folder.root, scorer.metrics(), costs, digest.value, standing)
    _write_timelines(folder, made, questions)


def fill(folder: RunFolder, stored: int) -> None:
    """Write the rows of the questions whose details the page looks up."""
    made, asked = load_plan(folder), read_questions(folder.questions)
    wanted = (
        range(len(asked)) if stored == 0 else choose(read_table(folder, made.names), stored).urgent.tolist()
    )
    chosen = set(wanted)
    rows = islice(enumerate(decisions(made, list(asked.keys()))), max(wanted) + 1)
    _write_store(made, ((asked[number], one) for number, one in rows if number in chosen))


def pad(folder: RunFolder) -> None:
    """Fill the store up to the rows of all questions: copies of some of its rows under the other keys."""
    made, asked = load_plan(folder), read_questions(folder.questions)
    keys = list(map(str.encode, asked.keys()))
    for one in made.workers:
        place = Store(made.store).folder(one.spec)
        whole = b"".join(chunk.read_bytes() for chunk in place.glob("*.jsonl"))
        known = set(re.findall(rb'"key":"([^"]*)"', whole))
        parts = [re.split(rb'(?<="key":")[^"]*', line, maxsplit=1) for line in whole.splitlines()[:997]]
        others = (key for key in keys if key not in known)
        lines = (key.join(part) + b"\n" for key, part in zip(others, cycle(parts), strict=False))
        while content := b"".join(islice(lines, ROWS_A_CHUNK)):
            (place / f"{hashlib.sha256(content).hexdigest()}.jsonl").write_bytes(content)


def _write_timelines(folder: RunFolder, made: Plan, questions: int) -> None:
    """An execution for each shard: one device, one model after another."""
    rows = questions // SHARDS + 1
    for shard in range(1, SHARDS + 1):
        spans = [
            Span(one.name, 1, 1, (0,), 0, 100.0 * i, 100.0 * i + 20, 100.0 * i + 95, rows)
            for i, one in enumerate(made.workers)
        ]
        placed = Placement(Machine("cuda", 1, 80.0, "made up"), (), "merge")
        began = f"2026-01-01T00:{shard % 60:02}:00+00:00"
        keep(folder, Timeline(began, "node", f"{shard}/{SHARDS}", placed, tuple(spans)))


def _write_store(made: Plan, asked: Iterable[tuple[Question, Decision]]) -> None:
    """The rows of some questions, that say what their decisions say."""
    store, table = Store(made.store), Table()
    with ExitStack() as stack:
        for one in made.workers:
            store.declare(one.full_spec)
        writers = {one.name: stack.enter_context(store.writer(one.spec)) for one in made.workers}
        for question, decision in asked:
            rows = {name: _row(table, name, question.key, decision) for name in made.names}
            for name, row in rows.items():
                writers[name].add(row)
            panel = Panel(made.names, tuple(rows.values()))
            merge = table.row("merge", merge_task(question, panel, made.config.merge).key)
            writers["merge"].add(_said(merge, decision.answer, decision.confidence, decision.probability))


def _row(table: Table, name: str, key: str, decision: Decision) -> Analysis:
    row = table.row(name, key)
    answer = decision.answers[name]
    return _said(row, answer, decision.confidences[name], decision.probabilities[name])


def _said(row: Analysis, answer: str | None, confidence: int | None, share: float | None) -> Analysis:
    if answer is None or share is None:
        return Analysis(row.key, Outcome.TRUNCATED, error="cut at 64 tokens", text=row.text[:64])
    spread = {letter: share if letter == answer else (1 - share) / 3 for letter in LETTERS}
    out = tuple(letter for letter in LETTERS if letter != answer)[:2]
    return replace(row, answer=answer, confidence=confidence, eliminated=out, probabilities=spread)


def step(name: str, folder: RunFolder) -> dict[str, Any]:
    """One step, in this process; each begins with the files."""
    from orch_local.report.markdown import markdown
    from orch_local.results.summarise import summarise, to_json

    started, cpu = time.perf_counter(), time.process_time()
    found: dict[str, Any] = {}
    summary = summarise(folder)
    if name == "markdown":
        write_text(folder.root / "report.md", markdown(summary))
        write_json(folder.root / "report.json", to_json(summary))
        found["bytes"] = (folder.root / "report.md").stat().st_size
    if name == "page":
        found["bytes"] = _write_page(folder, summary)
    return {**found, "wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}


def _write_page(folder: RunFolder, summary: Any) -> int:
    from orch_local.report.page import write_page

    file = write_page(summary, folder, folder.root / "report.html", read_all(folder).read)
    return file.stat().st_size


def _peak_mib() -> float:
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(peak[1]) / 1024 if peak else 0.0


def measure(root: Path, questions: int, options: argparse.Namespace) -> dict[str, Any]:
    """All steps of one size."""
    folder = root / str(questions) / "run"
    if not (folder / "metrics.json").exists():
        folder.mkdir(parents=True)
        print(f"making a run of {questions:,} questions", file=sys.stderr)
        make(RunFolder(folder), questions, options.agents)
    if not (folder.parent / "store").exists():
        fill(RunFolder(folder), options.stored)
        if options.whole:
            pad(RunFolder(folder))
    found: dict[str, Any] = {}
    for name in options.steps:
        before = os.getloadavg()[0]
        done = subprocess.run(
            [sys.executable, __file__, str(folder), "--step", name],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        found[name] = {**json.loads(done.stdout), "load": [before, os.getloadavg()[0]]}
    return found


def table(found: dict[int, dict[str, Any]]) -> str:
    """The measurements as a Markdown table."""
    lines = ["| questions | step | wall s | CPU s | peak MiB | written KB | load |", "| --- " * 7 + "|"]
    for questions, steps in found.items():
        for name, one in steps.items():
            size = f"{one['bytes'] / 1000:,.0f}" if "bytes" in one else "-"
            load = " to ".join(f"{value:.1f}" for value in one["load"])
            figures = [f"{one['wall_s']:,.1f}", f"{one['cpu_s']:,.1f}", f"{one['peak_mib']:,.0f}", size, load]
            lines.append(f"| {questions:,} | {name} | {' | '.join(figures)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--agents", type=int, default=5)
    parser.add_argument(
        "--stored", type=int, default=12_000, help="questions whose rows are in the store, those shown first"
    )
    parser.add_argument("--whole", action="store_true", help="fill the store up with copies of rows")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step:
        print(json.dumps({**step(options.step, RunFolder(options.folder)), "peak_mib": _peak_mib()}))
        return
    root = options.folder.absolute()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(table({questions: measure(root, questions, options) for questions in options.questions}))


if __name__ == "__main__":
    main()
