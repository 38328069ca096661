"""The supervisor against real worker processes that die, hang, and are told to leave."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import fake_worker
import pytest
from fake_engine import agent_plan
from fake_worker import Scene
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.errors import EngineError, StoreError
from orch_local.records import Question
from orch_local.run import supervisor
from orch_local.run.conversation import Conversation, Patience
from orch_local.run.loaded import Handover, LoadedWorkers, Place, WorkerProcess
from orch_local.run.orders import NO_RECHECK, Recheck
from orch_local.run.stats import Timing
from orch_local.run.supervisor import POISONED_IN_A_ROW, Supervisor, WorkerOptions
from orch_local.store.evidence import Evidence, read_evidence
from orch_local.store.questions import write_questions
from orch_local.store.rows import Rows
from orch_local.store.store import RunFolder, Store

SPEC = "5" * 32
PATIENT = Patience(60.0)


class FakeSupervisor(Supervisor):
    """Starts `fake_worker.py` instead of `worker.py`; all else is the real thing."""

    scene_file: Path
    options: tuple[str, ...] = ("-S",)

    def _start(self, log: IO[str], imported: str = "") -> WorkerProcess:
        return WorkerProcess(
            # Without site-packages Python starts in half the time; the real worker needs them.
            [sys.executable, *self.options, fake_worker.__file__, str(self.scene_file)],
            env={**os.environ, "PYTHONPATH": str(Path(fake_worker.__file__).parents[2])},
            stderr=log,
        )


def optioned(supervised: Supervisor, **changes: Any) -> None:
    """Let a supervisor have other options."""
    supervised._options = replace(supervised._options, **changes)


def key_of(number: int) -> str:
    """The key of a question, as real ones look."""
    return f"{number:016x}"


class Stage:
    """One agent's run in a folder of its own."""

    def __init__(
        self,
        root: Path,
        count: int,
        patience: Patience = PATIENT,
        recheck: Recheck = NO_RECHECK,
        **scene: Any,
    ) -> None:
        self.keys = [key_of(n) for n in range(count)]
        self.rows = {key: f"row-{key}" for key in self.keys}
        self.store = Store(root / "store")
        self.folder = RunFolder(root)
        self.starts_file = root / "starts"
        self.scene = Scene(str(self.store.root), SPEC, str(self.starts_file), self.rows, **scene)
        plan = agent_plan().model_copy(update={"spec": SPEC})
        self.run_ = FakeSupervisor(self.folder, plan, self.store, WorkerOptions(patience, recheck=recheck))
        self.run_.scene_file = self.scene.write(root / "scene.json")
        self.run_.options = () if self.scene.real else ("-S",)
        self.progress: list[int] = []

    def run(self) -> Timing:
        return self.run_.run(self.rows, self.progress.append)

    @property
    def starts(self) -> list[list[list[str]]]:
        """The groups given to each worker."""
        if not self.starts_file.exists():
            return []
        return [json.loads(line) for line in self.starts_file.read_text().splitlines()]

    @property
    def found(self) -> Rows:
        return self.store.read(SPEC)

    def check(self, poison: set[str], reason: str) -> None:
        """Every row is there; those of ``poison`` failed for ``reason``; no row was written twice."""
        found = self.found
        assert found.keys() == set(self.rows.values())
        assert not found.violations
        failed = {row.key: row.error for row in found.values() if not row.usable}
        assert failed.keys() == {self.rows[key] for key in poison}
        assert all(reason in error for error in failed.values())
        assert max(Counter(written(self.store)).values()) == 1


def written(store: Store) -> list[str]:
    """The key of every row in every chunk, as often as it was written."""
    chunks = store.folder(SPEC).glob("*.jsonl")
    return [json.loads(line)["key"] for chunk in chunks for line in chunk.read_text().splitlines()]


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., Stage]:
    return lambda count, **values: Stage(tmp_path, count, **values)


def test_a_normal_end(stage: Callable[..., Stage]) -> None:
    run = stage(10, capacity=4)
    timing = run.run()
    run.check(set(), "")
    assert (timing.load_s, timing.generate_s, timing.deaths) == (0.25, 0.5, 0)
    assert len(run.starts) == 1
    assert run.progress[-1] == 10


def test_rows_generated_again_are_told_and_timed(stage: Callable[..., Stage]) -> None:
    run = stage(10, again=7)
    heard: list[int] = []
    optioned(run.run_, rechecking=heard.append)
    timing = run.run()
    assert heard == [7, 0]
    assert (timing.rechecked, timing.recheck_s) == (7, 0.07)
    assert "7 rows of it again in 0.1 s" in str(timing)


def test_nothing_to_do_starts_no_worker(stage: Callable[..., Stage]) -> None:
    run = stage(0)
    assert run.run() == Timing()
    assert run.starts == []


def test_a_poisoned_prompt_among_64_costs_a_logarithm_of_workers(stage: Callable[..., Stage]) -> None:
    run = stage(64, poison=[key_of(37)])
    timing = run.run()
    run.check({key_of(37)}, "the engine died on this prompt (SIGKILL)")
    assert timing.deaths <= math.log2(64) + 2
    assert len(run.starts) <= timing.deaths + 1
    assert run.progress[-1] <= 64
    # The suspects are tried in halves, what was in no engine yet keeps its place behind them.
    assert [len(group) for group in run.starts[1]] == [32, 32]


def test_prompts_not_yet_in_flight_are_no_suspects(stage: Callable[..., Stage]) -> None:
    run = stage(40, capacity=8, poison=[key_of(3)])
    run.run()
    run.check({key_of(3)}, "SIGKILL")
    assert [len(group) for group in run.starts[1]] == [4, 4, 32]
    assert run.run_.timing.deaths <= math.log2(8) + 2


@pytest.mark.parametrize("poison", [{key_of(0), key_of(1)}, {key_of(0), key_of(15)}, {key_of(7), key_of(8)}])
def test_two_poisoned_prompts(stage: Callable[..., Stage], poison: set[str]) -> None:
    run = stage(16, poison=sorted(poison))
    run.run()
    run.check(poison, "SIGKILL")


@settings(max_examples=6, deadline=None)
@given(
    count=st.integers(1, 12),
    capacity=st.integers(1, 12),
    signal_=st.sampled_from(["SIGKILL", "SIGSEGV"]),
    data=st.data(),
)
def test_any_poisoned_prompts(count: int, capacity: int, signal_: str, data: st.DataObject) -> None:
    # No more than may follow each other before the engine is called ill.
    poison = data.draw(st.sets(st.sampled_from(range(count)), max_size=POISONED_IN_A_ROW - 1))
    with tempfile.TemporaryDirectory() as folder:
        keys = [key_of(n) for n in sorted(poison)]
        run = Stage(Path(folder), count, capacity=capacity, poison=keys, kill_by=signal_)
        run.run()
        run.check(set(keys), signal_)


def test_a_death_that_no_prompt_is_to_blame_for_costs_no_row(stage: Callable[..., Stage]) -> None:
    run = stage(20, capacity=5, crash_times=2)
    assert run.run().deaths == 2
    run.check(set(), "")


def test_a_death_in_the_midst_of_an_event(stage: Callable[..., Stage]) -> None:
    run = stage(6, torn=True)
    assert run.run().deaths == 1
    run.check(set(), "")


def test_an_engine_that_dies_of_every_prompt_is_given_up(stage: Callable[..., Stage]) -> None:
    run = stage(64, poison=[key_of(n) for n in range(64)])
    with pytest.raises(EngineError, match="3 prompts in a row killed it, the last time by SIGKILL") as caught:
        run.run()
    assert str(run.folder.worker_log("solver")) in caught.value.hint
    assert "finished rows are kept" in caught.value.hint
    assert len(run.starts) <= math.log2(64) + 5


def test_rows_finished_before_an_engine_falls_ill_are_kept(stage: Callable[..., Stage]) -> None:
    run = stage(24, capacity=4, poison=[key_of(n) for n in range(4, 24)])
    with pytest.raises(EngineError, match="does not stay alive"):
        run.run()
    kept = {row.key for row in run.found.values() if row.usable}
    assert kept == {f"row-{key_of(n)}" for n in range(4)}


def test_poison_between_good_prompts_never_makes_the_engine_ill(stage: Callable[..., Stage]) -> None:
    poison = {key_of(n) for n in range(1, 6, 2)}
    assert len(poison) == POISONED_IN_A_ROW
    run = stage(6, capacity=2, poison=sorted(poison))
    run.run()
    run.check(poison, "SIGKILL")


@pytest.mark.parametrize(
    ("load", "message"),
    [("die", "it ended by SIGKILL while loading"), ("exit", "it ended by exit code 7 while loading")],
)
def test_a_death_while_loading_is_told_with_the_log(
    stage: Callable[..., Stage], load: str, message: str
) -> None:
    run = stage(3, load=load)
    with pytest.raises(EngineError, match=message) as caught:
        run.run()
    log = run.folder.worker_log("solver")
    assert str(log) in caught.value.hint
    assert ("memory ran out" in caught.value.message) == (load == "die")
    assert ("something unforeseen" in log.read_text()) == (load == "exit")
    # Somebody's kill is tried once more; what the worker itself ends with is not.
    assert len(run.starts) == (2 if load == "die" else 1)


def test_an_error_of_the_engine_while_loading_is_passed_on(stage: Callable[..., Stage]) -> None:
    run = stage(3, load="error")
    with pytest.raises(EngineError, match="no such dtype") as caught:
        run.run()
    assert caught.value.where == "config.json"
    assert caught.value.hint == f"choose another (log: {run.folder.worker_log('solver')})"


def test_a_prompt_that_hangs_the_engine_is_found(stage: Callable[..., Stage]) -> None:
    run = stage(2, hang=[key_of(1)], patience=Patience(1.0))
    started = time.monotonic()
    run.run()
    assert time.monotonic() - started < 30  # it does not listen to SIGTERM, which would cost 20 s each time
    run.check({key_of(1)}, "silence of 1 s (engine.stall_timeout_s)")


def test_a_hanging_load_is_ended(stage: Callable[..., Stage]) -> None:
    run = stage(2, load="hang", patience=Patience(0.5))
    with pytest.raises(EngineError, match=r"silence of 0 s .* while loading"):
        run.run()


def test_a_load_without_end_is_ended_although_it_gives_signs_of_life(stage: Callable[..., Stage]) -> None:
    run = stage(2, load="slow", patience=Patience(60.0, load_s=1.0))
    with pytest.raises(EngineError, match=r"loading for 1 s \(engine\.load_timeout_s\) while loading"):
        run.run()


def test_a_child_that_outlives_its_worker_is_ended_and_holds_up_nothing(stage: Callable[..., Stage]) -> None:
    run = stage(4, poison=[key_of(0)], orphan=True)
    started = time.monotonic()
    run.run()
    assert time.monotonic() - started < 30
    run.check({key_of(0)}, "SIGKILL")


def test_a_store_that_cannot_be_written_ends_the_run(stage: Callable[..., Stage], tmp_path: Path) -> None:
    run = stage(3)
    run.store.root.mkdir()
    run.store.folder(SPEC).write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written") as caught:
        run.run()
    assert str(run.store.folder(SPEC)) in caught.value.where
    assert "the same command" in caught.value.hint
    assert len(run.starts) == 1


def in_thread(run: Stage, wait_for: Callable[[], bool]) -> threading.Thread:
    thread = threading.Thread(target=run.run)
    thread.start()
    until = time.monotonic() + 30
    while not wait_for() and time.monotonic() < until:
        time.sleep(0.01)
    return thread


def test_stop_keeps_what_is_finished_and_starts_no_other_worker(stage: Callable[..., Stage]) -> None:
    run = stage(1000, slow_s=0.02)
    thread = in_thread(run, lambda: len(run.progress) >= 3)
    run.run_.stop()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert 3 <= len(run.found) < 1000
    assert all(row.usable for row in run.found.values())
    assert len(run.starts) == 1


def test_a_worker_that_dies_without_hearing_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = WorkerProcess.send

    def too_late(worker: WorkerProcess, line: str) -> None:
        worker.wait(30)
        send(worker, line)

    monkeypatch.setattr(supervisor, "WORKER_COMMAND", ("/bin/false",))
    monkeypatch.setattr(WorkerProcess, "send", too_late)
    run = Supervisor(RunFolder(tmp_path), agent_plan(), Store(tmp_path / "store"), WorkerOptions(PATIENT))
    with pytest.raises(EngineError, match="exit code 1 while loading"):
        run.run({key_of(0): key_of(0)}, lambda done: None)


def test_stop_before_the_start_starts_nothing(stage: Callable[..., Stage]) -> None:
    run = stage(3)
    run.run_.stop()
    run.run()
    assert run.starts == []


# --- with the worker of the project itself --------------------------------------------------------


@pytest.fixture
def real(tmp_path: Path) -> Callable[..., Stage]:
    def make(count: int, **values: Any) -> Stage:
        run = Stage(tmp_path, count, real=True, **values)
        questions = [Question(key, "Q", tuple("abcd"), "A", "c") for key in run.keys]
        write_questions(run.folder.questions, questions)
        return run

    return make


def test_the_real_worker_survives_a_poisoned_prompt(real: Callable[..., Stage]) -> None:
    # The fake engine makes rows of the question's own key.
    run = real(6, capacity=1, poison=[key_of(1)])
    run.rows = {key: key for key in run.keys}
    timing = run.run()
    assert 1 <= timing.deaths <= 4
    rows = run.found
    assert rows.keys() == set(run.keys)
    assert [key for key, row in rows.items() if not row.usable] == [key_of(1)]
    assert "SIGKILL" in rows[key_of(1)].error
    assert "a library that prints" in run.folder.worker_log("solver").read_text()


def test_the_real_worker_generates_rows_again(real: Callable[..., Stage]) -> None:
    run = real(6, recheck=Recheck(3, 1.0))
    run.rows = {key: key for key in run.keys}
    timing = run.run()
    (evidence,) = read_evidence(run.store, SPEC).evidence
    # How many of the three is a matter of time.
    assert 2 <= timing.rechecked <= 3
    assert evidence == Evidence.of(
        "worker", ((row := run.found[key], row) for key in run.keys[: evidence.rows])
    )
    assert evidence.rows == timing.rechecked
    assert 0 <= timing.recheck_s <= timing.generate_s


def test_the_real_worker_writes_and_leaves_when_it_is_stopped(real: Callable[..., Stage]) -> None:
    run = real(1000, capacity=1, slow_s=0.02)
    run.rows = {key: key for key in run.keys}
    thread = in_thread(run, lambda: any(run.progress))
    worker = run.run_._worker
    assert worker is not None
    run.run_.stop()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert 1 <= len(run.found) < 1000
    assert worker.wait(0) == 128 + 15
    assert "Fatal Python error" not in run.folder.worker_log("solver").read_text()


def test_the_real_worker_finishes_what_is_in_flight(
    real: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = real(1000, capacity=8, slow_s=0.02)
    run.rows = {key: key for key in run.keys}
    heard: list[str] = []
    note = Conversation._note

    def listen(conversation: Conversation, event: Mapping[str, Any]) -> None:
        heard.append(event["event"])
        note(conversation, event)

    monkeypatch.setattr(Conversation, "_note", listen)
    thread = in_thread(run, lambda: any(run.progress))
    seen = run.progress[-1]
    run.run_.finish()
    thread.join(timeout=20)
    assert not thread.is_alive()
    # It came to its own end. Its exit code says nothing: a SIGTERM may be faster than its last step.
    assert heard[-1] == "end"
    # Whatever the engine had (twice its capacity) is finished; nothing further was taken.
    assert seen < len(run.found) <= seen + 100
    assert len(run.starts) <= 1


def test_a_worker_that_is_still_loading_has_nothing_to_finish(stage: Callable[..., Stage]) -> None:
    run = stage(10, load="hang")
    thread = in_thread(run, lambda: run.run_._worker is not None)
    run.run_.finish()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert not run.found


def test_the_real_worker_leaves_when_its_parent_is_gone(real: Callable[..., Stage]) -> None:
    run = real(1000, capacity=1, slow_s=0.02)
    run.rows = {key: key for key in run.keys}
    thread = in_thread(run, lambda: any(run.progress))
    worker = run.run_._worker
    assert worker is not None
    run.run_._stopped = True  # no restart by this parent, which is not really gone
    worker.close_input()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert 1 <= len(run.found) < 1000


def test_the_real_worker_tells_its_errors(real: Callable[..., Stage]) -> None:
    run = real(2, load="error")
    with pytest.raises(EngineError, match="no such dtype") as caught:
        run.run()
    assert caught.value.where == "config.json"


def test_the_real_worker_tells_a_full_store(real: Callable[..., Stage]) -> None:
    run = real(2)
    run.store.root.mkdir()
    run.store.folder(SPEC).write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        run.run()
    assert run.run_.timing.deaths == 0  # told at once, not found out by halves


# --- one loaded model for several agents ----------------------------------------------------------

OTHER = "6" * 32


class Shared:
    """Two agents of one model, each with rows of its own, in the same place."""

    def __init__(self, first: Stage) -> None:
        self.loaded = LoadedWorkers()
        self.place = Place(((0, 0),), "engine")
        self.stage, self.first, self.second = first, first.run_, self._other(first)
        optioned(self.first, handover=Handover(self.loaded, self.place, stay=True))
        optioned(self.second, handover=Handover(self.loaded, self.place))

    @staticmethod
    def _other(first: Stage) -> FakeSupervisor:
        plan = agent_plan().model_copy(update={"name": "solver1", "spec": OTHER})
        made = FakeSupervisor(first.folder, plan, first.store, WorkerOptions(PATIENT))
        made.scene_file, made.options = first.run_.scene_file, ()
        return made

    def run_first(self, keys: list[str]) -> None:
        self.first.run({key: key for key in keys}, lambda done: None)

    def run_second(self, keys: list[str]) -> None:
        self.second.run({key: key for key in keys}, lambda done: None)

    def loads(self, name: str) -> int:
        return self.stage.folder.worker_log(name).read_text().count("a library that prints")


@pytest.fixture
def shared(real: Callable[..., Stage]) -> Callable[..., Shared]:
    return lambda count, **values: Shared(real(count, others=[OTHER], **values))


def test_the_next_agent_takes_the_loaded_model_over(shared: Callable[..., Shared]) -> None:
    both = shared(6)
    keys = both.stage.keys
    both.run_first(keys)
    assert both.loaded.engines == {(0, 0): "engine"}
    worker = both.loaded._waiting[both.place]
    both.run_second(keys[:4])
    assert not worker.alive, "the last one waits for nobody"
    assert not both.loaded.engines
    assert set(both.stage.store.read(SPEC)) == set(keys)
    assert set(both.stage.store.read(OTHER)) == set(keys[:4])
    assert (both.loads("solver"), both.loads("solver1")) == (1, 0)
    assert both.first.timing.load_s > 0
    assert both.second.timing.load_s == 0


def test_a_model_that_another_took_the_place_of_is_ended(shared: Callable[..., Shared]) -> None:
    both = shared(2)
    both.run_first(both.stage.keys)
    worker = both.loaded._waiting[both.place]
    optioned(both.second, handover=Handover(both.loaded, Place(((0, 0), (1, 0)), "another")))
    both.run_second(both.stage.keys)
    assert not worker.alive
    assert both.loads("solver1") == 1
    assert set(both.stage.store.read(OTHER)) == set(both.stage.keys)


def test_a_waiting_worker_that_was_killed_is_replaced(shared: Callable[..., Shared]) -> None:
    both = shared(2)
    both.run_first(both.stage.keys)
    worker = both.loaded._waiting[both.place]
    worker.kill()
    both.run_second(both.stage.keys)
    assert both.loads("solver1") == 1
    assert set(both.stage.store.read(OTHER)) == set(both.stage.keys)


def test_a_prompt_that_kills_a_shared_worker_is_found(shared: Callable[..., Shared]) -> None:
    both = shared(6, capacity=1, poison=[key_of(5)])
    both.run_first(both.stage.keys[:3])
    both.run_second(both.stage.keys)
    rows = both.stage.store.read(OTHER)
    assert [key for key, row in rows.items() if not row.usable] == [key_of(5)]
    assert set(both.stage.store.read(SPEC)) == set(both.stage.keys[:3])


def test_a_worker_asked_to_serve_another_model_refuses(shared: Callable[..., Shared]) -> None:
    both = shared(2)
    both.run_first(both.stage.keys)
    order = both.second._order([both.stage.keys], taken_over=True)
    worker = both.loaded.take(both.place)
    assert worker is not None
    with pytest.raises(TimeoutError):
        worker.next_line(0.0)
    worker.send(replace(order, agent="nobody").to_line())
    assert worker.wait(30) not in (None, 0)


def test_a_waiting_worker_leaves_when_its_parent_is_gone(shared: Callable[..., Shared]) -> None:
    both = shared(2)
    both.run_first(both.stage.keys)
    worker = both.loaded._waiting[both.place]
    worker.close_input()
    assert worker.wait(60) not in (None, 0)


def test_waiting_workers_end_with_the_execution(shared: Callable[..., Shared]) -> None:
    both = shared(2)
    both.run_first(both.stage.keys)
    worker = both.loaded._waiting[both.place]
    both.loaded.end()
    assert not worker.alive


def test_a_worker_that_was_started_ahead_is_used_once(shared: Callable[..., Shared]) -> None:
    both = shared(2)
    optioned(both.first, handover=None)
    both.first.prepare()
    prepared = both.first._prepared
    assert prepared is not None
    both.first.prepare()
    assert both.first._prepared is prepared
    both.run_first(both.stage.keys)
    assert not prepared.alive
    assert both.loads("solver") == 1
    both.first.prepare()
    unused = both.first._prepared
    both.first.stop()
    assert unused is not None
    assert not unused.alive
