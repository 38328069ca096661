"""The workers of one execution: who sits where, and what each of them generates."""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from orch_local.errors import OrchError, StoreError
from orch_local.models.folders import open_model_folder
from orch_local.placement.estimates import need_of
from orch_local.placement.placing import Placement, Replica, Slot, predecessors
from orch_local.plan.plans import AgentPlan
from orch_local.results.timeline import Stint, Timeline, keep
from orch_local.run.forecast import machine_for, placed
from orch_local.run.loaded import Handover, Place
from orch_local.run.missing import Lack, Merges
from orch_local.run.pinning import core_sets, usable_cores
from orch_local.run.prefetch import ReadAhead
from orch_local.run.rechecking import recheck_for
from orch_local.run.sessions import Session
from orch_local.run.staging import stage
from orch_local.run.starting import Gate
from orch_local.run.supervisor import AgentRun, Patience, Progress, Seat, Timing
from orch_local.run.worker_jobs import SharedProgress, Shift, run_shifts
from orch_local.store.keys import RowKeys
from orch_local.util.devices import gpu_names

log = logging.getLogger(__name__)


class Crew:
    """Generates what is missing, as a placement made for this machine and these rows says.

    Parameters
    ----------
    more:
        Whether another crew comes behind, so that the last workers wait with their models loaded.

    Raises
    ------
    InputError
        If a model does not fit this machine.
    """

    def __init__(
        self, session: Session, lacks: Sequence[Lack], merges: Merges | None = None, more: bool = False
    ) -> None:
        self._session = session
        self._more = more
        self._agents = {agent.name: agent for agent in session.plan.workers}
        self._shifts_run: list[Shift] = []
        self._near: set[str] = set()
        """Agents whose weights were read, or are being read."""
        self._began, self._clock = datetime.now(UTC), time.monotonic()
        rows = {lack.agent.name: len(lack.rows) for lack in lacks}
        merger = session.plan.merger
        self.placement = self._placed(rows | ({merger.name: merges.most()} if merger and merges else {}))
        session.loaded.keep_only(self._place(one) for one in self._firsts())

    def analyse(self, lacks: Sequence[Lack], merges: Merges | None = None) -> None:
        """Generate the missing analyses, and the merges of a merge agent that has a device of its own."""
        shifts = [shift for lack in lacks for shift in self._shifts(lack)]
        self._run(shifts + (self._followers(merges) if shifts and merges else []))

    def merge(self, lack: Lack) -> None:
        """Generate the missing merges, whose panels are complete."""
        if lack.rows and not self._replicas(lack.agent):  # more are missing than were a moment ago
            self.placement = self._placed({lack.agent.name: len(lack.rows)})
        self._run(self._shifts(lack))

    def keep_timeline(self) -> None:
        """Write down when each worker loaded and generated; a run does not fail for want of it."""
        stints = tuple(self._stint(shift) for shift in self._shifts_run if shift.began)
        shard, began = self._session.store.shard, self._began.isoformat(timespec="milliseconds")
        timeline = Timeline(began, platform.node(), str(shard or ""), self.placement, stints)
        try:
            if stints:
                keep(self._session.folder, timeline)
        except StoreError as error:
            log.warning("the timeline is not kept: %s", error)

    def _stint(self, shift: Shift) -> Stint:
        one, timing = shift.replica, shift.runner.timing
        begin, end = shift.began - self._clock, (shift.ended or time.monotonic()) - self._clock
        return Stint(
            agent=one.agent,
            number=one.number,
            of=one.of,
            devices=one.devices,
            lane=one.lane,
            start_s=round(begin, 3),
            loaded_s=round(begin + timing.load_s, 3) if timing.generate_s else None,
            end_s=round(end, 3),
            rows=shift.rows,
            recheck_s=round(timing.recheck_s, 3),
            rechecked=timing.rechecked,
        )

    def _placed(self, rows: Mapping[str, int]) -> Placement:
        """Where the rows that each agent lacks are to be generated."""
        plan, wanted = self._session.plan, {name: count for name, count in rows.items() if count}
        return placed(plan, machine_for(plan), wanted, self._session.loaded.engines)

    def _replicas(self, agent: AgentPlan) -> list[Replica]:
        return [one for one in self.placement.replicas if one.agent == agent.name]

    def _shifts(self, lack: Lack) -> list[Shift]:
        """What generates the rows of one agent; empty where none is missing."""
        session, agent = self._session, lack.agent
        session.generated[agent.name] = session.generated.get(agent.name, 0) + len(lack.rows)
        shown = SharedProgress(session.display.stage(agent.name, lack.wanted, lack.stored))
        if not lack.rows:
            return []
        replicas = [replace(one, follows=False) for one in self._replicas(agent)]
        return [self._shift(one, lack.rows, shown.of(one.number)) for one in replicas]

    def _shift(self, replica: Replica, rows: RowKeys, progress: Progress) -> Shift:
        mine = rows.picked(replica.part(range(len(rows))))
        runner = self._runner(replica)
        return Shift(replica, runner, lambda: runner.run(mine, self._then(replica, progress)), len(mine))

    def _followers(self, merges: Merges) -> list[Shift]:
        """What merges panels while others are still written; empty where the merge agent has to wait."""
        merger = self._session.plan.merger
        replicas = [one for one in self._replicas(merger) if one.follows] if merger else []
        if not merger or not replicas:
            return []
        keys = [*merges.lack(merger).rows, *merges.open.keys()]
        shown = SharedProgress(self._session.display.stage(_stage_name(replicas[0]), len(keys), 0))
        return [self._follower(one, keys, shown.of(one.number)) for one in replicas]

    def _follower(self, replica: Replica, keys: Sequence[str], progress: Progress) -> Shift:
        mine = replica.part(keys)
        runner = self._runner(replica)
        generated = self._session.generated

        def counted(done: int) -> None:
            progress(done)
            shift.rows = done

        def work() -> None:
            runner.follow(mine, counted)
            generated[replica.agent] = generated.get(replica.agent, 0) + shift.rows

        shift = Shift(replica, runner, work, 0)
        return shift

    def _runner(self, replica: Replica) -> AgentRun:
        session, engine = self._session, self._session.plan.config.engine
        agent = self._agents[replica.agent]
        seat = replace(self._seat(replica), stage_to=session.stage_to)
        recheck = recheck_for(engine, agent.settings.device)
        runner = AgentRun(session.folder, agent, session.store, Patience.of(engine), recheck, seat)
        runner.again = partial(session.display.again, _stage_name(replica))
        if not replica.follows:
            runner.handover = Handover(session.loaded, self._place(replica), self._stays(replica))
        return runner

    def _place(self, replica: Replica) -> Place:
        """Where a replica has its model loaded, to tell who can take it over."""
        means = replace(self._seat(replica), label="")
        return Place(self.placement.slots(replica), self._agents[replica.agent].engine, means)

    def _stays(self, replica: Replica) -> bool:
        """Whether the worker of a replica waits at its end: for the next one there, or the next crew."""
        following = next(self._later(replica), None)
        if following is None:
            return self._more
        return not following.follows and self._place(following) == self._place(replica)

    def _later(self, replica: Replica) -> Iterator[Replica]:
        """The replicas that come behind one on its devices, in order."""
        place, slots = self.placement, set(self.placement.slots(replica))
        later = (one for one in place.replicas if one.start_s >= replica.end_s and one != replica)
        return (one for one in later if slots & set(place.slots(one)))

    def _firsts(self) -> list[Replica]:
        """The first replica in each slot."""
        found: dict[Slot, Replica] = {}
        for one in self.placement.replicas:
            for slot in self.placement.slots(one):
                found.setdefault(slot, one)
        return list(found.values())

    def _seat(self, replica: Replica) -> Seat:
        label = f"@{replica.number}" if replica.of > 1 else ""
        here = self.placement.machine
        if here.kind == "cpu":
            return Seat(label, cores=self._cores(replica))
        names = gpu_names()
        gpus = ",".join(names[device] for device in replica.devices) if names else None
        return Seat(label, gpus, memory_share=replica.memory_share)

    def _cores(self, replica: Replica) -> tuple[int, ...]:
        """Cores of its own, where all sets of cores are at work; else the kernel knows best."""
        used = {device for one in self.placement.replicas for device in one.devices}
        here, threads = self.placement.machine, self._agents[replica.agent].settings.threads
        sets = core_sets(usable_cores(), here.devices, threads)
        return sets[replica.devices[0]] if sets and len(used) == here.devices > 1 else ()

    def _run(self, shifts: Sequence[Shift]) -> None:
        session = self._session
        session.stop.running = [shift.runner for shift in shifts]
        self._shifts_run += shifts
        try:
            run_shifts(shifts, predecessors(self.placement), self._gate())
        finally:
            session.stop.running = []
            for shift in shifts:
                session.timings.setdefault(shift.replica.agent, Timing()).add(shift.runner.timing)
        if session.stop.asked:
            raise KeyboardInterrupt

    def _gate(self) -> Gate:
        """What lets workers start; on a CPU by the memory that each of them takes."""
        needs: dict[str, float] = {}
        plan, here = self._session.plan, self.placement.machine
        if here.kind == "cpu":
            needs = {name: need_of(agent, plan, 1, here).memory_gib for name, agent in self._agents.items()}
        return Gate(needs, takes_over=lambda one: self._session.loaded.holds(self._place(one)))

    def _then(self, replica: Replica, progress: Progress) -> Progress:
        """The progress of a worker, at whose first sign the next model on its devices is brought near."""
        told = threading.Event()

        def update(done: int) -> None:
            if not told.is_set():
                told.set()
                self._near.add(replica.agent)
                self._bring_near(replica)
            progress(done)

        return update

    def _bring_near(self, replica: Replica) -> None:
        """Start ahead what is loaded next on the devices of ``replica``, and copy or read its weights."""
        engine = self._agents[replica.agent].engine
        others = (one for one in self._later(replica) if self._agents[one.agent].engine != engine)
        following = next(others, None)
        if following is None or following.agent in self._near:
            return
        self._near.add(following.agent)
        if self.placement.machine.kind == "cuda":  # on a CPU importing would take time from generating
            self._prepare(following)
        agent, root = self._agents[following.agent], self._session.stage_to
        if root:
            threading.Thread(target=_copy, args=(agent, root), daemon=True).start()
        else:
            ReadAhead(open_model_folder(agent.model).weights).start()

    def _prepare(self, replica: Replica) -> None:
        """Start the worker of a replica ahead."""
        for shift in self._shifts_run:
            if shift.replica == replica and not shift.began:
                shift.runner.prepare()


def _stage_name(replica: Replica) -> str:
    """What the display calls the stage that a replica works at."""
    return f"{replica.agent} (following)" if replica.follows else replica.agent


def _copy(agent: AgentPlan, root: Path) -> None:
    try:
        stage(agent, root)
    except OrchError as error:
        log.info("the model of %s could not be copied ahead: %s", agent.name, error)
