"""Rows generated again by a worker: which, in which batches, and how many fit into a share of its time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import cast

import pytest
from fake_engine import ANSWER, CONTEXT, GOOD, CharTokenizer, Script, ScriptedEngine, agent_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.config.answers import AnswerSchema
from orch_local.config.blocks import EngineConfig
from orch_local.engines.base import Completion
from orch_local.prompts.data import Data
from orch_local.prompts.tasks import Task
from orch_local.prompts.tokenizer import PromptTokenizer
from orch_local.records import Analysis, Outcome
from orch_local.run.generating import Hooks, PromptWriter, Unit, generate
from orch_local.run.orders import Recheck
from orch_local.run.rechecking import Rechecking, Signs, recheck_for
from orch_local.store.evidence import SMALL_BATCH, Evidence

SCHEMA = AnswerSchema("ABCD", ANSWER)
LEAST_ROWS = Recheck().least
OTHER = GOOD.replace("80", "81")
MOST_ROWS = 64
"""So many are really generated before."""


class Clock:
    """Time that the engine of a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class TimedEngine(ScriptedEngine):
    """An engine that needs a fixed time for a batch, and a fixed one for each further row of it."""

    def __init__(self, scripts: dict[str, Script], clock: Clock, alone_s: float, further_s: float) -> None:
        super().__init__(scripts, capacity=64)
        self.clock, self.alone_s, self.further_s = clock, alone_s, further_s

    def step(self) -> list[Completion]:
        if self.queue:
            self.clock.now += self.alone_s + self.further_s * (len(self.queue) - 1)
        return super().step()


@dataclass
class OneWorker:
    """A worker that has generated some rows."""

    engine: TimedEngine
    finishing: bool = False
    stops_after: int | None = None
    """Its parent wants no more after so many batches."""
    batches: list[list[str]] = field(default_factory=list)
    """Names of the units of each batch."""

    def generate(self, units: Iterable[Unit], hooks: Hooks) -> None:
        wanted = list(units)
        self.batches.append([unit.name for unit in wanted])
        prompts = PromptWriter(agent_plan(), cast(PromptTokenizer, CharTokenizer()))
        generate(self.engine, prompts, wanted, CONTEXT, hooks)
        self.finishing = len(self.batches) == self.stops_after


@dataclass
class Shown:
    """What a worker showed of it."""

    begun: list[int] = field(default_factory=list)
    alive: int = 0

    def beat(self) -> None:
        self.alive += 1


def unit(name: str) -> Unit:
    return Unit(name, Task(name, {"question": Data(f"Q{name}")}, SCHEMA))


def finished(worker: OneWorker, recheck: Rechecking, names: Iterable[str]) -> None:
    """Let the worker generate its rows, as in the run."""
    rows: list[Analysis] = []
    worker.generate([unit(name) for name in names], Hooks(lambda _: None, rows.append, lambda: None))
    for row in rows:
        recheck.note(unit(row.key), row)
    worker.batches.clear()
    worker.finishing = False
    worker.engine.clock.now = 0.0


def rechecked(
    count: int,
    order: Recheck,
    generated_s: float,
    *,
    alone_s: float = 1.0,
    further_s: float = 0.0,
    scripts: dict[str, Script] | None = None,
    stops_after: int | None = None,
) -> tuple[Rechecking, Evidence | None, OneWorker, Shown]:
    clock, shown = Clock(), Shown()
    engine = TimedEngine(scripts or {}, clock, alone_s, further_s)
    worker, recheck = OneWorker(engine, stops_after=stops_after), Rechecking(order, clock)
    finished(worker, recheck, names(min(count, MOST_ROWS)))
    recheck.finished = count  # the sample is among the first; the others are but counted
    signs = Signs(shown.begun.append, shown.beat)
    return recheck, recheck.run(worker, generated_s, signs), worker, shown


def names(count: int) -> list[str]:
    """Keys in an order that is not theirs."""
    return sorted((f"{number:03}" for number in range(count)), key=lambda name: name[::-1])


def test_all_fit_into_a_long_run() -> None:
    recheck, evidence, worker, shown = rechecked(100, Recheck(8, 0.02), 3600.0)
    assert worker.batches == [["000"], ["007", "006", "005", "004", "003", "002", "001"]]
    assert shown.begun == [2, 8] and shown.alive >= 2
    assert (recheck.rows, recheck.seconds) == (8, 2.0)
    assert evidence and (evidence.by, evidence.rows, evidence.same) == ("worker", 8, 8)


def test_two_rows_are_generated_again_in_a_run_too_short_for_any() -> None:
    recheck, evidence, worker, shown = rechecked(100, Recheck(8, 0.02), 10.0, alone_s=30.0)
    assert worker.batches == [["000"], ["001"]]
    assert shown.begun == [2]
    assert recheck.seconds == 60.0
    assert evidence and evidence.rows == LEAST_ROWS == 2


def test_a_batch_is_made_smaller_to_fit() -> None:
    # 2 % of 1,000 s are 20 s; the first row takes 10 s, a row of the run 2 s: 1 + 4 more fit beside one.
    recheck, _, worker, _ = rechecked(500, Recheck(8, 0.02), 1000.0, alone_s=10.0, further_s=2.0)
    assert worker.batches[1:] == [["001"]]
    recheck, _, worker, _ = rechecked(500, Recheck(8, 0.028), 1000.0, alone_s=10.0, further_s=2.0)
    assert worker.batches[1:] == [["005", "004", "003", "002", "001"]]
    assert recheck.seconds == 10.0 + 10.0 + 4 * 2.0


def test_a_batch_is_expected_to_last_as_long_as_its_longest_row() -> None:
    order, of_all = Recheck(8, 0.02), 1100.0  # 22 s, of which the first row takes 10
    _, _, worker, _ = rechecked(10_000, order, of_all, alone_s=10.0)
    assert [len(batch) for batch in worker.batches] == [1, 7]
    short = {"000": Script('{"answer":"B"}')}  # 14 tokens of the others' 30, so they would take 21 s
    _, _, worker, _ = rechecked(10_000, order, of_all, alone_s=10.0, scripts=short)
    assert worker.batches == [["000"], ["001"]]


def test_a_slow_batch_leaves_no_time_for_a_further_one() -> None:
    order = Recheck(32, 0.02)
    recheck, _, worker, _ = rechecked(10_000, order, 1000.0, alone_s=1.0, further_s=9.0)
    # The batch of seven was expected to take 1.6 s and took 55 s.
    assert [len(batch) for batch in worker.batches] == [1, 7]
    assert recheck.seconds == 56.0


def test_rows_alone_and_batches_take_turns() -> None:
    _, _, worker, shown = rechecked(1000, Recheck(20, 1.0), 3600.0)
    assert [len(batch) for batch in worker.batches] == [1, 7, 1, 7, 1, 3]
    assert shown.begun == [2, 8, 9, 16, 17, 20]
    assert [name for batch in worker.batches for name in sorted(batch)] == [f"{n:03}" for n in range(20)]


@pytest.mark.parametrize("rows", [0, 1])
def test_so_few_are_asked_for(rows: int) -> None:
    recheck, evidence, worker, _ = rechecked(9, Recheck(rows, 1.0), 3600.0)
    assert len(worker.batches) == recheck.rows == rows
    assert (evidence is None) == (rows == 0)


def test_no_share_of_the_time_is_the_least() -> None:
    recheck, _, _, _ = rechecked(9, Recheck(8, 0.0), 3600.0)
    assert recheck.rows == LEAST_ROWS


def test_more_rows_are_the_least_where_they_are_ordered() -> None:
    recheck, evidence, worker, _ = rechecked(40, Recheck(64, 0.0, least=16), 3600.0)
    assert recheck.rows == 16
    assert evidence and evidence.rows == 16
    assert [len(batch) for batch in worker.batches] == [1, SMALL_BATCH, 1, SMALL_BATCH]


def test_more_rows_are_generated_again_on_a_gpu_unless_the_run_file_says_how_many() -> None:
    plain, asked, none = EngineConfig(), EngineConfig(recheck_rows=3), EngineConfig(recheck_rows=0)
    assert [recheck_for(plain, device) for device in ("cpu", "cuda")] == [
        Recheck(8, 0.02, least=2),
        Recheck(64, 0.02, least=16),
    ]
    assert [recheck_for(asked, device).rows for device in ("cpu", "cuda")] == [3, 3]
    assert recheck_for(none, "cuda").rows == 0


def test_a_row_that_comes_to_something_else_is_named() -> None:
    _, evidence, _, _ = rechecked(30, Recheck(8, 1.0), 100.0, scripts={"004/2": Script(OTHER)})
    assert evidence and (evidence.rows, evidence.same, evidence.different) == (8, 7, ("004",))


def test_rows_of_which_nothing_was_generated_are_no_evidence() -> None:
    recheck = Rechecking(Recheck(8, 1.0))
    for outcome in Outcome:
        recheck.note(unit("x"), Analysis(str(outcome), outcome))
    assert recheck.finished == len(Outcome)
    assert set(recheck._sample) == {"ok", "truncated", "invalid"}


@pytest.mark.parametrize("batches", [1, 2])
def test_nothing_is_kept_where_the_worker_has_to_end(batches: int) -> None:
    _, evidence, worker, _ = rechecked(30, Recheck(8, 1.0), 100.0, stops_after=batches)
    assert evidence is None
    assert len(worker.batches) == batches


@settings(deadline=None, max_examples=30)
@given(
    count=st.integers(0, 60),
    most=st.integers(0, 30),
    share=st.floats(0, 1),
    generated_s=st.floats(0, 1e5),
    alone_s=st.floats(1e-3, 1e3),
)
def test_the_share_is_kept_and_used(
    count: int, most: int, share: float, generated_s: float, alone_s: float
) -> None:
    row_s = generated_s / max(1, count)
    recheck, evidence, worker, shown = rechecked(
        count, Recheck(most, share), generated_s, alone_s=alone_s, further_s=min(row_s, alone_s)
    )
    possible = min(count, most)
    assert min(LEAST_ROWS, possible) <= recheck.rows <= possible
    assert (evidence is None) == (recheck.rows == 0)
    # Which rows they are does not depend on the time.
    made = [name for batch in worker.batches for name in sorted(batch)]
    assert made == sorted(names(count))[: recheck.rows]
    assert shown.begun[-1:] == [recheck.rows][: recheck.rows]
    assert shown.begun == sorted(set(shown.begun))
    assert all(len(batch) <= SMALL_BATCH for batch in worker.batches)
    allowed = share * generated_s
    if recheck.rows > LEAST_ROWS:  # this engine takes what is estimated
        assert recheck.seconds <= allowed * (1 + 1e-6) + 1e-9
    if LEAST_ROWS <= recheck.rows < possible:
        assert recheck.seconds + alone_s > allowed * (1 - 1e-6)


def test_the_sample_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = [replace(Analysis("", Outcome.OK), key=name) for name in names(50)]
    for order in (rows, rows[::-1], sorted(rows, key=lambda row: row.key)):
        recheck = Rechecking(Recheck(8, 1.0))
        for row in order:
            recheck.note(unit(row.key), row)
        assert sorted(recheck._sample) == [f"{number:03}" for number in range(8)]
