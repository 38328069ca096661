"""One execution of a prepared run, stage by stage. The stages talk through the store, never to each other.

An execution brings its run to the end, however often it was interrupted before, and generates only the rows
that the store does not hold yet.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from orch_local.errors import StoreError
from orch_local.merge.deciding import Deciding, RunDigest
from orch_local.plan.plans import Plan
from orch_local.records import Decision, LevelAssessment
from orch_local.results.diagnostics import Diagnostics, DiagnosticsCounter
from orch_local.results.files import write_decisions, write_metrics
from orch_local.results.levels import record_level
from orch_local.results.scoring import Cost, Metrics, Scorer
from orch_local.router.routes import read_routes
from orch_local.run.context import RunContext
from orch_local.run.missing import WantedMerges, missing_analyses
from orch_local.run.scheduler import Scheduler
from orch_local.run.stats import RunStats, Timing
from orch_local.run.waves import Wave, refuse_shards, route

log = logging.getLogger(__name__)


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
    level: LevelAssessment
    deaths: Mapping[str, int]
    """How often a worker died and was replaced, by agent."""
    diagnostics: Diagnostics


def run(context: RunContext) -> Result:
    """Bring a prepared run to its end and write its result files, a line a stage.

    Raises
    ------
    EngineError
        If an engine fails as a whole; finished rows are kept and the same command continues.
    StoreError
        If a row or a result file cannot be read or written.
    KeyboardInterrupt
        If ``context.stop`` asked to finish early; the same command continues.
    """
    declare_specs(context)
    stats = RunStats()
    with context.workers:
        for wave in route(context):  # one wave, unless the router learns while the run goes on
            parts = decompose(context, wave)
            analysed = analyse(context, parts)
            stats += analysed.stats
        stats += merge(context, analysed)
    decisions = decide(context)
    scores = score(context, decisions)
    return write(context, scores, stats)


def run_shard(context: RunContext) -> RunStats:
    """Bring the analyses and merges of one shard into the store; decisions are for :func:`score_stored`.

    Raises as :func:`run`, and :class:`InputError` where the run cannot be divided.
    """
    if context.store.shard:
        refuse_shards(context.plan.config, context.store.shard.of)
    declare_specs(context)
    stats = RunStats()
    with context.workers:
        for wave in route(context):
            analysed = analyse(context, decompose(context, wave))
            stats += analysed.stats
        return stats + merge(context, analysed)


def score_stored(context: RunContext) -> Result:
    """Decide and score a run whose rows are all in the store, and write its result files; loads no model.

    Raises
    ------
    StoreError
        Naming what is missing.
    """
    return write(context, score(context, decide(context)), RunStats())


def declare_specs(context: RunContext) -> None:
    """Write what the rows of each agent are made from beside them, once an execution."""
    for agent in context.plan.workers:
        context.store.declare(agent.full_spec)


def decompose(context: RunContext, wave: Wave) -> Wave:  # noqa: ARG001 - no policy reads the context yet
    """The sub-questions of a wave: each agent is asked the whole question, in its role."""
    return wave


class Analysed(NamedTuple):
    """What became of the analyses of a wave."""

    stats: RunStats
    scheduler: Scheduler | None
    """Also schedules the merges; ``None`` behind a wave that is not the last."""


def analyse(context: RunContext, wave: Wave) -> Analysed:
    """Generate the missing analyses of a wave; with the last one merges may begin. Raises as :func:`run`."""
    missing = missing_analyses(context, wave.questions, wave.routes)
    if not wave.last and not any(one.rows for one in missing):
        return Analysed(RunStats.set_aside(chunk for one in missing for chunk in one.damaged), None)
    merges = WantedMerges(context, wave.routes) if wave.last else None
    scheduler = Scheduler(context, missing, merges)
    try:
        stats = scheduler.analyse()
    except BaseException:
        scheduler.keep_timeline()
        raise
    if wave.last:
        return Analysed(stats, scheduler)
    scheduler.keep_timeline()
    return Analysed(stats, None)


def merge(context: RunContext, analysed: Analysed) -> RunStats:  # noqa: ARG001 - every stage takes it
    """Generate the missing merges, whose panels are complete now. Raises as :func:`run`."""
    if analysed.scheduler is None:
        return RunStats()
    try:
        return analysed.scheduler.merge()
    finally:
        analysed.scheduler.keep_timeline()


@dataclass(frozen=True, slots=True)
class Decisions:
    """The decisions of a run, made one by one from the stored rows while they are iterated over."""

    deciding: Deciding
    context: RunContext
    diagnostics: DiagnosticsCounter

    def __iter__(self) -> Iterator[Decision]:
        for question in self.context.questions:
            panel = self.deciding.panel(question)
            merged = self.deciding.merged(question, panel)
            decision = self.deciding.decide_with(question, panel, merged)
            self.diagnostics.add(question, panel, merged, decision.answer)
            yield decision
        _refuse_missing(self.deciding)


def decide(context: RunContext) -> Decisions:
    """What each question comes to, by the stored rows alone; nothing is decided before it is iterated over.

    Raises
    ------
    StoreError
        If rows or routes cannot be read and, at the end of the iteration, if rows are missing.
    """
    routes = read_routes(context.folder, context.plan)
    return Decisions(Deciding(context.plan, context.store, routes), context, DiagnosticsCounter(context.plan))


@dataclass(frozen=True, slots=True)
class Scores:
    """The decisions of a run, counted while they are iterated over."""

    decisions: Decisions
    scorer: Scorer
    digest: RunDigest

    def __iter__(self) -> Iterator[Decision]:
        for decision in self.decisions:
            self.scorer.add(decision)
            self.digest.add(decision)
            yield decision


def score(context: RunContext, decisions: Decisions) -> Scores:
    """Score decisions against gold; they are counted in the one pass in which they are written."""
    return Scores(decisions, Scorer(context.plan.names), RunDigest(context.plan.names))


def write(context: RunContext, scores: Scores, stats: RunStats) -> Result:
    """Write the result files of a run: decisions, metrics, level.

    Raises
    ------
    StoreError
        If rows are missing, or a file cannot be written.
    """
    folder, plan, deciding = context.folder, context.plan, scores.decisions.deciding
    write_decisions(folder.root, scores, plan.names)
    unused = [name for name, rows in deciding.used.items() if not rows]
    level = record_level(folder, plan, unused)
    metrics, digest = scores.scorer.metrics(), scores.digest.value
    costs = {agent.name: _cost(agent.name, deciding, stats) for agent in plan.workers}
    diagnostics = scores.decisions.diagnostics.diagnostics()
    write_metrics(folder.root, metrics, costs, digest, level, diagnostics)
    for violation in deciding.violations:
        log.warning("two different answers under one key: %s", violation)
    log.info("finished: digest %s, level %s", digest, level.level)
    return Result(
        plan=plan,
        metrics=metrics,
        costs=costs,
        digest=digest,
        violations=len(deciding.violations),
        damaged=len(stats.damaged),
        level=level,
        deaths={name: timing.deaths for name, timing in stats.timings.items() if timing.deaths},
        diagnostics=diagnostics,
    )


def _refuse_missing(deciding: Deciding) -> None:
    """What is made of the rest would pass for a finished run."""
    missing = ", ".join(f"{count:,} of {name}" for name, count in deciding.missing.items() if count)
    if missing:
        raise StoreError(
            f"the run is not finished, rows are missing: {missing}",
            hint="run or submit it again: just what is missing is generated",
        )


def _cost(name: str, deciding: Deciding, stats: RunStats) -> Cost:
    timing = stats.timings.get(name, Timing())
    return Cost(
        rows=deciding.used[name],
        generated_now=stats.generated.get(name, 0),
        usage=deciding.usage[name],
        load_s=timing.load_s,
        generate_s=timing.generate_s,
        recheck_s=timing.recheck_s,
        rechecked=timing.rechecked,
    )
