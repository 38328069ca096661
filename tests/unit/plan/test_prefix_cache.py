"""The prefix cache: what each setting makes of an engine, when `auto` is on, and which order prompts take."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import table_run
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from run_folders import Run, question
from running import Cli, Silent, execute, write_run_file

from orch_local.config.blocks import EngineConfig
from orch_local.config.model_configs import ModelConfig
from orch_local.config.run_files import load_run
from orch_local.config.yaml_files import parse, read_yaml
from orch_local.engines.base import EngineSettings
from orch_local.engines.registry import determinism, environment, obstacles
from orch_local.engines.vllm.arguments import engine_arguments
from orch_local.engines.vllm.invariance import is_guarded
from orch_local.errors import ConfigError, StoreError
from orch_local.plan.execution import execution_facts, execution_spec
from orch_local.plan.files import load_plan
from orch_local.plan.plans import AgentPlan
from orch_local.plan.prefix_cache import LEAST_MET, choose_cache, meeting
from orch_local.records import Example, Question
from orch_local.report.plan import _print_caches
from orch_local.run import supervisor
from orch_local.run.orders import Order
from orch_local.run.planning import PlannedRun, plan_run
from orch_local.run.preparation import prepare
from orch_local.run.worker import Parent, _batches
from orch_local.store.evidence import Case, Check, Checked, keep_check, read_checks
from orch_local.store.questions import read_questions, write_questions
from orch_local.store.store import RunFolder, Store


def vllm_settings(folder: Path, device: str, prefix_cache: bool | None, **args: Any) -> EngineSettings:
    fast = bool(args.pop("fast", False))
    return EngineSettings(
        "vllm", folder, device, "guidance", "float32", 512, args=args, fast=fast, prefix_cache=prefix_cache
    )


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_BATCH_INVARIANT", raising=False)
    monkeypatch.setattr("orch_local.util.gpus._installed_gpus", lambda: ())


@pytest.mark.parametrize(
    ("text", "value"),
    [("on", "on"), ("off", "off"), ("auto", "auto"), ("true", "on"), ('"on"', "on"), ("no", "off")],
)
def test_the_words_of_yaml_are_understood(tmp_path: Path, text: str, value: str) -> None:
    file = tmp_path / "engine.yaml"
    file.write_text(f"prefix_cache: {text}\n")
    assert parse(EngineConfig, read_yaml(file), "engine.yaml").prefix_cache == value


@pytest.mark.parametrize("values", [{"prefix_cache": "warm"}, {"prefix_cache": 1}, {"prefix_cache": None}])
def test_another_word_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="prefix_cache"):
        parse(EngineConfig, values, "run.yaml")


def test_transformers_has_none() -> None:
    with pytest.raises(ConfigError, match="needs `name: vllm`"):
        parse(EngineConfig, {"name": "transformers", "prefix_cache": "on"}, "run.yaml")
    for value in ("auto", "off"):
        assert parse(EngineConfig, {"name": "transformers", "prefix_cache": value}, "run.yaml")


@pytest.mark.usefixtures("_no_gpu")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_on_turns_the_cache_alone_and_promises_nothing(tmp_path: Path, device: str) -> None:
    plain, on = (vllm_settings(tmp_path, device, value) for value in (None, True))
    before, after = engine_arguments(plain), engine_arguments(on)
    assert {name for name in after if before[name] != after[name]} == {"enable_prefix_caching"}
    assert after["enable_prefix_caching"] is True
    # All that keeps bytes apart from a batch stays: our guard, and vLLM's mode with whole prompts.
    assert is_guarded(on) and is_guarded(plain)
    assert environment(on) == environment(plain)
    assert environment(on)["VLLM_BATCH_INVARIANT"] == ("1" if device == "cuda" else "0")
    (reason,) = obstacles(on)
    assert "the prefix cache is on" in reason
    assert ("its batch-invariant mode is on" in reason) == (device == "cuda")
    facts = determinism(on)
    assert (facts["batch_invariant"], facts["prefix_caching"], facts["chunked_prefill"]) == (
        False,
        True,
        False,
    )
    assert determinism(plain) == determinism(vllm_settings(tmp_path, device, False))
    assert obstacles(plain) == obstacles(vllm_settings(tmp_path, device, False)) == ()


@pytest.mark.usefixtures("_no_gpu")
@pytest.mark.parametrize(
    ("prefix_cache", "args", "on", "in_mode", "reasons"),
    [
        (True, {"quantization": "fp8"}, True, True, 2),
        (True, {"quantization": "gptq"}, True, False, 2),
        (True, {"vllm_args": {"enable_prefix_caching": True}}, True, True, 1),
        (True, {"vllm_args": {"enable_prefix_caching": False}}, False, True, 0),
        (None, {"vllm_args": {"enable_prefix_caching": True}}, True, False, 1),
        (False, {"vllm_args": {"enable_prefix_caching": True}}, True, False, 1),
        (None, {"quantization": "gptq"}, None, False, 1),
        (False, {"quantization": "gptq"}, False, False, 1),
        (None, {"fast": True}, None, False, 1),
        (False, {"fast": True}, False, False, 1),
        (True, {"fast": True}, True, False, 1),
    ],
)
def test_the_setting_meets_those_of_a_model_config(
    tmp_path: Path,
    prefix_cache: bool | None,
    args: dict[str, Any],
    on: bool | None,
    in_mode: bool,
    reasons: int,
) -> None:
    made = vllm_settings(tmp_path, "cuda", prefix_cache, **args)
    assert engine_arguments(made).get("enable_prefix_caching") is on  # None: as vLLM has it, which is on
    assert determinism(made)["prefix_caching"] is (on is not False)
    assert environment(made)["VLLM_BATCH_INVARIANT"] == str(int(in_mode))
    assert len(obstacles(made)) == reasons


CASES = st.builds(
    Case,
    name=st.sampled_from(["batches", "chunks", "warm cache", "preemption"]),
    rows=st.integers(0, 99),
    same=st.integers(0, 99),
    same_text=st.integers(0, 99),
    met=st.integers(0, 99),
)
CHECKS = st.builds(
    Check,
    cases=st.lists(CASES, max_size=4).map(tuple),
    sample=st.sampled_from(["a" * 64, "b" * 64]),
    longest=st.integers(0, 2000),
    head_size=st.none() | st.sampled_from([64, 128]),
    attention=st.none() | st.text(max_size=8),
)
SPEC = "0" * 32


@settings(max_examples=30, deadline=None)
@given(st.lists(CHECKS, max_size=4))
def test_a_check_that_is_kept_is_read(tmp_path_factory: pytest.TempPathFactory, checks: list[Check]) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    for check in (*checks, *checks):
        keep_check(store, SPEC, check)
    found = read_checks(store, SPEC)
    assert set(found.checks) == set(checks)
    assert (len(found.checks), found.damaged) == (len(set(checks)), [])
    assert read_checks(store, "f" * 32) == ([], [])


def warm(rows: int = 96, same: int | None = None, met: int = LEAST_MET) -> Check:
    case = Case("warm cache", rows, rows if same is None else same, rows, met)
    return Check((Case("chunks", 9, 1, 9, 9), case), "s", 900)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", '{"cases": 3}', '{"cases": [], "sample": "s", "longest": 1, "more": 1}'],
)
def test_a_damaged_check_is_named_and_keeps_the_cache_off(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    keep_check(store, SPEC, warm())
    assert choose_cache(read_checks(store, SPEC)).on
    bad = store.checks(SPEC) / "bad.json"
    bad.write_text(text)
    found = read_checks(store, SPEC)
    assert (found.checks, found.damaged) == ([warm()], [bad])
    assert not choose_cache(found).on and "bad.json" in choose_cache(found).reason


def test_a_check_that_was_made_better_is_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keep_check(store, SPEC, warm(same=95))
    (file,) = store.checks(SPEC).iterdir()
    values = json.loads(file.read_text())
    values["cases"][1]["same"] = 96
    file.write_text(json.dumps(values))
    assert read_checks(store, SPEC) == ([], [file])


@pytest.mark.parametrize(
    ("checks", "on", "reason"),
    [
        ([], False, "not checked here"),
        ([Check((Case("batches", 99, 99, 99, 99),), "s", 900)], False, "not checked here"),
        ([warm()], True, "all 96 rows had the same bytes"),
        ([warm(same=95)], False, "1 of 96 rows had other bytes"),
        ([warm(met=LEAST_MET - 1)], False, f"{LEAST_MET - 1} rows that read cached blocks"),
        ([warm(met=LEAST_MET - 1), warm(met=1)], True, "all 192 rows"),
        ([warm(), warm(same=95)], False, "1 of 192 rows"),
    ],
)
def test_only_rows_that_read_the_cache_with_the_same_bytes_turn_it_on(
    checks: list[Check], on: bool, reason: str
) -> None:
    choice = choose_cache(Checked(checks, []))
    assert choice.on is on
    assert reason in choice.reason


@given(st.lists(CHECKS, max_size=5))
def test_one_row_that_differed_keeps_it_off(checks: list[Check]) -> None:
    cases = [case for check in checks for case in check.cases if case.name == "warm cache"]
    if choose_cache(Checked(checks, [])).on:
        assert sum(case.same for case in cases) >= sum(case.rows for case in cases) > 0
        assert sum(case.met for case in cases) >= LEAST_MET


# Plans: real model folders, no engine.


def planned(tmp_path: Path, run_values: dict[str, Any], cache: str, device: str = "cpu") -> PlannedRun:
    engine = {**run_values["engine"], "prefix_cache": cache, "device": device}
    config = load_run(write_run_file(tmp_path, {**run_values, "engine": engine}))
    return plan_run(config, tmp_path / "store")


def specs(found: PlannedRun) -> list[str]:
    return [agent.spec for agent in found.plan.workers]


def turned_on(found: PlannedRun) -> list[str]:
    return [agent.name for agent in found.plan.workers if agent.environment["prefix_caching"]]


def told(found: PlannedRun) -> str:
    console = Console(width=300, no_color=True)
    with console.capture() as capture:
        _print_caches(console, found.plan)
    return capture.get()


def check_of(agent: AgentPlan, tmp_path: Path, check: Check, device: str = "cpu") -> None:
    """What `benchmarks/determinism.py --model` writes for the model of an agent."""
    engine = EngineConfig.model_validate({"device": device, "prefix_cache": "on"})
    _, facts = execution_facts(agent.model, engine)
    keep_check(Store(tmp_path / "store"), execution_spec(facts).digest, check)


def test_by_default_it_is_off_and_no_spec_changes(tmp_path: Path, run_values: dict[str, Any]) -> None:
    auto, off, on = (planned(tmp_path, run_values, cache) for cache in ("auto", "off", "on"))
    assert specs(auto) == specs(off)
    assert not set(specs(auto)) & set(specs(on))
    assert turned_on(auto) == turned_on(off) == []
    assert len(turned_on(on)) == 4
    assert told(auto) == "Prefix cache: off (not checked here, see benchmarks/determinism.py --model).\n\n"
    assert told(on) == "Prefix cache: on (as the run file has it).\n\n"
    assert "prefix_cache" not in auto.plan.agents[0].spec_content["engine"]
    assert all("the prefix cache is on" in agent.obstacles[0] for agent in on.plan.workers)
    assert not any(agent.obstacles for agent in auto.plan.workers)


@pytest.mark.usefixtures("_no_gpu")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_auto_is_on_where_just_that_model_was_checked(
    tmp_path: Path, run_values: dict[str, Any], device: str
) -> None:
    before, on = (planned(tmp_path, run_values, cache, device) for cache in ("auto", "on"))
    checked, other = before.plan.agents[:2]
    check_of(checked, tmp_path, warm(), device)
    auto = planned(tmp_path, run_values, "auto", device)
    assert turned_on(auto) == [checked.name]
    assert specs(auto) == [specs(on)[0], *specs(before)[1:]]
    assert auto.plan.agents[0].settings == on.plan.agents[0].settings
    assert f"Prefix cache of {checked.name}: on (in a check all 96 rows had the same bytes" in told(auto)
    # What was found for another device, or with a row that differed, says nothing for it.
    check_of(other, tmp_path, warm(), "cuda" if device == "cpu" else "cpu")
    assert turned_on(planned(tmp_path, run_values, "auto", device)) == [checked.name]
    check_of(checked, tmp_path, warm(same=95), device)
    now = planned(tmp_path, run_values, "auto", device)
    assert specs(now) == specs(before)
    assert f"Prefix cache of {checked.name}: off (in a check 1 of 192 rows had other bytes" in told(now)
    assert turned_on(planned(tmp_path, run_values, "off", device)) == []


def test_another_setting_of_the_model_asks_for_another_check(
    tmp_path: Path, run_values: dict[str, Any], models_dir: Path
) -> None:
    file = tmp_path / "own.yaml"
    model = ModelConfig(name="own", path=models_dir / "first", max_model_len=1024)
    file.write_text(yaml.safe_dump(model.model_dump(mode="json", exclude_defaults=True)))
    run_values["agents"] = [
        {"name": "a", "model": str(models_dir / "first")},
        {"name": "b", "model": str(file)},
    ]
    check_of(planned(tmp_path, run_values, "auto").plan.agents[0], tmp_path, warm())
    assert turned_on(planned(tmp_path, run_values, "auto")) == ["a"]


def test_nothing_is_chosen_where_the_recipe_is_given_up(tmp_path: Path, run_values: dict[str, Any]) -> None:
    run_values["engine"] |= {"fast": True}
    assert told(planned(tmp_path, run_values, "auto")) == ""
    assert turned_on(planned(tmp_path, run_values, "off")) == []
    run_values["engine"] = {"name": "transformers"}
    for cache in ("auto", "off"):
        assert told(planned(tmp_path, run_values, cache)) == ""


@pytest.mark.parametrize("begun", ["off", "on"])
def test_a_run_that_is_continued_keeps_what_its_plan_says(
    tmp_path: Path, run_values: dict[str, Any], begun: str
) -> None:
    run_values["merge"] = {"policy": "majority"}
    config = load_run(write_run_file(tmp_path, run_values))
    first = plan_run(config, tmp_path / "store").plan.agents[0]
    if begun == "on":
        check_of(first, tmp_path, warm())
    folder, store = RunFolder(tmp_path / "run"), tmp_path / "store"
    frozen = prepare(config, folder, store)
    on = [agent.settings.prefix_cache is True for agent in frozen.agents]
    assert on == [begun == "on", False, False]
    check_of(first, tmp_path, warm(same=95) if begun == "on" else warm())
    for accept in (False, True):
        again = prepare(config, folder, store, accept)
        assert again.identity() == frozen.identity() == load_plan(folder).identity()
    assert again.agents[0].cache_reason == "as when the run was begun"
    elsewhere = prepare(config, RunFolder(tmp_path / "other"), store)
    assert [agent.settings.prefix_cache is True for agent in elsewhere.agents] == [
        begun == "off",
        False,
        False,
    ]


def test_another_word_in_the_run_file_is_another_plan(tmp_path: Path, run_values: dict[str, Any]) -> None:
    folder, store = RunFolder(tmp_path / "run"), tmp_path / "store"
    prepare(load_run(write_run_file(tmp_path, run_values)), folder, store)
    run_values["engine"] |= {"prefix_cache": "on"}
    with pytest.raises(StoreError, match=r"a different plan.*engine\.prefix_cache: \(absent\) -> True"):
        prepare(load_run(write_run_file(tmp_path, run_values)), folder, store, accept_new_environment=True)


def test_plan_looks_into_the_store_of_the_runs(
    tmp_path: Path, run_values: dict[str, Any], run_file: Path, cli: Cli
) -> None:
    agent = planned(tmp_path, run_values, "auto").plan.agents[0]
    check_of(agent, tmp_path / "runs", warm())
    assert f"Prefix cache of {agent.name}: on" in cli("plan", run_file).out
    assert "Prefix cache: off" in cli("plan", run_file, "--store", tmp_path / "none").out


# Order.

EXAMPLES = [(), *((Example(f"e{number}", ("x", "y"), "A"),) for number in range(2))]
QUESTIONS = st.lists(
    st.builds(
        lambda number, text, choices, examples: Question(
            f"{number:016x}", text, choices, None, "c", examples=examples
        ),
        st.integers(0, 2**63),
        st.sampled_from(["one", "two", "passage " * 30 + "a", "passage " * 30 + "b"]),
        st.sampled_from([("x", "y"), ("x", "y", "z")]),
        st.sampled_from(EXAMPLES),
    ),
    max_size=30,
    unique_by=lambda one: one.id,
)


@settings(deadline=None)
@given(QUESTIONS)
def test_prompts_that_begin_alike_go_one_after_another(asked: list[Question]) -> None:
    by_key = {str(place): one for place, one in enumerate(asked)}
    keys = meeting(by_key.items())
    assert sorted(keys) == sorted(by_key)

    def shown(key: str) -> tuple[object, ...]:
        return by_key[key].labels, by_key[key].examples

    def beginning(key: str) -> tuple[object, ...]:
        return *shown(key), by_key[key].text[:200]

    for same in (shown, beginning):
        runs = [
            key
            for key, before in zip(keys, [None, *keys], strict=False)
            if not before or same(key) != same(before)
        ]
        assert len(runs) == len(set(map(same, keys))), "each group stands together"
        firsts = [int(key) for key in runs]
        assert same is beginning or firsts == sorted(firsts), "what comes first stays first"
    for key in set(map(beginning, keys)):
        members = [int(one) for one in keys if beginning(one) == key]
        assert members == sorted(members)


def few_shot(number: int) -> Question:
    """Even and odd questions have other examples."""
    return replace(question(number), examples=EXAMPLES[1 + number % 2])


@pytest.mark.parametrize("on", [True, None])
def test_a_worker_orders_its_questions_only_where_the_cache_is_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on: bool | None
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = Run.begin(tmp_path)
    asked = [few_shot(number) for number in range(6)]
    write_questions(run.folder.questions, asked)
    agent = run.plan.agents[0]
    agent = agent.model_copy(update={"settings": replace(agent.settings, prefix_cache=on)})
    keys = [one.key for one in asked]
    order = Order(agent=agent.name, groups=[keys[:5], keys[5:]], store=run.store.root)
    batches = _batches(run.plan, agent, order, Parent(), read_questions(run.folder.questions), None)
    found = [[keys.index(unit.name) for unit in batch if unit] for batch in batches]
    assert found == ([[0, 2, 4, 1, 3], [5]] if on else [[0, 1, 2, 3, 4], [5]])


def _few_shot_run(folder: Path, cache: str) -> Path:
    """A run of two agents whose questions alternate between two categories, each with its own example."""
    from soak import MODELS, PROMPTS

    (folder / "data").mkdir(parents=True)
    rows: list[Mapping[str, Any]] = [
        {
            "question": f"What is {n} + 4?",
            "choices": [str(n + o) for o in (3, 1, 4)],
            "answer": "C",
            "category": str(n % 2),
        }
        for n in range(14)
    ]
    (folder / "data" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "benchmark": {"name": "jsonl", "path": "data", "few_shot": 1, "few_shot_split": "test"},
        "agents": [
            {"name": name, "model": str(MODELS / name), "prompt": str(PROMPTS / "agent.txt")}
            for name in ("quant", "verbal")
        ],
        "merge": {"policy": "majority"},
        "answer": {"reasoning_chars": 0, "eliminated": False},
        "engine": {"models_at_once": 1, "prefix_cache": cache, "device": "cpu", "recheck_rows": 0},
    }
    return write_run_file(folder, values)


@pytest.mark.child
def test_the_digest_does_not_depend_on_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "WORKER_COMMAND", (sys.executable, table_run.__file__, "--worker"))
    digests = set()
    for cache in ("off", "on"):
        folder = RunFolder(tmp_path / cache / "run")
        plan = prepare(load_run(_few_shot_run(tmp_path / cache, cache)), folder, tmp_path / "store")
        asked = [(one.key, one) for one in read_questions(folder.questions)]
        assert meeting(asked) != [key for key, _ in asked], "there is something to order"
        assert [agent.settings.prefix_cache for agent in plan.agents] == [cache == "on"] * 2
        digests.add(execute(folder, Silent()).digest)
    assert len(digests) == 1
