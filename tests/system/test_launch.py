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
from collections.abc import Callable
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
from orch_local.run import supervisor
from orch_local.run.conversation import Patience
from orch_local.run.loaded import WorkerProcess
from orch_local.run.orders import NO_RECHECK, Recheck
from orch_local.run.stats import Timing
from orch_local.run.supervisor import POISONED_IN_A_ROW, Supervisor, WorkerOptions
from orch_local.store.rows import Rows
from orch_local.store.store import RunFolder, Store
from orch_local.util.children import ChildProcess

SPEC = "5" * 32
PATIENT = Patience(60.0)


class FakeSupervisor(Supervisor):
    """Starts `fake_worker.py` instead of `worker.py`; all else is the real thing."""

    scene_file: Path

    def _start(self, log: IO[str], imported: str = "") -> WorkerProcess:
        return WorkerProcess(
            # Without site-packages Python starts in half the time.
            [sys.executable, "-S", fake_worker.__file__, str(self.scene_file)],
            env={**os.environ, "PYTHONPATH": str(Path(fake_worker.__file__).parents[2])},
            stderr=log,
        )


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
    run.run_._options = replace(run.run_._options, rechecking=heard.append)
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


def test_a_prompt_that_hangs_the_engine_is_found(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It does not listen to SIGTERM: whoever waits for that waits for long.
    monkeypatch.setattr(ChildProcess.stop, "__defaults__", (600.0,))
    run = stage(2, hang=[key_of(1)], patience=Patience(1.0))
    started = time.monotonic()
    run.run()
    assert time.monotonic() - started < 200
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
    assert time.monotonic() - started < 200
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
    until = time.monotonic() + 200
    while not wait_for() and time.monotonic() < until:
        time.sleep(0.01)
    return thread


def test_stop_keeps_what_is_finished_and_starts_no_other_worker(stage: Callable[..., Stage]) -> None:
    run = stage(1000, slow_s=0.02)
    thread = in_thread(run, lambda: len(run.progress) >= 3)
    run.run_.stop()
    thread.join(timeout=200)
    assert not thread.is_alive()
    assert 3 <= len(run.found) < 1000
    assert all(row.usable for row in run.found.values())
    assert len(run.starts) == 1


def test_a_worker_that_dies_without_hearing_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = WorkerProcess.send

    def too_late(worker: WorkerProcess, line: str) -> None:
        worker.wait(200)
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


def test_a_worker_that_is_still_loading_has_nothing_to_finish(stage: Callable[..., Stage]) -> None:
    run = stage(10, load="hang")
    thread = in_thread(run, lambda: run.run_._worker is not None)
    run.run_.finish()
    thread.join(timeout=200)
    assert not thread.is_alive()
    assert not run.found
