"""Workers wait for memory of the host, and for a GPU's other model to be loaded; one alone never waits."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

from orch_local.placement.replicas import Replica
from orch_local.run.scheduler import run_jobs
from orch_local.run.starting import Gate


@dataclass
class Runner:
    loaded: bool = False
    resident_gib: float = 0.0

    def complete(self) -> None: ...

    def stop(self) -> None: ...


@dataclass
class Job:
    """Notes how many run with it."""

    replica: Replica
    supervisor: Runner = field(default_factory=Runner)
    beside: int = 0

    def run(self) -> None:
        with ROOM:
            RUNNING.append(self)
            self.beside = len(RUNNING)
        threading.Event().wait(0.05)
        with ROOM:
            RUNNING.remove(self)


ROOM = threading.Lock()
RUNNING: list[Job] = []


def replica(agent: str, *devices: int, lane: int = 0) -> Replica:
    return Replica(agent, 1, 1, 0.0, 1.0, devices or (0,), lane, 0.0, 0.0, 1.0, 2.0)


def test_memory_that_is_still_to_be_taken_is_not_free() -> None:
    gate = Gate({"a": 8.0, "b": 5.0}, lambda: 12.0)
    loading = Job(replica("a"), Runner(resident_gib=2.0))
    assert gate.may_start(replica("b"), [])
    assert gate.may_start(replica("b"), [loading])  # 12 - (8 - 2) = 6
    assert not gate.may_start(replica("a"), [loading])
    loading.supervisor.resident_gib = 9.0
    assert gate.may_start(replica("a"), [loading])


def test_alone_a_worker_is_tried_whatever_is_free() -> None:
    assert Gate({"a": 8.0}, lambda: 0.0).may_start(replica("a"), [])


def test_no_worker_waits_for_one_that_waits_for_its_rows() -> None:
    gate = Gate({"a": 8.0, "merge": 8.0}, lambda: 0.0)
    follower = Job(replace(replica("merge"), follows=True))
    assert gate.may_start(replica("a"), [follower])
    assert not gate.may_start(replica("a"), [follower, Job(replica("b"))])


def test_models_that_share_a_gpu_load_one_after_another() -> None:
    gate = Gate({})
    loading = Job(replica("a", 0, 1))
    assert not gate.may_start(replica("b", 1, lane=1), [loading])
    assert gate.may_start(replica("b", 2), [loading])
    loading.supervisor.loaded = True
    assert gate.may_start(replica("b", 1, lane=1), [loading])


def test_workers_without_room_beside_others_run_alone_and_all_run() -> None:
    jobs = [Job(replica(name, number)) for number, name in enumerate("abc")]
    run_jobs(jobs, {}, Gate(dict.fromkeys("abc", 7.0), lambda: 10.0))  # type: ignore[arg-type]
    assert [job.beside for job in jobs] == [1, 1, 1]
    run_jobs(jobs, {}, Gate(dict.fromkeys("abc", 7.0), lambda: 100.0))  # type: ignore[arg-type]
    assert all(job.beside for job in jobs)
