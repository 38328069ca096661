"""Verify: rows generated again by a stand-in for the worker, and what is found of them and of the files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_folders import Run, analysis, finished_run, snapshot
from running import Silent

from orch_local.audit import verify as verifying
from orch_local.audit.verify import Rate, Stage, Verification, verify
from orch_local.errors import EngineError, StoreError
from orch_local.models.folders import ModelFolder
from orch_local.plan import unchanged
from orch_local.plan.differences import Change as Differing
from orch_local.plan.plans import AgentPlan
from orch_local.records import Analysis, Outcome, Usage
from orch_local.run.context import StopRequest
from orch_local.run.supervisor import Progress, WorkerOptions
from orch_local.store.evidence import Evidence, other_batches, read_evidence
from orch_local.store.questions import write_questions
from orch_local.store.store import RunFolder, Store

Change = Callable[[Analysis], Analysis | None]


class Again:
    """Stands for `Supervisor`: puts the stored rows, each changed as a test wants, into the scratch store."""

    def __init__(self, run: Run) -> None:
        self.run_ = run
        self.changes: dict[tuple[str, str], Change] = {}
        """By agent and row key."""
        self.asked: dict[str, tuple[dict[str, str], list[list[str]]]] = {}
        """By agent: question key -> row key, and the batches."""
        self.stop: StopRequest | None = None
        self.scratch: list[Path] = []
        self.log = Path()

    def __call__(self, folder: RunFolder, agent: AgentPlan, store: Store, options: WorkerOptions) -> Again:
        assert store.root != self.run_.store.root
        self._agent, self._store = agent, store
        self.log = options.log or folder.worker_log(agent.name)
        self.scratch.append(store.root)
        return self

    def run(self, rows: Mapping[str, str], progress: Progress, batches: Sequence[Sequence[str]]) -> None:
        """Generate rows again."""
        self.asked[self._agent.name] = dict(rows), [list(batch) for batch in batches]
        assert sorted(key for batch in batches for key in batch) == sorted(rows)
        stored = self.run_.store.read(self._agent.spec)
        with self._store.writer(self._agent.spec) as writer:
            for key in rows.values():
                # What it cost and how long it took is never the same.
                row = self._change(key)(replace(stored[key], seconds=7.5, usage=Usage(9)))
                if row is not None:
                    writer.add(row)
        progress(len(rows))
        if self.stop is not None:
            self.stop.finish()

    def _change(self, key: str) -> Change:
        return self.changes.get((self._agent.name, key), lambda row: row)

    def finish(self) -> None:
        """Asked by a signal."""


@pytest.fixture(autouse=True)
def _like_the_machine_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "environment_changes", lambda agent: [])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A finished run of 40 questions, at three of which an agent failed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Run.begin(tmp_path, 40)
    made.analyse({"quant": "ABCA" * 10, "chrono": "BBA-" + "BBAC" * 7 + "-B-C" + "BBBB"})
    made.merge()
    made.decide()
    return made


@pytest.fixture
def again(run: Run, monkeypatch: pytest.MonkeyPatch) -> Again:
    made = Again(run)
    monkeypatch.setattr(verifying, "Supervisor", made)
    return made


def verified(run: Run, sample: int | None, stop: StopRequest | None = None) -> Verification:
    return verify(run.folder, sample, Silent(), stop or StopRequest())


def stage_of(found: Verification, name: str) -> Stage:
    return next(stage for stage in found.stages if stage.agent == name)


def evidence(run: Run, name: str) -> list[Evidence]:
    return read_evidence(run.store, run.spec(name)).evidence


def total(stage: Stage) -> Rate:
    rates = stage.by_batch.values()
    return Rate(sum(rate.rows for rate in rates), sum(rate.same for rate in rates))


@pytest.mark.parametrize("sample", [0, 1, 20, 40, 1000, None])
def test_rows_that_come_again_pass_and_are_evidence(run: Run, again: Again, sample: int | None) -> None:
    before, models = snapshot(run.folder.root), snapshot(run.folder.root.parent / "models")
    found = verified(run, sample)
    assert found.passed and found.problems == []
    assert [(stage.agent, stage.stored) for stage in found.stages] == [
        ("quant", 40),
        ("chrono", 37),
        ("merge", 40),
    ]
    for stage in found.stages:
        count = stage.stored if sample is None else min(sample, stage.stored)
        assert stage.evidence.rows == stage.evidence.same == stage.evidence.same_text == count
        assert total(stage) == Rate(count, count)
        assert stage.first is None
        assert evidence(run, stage.agent) == ([stage.evidence] if count else [])
    assert snapshot(run.folder.root) == before
    assert snapshot(run.folder.root.parent / "models") == models
    # Where nothing is wanted, no worker is started.
    assert len(again.scratch) == (3 if sample != 0 else 0)
    assert not any(folder.exists() for folder in again.scratch)


def test_rows_of_the_store_stay_as_they_are(run: Run, again: Again) -> None:
    again.changes["quant", run.questions[0].key] = lambda row: replace(row, text="other")
    before = snapshot(run.store.root)
    verified(run, None)
    after = snapshot(run.store.root)
    new = {name for name in after if name not in before}
    assert all("/evidence/" in name for name in new) and len(new) == 3
    assert {name: after[name] for name in before} == before


def test_the_sample_is_the_last_of_the_keys_in_other_batches(run: Run, again: Again) -> None:
    verified(run, 20)
    rows, batches = again.asked["quant"]
    expected = sorted((one.key for one in run.questions), reverse=True)[:20]
    assert sorted(rows, reverse=True) == expected
    assert rows == {key: key for key in expected}
    assert batches == other_batches(expected)
    verified(run, 20)
    assert len(evidence(run, "quant")) == 1, "the same sample with the same result is no more evidence"


def test_rows_are_counted_by_their_batch(run: Run, again: Again) -> None:
    names = ("quant", "chrono")
    again.changes = {(name, one.key): CHANGES["text"] for name in names for one in run.questions[::3]}
    found = verified(run, 32)
    for name in names:
        stage, (rows, batches) = stage_of(found, name), again.asked[name]
        expected: dict[str, list[bool]] = {}
        for batch in batches:
            shape = {1: "alone", 7: "by sevens"}.get(len(batch), "together")
            expected.setdefault(shape, []).extend((name, rows[key]) not in again.changes for key in batch)
        assert stage.by_batch == {shape: Rate(len(same), sum(same)) for shape, same in expected.items()}
        assert list(stage.by_batch) == ["alone", "by sevens", "together"]
        assert total(stage) == Rate(stage.evidence.rows, stage.evidence.same)
        assert 0 < stage.evidence.same < 32


CHANGES: dict[str, Change] = {
    "text": lambda row: replace(row, text=row.text + " "),
    "probabilities": lambda row: replace(row, probabilities={"A": 0.25, "B": 0.5000000000000001}),
    "missing": lambda row: None,
    "failed": lambda row: Analysis(row.key, Outcome.FAILED, error="died"),
}


@pytest.mark.parametrize("name", ["quant", "merge"])
@pytest.mark.parametrize("how", CHANGES)
def test_one_row_that_differs_is_told(run: Run, again: Again, name: str, how: str) -> None:
    asked = run.questions[6]
    key = asked.key if name == "quant" else run.merged()[asked.key].key
    again.changes[name, key] = CHANGES[how]
    found = verified(run, None)
    assert not found.passed and found.problems == []
    stage = stage_of(found, name)
    assert stage.evidence.same == stage.evidence.rows - 1 == 39
    assert stage.evidence.same_text == (40 if how == "probabilities" else 39)
    assert stage.evidence.different == (key,)
    assert stage.first is not None
    assert stage.first.question_id == asked.id
    assert stage.first.before == run.store.read(run.spec(name))[key]
    assert (stage.first.again is None) == (how == "missing")
    assert total(stage) == Rate(40, 39)
    assert evidence(run, name) == [stage.evidence]
    others = [one for one in found.stages if one.agent != name]
    assert all(one.first is None and one.evidence.same == one.evidence.rows for one in others)


def test_the_first_difference_is_the_first_in_question_order(run: Run, again: Again) -> None:
    # Batches go by key: of ten questions the one whose key comes last is generated first.
    numbers = sorted(range(5, 15), key=lambda number: run.questions[number].key)
    for number in numbers:
        again.changes["quant", run.questions[number].key] = CHANGES["text"]
    stage = stage_of(verified(run, None), "quant")
    assert stage.first is not None
    assert stage.first.question_id == run.questions[5].id
    assert 5 not in (numbers[0], numbers[-1])


def test_a_difference_outside_of_the_sample_is_not_seen(run: Run, again: Again) -> None:
    first = min(run.questions, key=lambda one: one.key)
    again.changes["quant", first.key] = CHANGES["text"]
    assert verified(run, 10).passed
    assert not verified(run, None).passed


def test_failed_rows_are_not_generated_again(run: Run, again: Again) -> None:
    verified(run, None)
    failed = {run.questions[number].key for number in (3, 32, 34)}
    assert again.asked["chrono"][0].keys() == {one.key for one in run.questions} - failed
    assert len(again.asked["quant"][0]) == 40


def test_the_merge_agent_is_asked_by_the_keys_of_its_panels(tmp_path: Path, monkeypatch: Any) -> None:
    run = finished_run(tmp_path, when="disagreement")
    again = Again(run)
    monkeypatch.setattr(verifying, "Supervisor", again)
    found = verified(run, None)
    assert found.passed
    assert stage_of(found, "merge").stored == 2
    assert again.asked["merge"][0] == {key: row.key for key, row in run.merged().items()}
    assert all(key != row for key, row in again.asked["merge"][0].items())


def test_rows_that_the_run_lacks_are_not_generated(run: Run, again: Again) -> None:
    (chunk,) = run.store.folder(run.spec("quant")).glob("*.jsonl")
    lines = chunk.read_bytes().splitlines()
    chunk.unlink()
    run.add("quant", *(Analysis.from_row(json.loads(line)) for line in lines[:5]))
    found = verified(run, None)
    assert stage_of(found, "quant").stored == 5
    again = "run the same command again to generate them anew"
    assert found.problems == [f"quant: 35 rows are not in the store: {again}"]


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_damaged_files_are_problems_and_stay_as_they_are(run: Run, again: Again) -> None:
    (chunk,) = run.store.folder(run.spec("chrono")).glob("*.jsonl")
    _flip(chunk)
    model = run.plan.agents[0].settings.model_path
    (model / "config.json").write_text('{"a": 1}')
    (model / "generation_config.json").write_text("{}")
    write_questions(run.folder.questions, [replace(run.questions[0], gold="C"), *run.questions[1:]])
    before, chunks = snapshot(run.folder.root), snapshot(run.store.root)
    found = verified(run, 0)
    assert not found.passed
    assert found.problems == [
        f"{chunk} is damaged: its bytes are not those of its name",
        f"{model / 'config.json'}: its SHA-256 is not that of the plan",
        f"{model / 'generation_config.json'}: its SHA-256 is not that of the plan",
        f"{run.folder.questions}: these are not the questions of the plan",
        "chrono: 40 rows are not in the store: run the same command again to generate them anew",
    ]
    assert snapshot(run.folder.root) == before
    assert snapshot(run.store.root) == chunks


def test_model_files_are_read_anew(run: Run, again: Again, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = unchanged.digests, []

    def digests(folder: ModelFolder, *, fresh: bool = False) -> dict[str, str]:
        asked.append((folder.path, fresh))
        return real(folder, fresh=fresh)

    monkeypatch.setattr(unchanged, "digests", digests)
    assert verified(run, 0).passed
    # What was remembered of a file is no proof; each model is read once.
    assert asked == [(one.settings.model_path, True) for one in run.plan.workers]


@pytest.mark.parametrize("gone", ["model.safetensors", "config.json"])
def test_a_model_that_is_not_whole_is_a_problem(run: Run, again: Again, gone: str) -> None:
    model = run.plan.agents[1].settings.model_path
    (model / gone).unlink()
    (problem,) = verified(run, 0).problems
    assert problem.startswith(f"model of chrono: {model}")


@pytest.mark.parametrize("sample", [1, None])
@pytest.mark.parametrize("name", ["quant", "merge"])
def test_another_machine_is_refused_before_anything_else(
    run: Run, again: Again, monkeypatch: pytest.MonkeyPatch, name: str, sample: int | None
) -> None:
    torch = [Differing("torch", "2.13.0", "2.14.0")]
    monkeypatch.setattr(verifying, "environment_changes", lambda agent: torch if agent.name == name else [])
    # Nothing is read or told before: these files cannot be checked at all.
    (run.plan.agents[0].settings.model_path / "config.json").unlink()
    with pytest.raises(StoreError, match=f"not like the one of {name}: torch: 2.13.0 -> 2.14.0") as caught:
        verified(run, sample)
    assert "--sample 0" in caught.value.hint
    assert again.asked == {} and again.scratch == []


def test_the_files_can_be_checked_on_any_machine(
    run: Run, again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "environment_changes", lambda agent: [Differing("torch", "1", "2")])
    assert verified(run, 0).passed
    assert again.asked == {}


@pytest.mark.parametrize("damage", ["gone", "no JSON", "a list", "another prompt"])
def test_a_spec_that_is_not_that_of_its_rows_is_a_problem(run: Run, again: Again, damage: str) -> None:
    file = run.store.folder(run.spec("chrono")) / "spec.json"
    content = file.read_text()
    file.unlink()
    if damage != "gone":
        other = json.dumps({**json.loads(content), "prompt": "other"})
        file.write_text({"no JSON": "{", "a list": "[]", "another prompt": other}[damage])
    found = verified(run, 0)
    (problem,) = found.problems
    assert problem.startswith(f"{file}: ")
    assert not found.passed
    file.write_text(content)
    assert verified(run, 0).passed


@pytest.mark.parametrize("name", ["metrics.json", "decisions.parquet", "decisions.jsonl"])
def test_results_that_do_not_follow_are_a_problem(run: Run, again: Again, name: str) -> None:
    file = run.folder.root / name
    if name == "metrics.json":
        file.write_text(file.read_text().replace('"questions": 40', '"questions": 41'))
    elif name == "decisions.jsonl":
        file.write_text(file.read_text().replace('"answer": "B"', '"answer": "C"', 1))
    else:
        file.write_bytes(b"PAR1")
    problems = verified(run, 0).problems
    assert problems and name in problems[0]


def test_a_plan_that_was_edited_is_refused(run: Run, again: Again) -> None:
    run.folder.plan.write_text(run.folder.plan.read_text().replace('"quorum": 1', '"quorum": 2'))
    with pytest.raises(StoreError, match="was edited after it was written"):
        verified(run, 0)


def test_two_answers_under_one_key_are_a_problem(run: Run, again: Again) -> None:
    key = run.questions[0].key
    run.add("quant", analysis(key, "B"))
    found = verified(run, 0)
    assert f"quant: two answers under the key {key}" in found.problems
    assert not found.passed


def test_a_run_that_is_not_finished_is_checked_as_far_as_it_is(run: Run, again: Again) -> None:
    run.folder.metrics.unlink()
    run.folder.decisions.unlink()
    found = verified(run, 4)
    (problem,) = found.problems
    assert "not finished" in problem
    assert [stage.evidence.rows for stage in found.stages] == [4, 4, 4]


def test_what_was_stopped_is_no_evidence(run: Run, again: Again) -> None:
    stop = StopRequest()
    again.stop = stop
    with pytest.raises(KeyboardInterrupt):
        verified(run, 4, stop)
    assert list(again.asked) == ["quant"]
    assert evidence(run, "quant") == []
    assert not stop.covers_work


def test_an_archive_that_cannot_be_written_is_verified_all_the_same(
    run: Run, again: Again, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise StoreError("cannot be written: Read-only file system")

    monkeypatch.setattr(verifying, "keep_evidence", refuse)
    again.changes["quant", run.questions[0].key] = CHANGES["text"]
    found = verified(run, None)
    assert [stage.evidence.same for stage in found.stages] == [39, 37, 40]
    assert evidence(run, "quant") == []


@pytest.mark.parametrize("writable", [True, False])
def test_the_log_of_a_worker_is_where_it_can_be_written(
    run: Run, again: Again, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: writable or path != run.folder.root)
    before, logs = snapshot(run.folder.root), []

    def fail(key: str) -> Change:
        again.log.parent.mkdir(exist_ok=True)
        again.log.write_text("CUDA out of memory")
        logs.append(again.log)
        raise EngineError("died")

    monkeypatch.setattr(again, "_change", fail)
    with pytest.raises(EngineError):
        verified(run, 1)
    kept = run.folder.worker_log("quant")
    assert (logs == [kept]) == kept.exists() == writable
    assert {name for name in snapshot(run.folder.root) if name not in before} == (
        {str(kept.relative_to(run.folder.root))} if writable else set()
    )
