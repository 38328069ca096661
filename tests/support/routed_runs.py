"""Runs with a router and without an engine: each agent knows one category, and rows come from a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_folders import NAMES, Run, analysis, worker
from two_runs import plan

from orch_local.config.blocks import RouterConfig
from orch_local.merge.merging import merge_task, needs_merge
from orch_local.merge.panels import Panels
from orch_local.plan.files import load_plan, write_plan
from orch_local.plan.plans import AgentPlan, RouterPlan
from orch_local.records import Analysis, Question, Usage, question_id
from orch_local.router.averages import RouterState
from orch_local.router.routes import read_routes
from orch_local.run import scheduler
from orch_local.run.stats import Timing
from orch_local.run.supervisor import Progress, WorkerOptions
from orch_local.store.questions import questions_digest, read_questions, write_questions
from orch_local.store.store import RunFolder, Store

KNOWS = dict(zip(NAMES, ("sums", "dates"), strict=True))


def asked(count: int, first: int = 0) -> list[Question]:
    """Questions of two categories in turn; the gold is B."""
    made = []
    for number in range(first, first + count):
        text, choices = f"Number {number}?", (str(number), str(number + 1), str(number + 2))
        category = ("sums", "dates")[number % 2]
        made.append(Question(question_id(text, choices), text, choices, "B", category))
    return made


def said(agent: str, question: Question) -> Analysis:
    """The agent's row: right in the category that it knows."""
    letter = "B" if KNOWS[agent] == question.category else "A"
    tokens = Usage(50 + len(question.text), 0, 20 if agent == NAMES[0] else 40)
    return replace(analysis(question.key, letter), usage=tokens)


def routed_run(root: Path, count: int, start: RouterState | None = None, **router: Any) -> Run:
    """A run as it is frozen before its first row."""
    folder, store = RunFolder(root / "run"), Store(root / "store")
    questions = asked(count)
    write_questions(folder.questions, questions)
    workers = [worker(root, name) for name in NAMES]
    digest = questions_digest(read_questions(folder.questions))
    made = plan(workers, worker(root, "merge"), count=count, questions=digest)
    config = made.config.model_copy(update={"router": RouterConfig.model_validate({"k": 1, **router})})
    files = RouterPlan(start=start.to_dict() if start else None)
    made = made.model_copy(update={"store": store.root, "config": config, "router": files})
    write_plan(folder, made)
    return Run(folder, made, store, questions)


class Table:
    """Stands for `Supervisor`: writes the rows that it is asked for, and remembers which."""

    def __init__(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run_ = run
        self.calls: list[tuple[str, list[str]]] = []
        """Agent and keys of the questions, in the order of the calls."""
        self.dies_after: int | None = None
        """Raises at the call after so many."""
        monkeypatch.setattr(scheduler, "Supervisor", self)

    def __call__(self, folder: RunFolder, agent: AgentPlan, store: Store, options: WorkerOptions) -> _Worker:
        return _Worker(self, agent, store)

    def keys_of(self, agent: str) -> list[str]:
        """All keys that an agent was asked for."""
        return [key for name, keys in self.calls if name == agent for key in keys]


class _Worker:
    loaded = True
    resident_gib = 0.0

    def __init__(self, table: Table, agent: AgentPlan, store: Store) -> None:
        self._table, self._agent, self._store = table, agent, store
        self.timing = Timing(0.5, 0.5)

    def run(self, rows: Mapping[str, str], progress: Progress) -> Timing:
        table = self._table
        if table.dies_after is not None and len(table.calls) >= table.dies_after:
            raise KeyboardInterrupt
        table.calls.append((self._agent.name, list(rows)))
        questions = {one.key: one for one in table.run_.questions}
        with self._store.writer(self._agent.spec) as writer:
            for key in rows:
                writer.add(self._row(questions[key]))
        return self.timing

    def _row(self, question: Question) -> Analysis:
        if self._agent.kind == "analysis":
            return said(self._agent.name, question)
        run = self._table.run_
        plan = load_plan(run.folder)
        panel = Panels(plan, Store(plan.store), read_routes(run.folder, plan)).of(question)
        assert needs_merge(panel, plan.config.merge)
        key = merge_task(question, panel, plan.config.merge).key
        return analysis(key, panel.nominated[0])

    def follow(self, keys: Sequence[str], progress: Progress) -> None:
        """Leaves everything to the merge that waits."""

    def complete(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def finish(self) -> None:
        pass
