"""Schedules the workers of one execution: which model runs where and when, and runs each in its turn."""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from orch_local.errors import StoreError
from orch_local.placement.replicas import Placement, Replica, predecessors
from orch_local.plan.needs import need_of
from orch_local.plan.plans import AgentPlan
from orch_local.results.timeline import Span, Timeline, keep
from orch_local.run.context import RunContext
from orch_local.run.conversation import Patience
from orch_local.run.loaded import Handover
from orch_local.run.missing import MissingRows, WantedMerges
from orch_local.run.next_model import NextModel
from orch_local.run.planning import machine_for, placed
from orch_local.run.rechecking import recheck_for
from orch_local.run.starting import Gate
from orch_local.run.stats import RunStats
from orch_local.run.supervisor import Progress, Supervisor, WorkerOptions
from orch_local.run.worker_jobs import SharedProgress, WorkerJob
from orch_local.run.worker_slots import WorkerSlots
from orch_local.store.keys import RowKeys

log = logging.getLogger(__name__)

_LOOK_S = 1.0
"""Seconds between two looks whether a worker that has to wait may start."""


class Scheduler:
    """Generates what is missing, as a placement made for this machine and these rows says.

    Parameters
    ----------
    missing:
        The analyses that are to be generated, in agent order.
    merges:
        The merges of the run, where they are scheduled together with the analyses; ``None`` where another
        scheduler comes behind, for which the last workers then wait with their models loaded.

    Raises
    ------
    InputError
        If a model does not fit this machine.
    """

    def __init__(
        self, context: RunContext, missing: Sequence[MissingRows], merges: WantedMerges | None
    ) -> None:
        self._context = context
        self._missing = missing
        self._merges = merges
        self._agents = {agent.name: agent for agent in context.plan.workers}
        self._jobs: list[WorkerJob] = []
        self._began, self._clock = datetime.now(UTC), time.monotonic()
        rows = {one.agent.name: len(one.rows) for one in missing}
        merger = context.plan.merger
        self._place(rows | ({merger.name: merges.most()} if merger and merges else {}))
        on_gpus = self.placement.machine.kind == "cuda"
        starter = self._start_worker if on_gpus else None
        self._next = NextModel(self._agents, starter, context.stage_to)
        context.workers.keep_only(self._slots.first_places())

    def analyse(self) -> RunStats:
        """Generate the missing analyses, and the merges of a merge agent that has a device of its own."""
        jobs = [job for one in self._missing for job in self._jobs_of(one)]
        stats = self._run(jobs + (self._followers(self._merges) if jobs and self._merges else []))
        counts = RunStats(generated={one.agent.name: len(one.rows) for one in self._missing})
        return stats + counts + RunStats.set_aside(chunk for one in self._missing for chunk in one.damaged)

    def merge(self) -> RunStats:
        """Generate the missing merges, whose panels are complete."""
        merger = self._context.plan.merger
        if merger is None or self._merges is None:
            return RunStats()
        self._merges.update()
        missing = self._merges.missing(merger)
        if missing.rows and not self._replicas(merger):  # more are missing than were a moment ago
            self._place({merger.name: len(missing.rows)})
        stats = self._run(self._jobs_of(missing))
        return stats + RunStats(generated={merger.name: len(missing.rows)}, damaged=self._merges.damaged)

    def keep_timeline(self) -> None:
        """Write down when each worker loaded and generated; a run does not fail for want of it."""
        spans = tuple(self._span(job) for job in self._jobs if job.began)
        shard, began = self._context.store.shard, self._began.isoformat(timespec="milliseconds")
        timeline = Timeline(began, platform.node(), str(shard or ""), self.placement, spans)
        try:
            if spans:
                keep(self._context.folder, timeline)
        except StoreError as error:
            log.warning("the timeline is not kept: %s", error)

    def _span(self, job: WorkerJob) -> Span:
        one, timing = job.replica, job.supervisor.timing
        begin, end = job.began - self._clock, (job.ended or time.monotonic()) - self._clock
        return Span(
            agent=one.agent,
            number=one.number,
            of=one.of,
            devices=one.devices,
            lane=one.lane,
            start_s=round(begin, 3),
            loaded_s=round(begin + timing.load_s, 3) if timing.generate_s else None,
            end_s=round(end, 3),
            rows=job.rows,
            recheck_s=round(timing.recheck_s, 3),
            rechecked=timing.rechecked,
        )

    def _place(self, rows: Mapping[str, int]) -> None:
        """Decide where the rows that each agent misses are to be generated."""
        plan, wanted = self._context.plan, {name: count for name, count in rows.items() if count}
        self.placement: Placement = placed(plan, machine_for(plan), wanted, self._context.workers.engines)
        self._slots = WorkerSlots(self.placement, self._agents, self._context.stage_to)

    def _replicas(self, agent: AgentPlan) -> list[Replica]:
        return [one for one in self.placement.replicas if one.agent == agent.name]

    def _jobs_of(self, missing: MissingRows) -> list[WorkerJob]:
        """What generates the rows of one agent; empty where none is missing."""
        agent = missing.agent
        shown = SharedProgress(self._context.display.stage(agent.name, missing.wanted, missing.stored))
        if not missing.rows:
            return []
        replicas = [replace(one, follows=False) for one in self._replicas(agent)]
        return [self._job(one, missing.rows, shown.of(one.number)) for one in replicas]

    def _job(self, replica: Replica, rows: RowKeys, progress: Progress) -> WorkerJob:
        mine = rows.picked(replica.part(range(len(rows))))
        supervisor = self._supervisor(replica)
        shown = self._next.after_first_row(replica, self._slots, progress)
        return WorkerJob(replica, supervisor, lambda: supervisor.run(mine, shown), len(mine))

    def _followers(self, merges: WantedMerges) -> list[WorkerJob]:
        """What merges panels while others are still written; empty where the merge agent has to wait."""
        merger = self._context.plan.merger
        replicas = [one for one in self._replicas(merger) if one.follows] if merger else []
        if not merger or not replicas:
            return []
        keys = [*merges.missing(merger).rows, *merges.open_keys()]
        shown = SharedProgress(self._context.display.stage(_stage_name(replicas[0]), len(keys), 0))
        return [self._follower(one, keys, shown.of(one.number)) for one in replicas]

    def _follower(self, replica: Replica, keys: Sequence[str], progress: Progress) -> WorkerJob:
        mine = replica.part(keys)
        supervisor = self._supervisor(replica)

        def counted(done: int) -> None:
            progress(done)
            job.rows = done

        job = WorkerJob(replica, supervisor, lambda: supervisor.follow(mine, counted), 0)
        return job

    def _supervisor(self, replica: Replica) -> Supervisor:
        context, engine = self._context, self._context.plan.config.engine
        agent = self._agents[replica.agent]
        options = WorkerOptions(
            patience=Patience.of(engine),
            slot=self._slots.of(replica),
            recheck=recheck_for(engine, agent.settings.device),
            handover=None if replica.follows else self._handover(replica),
            rechecking=partial(context.display.again, _stage_name(replica)),
        )
        return Supervisor(context.folder, agent, context.store, options)

    def _handover(self, replica: Replica) -> Handover:
        """A worker waits at its end for the next one in its place, or for the next scheduler."""
        stays = self._slots.hands_over(replica)
        place = self._slots.place(replica)
        return Handover(self._context.workers, place, self._merges is None if stays is None else stays)

    def _start_worker(self, replica: Replica) -> None:
        """Start the worker of a replica ahead."""
        for job in self._jobs:
            if job.replica == replica and not job.began:
                job.supervisor.prepare()

    def _run(self, jobs: Sequence[WorkerJob]) -> RunStats:
        self._jobs += jobs
        with self._context.stop.covering([job.supervisor for job in jobs]):
            run_jobs(jobs, predecessors(self.placement), self._gate())
        if self._context.stop.asked:
            raise KeyboardInterrupt
        timed = (RunStats({job.replica.agent: job.supervisor.timing}) for job in jobs)
        followed = (RunStats(generated={job.replica.agent: job.rows}) for job in jobs if job.replica.follows)
        return sum((*timed, *followed), RunStats())

    def _gate(self) -> Gate:
        """What lets workers start; on a CPU by the memory that each of them takes."""
        needs: dict[str, float] = {}
        plan, here = self._context.plan, self.placement.machine
        if here.kind == "cpu":
            needs = {name: need_of(agent, plan, 1, here).memory_gib for name, agent in self._agents.items()}
        return Gate(needs, takes_over=lambda one: self._context.workers.holds(self._slots.place(one)))


@dataclass(slots=True)
class _Queue:
    """Jobs at work, and those that wait for them."""

    before: Mapping[Replica, set[Replica]]
    waiting: list[WorkerJob]
    gate: Gate | None = None
    held: bool = False
    """Whether one of them could start but for the gate."""
    running: dict[Future[None], WorkerJob] = field(default_factory=dict)

    def ready(self) -> Iterator[WorkerJob]:
        """Jobs whose turn it is, taken off those that wait."""
        unfinished = {job.replica for job in (*self.waiting, *self.running.values())}
        running, self.held = list(self.running.values()), False
        for job in list(self.waiting):
            if self.before.get(job.replica, set()) & unfinished:
                continue
            if self.gate and not self.gate.may_start(job.replica, running):
                self.held = True
                continue
            self.waiting.remove(job)
            running.append(job)
            yield job

    def analysing(self) -> bool:
        """Whether a worker is still to write what others follow."""
        return any(not job.replica.follows for job in (*self.waiting, *self.running.values()))


def run_jobs(
    jobs: Sequence[WorkerJob], before: Mapping[Replica, set[Replica]], gate: Gate | None = None
) -> None:
    """Run all jobs, each when those before it have ended and the gate, if any, lets it in.

    Those that follow are told when no other is left.

    Raises
    ------
    OrchError
        The first failure of a worker; all others are stopped, and keep what they finished.
    """
    queue = _Queue(before, list(jobs), gate)
    with ThreadPoolExecutor(max_workers=max(1, len(jobs))) as pool:
        try:
            while queue.waiting or queue.running:
                queue.running |= {pool.submit(job.run): job for job in queue.ready()}
                if not queue.analysing():
                    _complete(jobs)
                look_again_s = _LOOK_S if queue.held else None
                done, _ = wait(queue.running, look_again_s, return_when=FIRST_COMPLETED)
                for future in done:
                    del queue.running[future]
                    future.result()
        except BaseException:
            _stop(jobs)
            raise


def _complete(jobs: Sequence[WorkerJob]) -> None:
    for job in jobs:
        if job.replica.follows:
            job.supervisor.complete()


def _stop(jobs: Sequence[WorkerJob]) -> None:
    """Stop all workers at once: each may take its time, and a batch system does not wait for long."""
    stops = [threading.Thread(target=job.supervisor.stop) for job in jobs]
    for stop in stops:
        stop.start()
    for stop in stops:
        stop.join()


def _stage_name(replica: Replica) -> str:
    """What the display calls the stage that a replica works at."""
    return f"{replica.agent} (following)" if replica.follows else replica.agent
