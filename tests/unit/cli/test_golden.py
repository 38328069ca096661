"""What must not change by moving code: help, plan, specs, scripts and the files of one fixed run, as files.

Written anew by ``ORCH_WRITE_SNAPSHOTS=1 pytest tests/unit/cli/test_golden.py``; read the difference before
you commit it. The run is over the demo's models, whose weights are in the repository, in an environment that
is written down here, so that the files are the same on every machine. Its rows are written by
:func:`_answer`, with no engine.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from paths import TESTS
from running import Cli

from orch_local.cli.commands import app
from orch_local.config.run_files import load_run
from orch_local.demo.settings import RUN_FILE, demo_overrides
from orch_local.merge.merging import merge_task, needs_merge
from orch_local.merge.panels import Panels
from orch_local.placement.machine import Machine
from orch_local.plan import execution
from orch_local.plan.fingerprint import Fact
from orch_local.plan.plans import AgentPlan, Plan
from orch_local.records import Analysis, Outcome, Question
from orch_local.run.preparation import prepare
from orch_local.slurm import scripts
from orch_local.store.questions import read_questions
from orch_local.store.store import RunFolder, Store

GOLDEN = TESTS / "golden" / "run"
DEMO = RUN_FILE.parent
AGENTS = ("quant", "chrono", "verbal")
QUESTIONS = 12
ENVIRONMENT: dict[str, Fact] = {
    "vllm": "0.32.0",
    "torch": "2.13.0+cpu",
    "transformers": "5.19.0",
    "tokenizers": "0.23.2",
    "cuda": None,
    "device": "cpu",
    "cpu": "a CPU",
    "dtype": "float32",
    "batch_invariant": True,
}


def check(name: str, text: str) -> None:
    """Compare a text with its file, or write the file."""
    file = GOLDEN / name
    if os.environ.get("ORCH_WRITE_SNAPSHOTS"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


@pytest.fixture
def plain(tmp_path: Path) -> Callable[[str], str]:
    """Replaces what another machine, folder or version would make differ."""

    def plain(text: str) -> str:
        for path, name in ((tmp_path, "HERE"), (DEMO, "DEMO"), (Path.home(), "HOME")):
            text = text.replace(str(path), name)
        return re.sub(r"[0-9a-f]{32,64}", "DIGEST", text)

    return plain


@pytest.fixture(autouse=True)
def _fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same machine and environment wherever the test runs."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(execution, "fingerprint", lambda settings: {**ENVIRONMENT, "dtype": settings.dtype})
    machine = Machine("cpu", 2, 16.0)
    for module in ("orch_local.plan.execution", "orch_local.run.planning"):
        monkeypatch.setattr(f"{module}.machine", lambda *_: machine)
    monkeypatch.setattr(execution, "cpu_cores", lambda: 2)
    monkeypatch.setattr("orch_local.placement.machine.free_memory_gib", lambda: 16.0)
    monkeypatch.setattr(scripts, "COMMAND", ("/env/bin/python", "-m", "orch_local"))


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    """Three agents, a merge agent and a router, twelve questions of two categories."""
    with (tmp_path / "questions.jsonl").open("w", encoding="utf-8") as file:
        for number in range(QUESTIONS):
            gold = "ABCD"[number * 7 % 5 % 4]
            row = {
                "question": f"What is {number} + 4?",
                "choices": [str(number + (4 if label == gold else ord(label))) for label in "ABCD"],
                "answer": gold,
                "category": "even" if number % 2 == 0 else "odd",
            }
            file.write(json.dumps(row) + "\n")
    agents = [{"name": name, "model": str(DEMO / "models" / f"{name}.yaml")} for name in AGENTS]
    roles = ({"role": "solve"}, {"role": "eliminate"}, {"mode": "direct"})
    values: dict[str, Any] = {
        "benchmark": {"name": "jsonl", "path": "questions.jsonl"},
        "agents": [agent | role for agent, role in zip(agents, roles, strict=True)],
        "merge": {
            "policy": "agent",
            "model": str(DEMO / "models" / "merge.yaml"),
            "when": "disagreement",
            "answer": {"reasoning_chars": 40},
        },
        "answer": {"reasoning_chars": 40},
        "engine": {"device": "cpu", "models_at_once": 2},
        "slurm": {"setup": ["module load cuda"], "gres": "gpu:1", "time": "02:00:00", "mem": "32G"},
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return file


def _answer(agent: AgentPlan, question: Question, number: int) -> Analysis:
    letter = "CCCBCCACCCCD"[(number * (3 + len(agent.name))) % 12]
    said: dict[str, Any] = {"answer": letter}
    if agent.answer.reasoning_chars:
        said = {"reasoning": f"I take {letter} of {number}.", **said, "confidence": 50 + number}
    if agent.name == AGENTS[0] and number == 5:
        return Analysis(question.key, Outcome.TRUNCATED, text='{"reasoning":"and so', error="cut")
    return Analysis(
        question.key,
        Outcome.OK,
        answer=letter,
        confidence=said.get("confidence"),
        reasoning=said.get("reasoning", ""),
        text=json.dumps(said, separators=(",", ":")),
    )


@pytest.fixture
def finished(run_file: Path, cli: Cli) -> tuple[RunFolder, Plan]:
    """The run, with all rows in its store, scored."""
    folder = RunFolder(run_file.parent / "runs" / "fixed")
    plan = prepare(load_run(run_file), folder, run_file.parent / "runs" / "store")
    store, questions = Store(plan.store), list(read_questions(folder.questions))
    for agent in plan.workers:
        store.declare(agent.full_spec)
    for agent in plan.agents:
        with store.writer(agent.spec) as writer:
            for number, question in enumerate(questions):
                writer.add(_answer(agent, question, number))
    assert plan.merger
    with store.writer(plan.merger.spec) as writer:
        for row in _merges(plan, store, questions):
            writer.add(row)
    assert cli("score", folder.root).code == 0
    return folder, plan


def _merges(plan: Plan, store: Store, questions: list[Question]) -> Iterator[Analysis]:
    panels, rules = Panels(plan, store), plan.config.merge
    for question in questions:
        panel = panels.of(question)
        if needs_merge(panel, rules):
            answer = panel.nominated[-1]
            text = json.dumps({"reasoning": "the panel disagrees", "answer": answer, "confidence": 70})
            key = merge_task(question, panel, rules).key
            yield Analysis(key, Outcome.OK, answer, 70, "the panel disagrees", text=text)


def test_help_of_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def pages(command: Any, path: tuple[str, ...]) -> Iterator[str]:
        with command.make_context(path[-1], ["--help"], resilient_parsing=True) as context:
            context.info_name = " ".join(path)
            yield f"$ {' '.join(path)} --help\n{command.get_help(context)}\n"
            for name in getattr(command, "commands", {}):
                yield from pages(command.commands[name], (*path, name))

    check("help.txt", "\n".join(pages(typer.main.get_command(app), ("orch-local",))))


def test_specs_of_the_demo(tmp_path: Path) -> None:
    overrides = demo_overrides(tmp_path, 1000, "vllm")
    plan = prepare(load_run(RUN_FILE, overrides), RunFolder(tmp_path / "demo"), tmp_path / "store")
    check("demo_specs.json", json.dumps({one.name: one.spec for one in plan.workers}, indent=1) + "\n")


def test_run_json(finished: tuple[RunFolder, Plan], plain: Callable[[str], str]) -> None:
    folder, plan = finished
    check("specs.json", json.dumps({one.name: one.spec for one in plan.workers}, indent=1) + "\n")
    values = json.loads(folder.plan.read_text(encoding="utf-8"))
    check("run.json", plain(json.dumps(values, indent=1, ensure_ascii=False)) + "\n")


def test_result_files(finished: tuple[RunFolder, Plan], plain: Callable[[str], str], cli: Cli) -> None:
    folder, _ = finished
    assert cli("report", folder.root, "--quiet").code == 0
    for name in ("metrics.json", "report.json", "decisions.jsonl", "report.md"):
        check(name, plain((folder.root / name).read_text(encoding="utf-8")))
    files = sorted(str(file.relative_to(folder.root)) for file in folder.root.rglob("*") if file.is_file())
    check("run_folder.txt", "\n".join(files) + "\n")


def test_plan(run_file: Path, cli: Cli, plain: Callable[[str], str]) -> None:
    shown = cli("plan", run_file)
    assert shown.code == 0, shown.err
    check("plan.txt", plain(shown.out))


def test_scripts_of_slurm(
    run_file: Path, cli: Cli, plain: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = cli("submit", run_file, "--shards", "4", "--dry-run")
    assert shown.code == 0, shown.err
    check("submit.txt", plain(shown.out))
