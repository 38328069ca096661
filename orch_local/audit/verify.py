"""Verification of a run: its files whole, and its rows the same when they are generated again.

Nothing of the run is changed; what was found about its rows is kept in the store as evidence.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from orch_local.audit.replay import replay
from orch_local.errors import OrchError, StoreError
from orch_local.merge.panels import Panels
from orch_local.plan.files import load_plan
from orch_local.plan.plans import AgentPlan, Plan
from orch_local.plan.unchanged import changed_files, environment_changes
from orch_local.records import Analysis
from orch_local.router.routes import Routes, begun_routes, read_routes
from orch_local.run.context import Display, StopRequest
from orch_local.run.conversation import Patience
from orch_local.run.supervisor import Supervisor, WorkerOptions
from orch_local.store.evidence import SMALL_BATCH, Evidence, keep_evidence, other_batches, same_bytes, sampled
from orch_local.store.questions import Questions, questions_digest, read_questions
from orch_local.store.store import RunFolder, Spec, Store, read_json

log = logging.getLogger(__name__)


class Rate(NamedTuple):
    """How many of some rows had the same bytes again."""

    rows: int = 0
    same: int = 0


class Mismatch(NamedTuple):
    """One row that was different."""

    question_id: str
    before: Analysis
    again: Analysis | None


@dataclass(slots=True)
class Stage:
    """The result for the rows of one agent."""

    agent: str
    stored: int
    """Rows of this run in the store, without those that failed."""
    evidence: Evidence
    by_batch: Mapping[str, Rate]
    """By the batch they were generated in: ``alone``, ``by sevens``, ``together``."""
    first: Mismatch | None
    """The first in question order that differed."""


@dataclass(slots=True)
class Verification:
    """What `orch-local verify` found."""

    plan: Plan
    problems: list[str]
    """What is wrong with the files of run, store and models."""
    stages: list[Stage] = field(default_factory=list)

    @property
    def unused(self) -> list[str]:
        """Agents that the run has no row of."""
        return [stage.agent for stage in self.stages if not stage.stored]

    @property
    def passed(self) -> bool:
        """Whether nothing differed at all."""
        return not self.problems and all(one.evidence.same == one.evidence.rows for one in self.stages)


def verify(folder: RunFolder, sample: int | None, display: Display, stop: StopRequest) -> Verification:
    """Check the files of a run, then generate rows again in other batches and compare.

    Parameters
    ----------
    sample:
        Rows of each agent to generate again; ``None`` takes all.

    Raises
    ------
    StoreError
        If the folder is not that of a run, or this machine is not like the one of the run.
    EngineError
        If an engine fails.
    KeyboardInterrupt
        If ``stop`` asked to finish early.
    """
    plan, questions = load_plan(folder), read_questions(folder.questions)
    if sample != 0:
        _refuse_other_environment(plan)
    found = Verification(plan, list(_problems(folder, plan, questions)))
    # Of an unfinished run there may be no record yet.
    routes = read_routes(folder, plan) if folder.routes.exists() else begun_routes(folder, plan)
    for agent in plan.workers:
        found.stages.append(_Again(folder, plan, agent, questions, routes).stage(sample, display, stop))
        if stop.asked:
            raise KeyboardInterrupt
    return found


def _refuse_other_environment(plan: Plan) -> None:
    for agent in plan.workers:
        found = environment_changes(agent)
        if found:
            raise StoreError(
                f"rows cannot be generated again here, this machine is not like the one of {agent.name}: "
                f"{'; '.join(map(str, found))}",
                hint="verify where the run was made; `--sample 0` checks the files alone",
            )


def _problems(folder: RunFolder, plan: Plan, questions: Questions) -> Iterator[str]:
    store = Store(plan.store)
    for agent in plan.workers:
        rows = store.read(agent.spec)
        yield from (f"{chunk} is damaged: its bytes are not those of its name" for chunk in rows.damaged)
        yield from (f"{agent.name}: two answers under the key {one.key}" for one in rows.violations)
        yield from _spec_problems(store, agent)
    # One model may serve several agents; its files are read once.
    for agent in {agent.settings.model_path: agent for agent in plan.workers}.values():
        yield from _changed_files(agent)
    if questions_digest(questions) != plan.questions.digest:
        yield f"{folder.questions}: these are not the questions of the plan"
    yield from _replay_problems(folder)


def _spec_problems(store: Store, agent: AgentPlan) -> Iterator[str]:
    """What the store says of its rows must be what they were made from."""
    file = store.folder(agent.spec) / "spec.json"
    try:
        if Spec.of(read_json(file)).digest != agent.spec:
            yield f"{file}: its content is not the spec of its folder"
    except StoreError as error:
        yield f"{file}: {error.message}"


def _changed_files(agent: AgentPlan) -> Iterator[str]:
    """Files of the model that are not what they were, all bytes read anew."""
    try:
        for name in changed_files(agent, fresh=True):
            yield f"{agent.settings.model_path / name}: its SHA-256 is not that of the plan"
    except OrchError as error:
        yield f"model of {agent.name}: {error.where or agent.settings.model_path}: {error.message}"


def _replay_problems(folder: RunFolder) -> Iterator[str]:
    if not folder.metrics.exists():
        yield f"{folder.root}: the run is not finished, so only the rows that are there can be checked"
        return
    try:
        found = replay(folder)
    except StoreError as error:
        yield f"{error.where}: {error.message}"
        return
    yield from (line for line in found.findings() if not line.endswith("is damaged"))


class _Again:
    """Generates rows of one agent again."""

    def __init__(
        self, folder: RunFolder, plan: Plan, agent: AgentPlan, questions: Questions, routes: Routes
    ) -> None:
        self._folder, self._plan, self._agent, self._questions = folder, plan, agent, questions
        self._routes = routes
        self._store = Store(plan.store)
        self._rows = self._store.read(agent.spec)

    def stage(self, sample: int | None, display: Display, stop: StopRequest) -> Stage:
        """Generate a sample again, compare it, and keep the evidence."""
        wanted = {key: row for key, row in self._keys() if row in self._rows and not self._rows.failed(row)}
        # Workers check the first of their rows, so the last are news.
        keys = sampled(wanted, len(wanted) if sample is None else sample, last=True)
        batches = other_batches(keys)
        if not keys:
            return self._compared(wanted, batches, {})
        with tempfile.TemporaryDirectory(prefix="orch-verify-") as scratch:
            supervisor = self._supervisor(Path(scratch))
            progress = display.stage(f"{self._agent.name} again", len(keys), 0)
            with stop.covering([supervisor]):
                supervisor.run({key: wanted[key] for key in keys}, progress, batches)
            made = self._compared(wanted, batches, Store(Path(scratch)).read(self._agent.spec))
        if not stop.asked:
            self._keep(made.evidence)
        return made

    def _supervisor(self, scratch: Path) -> Supervisor:
        """Generates into a store of its own."""
        writable = os.access(self._folder.root, os.W_OK)  # an archive is not
        log = None if writable else scratch / f"{self._agent.name}.log"
        options = WorkerOptions(Patience.of(self._plan.config.engine), log=log)
        return Supervisor(self._folder, self._agent, Store(scratch), options)

    def _keep(self, evidence: Evidence) -> None:
        try:
            keep_evidence(self._store, self._agent.spec, evidence)
        except StoreError as error:  # an archive may be read-only; what was found is shown all the same
            log.warning("the evidence is not kept: %s", error)

    def _keys(self) -> Iterator[tuple[str, str]]:
        """Question key and row key of all rows that the run has of this agent."""
        if self._agent.kind == "analysis":
            place = self._plan.names.index(self._agent.name)
            keys = (question.key for question in self._questions if place in self._routes.of(question.key))
            yield from ((key, key) for key in keys)
            return
        panels = Panels(self._plan, self._store, self._routes)
        for question in self._questions:
            if request := panels.merge_of(question):
                yield question.key, request.key

    def _compared(
        self, wanted: Mapping[str, str], batches: Sequence[Sequence[str]], again: Mapping[str, Analysis]
    ) -> Stage:
        shape = {key: _shape(batch) for batch in batches for key in batch}
        counts: dict[str, list[bool]] = {}
        first: Mismatch | None = None
        for question in self._questions:
            if question.key not in shape:
                continue
            before, now = self._rows[wanted[question.key]], again.get(wanted[question.key])
            same = same_bytes(before, now)
            counts.setdefault(shape[question.key], []).append(same)
            if not same and first is None:
                first = Mismatch(question.id, before, now)
        pairs = ((self._rows[wanted[key]], again.get(wanted[key])) for key in shape)
        rates = {name: Rate(len(results), sum(results)) for name, results in sorted(counts.items())}
        return Stage(self._agent.name, len(wanted), Evidence.of("verify", pairs), rates, first)


def _shape(batch: Sequence[str]) -> str:
    if len(batch) == 1:
        return "alone"
    return "by sevens" if len(batch) == SMALL_BATCH else "together"
