"""A finished run made without an engine: rows from a table, decisions by the real functions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from two_runs import agent, plan, write_results

from orch_local.config.model_configs import ModelConfig
from orch_local.merge.deciding import Deciding, RunDigest
from orch_local.merge.merging import merge_task, needs_merge
from orch_local.merge.panels import Panels
from orch_local.models.folders import digests, open_model_folder
from orch_local.plan.files import write_plan
from orch_local.plan.plans import AgentPlan, Plan
from orch_local.records import Analysis, Outcome, Question, question_id
from orch_local.results.diagnostics import DiagnosticsCounter
from orch_local.store.questions import questions_digest, read_questions, write_questions
from orch_local.store.store import RunFolder, Store

NAMES = ("quant", "chrono")


def question(number: int) -> Question:
    """One of as many questions as a test wants."""
    text, choices = f"What is {number} + 4?", (str(number + 3), str(number + 4), str(number + 5))
    return Question(question_id(text, choices), text, choices, "B", "sums")


def analysis(key: str, answer: str, **changes: Any) -> Analysis:
    """A row whose text says what its fields say; ``changes`` are of the fields alone."""
    said = {"reasoning": f"It is {answer}.", "answer": answer, "confidence": 80}
    text = json.dumps(said)
    row = Analysis(key, Outcome.OK, answer, 80, f"It is {answer}.", probabilities={"A": 0.25, answer: 0.5})
    return replace(row, **{"text": text} | changes)


def make_model(folder: Path) -> Path:
    """The smallest folder that passes for a model."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


def worker(root: Path, name: str, invariant: bool = True) -> AgentPlan:
    """An agent, or the merge agent, with a model folder of its own."""
    model = ModelConfig(name=name, path=make_model(root / "models" / name))
    content = {
        "environment": {"batch_invariant": invariant},
        "model": {"files": digests(open_model_folder(model))},
    }
    made = agent(name, content, "merge" if name == "merge" else "analysis")
    return made.model_copy(
        update={"model": model, "settings": replace(made.settings, model_path=model.path or root)}
    )


@dataclass
class Run:
    """A run folder and a store of our own."""

    folder: RunFolder
    plan: Plan
    store: Store
    questions: Sequence[Question]

    @classmethod
    def begin(cls, root: Path, count: int = 4, **rules: str) -> Run:
        """A run as it is frozen before its first row."""
        folder, store = RunFolder(root / "run"), Store(root / "store")
        asked = [question(number) for number in range(count)]
        write_questions(folder.questions, asked)
        made = plan(
            [worker(root, name) for name in NAMES],
            worker(root, "merge"),
            count=count,
            questions=questions_digest(read_questions(folder.questions)),
            **rules,
        ).model_copy(update={"store": store.root})
        write_plan(folder, made)
        return cls(folder, made, store, asked)

    def add(self, name: str, *rows: Analysis) -> Path:
        """Write rows of one agent as a chunk; returns its file."""
        spec = self.spec(name)
        before = set(self.store.folder(spec).glob("*.jsonl"))
        with self.store.writer(spec) as writer:
            for row in rows:
                writer.add(row)
        (chunk,) = set(self.store.folder(spec).glob("*.jsonl")) - before
        return chunk

    def spec(self, name: str) -> str:
        """Spec of an agent."""
        return next(one.spec for one in self.plan.workers if one.name == name)

    def analyse(self, letters: Mapping[str, str]) -> None:
        """Write the analyses: by agent a letter a question, ``-`` for a failed row."""
        for name, said in letters.items():
            self.add(name, *(_row(one, letter) for one, letter in zip(self.questions, said, strict=True)))

    def merge(self) -> None:
        """Write the rows of the merge agent; of what was nominated it takes the last."""
        rows = self.merged().values()
        if rows:
            self.add("merge", *rows)

    def merged(self) -> dict[str, Analysis]:
        """Question key -> the merge agent's row, where it is asked."""
        panels, rules = Panels(self.plan, self.store), self.plan.config.merge
        asked = [(one, panels.of(one)) for one in self.questions]
        return {
            one.key: analysis(merge_task(one, panel, rules).key, panel.nominated[-1])
            for one, panel in asked
            if needs_merge(panel, rules)
        }

    def decide(self) -> None:
        """Write the results as a run ends with them, and what the store says of its rows."""
        deciding, total = Deciding(self.plan, self.store), RunDigest(self.plan.names)
        counter = DiagnosticsCounter(self.plan)
        decisions = [deciding.decide(one, deciding.panel(one)) for one in self.questions]
        for asked, one in zip(self.questions, decisions, strict=True):
            total.add(one)
            panel = deciding.panel(asked)
            counter.add(asked, panel, deciding.merged(asked, panel), one.answer)
        write_results(self.folder, self.plan, decisions, total.value, counter.diagnostics())
        for worker_ in self.plan.workers:
            self.store.declare(worker_.full_spec)


def _row(asked: Question, letter: str) -> Analysis:
    if letter == "-":
        return Analysis(asked.key, Outcome.FAILED, error="the engine died on this prompt")
    return analysis(asked.key, letter)


def finished_run(root: Path, **rules: str) -> Run:
    """Four questions: one agreed on, two not, one that an agent failed at."""
    run = Run.begin(root, **rules)
    run.analyse({"quant": "BACA", "chrono": "BBA-"})
    run.merge()
    run.decide()
    return run


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files below a folder, with their bytes."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
