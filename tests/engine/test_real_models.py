"""Real small models through the real pipeline: what they write is theirs and not our prompt's.

The models come as wheels from the package index (`scripts/real_models.py`); without them all is skipped.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from paths import ROOT
from real_questions import write_arc, write_gsm8k

from orch_local.plan.files import load_plan
from orch_local.prompts.template import builtin_text
from orch_local.records import Analysis, Question
from orch_local.store.questions import read_questions
from orch_local.store.store import RunFolder, Store

pytestmark = [pytest.mark.real, pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]

SMALL, MIDDLE = "smollm2-135m", "qwen-coder-0.5b"
COPIED = 40
"""So many characters in common with our instructions are no chance."""


def _script() -> ModuleType:
    path = ROOT / "scripts" / "real_models.py"
    spec = importlib.util.spec_from_file_location("real_models", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["real_models"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def models() -> dict[str, Path]:
    """The folders of the models; made where they are missing, which takes some minutes."""
    script = _script()
    try:
        return {name: script.real_model(name) for name in (SMALL, MIDDLE)}
    except script.UnavailableError as error:
        pytest.skip(f"no real models: {error}")


class Done:
    """A finished run: its rows by agent, with the question of each."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.plan = load_plan(folder)
        self.questions = {one.key: one for one in read_questions(folder.questions)}
        store = Store(self.plan.store)
        self._rows = {agent.name: store.read(agent.spec) for agent in self.plan.agents}

    def rows(self, agent: str) -> Iterator[tuple[Question, Analysis]]:
        for key, question in self.questions.items():
            yield question, self._rows[agent][key]


def run(folder: Path, values: dict[str, Any]) -> Done:
    """Run a run file with its models at most two at a time, in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    command = [sys.executable, "-m", "orch_local", "run", "run.yaml", "--out", "out"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return Done(RunFolder(folder / "out"))


@pytest.fixture(scope="module")
def choices(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Both models on questions with choices: the small one twice, the middle one by elimination."""
    folder = tmp_path_factory.mktemp("choices")
    config = {name: _config(folder, name, path) for name, path in models.items()}
    return run(
        folder,
        {
            "benchmark": {"name": "arc", "path": str(write_arc(folder / "arc"))},
            "agents": [
                {"name": "single", "model": config[SMALL], "mode": "direct"},
                {"name": "small", "model": config[SMALL], "role": "solve"},
                {"name": "middle", "model": config[MIDDLE], "role": "eliminate"},
            ],
            "merge": {"policy": "majority"},
            "answer": {"reasoning_chars": 400},
            "engine": {"name": "vllm", "device": "cpu"},
        },
    )


@pytest.fixture(scope="module")
def numbers(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The middle model on questions with numbers, with the others' solutions as examples."""
    folder = tmp_path_factory.mktemp("numbers")
    write_gsm8k(folder / "gsm8k")
    (folder / "gsm8k" / "train.jsonl").write_bytes((folder / "gsm8k" / "test.jsonl").read_bytes())
    return run(
        folder,
        {
            "benchmark": {"name": "gsm8k", "path": str(folder / "gsm8k"), "few_shot": 2},
            "agents": [{"name": "middle", "model": _config(folder, MIDDLE, models[MIDDLE]), "role": "solve"}],
            "merge": {"policy": "majority"},
            "answer": {"reasoning_chars": 400},
            "engine": {"name": "vllm", "device": "cpu"},
        },
    )


def _config(folder: Path, name: str, path: Path) -> str:
    """A model config with a short context, which needs little memory."""
    values = {"name": name, "path": str(path), "max_model_len": 2048, "max_num_seqs": 16}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return f"./{name}.yaml"


@pytest.mark.parametrize("agent", ["small", "middle"])
def test_no_reasoning_is_copied_from_the_prompt(choices: Done, agent: str) -> None:
    """With a filled-in example of the form, it was copied in 152 of 152 rows."""
    role = "solve" if agent == "small" else "eliminate"
    ours = _plain(builtin_text(role) + builtin_text("merge"))
    pieces = {ours[start : start + COPIED] for start in range(len(ours) - COPIED)}
    for _, row in choices.rows(agent):
        text = _plain(row.reasoning)
        assert not any(text[i : i + COPIED] in pieces for i in range(len(text) - COPIED + 1)), row.text
        assert "at most" not in text
        assert "A, B, C or D" not in row.reasoning


def test_every_row_is_an_answer_that_makes_sense(choices: Done, numbers: Done) -> None:
    for done in (choices, numbers):
        for agent in done.plan.names:
            for _, row in done.rows(agent):
                assert row.usable, row
                assert row.answer not in row.eliminated
                assert len(row.eliminated) < 4


@pytest.mark.parametrize("agent", ["single", "small", "middle"])
def test_the_answers_are_not_all_one_label(choices: Done, agent: str) -> None:
    """Every one of 144 answers was A where the labels stood in the form."""
    shares = Counter(row.answer for _, row in choices.rows(agent))
    right = sum(row.answer == question.gold for question, row in choices.rows(agent))
    print(f"{agent}: {right} of {sum(shares.values())} right, {dict(shares)}")
    assert max(shares.values()) < sum(shares.values())


def test_texts_end_by_themselves(choices: Done) -> None:
    """Where the grammar left out their token for the end of a string, most ran on to the bound."""
    rows = [row for _, row in choices.rows("middle")]
    assert sum(row.cut for row in rows) < len(rows) / 2


def test_a_number_is_not_cut_at_its_thousands_separator(numbers: Done) -> None:
    read = {question.gold: row.answer for question, row in numbers.rows("middle")}
    print(read)
    assert read["3600"] not in ("3", "36")
    assert sum(gold == answer for gold, answer in read.items()) >= len(read) / 2


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower())
