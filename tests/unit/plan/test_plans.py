"""Comparing plans, and what a plan says of equal bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from running import write_run_file

from orch_local.config.run_files import RunConfig, load_run
from orch_local.errors import StoreError
from orch_local.plan.differences import plan_changes
from orch_local.plan.files import load_plan, write_plan
from orch_local.plan.freezing import plan_agents
from orch_local.plan.plans import AgentPlan, Plan, QuestionsPlan
from orch_local.records import Level, LevelAssessment
from orch_local.report.plan import print_notes, print_obstacles
from orch_local.store.store import RunFolder, Spec, read_json, write_json

ENVIRONMENT = {"torch": "2.13.0", "dtype": "float32", "gpu": "A"}


def worker(
    name: str, environment: dict[str, Any], dtype: str = "auto", device: str = "cpu", **content: Any
) -> AgentPlan:
    """An agent with some content of its spec; the rest of it does not matter to a comparison."""
    kind = "merge" if name == "merge" else "analysis"
    content = {"kind": kind, "prompt": "p", "answer": {"reasoning_chars": 9}} | content
    spec = Spec.of({**content, "environment": environment})
    return AgentPlan.model_validate(
        {
            "name": name,
            "kind": kind,
            "model": {"name": "m", "dtype": dtype},
            "settings": {
                "name": "vllm",
                "model_path": ".",
                "device": device,
                "grammar": "guidance",
                "dtype": "float32",
                "max_model_len": 64,
            },
            "template": "",
            "answer": {},
            "thinking": None,
            "max_tokens": None,
            "spec": spec.digest,
            "spec_content": spec.content,
        }
    )


def plan(*workers: AgentPlan, questions: str = "q", **merge: Any) -> Plan:
    policy = {"policy": "agent", "model": "m"} if workers[-1].kind == "merge" else {"policy": "majority"}
    config = {
        "benchmark": {"name": "jsonl", "path": "q.jsonl"},
        "agents": [{"name": one.name, "model": "m"} for one in workers if one.kind == "analysis"],
        "merge": policy | merge,
    }
    return Plan(
        version="0",
        config=RunConfig.model_validate(config),
        agents=tuple(one for one in workers if one.kind == "analysis"),
        merger=next((one for one in workers if one.kind == "merge"), None),
        questions=QuestionsPlan(count=1, bad_rows=0, digest=questions),
        store=Path("store"),
        environment={},
    )


def three(**environment: Any) -> list[AgentPlan]:
    return [worker(name, ENVIRONMENT | environment) for name in ("quant", "plain", "merge")]


BEFORE = plan(*three())


def told(now: Plan) -> tuple[list[str], list[str]]:
    found = plan_changes(BEFORE, now)
    return [str(one) for one in found.plan], [str(one) for one in found.environment]


def test_the_same_plan_does_not_differ() -> None:
    assert told(BEFORE) == ([], [])
    again = Plan.model_validate(json.loads(BEFORE.model_dump_json()))
    assert told(again) == ([], [])
    assert again.identity() == BEFORE.identity()


def test_a_change_of_environment_in_all_workers_is_told_once() -> None:
    now = plan(*three(torch="2.14.0", ONEDNN_MAX_CPU_ISA="AVX2"))
    assert told(now) == (
        [],
        ["environment.torch: 2.13.0 -> 2.14.0", "environment.ONEDNN_MAX_CPU_ISA: (absent) -> AVX2"],
    )


def test_a_change_of_environment_in_one_worker_names_it() -> None:
    quant, plain, merger = three(torch="2.14.0")
    changed = worker("quant", {**quant.environment, "gpu": "B"})
    assert told(plan(changed, plain, merger)) == (
        [],
        ["environment.torch: 2.13.0 -> 2.14.0", "agent quant: environment.gpu: A -> B"],
    )
    changed = worker("merge", {**merger.environment, "gpu": "B"})
    assert told(plan(quant, plain, changed))[1][1] == "merge agent: environment.gpu: A -> B"


@pytest.mark.parametrize(
    ("before", "now", "of_environment"),
    [
        ({}, {}, True),  # `auto` on two CPUs
        ({}, {"device": "cuda"}, True),  # or on a CPU and a GPU
        ({"device": "cuda"}, {"device": "cuda"}, False),  # on GPUs the checkpoint says it
        ({}, {"dtype": "bfloat16"}, False),
        ({"dtype": "float32"}, {}, False),
        ({"dtype": "float32"}, {"dtype": "bfloat16"}, False),
    ],
)
def test_a_dtype_is_of_the_environment_where_the_machine_chooses_it(
    before: dict[str, str], now: dict[str, str], of_environment: bool
) -> None:
    _, plain, merger = three()
    one = plan(worker("quant", ENVIRONMENT, **before), plain, merger)
    other = plan(worker("quant", {**ENVIRONMENT, "dtype": "bfloat16"}, **now), plain, merger)
    found = plan_changes(one, other)
    change = ["agent quant: environment.dtype: float32 -> bfloat16"]
    expected = ([], change) if of_environment else (change, [])
    assert ([str(each) for each in found.plan], [str(each) for each in found.environment]) == expected


def test_the_same_field_with_other_values_is_not_the_same_change() -> None:
    quant, plain, merger = (
        worker(name, ENVIRONMENT | {"gpu": gpu})
        for name, gpu in (("quant", "B"), ("plain", "C"), ("merge", "C"))
    )
    assert len(told(plan(quant, plain, merger))[1]) == 3


def test_other_differences_are_of_the_plan() -> None:
    quant, plain, merger = three()
    changed = worker("quant", ENVIRONMENT, answer={"reasoning_chars": 10})
    assert told(plan(changed, plain, merger)) == (["agent quant: answer.reasoning_chars: 9 -> 10"], [])
    assert told(plan(quant, plain, merger, questions="other")) == (["questions: q -> other"], [])
    assert told(plan(quant, plain, merger, quorum=2)) == (["merge.quorum: 1 -> 2"], [])
    assert told(plan(plain, quant, merger)) == (["agents: quant, plain -> plain, quant"], [])


def test_another_panel_is_told_by_its_names() -> None:
    others = [worker(name, ENVIRONMENT) for name in ("a", "b")]
    assert told(plan(*others))[0] == ["agents: quant, plain -> a, b", "merge.policy: agent -> majority"]
    fewer = told(plan(three()[0], three()[2]))
    assert fewer == (["agents: quant, plain -> quant"], [])


def test_plans_differ_where_their_identities_do() -> None:
    quant, plain, merger = three()
    others = [
        plan(quant, plain, merger),
        plan(*three(torch="2")),
        plan(worker("quant", ENVIRONMENT, prompt="x"), plain, merger),
        plan(quant, plain, merger, when="disagreement"),
        plan(quant, plain),
        plan(worker("new", ENVIRONMENT), worker("newer", ENVIRONMENT)),
    ]
    for now in others:
        same = now.identity() == BEFORE.identity()
        assert same is not any(plan_changes(BEFORE, now))
        assert same is not any(plan_changes(now, BEFORE))


def frozen(run_file: Path, **overrides: Any) -> tuple[AgentPlan, ...]:
    agents, merger = plan_agents(load_run(run_file, overrides))
    assert merger is not None
    return (*agents, merger)


def test_fast_rows_have_specs_of_their_own(run_file: Path) -> None:
    promised, fast = frozen(run_file), frozen(run_file, **{"engine.fast": True})
    for one, other in zip(promised, fast, strict=True):
        assert one.spec != other.spec
        assert (one.environment["batch_invariant"], other.environment["batch_invariant"]) == (True, False)
        differing = {key for key in one.spec_content if one.spec_content[key] != other.spec_content[key]}
        assert differing == {"engine", "environment"}
    assert fast[0].settings.threads >= 1


def test_agents_whose_engines_load_alike_share_what_is_compiled(
    models_dir: Path, run_values: dict[str, Any], tmp_path: Path
) -> None:
    first = str(models_dir / "first")
    run_values["agents"] = [
        {"name": "plain", "model": first},
        {"name": "direct", "model": first, "mode": "direct"},
        {"name": "second", "model": str(models_dir / "second")},
    ]
    run_values["merge"] |= {"model": first}
    file = write_run_file(tmp_path, run_values)
    plain, direct, second, merger = frozen(file)
    assert len({plain.spec, direct.spec, merger.spec}) == 3
    assert plain.engine_key == direct.engine_key == merger.engine_key != second.engine_key
    fast = frozen(file, **{"engine.fast": True})[0]
    longer = plain.model_copy(update={"settings": replace(plain.settings, longest=64)})
    assert len({plain.engine_key, fast.engine_key, longer.engine_key}) == 3


def test_models_at_once_share_the_cores_where_fast(run_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orch_local.plan.execution.cpu_cores", lambda: 13)
    for at_once, fast, threads in ((None, True, 13), (3, True, 4), (64, True, 1), (1, False, 1)):
        overrides = {"engine.fast": fast, "engine.models_at_once": at_once}
        assert frozen(run_file, **overrides)[0].settings.threads == threads


def test_what_a_chat_template_decides_is_in_the_spec_and_told(
    tmp_path: Path, models_dir: Path, run_values: dict[str, Any]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models_dir / "first", folder)
    file = folder / "tokenizer_config.json"
    # The system turn is dropped, and the user turn is a list of parts.
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{% for part in m.content %}"
        "{{ part.text }}{% endfor %}<|im_end|>{% endif %}{% endfor %}<|im_start|>assistant"
    )
    values = json.loads(file.read_text(encoding="utf-8")) | {"chat_template": template}
    file.write_text(json.dumps(values), encoding="utf-8")
    run_values["agents"] = [
        {"name": "plain", "model": str(folder)},
        {"name": "thinker", "model": str(folder), "thinking": True, "thinking_tokens": 16},
        {"name": "taken", "model": str(models_dir / "first")},
    ]
    plain, thinker, taken, _ = workers = frozen(write_run_file(tmp_path, run_values))
    chat = [agent.spec_content["chat"] for agent in (plain, thinker, taken)]
    assert [one["system_role"] for one in chat] == [False, False, True]
    assert [one["content"] for one in chat] == ["parts", "parts", "text"]
    assert [agent.model.system_role for agent in workers] == [False, False, True, True]
    assert thinker.thinking is not None
    assert (thinker.thinking.open, thinker.thinking.close) == ("<think>", "</think>\n\n")
    told = printed_by(print_notes, *workers)
    assert told.count("plain, thinker: the chat template leaves the text of the system turn out") == 1
    assert told.count("thinker: the thought stands between <think> and </think>") == 1
    assert "taken" not in told


def test_the_environment_stands_in_the_spec_once(run_file: Path) -> None:
    content = frozen(run_file)[0].spec_content
    assert content["environment"]["vllm"]
    assert set(content["engine"]) == {"name", "grammar", "fast", "max_model_len", "args"}
    assert not {"libraries", "device", "determinism"} & set(content)


def printed_by(show: Callable[[Console, Plan], None], *workers: AgentPlan) -> str:
    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        show(console, plan(*workers))
    return " ".join(capture.get().split())


def printed(*workers: AgentPlan) -> str:
    return printed_by(print_obstacles, *workers)


def test_nothing_is_said_where_bytes_are_promised() -> None:
    assert printed(*three()) == ""


def test_obstacles_are_told_once_for_all_that_share_them() -> None:
    quant, plain, merger = three()
    args = {"quantization": "awq\x1b[1m", "tensor_parallel_size": 2}
    slower = replace(quant.settings, args=args)
    workers = (one.model_copy(update={"settings": slower}) for one in (quant, merger))
    text = printed(next(workers), plain, next(workers))
    assert text.count("quant, merge: the same bytes are likely but not promised:") == 1
    assert "awq" in text
    assert "`tensor_parallel_size`" in text
    assert "\x1b" not in text
    assert "plain" not in text


def written(root: Path, store: Path) -> RunFolder:
    """A run folder with a plan whose rows are in ``store``."""
    folder = RunFolder(root)
    write_plan(folder, BEFORE.model_copy(update={"store": store}))
    return folder


def test_a_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    for store in (tmp_path / "store", tmp_path / "elsewhere" / "store"):
        expected = BEFORE.model_copy(update={"store": store})
        assert load_plan(written(tmp_path / "run", store)) == expected


def test_run_and_store_can_be_copied_together(tmp_path: Path) -> None:
    folder = written(tmp_path / "runs" / "run", tmp_path / "runs" / "store")
    assert read_json(folder.plan)["store"] == "../store"
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    copy = RunFolder(tmp_path / "copy" / "run")
    assert load_plan(copy).store == tmp_path / "copy" / "store"
    assert load_plan(folder).store == tmp_path / "runs" / "store"
    # And it stays so where a plan that was read is written again.
    write_plan(copy, load_plan(copy))
    (tmp_path / "copy").rename(tmp_path / "moved")
    assert load_plan(RunFolder(tmp_path / "moved" / "run")).store == tmp_path / "moved" / "store"


def test_a_store_elsewhere_keeps_its_path(tmp_path: Path) -> None:
    written(tmp_path / "runs" / "run", tmp_path / "other" / "store")
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert load_plan(RunFolder(tmp_path / "moved" / "run")).store == tmp_path / "other" / "store"


def test_a_path_through_links_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "disk" / "runs").mkdir(parents=True)
    (tmp_path / "home").symlink_to(tmp_path / "disk", target_is_directory=True)
    runs = tmp_path / "home" / "runs"
    folder = written(runs / "run", runs / "store")
    # The level is stated so at the end of a run; the store that was read is without links.
    write_plan(folder, load_plan(folder))
    assert read_json(folder.plan)["store"] == "../store"
    # A run folder that is itself a link has no store beside what it leads to.
    (tmp_path / "disk" / "far" / "run").mkdir(parents=True)
    (runs / "link").symlink_to(tmp_path / "disk" / "far" / "run", target_is_directory=True)
    linked = written(runs / "link", runs / "store")
    assert load_plan(linked).store == tmp_path / "disk" / "runs" / "store"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("questions", "digest"), "r"),
        (("store",), "../other"),
        (("config", "merge", "quorum"), 2),
        (("agents", 0, "template"), "[user]"),
        (("agents", 1, "spec"), "0" * 32),
        (("environment",), {"torch": "3"}),
        (("version",), "1"),
        (("sha256",), "0" * 64),
        (("sha256",), None),
    ],
    ids=str,
)
def test_an_edited_plan_is_refused(tmp_path: Path, path: tuple[Any, ...], value: Any) -> None:
    folder = written(tmp_path / "run", tmp_path / "store")
    values = read_json(folder.plan)
    place = values
    for name in path[:-1]:
        place = place[name]
    assert place[path[-1]] != value
    place[path[-1]] = value
    write_json(folder.plan, values)
    with pytest.raises(StoreError, match="was edited after it was written") as caught:
        load_plan(folder)
    assert caught.value.where == str(folder.plan)
    assert "put the old file back" in caught.value.hint


def test_a_seal_is_of_the_content_and_not_of_its_layout(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", tmp_path / "store")
    values = read_json(folder.plan)
    folder.plan.write_text(json.dumps(dict(reversed(values.items()))))
    assert load_plan(folder).identity() == BEFORE.identity()


def test_a_plan_in_which_an_earlier_version_recorded_the_level_still_loads(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", tmp_path / "store")
    plan, values = load_plan(folder), read_json(folder.plan)
    level = asdict(LevelAssessment(Level.VERIFIED, 2, 2, ("why",)))
    write_json(folder.plan, {**values, "standing": level})
    assert load_plan(folder) == plan


def test_a_plan_of_another_version_is_told_by_its_fields(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", tmp_path / "store")
    values = read_json(folder.plan)
    del values["questions"]["count"]
    values["agents"][1]["colour"] = "red"
    write_json(folder.plan, values)
    with pytest.raises(StoreError, match="not a plan of this version") as caught:
        load_plan(folder)
    assert caught.value.message.endswith("it differs in: agents.1.colour, questions.count")
    assert "run with the version that made it" in caught.value.hint


@pytest.mark.parametrize("values", [[], None, "plan", 3])
def test_what_is_no_object_is_no_plan(tmp_path: Path, values: Any) -> None:
    folder = written(tmp_path / "run", tmp_path / "store")
    write_json(folder.plan, values)
    with pytest.raises(StoreError, match="is not a plan") as caught:
        load_plan(folder)
    assert caught.value.where == str(folder.plan)
