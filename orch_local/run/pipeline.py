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
from pathlib import Path
from typing import NamedTuple

from orch_local.config.run_files import RunConfig
from orch_local.errors import StoreError
from orch_local.merge.deciding import Deciding, RunDigest
from orch_local.plan.differences import Change
from orch_local.plan.plans import Plan, load_plan, plan_changes, write_plan
from orch_local.records import Decision, Standing
from orch_local.report.files import write_decisions, write_metrics
from orch_local.results.diagnostics import Diagnostics, DiagnosticsCounter
from orch_local.results.levels import state
from orch_local.results.scoring import Cost, Metrics, Scorer
from orch_local.router.routes import begun_routes, read_routes, write_routes
from orch_local.run import waves
from orch_local.run.forecast import asked_at_most, check, draft
from orch_local.run.missing import Merges, lacking_analyses
from orch_local.run.scheduler import Crew
from orch_local.run.sessions import Blind, Display, Session, StopRequest
from orch_local.run.supervisor import Timing
from orch_local.store.questions import read_questions, write_questions
from orch_local.store.shards import Shard
from orch_local.store.store import RunFolder, Store, write_text

log = logging.getLogger(__name__)

_LONGEST_CHANGE = 160


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
    deaths: Mapping[str, int]
    """How often a worker died and was replaced, by agent."""
    diagnostics: Diagnostics


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
    begun = load_plan(folder) if folder.plan.exists() else None
    plan, questions, bad_rows = draft(config, store, begun)
    check(plan, questions)
    if begun:
        _refuse_other_plan(folder, begun, plan, accept_new_environment)
    write_questions(folder.questions, questions)
    lines = [json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in bad_rows]
    write_text(folder.bad_rows, "".join(lines))
    write_plan(folder, plan)
    if plan.config.router and not waves.size(plan.config):
        write_routes(folder, plan, read_questions(folder.questions))
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
    session = Session.of(folder, display)
    session.retry_failed, session.stop = retry_failed, stop or session.stop
    generate(session)
    return report(session)


def work(
    folder: RunFolder,
    display: Display,
    shard: Shard,
    *,
    retry_failed: bool = False,
    stop: StopRequest | None = None,
    stage_to: Path | None = None,
) -> None:
    """Bring the analyses and merges of one shard into the store; decisions are for :func:`score`.

    ``stage_to`` is a folder on a local disk that the weights are copied to first. Raises as
    :func:`execute` does.
    """
    session = Session.of(folder, display, shard)
    waves.refuse_shards(session.plan.config, shard.of)
    session.retry_failed, session.stop, session.stage_to = retry_failed, stop or session.stop, stage_to
    generate(session)


def score(folder: RunFolder) -> Result:
    """Decide and score a run whose rows are all in the store, and write its result files; loads no model.

    Raises
    ------
    StoreError
        Naming what is missing.
    """
    return report(Session.of(folder, Blind()))


def left(folder: RunFolder) -> int:
    """Rows that a run still lacks, at most: analyses, and merges, one for each panel that is not complete.

    Raises
    ------
    StoreError
        If the folder holds no plan, or the store cannot be read.
    """
    session = Session.of(folder, Blind())
    session.looks_only = True
    return _left(session)


def left_by_shard(folder: RunFolder, shards: int) -> list[int]:
    """What each of so many shards lacks, one shard in memory at a time. Raises as :func:`left`."""
    plan, parts = load_plan(folder), read_questions(folder.questions).by_shard(shards)
    waves.refuse_shards(plan.config, shards)
    routes, left = begun_routes(folder, plan), list[int]()
    for number, part in enumerate(parts, 1):
        store = Store(plan.store, Shard(number, shards))
        left.append(_left(Session(folder, plan, part, store, Blind(), routes, looks_only=True)))
    return left


def _left(session: Session) -> int:
    unrouted = len(waves.look(session)) if waves.size(session.plan.config) else 0
    analyses = sum(len(lack.rows) for lack in lacking_analyses(session)) + unrouted * asked_at_most(
        session.plan
    )
    return analyses + Merges(session).most()


def generate(session: Session) -> None:
    """Bring all rows into the store: the panels, then what the merge agent makes of them."""
    for agent in session.plan.workers:
        session.store.declare(agent.full_spec)
    try:
        _generate(session)
    finally:
        session.loaded.end()


def _generate(session: Session) -> None:
    if waves.size(session.plan.config):
        waves.analyse(session)
    lacks, merges, merger = lacking_analyses(session), Merges(session), session.plan.merger
    crew = Crew(session, lacks, merges)
    try:
        crew.analyse(lacks, merges)
        if merger:
            merges.look()
            crew.merge(merges.lack(merger))
    finally:
        crew.keep_timeline()


def report(session: Session) -> Result:
    """Decide and score in one pass over the questions, and write the result files."""
    plan, names = session.plan, session.plan.names
    deciding = Deciding(plan, session.store, read_routes(session.folder, plan))
    scorer, digest, diagnosing = Scorer(names), RunDigest(names), DiagnosticsCounter(plan)

    def decisions() -> Iterator[Decision]:
        for question in session.questions:
            panel = deciding.panel(question)
            merged = deciding.merged(question, panel)
            decision = deciding.decide_with(question, panel, merged)
            scorer.add(decision)
            digest.add(decision)
            diagnosing.add(question, panel, merged, decision.answer)
            yield decision
        _refuse_missing(deciding)

    write_decisions(session.folder.root, decisions(), names)
    unused = [name for name, rows in deciding.used.items() if not rows]
    standing = state(session.folder, plan, unused)
    metrics, costs = scorer.metrics(), _costs(session, deciding)
    diagnostics = diagnosing.diagnostics()
    write_metrics(session.folder.root, metrics, costs, digest.value, standing, diagnostics)
    for violation in deciding.violations:
        log.warning("two different answers under one key: %s", violation)
    log.info("finished: digest %s, level %s", digest.value, standing.level)
    counts = len(deciding.violations), len(session.damaged)
    deaths = {name: timing.deaths for name, timing in session.timings.items() if timing.deaths}
    return Result(plan, metrics, costs, digest.value, *counts, standing, deaths, diagnostics)


def _refuse_missing(deciding: Deciding) -> None:
    """What is made of the rest would pass for a finished run."""
    missing = ", ".join(f"{count:,} of {name}" for name, count in deciding.missing.items() if count)
    if missing:
        raise StoreError(
            f"the run is not finished, rows are missing: {missing}",
            hint="run or submit it again: just what is missing is generated",
        )


def _costs(session: Session, deciding: Deciding) -> dict[str, Cost]:
    return {agent.name: _cost(agent.name, session, deciding) for agent in session.plan.workers}


def _cost(name: str, session: Session, deciding: Deciding) -> Cost:
    timing = session.timings.get(name, Timing())
    return Cost(
        rows=deciding.used[name],
        generated_now=session.generated.get(name, 0),
        usage=deciding.usage[name],
        load_s=timing.load_s,
        generate_s=timing.generate_s,
        recheck_s=timing.recheck_s,
        rechecked=timing.rechecked,
    )


def _refuse_other_plan(folder: RunFolder, begun: Plan, now: Plan, accept_new_environment: bool) -> None:
    """Rows of two plans, or of two environments, are never mixed in one run without a word."""
    changed = plan_changes(begun, now)
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
