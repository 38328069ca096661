"""A calibrated state: learnt without an engine, refused wherever it would not mean what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from routed_runs import KNOWS, asked, routed_run, said
from run_folders import NAMES, Run
from running import Cli, write_run_file

from orch_local.audit.calibrate import calibrate
from orch_local.config.blocks import RouterConfig
from orch_local.config.run_files import load_run
from orch_local.errors import ConfigError, InputError, StoreError
from orch_local.plan.files import write_plan
from orch_local.plan.plans import AgentPlan
from orch_local.records import digest
from orch_local.router.averages import RouterState
from orch_local.router.routing import Router
from orch_local.router.states import StateFile, plan_router, write_state


def calibration_run(root: Path, gold: bool = True) -> Run:
    """A finished run over twenty questions, all agents asked."""
    run = routed_run(root, 20, mode="online")
    config = run.plan.config.model_copy(update={"router": None})
    run.plan = run.plan.model_copy(update={"config": config, "router": None})
    write_plan(run.folder, run.plan)
    for name in NAMES:
        run.add(name, *(said(name, one) for one in run.questions))
    run.merge()
    run.decide()
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return calibration_run(tmp_path)


@pytest.fixture
def state(run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "router.json"
    write_state(path, calibrate(run.folder, 0.1, 0.5, None))
    return path


@pytest.fixture
def agents(run: Run) -> tuple[AgentPlan, ...]:
    return run.plan.agents


def config(**values: Any) -> RouterConfig:
    return RouterConfig.model_validate({"mode": "calibrated", "k": 1} | values)


def test_what_was_learnt_routes_each_category_to_the_one_who_knows_it(
    state: Path, agents: Sequence[AgentPlan]
) -> None:
    settings = config(state=state, category_min=1)
    frozen = plan_router(settings, agents, asked(20, first=100))
    assert frozen.start
    router = Router(settings, len(NAMES), RouterState.from_dict(dict(frozen.start)))
    told = {one.category: router.route(one.key, one.category).agents for one in asked(20, first=100)}
    assert told == {KNOWS[name]: (place,) for place, name in enumerate(NAMES)}


def test_a_question_of_the_calibration_split_is_refused(state: Path, agents: Sequence[AgentPlan]) -> None:
    with pytest.raises(InputError, match="1 questions of this run are in the calibration split"):
        plan_router(config(state=state), agents, [*asked(3, first=100), *asked(1)])


def test_other_agents_or_another_order_are_refused(state: Path, agents: Sequence[AgentPlan]) -> None:
    renamed = agents[1].model_copy(update={"name": "other"})
    for other in (agents[::-1], agents[:1], (agents[0], renamed)):
        with pytest.raises(ConfigError, match="it was learnt with the agents quant, chrono"):
            plan_router(config(state=state), other, [])


def test_another_model_under_the_same_name_is_refused(state: Path, agents: Sequence[AgentPlan]) -> None:
    content = {**agents[0].spec_content, "model": {"files": {"model.safetensors": "other"}}}
    other = agents[0].model_copy(update={"spec_content": content})
    with pytest.raises(ConfigError, match="another model, prompt or answer block of quant"):
        plan_router(config(state=state), (other, *agents[1:]), [])
    elsewhere = agents[0].model_copy(
        update={"spec_content": {**agents[0].spec_content, "environment": {"torch": "9"}}}
    )
    assert plan_router(config(state=state), (elsewhere, *agents[1:]), []).start


def test_an_edited_state_is_refused(state: Path, agents: Sequence[AgentPlan]) -> None:
    values = json.loads(state.read_text())
    state.write_text(json.dumps({**values, "questions": []}))
    with pytest.raises(ConfigError, match="edited after it was written"):
        plan_router(config(state=state), agents, asked(1))


def test_a_state_of_other_signals_is_refused(
    state: Path, tmp_path: Path, agents: Sequence[AgentPlan]
) -> None:
    one = {"spec": "", "device": "cpu", "rows": 1, "load_s": 1.0}
    one |= dict.fromkeys(("base_s", "prompt_s", "generated_s", "device_s"), 0.5)
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"measured": "today", "agents": dict.fromkeys(NAMES, one)}))
    with pytest.raises(ConfigError, match="of another profile"):
        plan_router(config(state=state, profile=profile), agents, [])
    assert plan_router(config(mode="online", profile=profile), agents, []).profile
    profile.write_text(json.dumps({"measured": "today", "agents": {NAMES[0]: one}}))
    with pytest.raises(ConfigError, match="the profile has no agent chrono"):
        plan_router(config(mode="online", profile=profile), agents, [])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2}', "null", '"x"', '{"agents": ["quant", "chrono"], "state": 7}']
)
def test_a_file_that_is_no_state_is_refused(tmp_path: Path, text: str, agents: Sequence[AgentPlan]) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises((ConfigError, StoreError)):
        plan_router(config(state=path), agents, [])


@pytest.mark.parametrize("tracks", [{}, {"": []}, {"": [[[0, 0.5]]]}, {"": [[[1, "x"]] * 3] * 2}, 7])
def test_a_state_with_broken_averages_is_refused(
    state: Path, tracks: object, agents: Sequence[AgentPlan]
) -> None:
    values = json.loads(state.read_text())
    values["state"]["tracks"] = tracks
    del values["sha256"]
    state.write_text(json.dumps({**values, "sha256": digest(values)}))
    with pytest.raises(ConfigError, match="is no state of a router"):
        plan_router(config(state=state), agents, [])


def test_a_missing_file_is_named(tmp_path: Path, agents: Sequence[AgentPlan]) -> None:
    with pytest.raises(StoreError, match=r"nowhere\.json"):
        plan_router(config(state=tmp_path / "nowhere.json"), agents, [])


def test_a_run_that_cannot_teach_is_refused(run: Run, tmp_path: Path) -> None:
    routed = routed_run(tmp_path / "routed", 4, mode="online")
    with pytest.raises(InputError, match="was routed itself"):
        calibrate(routed.folder, 0.1, 0.5, None)
    run.folder.metrics.unlink()
    with pytest.raises(StoreError, match="not finished"):
        calibrate(run.folder, 0.1, 0.5, None)


@pytest.mark.parametrize(
    ("router", "merge", "told"),
    [
        ({"mode": "online"}, {}, "give either `k` or `budget`"),
        ({"mode": "online", "k": 1, "budget": 2.0}, {}, "give either `k` or `budget`"),
        ({"mode": "calibrated", "k": 1}, {}, "needs a `state`"),
        ({"mode": "online", "k": 3}, {}, "router.k is 3"),
        ({"mode": "online", "k": 1}, {"quorum": 2}, "at least the quorum"),
        ({"mode": "online", "budget": 9.0}, {"quorum": 2}, "`merge.quorum` must be 1"),
        ({"mode": "online", "k": 1, "alpha": 0}, {}, "alpha"),
        ({"mode": "online", "k": 1, "weights": {"speed": 1}}, {}, "speed"),
    ],
)
def test_a_router_that_cannot_be_meant_is_refused(
    tmp_path: Path, router: dict[str, Any], merge: dict[str, Any], told: str
) -> None:
    values = {
        "benchmark": {"name": "jsonl", "path": "q.jsonl"},
        "agents": [{"name": name, "model": name} for name in NAMES],
        "merge": {"policy": "majority"} | merge,
        "router": router,
    }
    with pytest.raises(ConfigError, match=told):
        load_run(write_run_file(tmp_path, values))


def test_the_command_writes_a_state_and_says_how_to_use_it(run: Run, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "out.json"
    done = cli("calibrate", str(run.folder.root), "--out", str(out))
    assert done.code == 0 and "20 questions" in done.out and "mode: calibrated" in done.out
    values = json.loads(out.read_text())
    assert values.pop("sha256") == digest(values)
    assert tuple(StateFile.model_validate(values).agents) == NAMES
    again = cli("calibrate", str(run.folder.root), "--out", str(out))
    assert again.code == 2 and "is there already" in again.err
    done = cli("calibrate", str(tmp_path / "nowhere"), "--out", "other.json")
    assert done.code == 2 and "Traceback" not in done.err
