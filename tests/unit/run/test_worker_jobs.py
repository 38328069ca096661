"""Jobs run when those before them have ended, followers are told in time, and one failure stops all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.errors import EngineError
from orch_local.placement.machine import Machine
from orch_local.placement.placing import place
from orch_local.placement.replicas import AgentJob, Replica, predecessors
from orch_local.run.scheduler import run_jobs
from orch_local.run.supervisor import Supervisor
from orch_local.run.worker_jobs import SharedProgress, WorkerJob


class Runner:
    """Stands for `Supervisor`: what a job asks of it is noted."""

    def __init__(self) -> None:
        self.completed = threading.Event()
        self.stopped = threading.Event()

    def complete(self) -> None:
        self.completed.set()

    def stop(self) -> None:
        self.stopped.set()


def job(replica: Replica, work: Callable[[Runner], object]) -> WorkerJob:
    runner = Runner()
    return WorkerJob(replica, cast(Supervisor, runner), lambda: work(runner), 1)


def runner_of(job: WorkerJob) -> Runner:
    return cast(Runner, job.supervisor)


def replica(agent: str, follows: bool = False, device: int = 0) -> Replica:
    return Replica(agent, 1, 1, 0.0, 1.0, (device,), 0, 0.9, 0.0, 1.0, 2.0, follows)


JOBS = st.lists(st.floats(0.0, 50.0), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(JOBS, st.integers(1, 4), st.booleans())
def test_no_two_jobs_meet_in_one_place(seconds: list[float], devices: int, merging: bool) -> None:
    agents = [AgentJob(f"a{n}", 1, 1.0, 5.0, each) for n, each in enumerate(seconds)]
    merge = AgentJob("merge", 1, 1.0, 5.0, 10.0) if merging else None
    plan = place(Machine("cuda", devices, 80.0), agents, merge)
    busy: set[tuple[int, int]] = set()
    met: list[Replica] = []
    ended: list[Replica] = []
    lock = threading.Lock()

    def work(one: Replica, runner: Runner) -> None:
        with lock:
            met.extend([one] * bool(busy & set(plan.slots(one))))
            busy.update(plan.slots(one))
            early = one.agent == "merge" and not one.follows and any(r not in ended for r in analyses)
            met.extend([one] * early)
        if one.follows:
            assert runner.completed.wait(200)
        with lock:
            busy.difference_update(plan.slots(one))
            ended.append(one)

    analyses = [one for one in plan.replicas if one.agent != "merge"]
    run_jobs(
        [job(one, lambda runner, one=one: work(one, runner)) for one in plan.replicas], predecessors(plan)
    )
    assert met == []
    assert sorted(map(id, ended)) == sorted(map(id, plan.replicas))


def test_a_follower_is_told_when_the_last_analysis_is_written_and_not_before() -> None:
    told: list[bool] = []
    follower = job(replica("merge", follows=True, device=1), lambda runner: runner.completed.wait(200))
    first = job(replica("a"), lambda _: told.append(runner_of(follower).completed.is_set()))
    second = job(replica("b"), lambda _: told.append(runner_of(follower).completed.is_set()))
    run_jobs([follower, first, second], {second.replica: {first.replica}})
    assert told == [False, False]
    assert runner_of(follower).completed.is_set()


def test_a_follower_alone_is_told_at_once() -> None:
    follower = job(replica("merge", follows=True), lambda runner: runner.completed.wait(200))
    run_jobs([follower], {})
    assert runner_of(follower).completed.is_set()


def test_a_failure_stops_all_and_those_that_wait_never_begin() -> None:
    def fail(_: Runner) -> None:
        raise EngineError("died")

    failing = job(replica("a"), fail)
    other = job(replica("b", device=1), lambda runner: runner.stopped.wait(200))
    later = job(replica("c"), lambda _: pytest.fail("it was begun"))
    with pytest.raises(EngineError, match="died"):
        run_jobs([failing, other, later], {later.replica: {failing.replica}})
    assert runner_of(other).stopped.is_set()
    assert later.began == 0.0 and failing.ended >= failing.began > 0


def test_workers_that_take_their_time_are_stopped_together() -> None:
    together = threading.Barrier(3)

    def fail(_: Runner) -> None:
        raise EngineError("died")

    class Slow(Runner):
        def stop(self) -> None:
            together.wait(200)

    jobs = [job(replica(name, device=place), fail) for place, name in enumerate("abc")]
    for one in jobs:
        one.supervisor = cast(Supervisor, Slow())
    with pytest.raises(EngineError):
        run_jobs(jobs, {})
    assert not together.broken


def test_progress_is_the_sum_over_the_workers() -> None:
    seen: list[int] = []
    shared = SharedProgress(seen.append)
    one, two = shared.of(1), shared.of(2)
    for update, done in ((one, 3), (two, 2), (one, 5), (two, 2)):
        update(done)
    assert seen == [3, 5, 7, 7] and shared.done == 7
