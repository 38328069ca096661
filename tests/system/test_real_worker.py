"""The supervisor and the worker of the project, with the fake engine in runs planned like any other."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from soak import MODELS

from orch_local.config.run_files import load_run
from orch_local.errors import EngineError, StoreError
from orch_local.records import question_id
from orch_local.run.conversation import Conversation, Patience
from orch_local.run.loaded import Handover, LoadedWorkers, Place
from orch_local.run.orders import NO_RECHECK, Recheck
from orch_local.run.preparation import prepare
from orch_local.run.stats import Timing
from orch_local.run.supervisor import Supervisor, WorkerOptions
from orch_local.store.evidence import Evidence, read_evidence
from orch_local.store.rows import Rows
from orch_local.store.store import RunFolder, Store

PATIENT = Patience(60.0)
CHOICES = ("1", "2", "3", "4")
SLOW: Mapping[str, Any] = {"delay_s": 0.02}
PRINTS: Mapping[str, Any] = {"load": "ok", "message": "a library that prints"}


def key_of(number: int) -> str:
    """The key of a question."""
    return question_id(f"What is {number}?", CHOICES)


def killing(number: int) -> Mapping[str, Any]:
    """The row of a question that kills its worker, whoever is asked."""
    return {"question": key_of(number), "fail": "killed"}


class Stage:
    """A run with two agents of one model, of which the first is asked, in a folder of its own."""

    def __init__(
        self,
        root: Path,
        count: int,
        *rows: Mapping[str, Any],
        capacity: int = 64,
        recheck: Recheck = NO_RECHECK,
    ) -> None:
        _write(root, count, capacity, (PRINTS, *rows))
        self.folder = RunFolder(root / "run")
        self.plan = prepare(load_run(root / "run.yaml"), self.folder, root / "store")
        self.keys = [key_of(number) for number in range(count)]
        self.store = Store(self.plan.store)
        self.run_ = self.supervisor(0, recheck)
        self.progress: list[int] = []

    def supervisor(self, agent: int, recheck: Recheck = NO_RECHECK) -> Supervisor:
        """A supervisor for one of the agents."""
        options = WorkerOptions(PATIENT, recheck=recheck)
        return Supervisor(self.folder, self.plan.agents[agent], self.store, options)

    def run(self) -> Timing:
        return self.run_.run({key: key for key in self.keys}, self.progress.append)

    @property
    def spec(self) -> str:
        """Of the first agent."""
        return self.plan.agents[0].spec

    @property
    def other(self) -> str:
        """The spec of the second agent."""
        return self.plan.agents[1].spec

    @property
    def found(self) -> Rows:
        return self.store.read(self.spec)


def _write(root: Path, count: int, capacity: int, rows: tuple[Mapping[str, Any], ...]) -> None:
    """Questions, a model config, a table and a run file."""
    asked = [{"question": f"What is {n}?", "choices": list(CHOICES), "answer": "A"} for n in range(count)]
    for name, lines in (("questions.jsonl", asked), ("table.jsonl", rows)):
        (root / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = yaml.safe_load(MODELS.joinpath("quant.yaml").read_text())
    model |= {"path": str(MODELS / "quant"), "max_num_seqs": capacity}
    (root / "model.yaml").write_text(yaml.safe_dump(model))
    run = {
        "benchmark": {"name": "jsonl", "path": "questions.jsonl"},
        "agents": [{"name": name, "model": "./model.yaml"} for name in ("solver", "solver1")],
        "merge": {"policy": "majority"},
        "answer": {"reasoning_chars": 20},
        "engine": {"name": "fake", "table": "table.jsonl"},
    }
    (root / "run.yaml").write_text(yaml.safe_dump(run))


@pytest.fixture
def real(tmp_path: Path) -> Callable[..., Stage]:
    return lambda count, *rows, **values: Stage(tmp_path, count, *rows, **values)


def optioned(supervised: Supervisor, **changes: Any) -> None:
    """Let a supervisor have other options."""
    supervised._options = replace(supervised._options, **changes)


def in_thread(run: Stage, wait_for: Callable[[], bool]) -> threading.Thread:
    thread = threading.Thread(target=run.run)
    thread.start()
    until = time.monotonic() + 200
    while not wait_for() and time.monotonic() < until:
        time.sleep(0.01)
    return thread


def test_the_real_worker_survives_a_poisoned_prompt(real: Callable[..., Stage]) -> None:
    run = real(6, killing(1), capacity=1)
    timing = run.run()
    assert 1 <= timing.deaths <= 4
    rows = run.found
    assert rows.keys() == set(run.keys)
    assert [key for key, row in rows.items() if not row.usable] == [key_of(1)]
    assert "SIGKILL" in rows[key_of(1)].error
    assert "a library that prints" in run.folder.worker_log("solver").read_text()


def test_the_real_worker_generates_rows_again(real: Callable[..., Stage]) -> None:
    run = real(6, recheck=Recheck(3, 1.0))
    timing = run.run()
    (evidence,) = read_evidence(run.store, run.spec).evidence
    # How many of the three is a matter of time.
    assert 2 <= timing.rechecked <= 3
    assert evidence == Evidence.of(
        "worker", ((row := run.found[key], row) for key in sorted(run.keys)[: evidence.rows])
    )
    assert evidence.rows == timing.rechecked
    assert 0 <= timing.recheck_s <= timing.generate_s


def test_the_real_worker_writes_and_leaves_when_it_is_stopped(real: Callable[..., Stage]) -> None:
    run = real(1000, SLOW, capacity=1)
    thread = in_thread(run, lambda: any(run.progress))
    worker = run.run_._worker
    assert worker is not None
    run.run_.stop()
    thread.join(timeout=200)
    assert not thread.is_alive()
    assert 1 <= len(run.found) < 1000
    assert worker.wait(0) == 128 + 15
    assert "Fatal Python error" not in run.folder.worker_log("solver").read_text()


def test_the_real_worker_finishes_what_is_in_flight(
    real: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = real(1000, SLOW, capacity=8)
    heard: list[str] = []
    note = Conversation._note

    def listen(conversation: Conversation, event: Mapping[str, Any]) -> None:
        heard.append(event["event"])
        note(conversation, event)

    monkeypatch.setattr(Conversation, "_note", listen)
    thread = in_thread(run, lambda: any(run.progress))
    seen = run.progress[-1]
    run.run_.finish()
    thread.join(timeout=200)
    assert not thread.is_alive()
    # It came to its own end. Its exit code says nothing: a SIGTERM may be faster than its last step.
    assert heard[-1] == "end"
    # Whatever the engine had (twice its capacity) is finished; nothing further was taken.
    assert seen < len(run.found) <= seen + 100
    assert heard.count("loaded") == 1


def test_the_real_worker_leaves_when_its_parent_is_gone(real: Callable[..., Stage]) -> None:
    run = real(1000, SLOW, capacity=1)
    thread = in_thread(run, lambda: any(run.progress))
    worker = run.run_._worker
    assert worker is not None
    run.run_._stopped = True  # no restart by this parent, which is not really gone
    worker.close_input()
    thread.join(timeout=200)
    assert not thread.is_alive()
    assert 1 <= len(run.found) < 1000


def test_the_real_worker_tells_its_errors(real: Callable[..., Stage]) -> None:
    run = real(2, {"load": "failed", "message": "no such dtype"})
    with pytest.raises(EngineError, match="no such dtype") as caught:
        run.run()
    assert str(caught.value.where).endswith("table.jsonl")


def test_the_real_worker_tells_a_full_store(real: Callable[..., Stage]) -> None:
    run = real(2)
    shutil.rmtree(run.store.folder(run.spec), ignore_errors=True)
    run.store.root.mkdir(exist_ok=True)
    run.store.folder(run.spec).write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        run.run()
    assert run.run_.timing.deaths == 0  # told at once, not found out by halves


# --- one loaded model for several agents ----------------------------------------------------------


class Shared:
    """Two agents of one model, each with rows of its own, in the same place."""

    def __init__(self, first: Stage) -> None:
        self.loaded = LoadedWorkers()
        self.place = Place(((0, 0),), "engine")
        self.stage, self.first, self.second = first, first.run_, first.supervisor(1)
        optioned(self.first, handover=Handover(self.loaded, self.place, stay=True))
        optioned(self.second, handover=Handover(self.loaded, self.place))

    def run_first(self, keys: list[str]) -> None:
        self.first.run({key: key for key in keys}, lambda done: None)

    def run_second(self, keys: list[str]) -> None:
        self.second.run({key: key for key in keys}, lambda done: None)

    def loads(self, name: str) -> int:
        return self.stage.folder.worker_log(name).read_text().count("a library that prints")


@pytest.fixture
def shared(real: Callable[..., Stage]) -> Callable[..., Shared]:
    return lambda count, *rows, **values: Shared(real(count, *rows, **values))


def test_the_next_agent_takes_the_loaded_model_over(shared: Callable[..., Shared]) -> None:
    both = shared(6)
    keys = both.stage.keys
    both.run_first(keys)
    assert both.loaded.engines == {(0, 0): "engine"}
    worker = both.loaded._waiting[both.place]
    both.run_second(keys[:4])
    assert not worker.alive, "the last one waits for nobody"
    assert not both.loaded.engines
    assert set(both.stage.store.read(both.stage.spec)) == set(keys)
    assert set(both.stage.store.read(both.stage.other)) == set(keys[:4])
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
    assert set(both.stage.store.read(both.stage.other)) == set(both.stage.keys)


def test_a_waiting_worker_that_was_killed_is_replaced(shared: Callable[..., Shared]) -> None:
    both = shared(2)
    both.run_first(both.stage.keys)
    worker = both.loaded._waiting[both.place]
    worker.kill()
    both.run_second(both.stage.keys)
    assert both.loads("solver1") == 1
    assert set(both.stage.store.read(both.stage.other)) == set(both.stage.keys)


def test_a_prompt_that_kills_a_shared_worker_is_found(shared: Callable[..., Shared]) -> None:
    both = shared(6, killing(5), capacity=1)
    both.run_first(both.stage.keys[:3])
    both.run_second(both.stage.keys)
    rows = both.stage.store.read(both.stage.other)
    assert [key for key, row in rows.items() if not row.usable] == [key_of(5)]
    assert set(both.stage.store.read(both.stage.spec)) == set(both.stage.keys[:3])


def test_a_worker_asked_to_serve_another_model_refuses(shared: Callable[..., Shared]) -> None:
    both = shared(2)
    both.run_first(both.stage.keys)
    order = both.second._order([both.stage.keys], taken_over=True)
    worker = both.loaded.take(both.place)
    assert worker is not None
    with pytest.raises(TimeoutError):
        worker.next_line(0.0)
    worker.send(replace(order, agent="nobody").to_line())
    assert worker.wait(200) not in (None, 0)


def test_a_waiting_worker_leaves_when_its_parent_is_gone(shared: Callable[..., Shared]) -> None:
    both = shared(2)
    both.run_first(both.stage.keys)
    worker = both.loaded._waiting[both.place]
    worker.close_input()
    assert worker.wait(200) not in (None, 0)


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
