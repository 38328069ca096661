"""The order of the stages: questions, analyses, merge, decisions, score. They talk through the store.

:func:`prepare` freezes a plan into a run folder; :func:`execute` brings that folder to its end, however
often it was interrupted before, and generates only the rows that the store does not hold yet.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from orch_local.config import RunConfig
from orch_local.errors import StoreError
from orch_local.launch import AgentRun, Progress, Timing
from orch_local.merging import Panel, decide, merge_task, needs_merge
from orch_local.planning import check, draft
from orch_local.plans import AgentPlan, Plan, load_plan
from orch_local.records import Analysis, Decision, Question, Usage, canonical_json
from orch_local.report.files import write_decisions, write_metrics
from orch_local.scoring import Cost, Metrics, score
from orch_local.store import Rows, RunFolder, Store, Violation, write_json, write_text

log = logging.getLogger(__name__)


class Display(Protocol):
    """Shows the progress of a stage; `report/progress.py` has the one for terminals."""

    def stage(self, name: str, total: int, done: int) -> Progress:
        """A stage begins: ``done`` of ``total`` rows are in the store already."""


class Result(NamedTuple):
    """What a finished run shows."""

    plan: Plan
    metrics: Metrics
    costs: Mapping[str, Cost]
    digest: str
    violations: Sequence[Violation]


@dataclass(slots=True)
class _Session:
    """One execution of a plan."""

    folder: RunFolder
    plan: Plan
    questions: Sequence[Question]
    store: Store
    display: Display
    retry_failed: bool
    costs: dict[str, Cost] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)


def prepare(config: RunConfig, folder: RunFolder, store: Path) -> Plan:
    """Check a run file against models and questions and freeze it into the run folder.

    Raises
    ------
    InputError
        Whatever of the input cannot be used, before any model is loaded.
    StoreError
        If the folder belongs to another plan, or cannot be written.
    """
    plan, questions, bad_rows = draft(config, store)
    check(plan, questions)
    if folder.plan.exists():
        _refuse_other_plan(load_plan(folder), plan, folder)
    folder.write_questions(questions)
    lines = [json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in bad_rows]
    write_text(folder.bad_rows, "".join(lines))
    write_json(folder.plan, plan.model_dump(mode="json"))
    return plan


def execute(folder: RunFolder, display: Display, retry_failed: bool = False) -> Result:
    """Bring a prepared run to its end and write its result files.

    Raises
    ------
    EngineError
        If an engine fails as a whole; finished rows are kept and the same command continues.
    """
    plan = load_plan(folder)
    session = _Session(folder, plan, folder.read_questions(), Store(plan.store), display, retry_failed)
    panels = analyse(session)
    merged = merge(session, panels)
    decisions = list(decide_all(session, panels, merged))
    return report(session, decisions)


def analyse(session: _Session) -> list[Panel]:
    """The panel of every question, in order."""
    keys = {question.key: question.key for question in session.questions}
    rows = _complete(session, {agent.name: keys for agent in session.plan.agents}, session.plan.agents)
    names = session.plan.names
    return [Panel(names, tuple(rows[name].get(q.key) for name in names)) for q in session.questions]


def merge(session: _Session, panels: Sequence[Panel]) -> dict[str, Analysis]:
    """The merge agent's rows by question key, for the panels it is asked about."""
    merger = session.plan.merger
    if merger is None:
        return {}
    config = session.plan.config.merge
    keys = {
        question.key: merge_task(question, panel, config).key
        for question, panel in zip(session.questions, panels, strict=True)
        if needs_merge(panel, config)
    }
    rows = _complete(session, {merger.name: keys}, [merger])[merger.name]
    return {key: rows.rows[row_key] for key, row_key in keys.items() if row_key in rows}


def decide_all(
    session: _Session, panels: Sequence[Panel], merged: Mapping[str, Analysis]
) -> Iterator[Decision]:
    """The decisions in question order."""
    config = session.plan.config.merge
    for question, panel in zip(session.questions, panels, strict=True):
        yield decide(question, panel, config, merged.get(question.key))


def report(session: _Session, decisions: Sequence[Decision]) -> Result:
    """Score, write the result files, and say what the run came to."""
    names = session.plan.names
    metrics = score(decisions, names)
    digest = run_digest(decisions)
    write_decisions(session.folder.root, decisions, names)
    write_metrics(session.folder.root, metrics, session.costs, digest)
    for violation in session.violations:
        log.warning("two different answers under one key: %s", violation)
    log.info("finished: digest %s", digest)
    return Result(session.plan, metrics, session.costs, digest, session.violations)


def run_digest(decisions: Sequence[Decision]) -> str:
    """SHA-256 over the canonical decisions in question order: the proof that two runs came to the same.

    It covers each question's id, every agent's answer and confidence, the final answer and how it was
    reached; not the gold labels, the agents' names, or anything measured.
    """
    total = hashlib.sha256()
    for decision in decisions:
        answers, confidences = list(decision.answers.values()), list(decision.confidences.values())
        row = [decision.question_id, answers, confidences, decision.answer, str(decision.how)]
        total.update(canonical_json(row).encode() + b"\n")
    return total.hexdigest()


def _complete(
    session: _Session, wanted: Mapping[str, Mapping[str, str]], agents: Sequence[AgentPlan]
) -> dict[str, Rows]:
    """Generate the missing rows of ``agents`` and read all of theirs.

    ``wanted`` has, by agent name, question key -> row key. Agents run side by side as
    ``engine.models_at_once`` allows; the first failure stops the others, which keep what they finished.
    """
    runs = []
    for agent in agents:
        session.store.declare(agent.full_spec)
        runs.append(_Pending.of(session, agent, wanted[agent.name]))
    _run_all([run for run in runs if run.missing], session.plan.config.engine.models_at_once)
    return {run.agent.name: run.collect(session) for run in runs}


@dataclass(slots=True)
class _Pending:
    """The rows of one agent that a stage needs."""

    agent: AgentPlan
    wanted: Mapping[str, str]
    missing: dict[str, str]
    runner: AgentRun
    progress: Progress

    @classmethod
    def of(cls, session: _Session, agent: AgentPlan, wanted: Mapping[str, str]) -> _Pending:
        stored = session.store.read(agent.spec, set(wanted.values()))
        missing = {key: row for key, row in wanted.items() if _is_missing(stored.get(row), session)}
        for damaged in stored.damaged:
            log.warning("%s: %s is damaged; its rows are generated again", agent.name, damaged)
        log.info("%s: %d of %d rows are in the store", agent.name, len(wanted) - len(missing), len(wanted))
        timeout = session.plan.config.engine.stall_timeout_s
        runner = AgentRun(session.folder, agent, session.store, timeout)
        progress = session.display.stage(agent.name, len(wanted), len(wanted) - len(missing))
        return cls(agent, wanted, missing, runner, progress)

    def run(self) -> Timing:
        return self.runner.run(self.missing, self.progress)

    def collect(self, session: _Session) -> Rows:
        """Read the rows back, and add up what they cost."""
        rows = session.store.read(self.agent.spec, set(self.wanted.values()))
        usage = sum((row.usage for row in rows.rows.values()), Usage())
        timing = self.runner.timing
        session.costs[self.agent.name] = Cost(
            rows=len(rows.rows),
            generated_now=len(self.missing),
            usage=usage,
            load_s=timing.load_s,
            generate_s=timing.generate_s,
        )
        session.violations += rows.violations
        return rows


def _is_missing(row: Analysis | None, session: _Session) -> bool:
    return row is None or (session.retry_failed and row.outcome == "failed")


def _run_all(runs: Sequence[_Pending], at_once: int) -> None:
    if not runs:
        return
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        futures = [pool.submit(run.run) for run in runs]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            for run in runs:
                run.runner.stop()
            raise


def _refuse_other_plan(before: Plan, now: Plan, folder: RunFolder) -> None:
    old, new = before.identity(), now.identity()
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    if changed:
        raise StoreError(
            f"this folder holds a run of a different plan; it differs in: {', '.join(changed)}",
            where=str(folder.root),
            hint="choose another --out; rows that both plans need are taken from the store, not made again",
        )
