"""The order of the stages: questions, analyses, merge, decisions, score. They talk through the store.

:func:`prepare` freezes a plan into a run folder; :func:`execute` brings that folder to its end, however
often it was interrupted before, and generates only the rows that the store does not hold yet.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from orch_local.changes import Change
from orch_local.config import RunConfig
from orch_local.deciding import Deciding, RunDigest
from orch_local.errors import StoreError
from orch_local.launch import AgentRun, Progress, Timing
from orch_local.levels import state
from orch_local.merging import merge_task, needs_merge
from orch_local.panels import Panels
from orch_local.planning import check, draft
from orch_local.plans import AgentPlan, Plan, load_plan, plan_changes, write_plan
from orch_local.questions import Questions, read_questions, write_questions
from orch_local.records import Decision, Standing
from orch_local.report.files import write_decisions, write_metrics
from orch_local.scoring import Cost, Metrics, Scorer
from orch_local.store import RunFolder, Store, write_text

log = logging.getLogger(__name__)

_LONGEST_CHANGE = 160


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
    violations: int
    """Rows of the store with two different answers under one key."""
    damaged: int
    """Chunks of the store that were damaged and have been set aside."""
    standing: Standing


class StopRequest:
    """Ends an execution early: :meth:`finish` lets rows in flight finish, an exception stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self.running: list[AgentRun] = []

    def finish(self) -> None:
        """Take up no further work; from any thread or signal handler."""
        self.asked = True
        for runner in self.running:
            runner.finish()


@dataclass(slots=True)
class _Session:
    """One execution of a plan."""

    folder: RunFolder
    plan: Plan
    questions: Questions
    store: Store
    display: Display
    retry_failed: bool
    stop: StopRequest
    timings: dict[str, Timing] = field(default_factory=dict)
    generated: dict[str, int] = field(default_factory=dict)
    """Rows that were missing, by agent."""
    damaged: set[Path] = field(default_factory=set)


def prepare(config: RunConfig, folder: RunFolder, store: Path, accept_new_environment: bool = False) -> Plan:
    """Check a run file against models and questions and freeze it into the run folder.

    Parameters
    ----------
    accept_new_environment:
        Take over a folder whose run was begun with other libraries or on another device. All its rows are
        then generated anew: the environment is part of every spec.

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
        _refuse_other_plan(folder, plan, accept_new_environment)
    write_questions(folder.questions, questions)
    lines = [json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in bad_rows]
    write_text(folder.bad_rows, "".join(lines))
    write_plan(folder, plan)
    return plan


def execute(
    folder: RunFolder, display: Display, retry_failed: bool = False, stop: StopRequest | None = None
) -> Result:
    """Bring a prepared run to its end and write its result files.

    Raises
    ------
    EngineError
        If an engine fails as a whole; finished rows are kept and the same command continues.
    KeyboardInterrupt
        If ``stop`` asked to finish early; the same command continues.
    """
    plan = load_plan(folder)
    questions, store = read_questions(folder.questions), Store(plan.store)
    session = _Session(folder, plan, questions, store, display, retry_failed, stop or StopRequest())
    analyse(session)
    merge(session)
    return report(session)


def analyse(session: _Session) -> None:
    """Bring the panels into the store."""
    keys = {question.key: question.key for question in session.questions}
    _complete(session, {agent.name: keys for agent in session.plan.agents}, session.plan.agents)


def merge(session: _Session) -> None:
    """Bring the merge agent's rows into the store, for the panels it is asked about."""
    merger, config = session.plan.merger, session.plan.config.merge
    if merger is None:
        return
    panels = Panels(session.plan, session.store)
    asked = ((question, panels.of(question)) for question in session.questions)
    keys = {q.key: merge_task(q, panel, config).key for q, panel in asked if needs_merge(panel, config)}
    _complete(session, {merger.name: keys}, [merger])


def report(session: _Session) -> Result:
    """Decide and score in one pass over the questions, and write the result files."""
    plan, names = session.plan, session.plan.names
    deciding = Deciding(plan, session.store)
    scorer, digest = Scorer(names), RunDigest()

    def decisions() -> Iterator[Decision]:
        for question in session.questions:
            decision = deciding.decide(question, deciding.panel(question))
            scorer.add(decision)
            digest.add(decision)
            yield decision
        _refuse_missing(deciding)

    write_decisions(session.folder.root, decisions(), names)
    unused = [name for name, rows in deciding.used.items() if not rows]
    standing = state(session.folder, plan, unused)
    metrics, costs = scorer.metrics(), _costs(session, deciding)
    write_metrics(session.folder.root, metrics, costs, digest.value, standing)
    for violation in deciding.violations:
        log.warning("two different answers under one key: %s", violation)
    log.info("finished: digest %s, level %s", digest.value, standing.level)
    counts = len(deciding.violations), len(session.damaged)
    return Result(plan, metrics, costs, digest.value, *counts, standing)


def _refuse_missing(deciding: Deciding) -> None:
    """All rows were there a moment ago; what is made of the rest would pass for a finished run."""
    missing = ", ".join(f"{count:,} of {name}" for name, count in deciding.missing.items() if count)
    if missing:
        raise StoreError(
            f"rows are missing that were there before: {missing}",
            hint="a file of the store was damaged or removed meanwhile: run the same command again",
        )


def _costs(session: _Session, deciding: Deciding) -> dict[str, Cost]:
    return {
        agent.name: Cost(
            rows=deciding.used[agent.name],
            generated_now=session.generated.get(agent.name, 0),
            usage=deciding.usage[agent.name],
            load_s=session.timings.get(agent.name, Timing()).load_s,
            generate_s=session.timings.get(agent.name, Timing()).generate_s,
        )
        for agent in session.plan.workers
    }


def _complete(
    session: _Session, wanted: Mapping[str, Mapping[str, str]], agents: Sequence[AgentPlan]
) -> None:
    """Generate the missing rows of ``agents``.

    ``wanted`` has, by agent name, question key -> row key. Agents run side by side as
    ``engine.models_at_once`` allows; the first failure stops the others, which keep what they finished.
    """
    runs = []
    for agent in agents:
        session.store.declare(agent.full_spec)
        runs.append(_pending(session, agent, wanted[agent.name]))
    _run_all([run for run in runs if run.missing], session)


class _Pending(NamedTuple):
    """The rows of one agent that a stage lacks."""

    missing: Mapping[str, str]
    runner: AgentRun
    progress: Progress

    def run(self) -> None:
        self.runner.run(self.missing, self.progress)


def _pending(session: _Session, agent: AgentPlan, wanted: Mapping[str, str]) -> _Pending:
    stored, retry = session.store.read(agent.spec), session.retry_failed
    missing = {key: row for key, row in wanted.items() if row not in stored or (retry and stored.failed(row))}
    for chunk in stored.damaged:
        _set_aside(session, agent, chunk)
    log.info("%s: %d of %d rows are in the store", agent.name, len(wanted) - len(missing), len(wanted))
    session.generated[agent.name] = len(missing)
    engine = session.plan.config.engine
    runner = AgentRun(session.folder, agent, session.store, engine.stall_timeout_s, engine.recheck_rows)
    session.timings[agent.name] = runner.timing
    progress = session.display.stage(agent.name, len(wanted), len(wanted) - len(missing))
    return _Pending(missing, runner, progress)


def _set_aside(session: _Session, agent: AgentPlan, chunk: Path) -> None:
    session.store.set_aside(chunk)
    session.damaged.add(chunk)
    log.warning("%s: %s was damaged and is set aside; its rows are generated again", agent.name, chunk)


def _run_all(runs: Sequence[_Pending], session: _Session) -> None:
    if not runs:
        return
    stop = session.stop
    stop.running = [run.runner for run in runs]
    with ThreadPoolExecutor(max_workers=session.plan.config.engine.models_at_once) as pool:
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
        finally:
            stop.running = []
    if stop.asked:
        raise KeyboardInterrupt


def _refuse_other_plan(folder: RunFolder, now: Plan, accept_new_environment: bool) -> None:
    """Rows of two plans, or of two environments, are never mixed in one run without a word."""
    changed = plan_changes(load_plan(folder), now)
    if changed.plan:
        fast = any(one.field.endswith("engine.fast") for one in changed.plan)
        way = (
            "give or leave out --fast as before, or choose another --out" if fast else "choose another --out"
        )
        raise StoreError(
            f"this folder holds a run of a different plan; it differs in: {_told(changed.plan)}",
            where=str(folder.root),
            hint=f"{way}; rows that both plans need are taken from the store, not made again",
        )
    if changed.environment and accept_new_environment:
        # There is no log yet: this goes to standard error.
        log.warning("Another environment, so all rows are made anew: %s.", _told(changed.environment))
    elif changed.environment:
        raise StoreError(
            f"this run was begun in another environment; it differs in: {_told(changed.environment)}",
            where=str(folder.root),
            hint="continue it there, choose another --out, or make its rows anew by --accept-new-environment",
        )


def _told(changed: Sequence[Change]) -> str:
    return "; ".join(textwrap.shorten(str(one), _LONGEST_CHANGE, placeholder=" ...") for one in changed)
