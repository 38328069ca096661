"""The order of the stages: what a run folder refuses, what is generated, and how a run ends early."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from run_folders import Run, analysis, question, snapshot
from running import Silent, execute

from orch_local.audit.replay import replay
from orch_local.benchmarks.loading import BadRow
from orch_local.config.run_files import RunConfig
from orch_local.errors import EngineError, StoreError
from orch_local.plan.files import load_plan, write_plan
from orch_local.plan.plans import AgentPlan, Plan
from orch_local.records import Analysis, Outcome
from orch_local.run import preparation, scheduler
from orch_local.run.context import StopRequest
from orch_local.run.orders import Recheck
from orch_local.run.pipeline import Result
from orch_local.run.planning import PlannedRun
from orch_local.run.preparation import prepare
from orch_local.run.stats import Timing
from orch_local.run.supervisor import Progress, WorkerOptions
from orch_local.store.questions import read_questions
from orch_local.store.store import RunFolder, Spec, Store

LETTERS = {"quant": "BACA", "chrono": "BBAC"}
FIRST = question(0).key


class Workers:
    """Stands for `Supervisor`: rows come from a table, and an agent may come to grief."""

    def __init__(self, run: Run) -> None:
        self.run_ = run
        self.asked: dict[str, set[str]] = {}
        """By agent: keys of the questions that it was given last."""
        self.before: dict[str, Callable[[], None]] = {}
        """By agent: called when its turn comes."""
        self.stopped: list[str] = []
        self.finished: list[str] = []
        self.recheck: set[Recheck] = set()

    def __call__(
        self,
        folder: RunFolder,
        agent: AgentPlan,
        store: Store,
        options: WorkerOptions,
    ) -> _Worker:
        self.recheck.add(options.recheck)
        return _Worker(self, agent.name)


class _Worker:
    loaded = True
    resident_gib = 0.0

    def __init__(self, all_: Workers, name: str) -> None:
        self._all, self._name = all_, name
        self.timing = Timing(1.5, 2.5)

    def run(self, rows: Mapping[str, str], progress: Progress) -> Timing:
        run, name = self._all.run_, self._name
        self._all.asked[name] = set(rows)
        self._all.before.get(name, lambda: None)()
        if name == "merge":
            made = run.merged()
        else:
            keys = [one.key for one in run.questions]
            made = {key: analysis(key, said) for key, said in zip(keys, LETTERS[name], strict=True)}
        assert {key: made[key].key for key in rows} == dict(rows)
        with run.store.writer(run.spec(name)) as writer:
            for key in rows:
                writer.add(made[key])
        return self.timing

    def follow(self, keys: Sequence[str], progress: Progress) -> None:
        """Leaves everything to the merge that waits."""

    def complete(self) -> None:
        pass

    def stop(self) -> None:
        self._all.stopped.append(self._name)

    def finish(self) -> None:
        self._all.finished.append(self._name)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that has been prepared."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Run.begin(tmp_path)


@pytest.fixture
def workers(run: Run, monkeypatch: pytest.MonkeyPatch) -> Workers:
    made = Workers(run)
    monkeypatch.setattr(scheduler, "Supervisor", made)
    return made


def executed(run: Run, retry_failed: bool = False, stop: StopRequest | None = None) -> Result:
    return execute(run.folder, Silent(), retry_failed, stop)


def generated(result: Result) -> dict[str, int]:
    return {name: cost.generated_now for name, cost in result.costs.items()}


def chunk_of(run: Run, name: str) -> Path:
    (chunk,) = run.store.folder(run.spec(name)).glob("*.jsonl")
    return chunk


def test_a_run_generates_decides_and_can_be_replayed(run: Run, workers: Workers) -> None:
    result = executed(run)
    assert generated(result) == {"quant": 4, "chrono": 4, "merge": 4}
    assert (result.violations, result.damaged) == (0, 0)
    found = replay(run.folder)
    assert found.same and found.digest == result.digest
    assert json.loads(run.folder.level.read_text()) == json.loads(json.dumps(asdict(result.level)))
    assert workers.recheck == {Recheck(8, 0.02)}
    for agent in run.plan.workers:
        spec = json.loads((run.store.folder(agent.spec) / "spec.json").read_text())
        assert Spec.of(spec).digest == agent.spec


def test_nothing_is_generated_twice(run: Run, workers: Workers) -> None:
    first = executed(run)
    workers.asked.clear()
    second = executed(run)
    assert workers.asked == {}
    assert generated(second) == {"quant": 0, "chrono": 0, "merge": 0}
    assert second.digest == first.digest
    assert {name: cost.usage for name, cost in second.costs.items()} == {
        name: cost.usage for name, cost in first.costs.items()
    }


def test_only_what_is_missing_is_generated(run: Run, workers: Workers) -> None:
    whole = executed(run)
    rows = run.store.read(run.spec("quant"))
    kept = [row for key, row in rows.items() if key != FIRST]
    chunk_of(run, "quant").unlink()
    run.add("quant", *kept)
    workers.asked.clear()
    assert executed(run).digest == whole.digest
    assert workers.asked == {"quant": {FIRST}}


def test_failed_rows_go_again_only_when_asked(run: Run, workers: Workers) -> None:
    run.add("quant", Analysis(FIRST, Outcome.FAILED, error="died"))
    executed(run)
    assert workers.asked["quant"] == {one.key for one in run.questions} - {FIRST}
    workers.asked.clear()
    assert generated(executed(run, retry_failed=True)) == {"quant": 1, "chrono": 0, "merge": 1}
    assert workers.asked["quant"] == {FIRST}
    assert run.store.read(run.spec("quant"))[FIRST].usable


def test_damaged_chunks_are_set_aside_and_counted_once(run: Run, workers: Workers) -> None:
    whole = executed(run)
    chunks = [chunk_of(run, name) for name in ("quant", "merge")]
    contents = [chunk.read_bytes()[:-5] for chunk in chunks]
    for chunk, content in zip(chunks, contents, strict=True):
        chunk.write_bytes(content)
    again = executed(run)
    assert again.damaged == 2
    assert generated(again) == {"quant": 4, "chrono": 0, "merge": 4}
    assert again.digest == whole.digest
    assert [(chunk.parent / "damaged" / chunk.name).read_bytes() for chunk in chunks] == contents
    assert executed(run).damaged == 0


def test_two_answers_under_one_key_are_counted(run: Run, workers: Workers) -> None:
    executed(run)
    run.add("chrono", replace(analysis(FIRST, "B"), text="other"))
    assert executed(run).violations == 1


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_failure_stops_the_others_and_is_raised(run: Run, workers: Workers, at_once: int) -> None:
    engine = run.plan.config.engine.model_copy(update={"models_at_once": at_once})
    config = run.plan.config.model_copy(update={"engine": engine})
    plan = run.plan.model_copy(update={"config": config})
    write_plan(run.folder, plan)

    def die() -> None:
        raise EngineError("died")

    workers.before["quant"] = die
    with pytest.raises(EngineError, match="died"):
        executed(run)
    assert sorted(workers.stopped) == ["chrono", "quant"]
    assert "merge" not in workers.asked
    assert not run.folder.metrics.exists() and not run.folder.decisions.exists()
    del workers.before["quant"]
    assert executed(run).digest == replay(run.folder).recorded


def test_a_run_that_is_asked_to_finish_takes_up_no_further_stage(run: Run, workers: Workers) -> None:
    stop, noted = StopRequest(), []

    def ask() -> None:
        noted.append(stop.covers_work)
        threading.Thread(target=stop.finish).run()

    workers.before["quant"] = ask
    with pytest.raises(KeyboardInterrupt):
        executed(run, stop=stop)
    assert noted == [True]
    assert sorted(workers.finished) == ["chrono", "quant"]
    assert (stop.asked, stop.covers_work) == (True, False)
    assert "merge" not in workers.asked and not run.folder.metrics.exists()
    # What was in flight is in the store, and the same command goes on from there.
    assert len(run.store.read(run.spec("quant"))) == 4
    workers.before.clear()
    assert generated(executed(run))["quant"] == 0


def with_content(agent: AgentPlan, change: Callable[[dict[str, Any]], None]) -> AgentPlan:
    """The agent with another spec."""
    content = json.loads(json.dumps(agent.spec_content))
    change(content)
    return agent.model_copy(update={"spec": Spec.of(content).digest, "spec_content": content})


def changed(plan: Plan, change: Callable[[dict[str, Any]], None]) -> Plan:
    agents = tuple(with_content(agent, change) for agent in plan.agents)
    assert plan.merger is not None
    return plan.model_copy(update={"agents": agents, "merger": with_content(plan.merger, change)})


def newer(content: dict[str, Any]) -> None:
    content["environment"]["torch"] = "2.14.0"


@pytest.fixture
def prepared(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[Plan], Callable[..., Plan]]:
    """Prepare the folder of the run for a plan as it would be prepared now."""

    def make(plan: Plan) -> Callable[..., Plan]:
        bad = [BadRow("q.jsonl", 3, "no gold \ud800")]
        monkeypatch.setattr(
            preparation, "plan_run", lambda config, store, begun: PlannedRun(plan, run.questions, bad)
        )
        monkeypatch.setattr(preparation, "check", lambda plan, questions: None)

        def call(accept: bool = False) -> Plan:
            config: RunConfig = plan.config
            return prepare(config, run.folder, run.store.root, accept)

        return call

    return make


Prepared = Callable[[Plan], Callable[..., Plan]]


def test_the_same_plan_is_frozen_again(run: Run, prepared: Prepared) -> None:
    before = load_plan(run.folder)
    assert prepared(run.plan)() == run.plan
    assert load_plan(run.folder) == before
    assert list(read_questions(run.folder.questions)) == run.questions


@pytest.mark.parametrize("accept", [True, False])
def test_another_plan_is_refused_by_its_fields_and_nothing_is_written(
    run: Run, prepared: Prepared, accept: bool
) -> None:
    before = snapshot(run.folder.root)
    merge = run.plan.config.merge.model_copy(update={"quorum": 2})
    config = run.plan.config.model_copy(update={"merge": merge})
    asked = run.plan.questions.model_copy(update={"digest": "f" * 64})
    plan = run.plan.model_copy(update={"config": config, "questions": asked})
    with pytest.raises(StoreError, match="a run of a different plan") as caught:
        prepared(plan)(accept)
    assert "merge.quorum: 1 -> 2" in caught.value.message
    assert f"questions: {run.plan.questions.digest} -> {'f' * 64}" in caught.value.message
    assert "--out" in caught.value.hint
    assert snapshot(run.folder.root) == before


@pytest.mark.parametrize("field", ["fast", "grammar"])
def test_a_run_that_was_fast_is_told_by_its_option(run: Run, prepared: Prepared, field: str) -> None:
    def engine(value: str) -> Plan:
        return changed(run.plan, lambda content: content.update(engine={field: value, "name": "vllm"}))

    write_plan(run.folder, engine("before"))
    with pytest.raises(StoreError, match=rf"engine\.{field}") as caught:
        prepared(engine("now"))()
    assert ("--fast" in caught.value.hint) == (field == "fast")
    assert "choose another --out; rows that both plans need" in caught.value.hint


def test_a_new_environment_is_accepted_with_a_warning(
    run: Run, prepared: Prepared, caplog: pytest.LogCaptureFixture
) -> None:
    prepared(run.plan)(True)
    assert caplog.messages == []
    prepared(changed(run.plan, newer))(True)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "environment.torch: (absent) -> 2.14.0" in record.getMessage()
    assert "all rows are made anew" in record.getMessage()


def test_another_environment_is_refused_by_its_fields_and_values(run: Run, prepared: Prepared) -> None:
    before = snapshot(run.folder.root)
    with pytest.raises(StoreError, match="begun in another environment") as caught:
        prepared(changed(run.plan, newer))()
    assert caught.value.message.endswith("it differs in: environment.torch: (absent) -> 2.14.0")
    assert "--accept-new-environment" in caught.value.hint
    assert snapshot(run.folder.root) == before


def test_another_environment_is_taken_when_it_is_accepted(
    run: Run, prepared: Prepared, workers: Workers
) -> None:
    first = executed(run)
    now = changed(run.plan, newer)
    assert prepared(now)(True) == now
    assert load_plan(run.folder) == now
    workers.run_ = replace(run, plan=now)
    # The environment is part of every spec, so all rows are generated anew.
    second = executed(run)
    assert generated(second) == {"quant": 4, "chrono": 4, "merge": 4}
    assert second.digest == first.digest
    # And the way back is a change of environment, too.
    with pytest.raises(StoreError, match=r"environment.torch: 2.14.0 -> \(absent\)"):
        prepared(run.plan)()


def test_a_plan_and_an_environment_that_differ_are_another_plan(run: Run, prepared: Prepared) -> None:
    def both(content: dict[str, Any]) -> None:
        newer(content)
        content["prompt"] = "word " * 200

    with pytest.raises(StoreError, match="a run of a different plan") as caught:
        prepared(changed(run.plan, both))(True)
    message = caught.value.message
    assert "prompt" in message and "torch" not in message
    assert max(map(len, message.split("; "))) < 300, "a prompt is not told whole"


def test_bad_rows_are_written_beside_the_questions(run: Run, prepared: Prepared) -> None:
    prepared(run.plan)()
    (line,) = run.folder.bad_rows.read_bytes().split(b"\n")[:-1]
    row = json.loads(line.decode("utf-8", "surrogatepass"))
    assert "no gold \ud800" in row.values()
