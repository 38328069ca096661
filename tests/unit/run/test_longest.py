"""The bound of a run's requests: no request is longer, whatever its question or its panel."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from running import write_run_file

from orch_local.config.run_files import load_run
from orch_local.engines.base import EngineSettings
from orch_local.merge.merging import Panel, merge_task
from orch_local.placement.machine import read_machine
from orch_local.prompts.tasks import analysis_task
from orch_local.prompts.tokenizer import PromptTokenizer
from orch_local.records import Analysis, Outcome, Question
from orch_local.run import longest
from orch_local.run.generating import PromptWriter
from orch_local.run.longest import Asking, depends_on_length, longest_request, panel_tokens, size
from orch_local.run.planning import on_machine, plan_run

ASCII = ("apple", "7 %", "(a)", "of")
WORDS = ("apple", "Ωmega", "7 %", "«quoted»", "a\nline", "😀", "the", "of")


@pytest.fixture
def planned(run_values: dict[str, Any], tmp_path: Path) -> Any:
    """A run over questions of very different lengths."""
    dice = random.Random(0)

    def text(number: int, most: int) -> str:
        words = WORDS if number % 4 == 0 else ASCII
        return " ".join(dice.choices(words, k=dice.randint(1, most if words is WORDS else 3 * most)))

    rows = [
        {
            "question": f"{number}: {text(number, 60)}",
            "choices": [f"{n} {text(number, 5)}" for n in range(4)],
            "answer": "A",
        }
        for number in range(40)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return plan_run(load_run(write_run_file(tmp_path, run_values)), tmp_path / "store")


def needed(prompts: PromptWriter, task: Any) -> int:
    """Tokens of a request, its whole budget used."""
    thought = prompts.needed(task, []) - min(prompts.budget(task), task.schema.enough_tokens)
    return len(prompts.prompt(task)) + thought + prompts.budget(task)


def test_no_request_is_longer_than_the_bound(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longest, "LOOKED_AT", 3)
    monkeypatch.setattr(longest, "_ROUND", 1)
    agent, questions = planned.plan.agents[0], planned.questions
    prompts = PromptWriter(agent, PromptTokenizer(agent.settings.model_path))

    def task(question: Question) -> Any:
        return analysis_task(question, agent.answer)

    bound = longest_request(Asking(prompts, task), questions)
    longest_of_all = max(needed(prompts, task(one)) for one in questions)
    assert longest_of_all <= bound
    largest = sorted(questions, key=size)[-3:]
    assert longest_request(Asking(prompts, task), largest) == max(
        needed(prompts, task(one)) for one in largest
    )
    assert longest_request(Asking(prompts, task, 500), largest) - 500 <= longest_of_all


def test_no_panel_is_longer_than_the_bound(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longest, "_ROUND", 1)
    plan, questions = planned.plan, planned.questions
    prompts = PromptWriter(plan.merger, PromptTokenizer(plan.merger.settings.model_path))

    def task(question: Question, reasoning: str) -> Any:
        panel = Panel(
            plan.names,
            tuple(
                Analysis(
                    question.key,
                    Outcome.OK,
                    answer="A",
                    confidence=50,
                    reasoning=reasoning * one.answer.reasoning_chars,
                    eliminated=tuple("BCD"),
                )
                for one in plan.agents
            ),
        )
        return merge_task(question, panel, plan.config.merge)

    more = panel_tokens(questions, plan.agents)
    asking = Asking(prompts, lambda question: task(question, ""), more)
    bound = longest_request(asking, questions)
    for worst in ("😀", '"', "\\", "\u2028"):
        assert all(needed(prompts, task(one, worst)) <= bound for one in questions)


def test_engines_on_gpus_are_loaded_for_the_run_and_specs_stay(planned: Any) -> None:
    there = on_machine(planned, read_machine("1x24GiB"))
    for here, moved in zip(planned.plan.workers, there.plan.workers, strict=True):
        assert here.settings.longest is None and here.settings.loaded_len == here.settings.max_model_len
        assert moved.settings.longest and moved.settings.loaded_len <= moved.settings.max_model_len
        assert moved.spec == here.spec


def test_agents_of_one_model_have_it_loaded_for_the_longest_row_of_all(
    planned: Any, run_values: dict[str, Any], tmp_path: Path
) -> None:
    for agent in (*run_values["agents"][:2], run_values["merge"]):
        agent["model"] = run_values["agents"][0]["model"]
    shared = on_machine(
        plan_run(load_run(write_run_file(tmp_path, run_values)), tmp_path), read_machine("1x24GiB")
    )
    longest = {name: one.settings.longest for name, one in zip("abcm", shared.plan.workers, strict=True)}
    assert len({shared.plan.workers[n].engine for n in (0, 1, 3)}) == 1
    assert longest["a"] == longest["b"] == longest["m"] != longest["c"]
    alone = on_machine(planned, read_machine("1x24GiB")).plan.workers
    assert longest["m"] == alone[3].settings.longest, "it reads the analyses too"


@pytest.mark.parametrize(
    ("config", "depends"),
    [
        ({}, False),
        ({"rope_scaling": {"rope_type": "yarn"}}, False),
        ({"rope_scaling": {"type": "longrope"}}, True),
        ({"rope_parameters": {"rope_type": "longrope"}}, True),
        ({"rope_scaling": None}, False),
    ],
)
def test_models_that_look_at_the_context_are_loaded_for_all_of_it(
    config: dict[str, Any], depends: bool
) -> None:
    assert depends_on_length(config) is depends


def test_a_step_holds_the_longest_request() -> None:
    plain = EngineSettings("vllm", Path(), "cuda", "guidance", "bfloat16", max_model_len=32768)
    assert (plain.loaded_len, plain.step_tokens) == (32768, 32768)
    short = replace(plain, longest=1024)
    assert (short.loaded_len, short.step_tokens) == (1024, 4096)
    assert replace(plain, longest=2**20).loaded_len == 32768
