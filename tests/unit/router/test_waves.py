"""A run with a router: what is asked, that feedback never comes early, and that kills change nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from routed_runs import KNOWS, Table, asked, routed_run, said
from run_folders import NAMES, Run
from running import Silent, execute

from orch_local.audit.replay import replay
from orch_local.errors import InputError, StoreError
from orch_local.plan.files import load_plan
from orch_local.plan.profiles import AgentProfile, Profile
from orch_local.records import Analysis, Outcome, Question, Usage
from orch_local.results.trajectory import router_summary
from orch_local.router.averages import RouterState
from orch_local.router.feedback import FeedbackReader
from orch_local.router.routes import MissingRowError, Walk, read_routes, recorded, write_routes
from orch_local.router.routing import RoutingCase, learn, simulate
from orch_local.run.context import RunContext
from orch_local.run.pipeline import run_shard, score_stored
from orch_local.run.remaining import remaining, remaining_by_shard
from orch_local.store.shards import Shard

ONLINE = {"mode": "online", "wave": 10, "warm_up": 4, "category_min": 1}


def cases(run: Run, questions: list[Question] | None = None) -> list[RoutingCase]:
    """What every agent would tell, also of questions that it was not asked."""
    reader = FeedbackReader(run.plan)
    return [
        RoutingCase(
            one.key,
            one.category,
            tuple(reader.signal(n, said(name, one), one.gold) for n, name in enumerate(NAMES)),
        )
        for one in questions or run.questions
    ]


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, Table]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = routed_run(tmp_path, 40, **ONLINE)
    return run, Table(run, monkeypatch)


def test_each_question_is_asked_of_its_agents_alone_and_replays(online: tuple[Run, Table]) -> None:
    run, table = online
    result = execute(run.folder, Silent())
    routes = read_routes(run.folder, run.plan)
    for place, name in enumerate(NAMES):
        wanted = {one.key for one in run.questions if place in routes.of(one.key)}
        assert set(table.keys_of(name)) == wanted == set(run.store.read(run.spec(name)))
    assert result.metrics.questions == result.metrics.answered == 40
    assert all(len(row["asked"]) == 1 for row in recorded(run.folder))
    found = replay(run.folder)
    assert found.same and found.digest == result.digest
    # It learns who knows what: the last waves are all right.
    assert all(KNOWS[row["asked"][0]] == row["category"] for row in list(recorded(run.folder))[20:])


def test_the_routes_are_those_of_a_simulation(online: tuple[Run, Table]) -> None:
    run, _ = online
    execute(run.folder, Silent())
    assert run.plan.config.router
    told = [route.agents for route in simulate(run.plan.config.router, cases(run))]
    routes = read_routes(run.folder, run.plan)
    assert [routes.of(one.key) for one in run.questions] == told


@pytest.mark.parametrize("mode", [{}, {"mode": "delayed", "delay": 7}])
def test_a_stop_after_any_wave_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: dict[str, object]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = routed_run(tmp_path / "whole", 40, **ONLINE | mode)
    table = Table(whole, monkeypatch)
    digest = execute(whole.folder, Silent()).digest
    calls = len(table.calls)
    run = routed_run(tmp_path / "stopped", 40, **ONLINE | mode)
    table = Table(run, monkeypatch)
    for stop in range(calls):
        table.dies_after = stop
        with pytest.raises(KeyboardInterrupt):
            execute(run.folder, Silent())
        assert remaining(run.folder) > 0
    table.dies_after = None
    assert execute(run.folder, Silent()).digest == digest
    assert run.folder.routes.read_bytes() == whole.folder.routes.read_bytes()
    assert max(Counter(key for name in NAMES for key in table.keys_of(name)).values()) == 1
    assert remaining(run.folder) == 0


def test_the_gold_of_a_wave_does_not_change_its_routes(tmp_path: Path) -> None:
    runs = [routed_run(tmp_path / name, 40, **ONLINE) for name in ("a", "b")]
    for run in runs:
        for name in NAMES:
            run.add(name, *(said(name, one) for one in run.questions))
    told = []
    for run, gold in zip(runs, ("B", "C"), strict=True):
        changed = [*asked(40)[:30], *(one for one in _with_gold(asked(40)[30:], gold))]
        told.append([found.route for found in Walk(run.plan, changed, run.store)])
    assert told[0] == told[1]


def _with_gold(questions: list[Question], gold: str) -> list[Question]:
    return [Question(one.id, one.text, one.choices, gold, one.category) for one in questions]


def test_a_walk_stops_at_a_missing_row_and_goes_on_when_it_is_there(tmp_path: Path) -> None:
    run = routed_run(tmp_path, 20, **ONLINE)
    walk = Walk(run.plan, run.questions, run.store)
    first = [next(walk) for _ in range(10)]
    with pytest.raises(MissingRowError, match="has no row for question"):
        next(walk)
    for place, name in enumerate(NAMES):
        run.add(name, *(said(name, one.question) for one in first if place in one.route.agents))
    walk.update()
    assert next(walk).question == run.questions[10]


def test_a_frozen_state_gives_every_shard_the_routes_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = []
    for name in ("whole", "shards"):
        before = routed_run(tmp_path / f"{name} before", 1, **ONLINE)
        assert before.plan.config.router
        state = learn(before.plan.config.router, cases(before, asked(20, first=1000)))
        run = routed_run(tmp_path / name, 40, state, mode="calibrated", state="/state.json", explore_every=5)
        write_routes(run.folder, run.plan, run.questions)
        made.append(run)
    whole, run = made
    Table(whole, monkeypatch)
    digest = execute(whole.folder, Silent()).digest
    table = Table(run, monkeypatch)
    assert sum(remaining_by_shard(run.folder, 3)) == 80  # an analysis and a merge for each question
    for number in (3, 1, 2):
        run_shard(RunContext.of(run.folder, Silent(), shard=Shard(number, 3)))
    assert score_stored(RunContext.of(run.folder)).digest == digest
    assert remaining_by_shard(run.folder, 3) == [0, 0, 0]
    assert len(table.keys_of(NAMES[0]) + table.keys_of(NAMES[1])) == 40
    phases = Counter(row["phase"] for row in recorded(run.folder))
    assert set(phases) == {"score", "explore"}


def test_a_router_that_learns_is_not_sharded(online: tuple[Run, Table]) -> None:
    run, _ = online
    with pytest.raises(InputError, match="cannot be divided into shards"):
        run_shard(RunContext.of(run.folder, Silent(), shard=Shard(1, 2)))
    with pytest.raises(InputError, match="calibrate"):
        remaining_by_shard(run.folder, 2)
    run_shard(RunContext.of(run.folder, Silent(), shard=Shard(1, 1)))
    assert score_stored(RunContext.of(run.folder)).metrics.answered == 40


def test_an_unfinished_run_is_not_scored(online: tuple[Run, Table]) -> None:
    run, table = online
    with pytest.raises(StoreError, match=r"routes\.jsonl"):
        score_stored(RunContext.of(run.folder))
    table.dies_after = 3
    with pytest.raises(KeyboardInterrupt):
        execute(run.folder, Silent())
    with pytest.raises(StoreError):
        score_stored(RunContext.of(run.folder))


def test_a_changed_or_damaged_record_is_found(online: tuple[Run, Table]) -> None:
    run, _ = online
    execute(run.folder, Silent())
    lines = run.folder.routes.read_text().splitlines()
    row = json.loads(lines[-1])
    row["estimates"][NAMES[0]]["accuracy"] += 0.25
    run.folder.routes.write_text("\n".join([*lines[:-1], json.dumps(row)]) + "\n")
    found = replay(run.folder)
    assert not found.same
    assert found.rerouted == [run.questions[-1].id]
    for bad in ("[]", "{", '{"key": "zz", "asked": []}', '{"key": "00", "asked": ["nobody"]}'):
        run.folder.routes.write_text(bad + "\n")
        with pytest.raises(StoreError, match="line 1 is no route"):
            read_routes(run.folder, run.plan)
    run.folder.routes.unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        replay(run.folder)


def test_a_failed_row_counts_as_not_right_and_costs_nothing(online: tuple[Run, Table]) -> None:
    run, _ = online
    reader, one = FeedbackReader(run.plan), run.questions[0]
    assert reader.signal(0, Analysis(one.key, Outcome.FAILED), "B") == (False, None, None)
    assert reader.signal(0, said(NAMES[0], one), None).accuracy is None
    assert reader.signal(0, said(NAMES[0], one), "B") == (True, 20.0, 79.0)


def test_rows_made_again_teach_what_they_say_now(online: tuple[Run, Table]) -> None:
    run, _ = online
    run.add(NAMES[0], *(Analysis(one.key, Outcome.FAILED, error="died") for one in run.questions[:10]))
    execute(run.folder, Silent())
    assert replay(run.folder).same
    result = execute(run.folder, Silent(), retry_failed=True)
    found = replay(run.folder)
    assert found.same and found.digest == result.digest
    assert result.metrics.total.orch.scored == 40


def test_a_profile_gives_seconds(online: tuple[Run, Table]) -> None:
    run, _ = online
    measured = {"base_s": 1.0, "prompt_s": 0.5, "generated_s": 2.0, "device_s": 3.0}
    one = AgentProfile(spec="", device="cpu", rows=1, load_s=9.0, **measured)
    files = run.plan.router
    assert files
    profile = Profile(measured="", agents=dict.fromkeys(NAMES, one))
    plan = run.plan.model_copy(update={"router": files.model_copy(update={"profile": profile})})
    row = Analysis("0" * 16, Outcome.OK, "B", usage=Usage(10, 3, 4))
    assert FeedbackReader(plan).signal(1, row, "B") == (True, 1 + 0.5 * 10 + 2 * 4, 3.0 * 14)


def test_the_trajectory_counts_every_question(online: tuple[Run, Table]) -> None:
    run, _ = online
    execute(run.folder, Silent())
    plan = load_plan(run.folder)
    found = router_summary(run.folder, plan)
    assert found and found.mode == "online"
    assert sum(found.asked.values()) == sum(found.phases.values()) == 40
    assert [point.question for point in found.trajectory] == [20, 40]
    assert found.trajectory[-1].observed == 30
    assert found.trajectory[-1].share == pytest.approx(dict.fromkeys(NAMES, 0.5))
    assert router_summary(run.folder, plan.model_copy(update={"config": _without_router(run)})) is None


def _without_router(run: Run) -> object:
    return run.plan.config.model_copy(update={"router": None})


def test_a_state_survives_its_file(online: tuple[Run, Table]) -> None:
    run, _ = online
    assert run.plan.config.router
    state = learn(run.plan.config.router, cases(run))
    again = RouterState.from_dict(json.loads(json.dumps(state.to_dict())))
    assert again == state
