"""Properties of the embedded demo's benchmark generator."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from orch_local.demo.benchmark import CATEGORIES, LABELS, SPLITS, problems, questions, split_of, write_jsonl

SAMPLE = 1800


@pytest.fixture(scope="module")
def samples() -> dict[str, list[dict]]:
    """A large sample of each split."""
    return {split: list(questions(split, SAMPLE, seed=7)) for split in SPLITS}


def keys(rows: list[dict]) -> list[str]:
    """The semantic keys of some rows."""
    return [row["meta"]["key"] for row in rows]


def test_splits_share_no_key(samples: dict[str, list[dict]]) -> None:
    seen = {split: set(keys(rows)) for split, rows in samples.items()}
    for first, second in pairwise([*SPLITS, SPLITS[0]]):
        assert not seen[first] & seen[second]


def test_the_key_alone_decides_the_split(samples: dict[str, list[dict]]) -> None:
    for split, rows in samples.items():
        assert {split_of(key) for key in keys(rows)} == {split}


def test_keys_of_the_test_split_are_unique(samples: dict[str, list[dict]]) -> None:
    assert len(set(keys(samples["test"]))) == SAMPLE


def test_rows_have_the_documented_form(samples: dict[str, list[dict]]) -> None:
    for row in samples["train"]:
        assert list(row) == ["question", "choices", "answer", "category", "meta"]
        assert row["answer"] in LABELS[: len(row["choices"])]
        assert len(set(row["choices"])) == len(row["choices"])
        assert 4 <= len(row["choices"]) <= 8
        assert all(isinstance(choice, str) and choice for choice in row["choices"])
        assert row["question"].isascii()
        assert "\n" not in row["question"]


def test_categories_are_balanced(samples: dict[str, list[dict]]) -> None:
    for rows in samples.values():
        assert Counter(row["category"] for row in rows) == dict.fromkeys(
            CATEGORIES, SAMPLE // len(CATEGORIES)
        )


@pytest.mark.parametrize("size", [4, 5, 6])
def test_every_label_is_right_about_equally_often(samples: dict[str, list[dict]], size: int) -> None:
    rows = [row for rows in samples.values() for row in rows if len(row["choices"]) == size]
    counts = Counter(row["answer"] for row in rows)
    expected = len(rows) / size
    assert set(counts) == set(LABELS[:size])
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_the_same_seed_gives_the_same_questions() -> None:
    assert list(questions("dev", 90, seed=3)) == list(questions("dev", 90, seed=3))
    assert list(questions("dev", 90, seed=3)) != list(questions("dev", 90, seed=4))


def test_worked_solutions_fit_the_answer_format() -> None:
    for problem in problems("train", 900, seed=1):
        reasoning = f"{problem.steps}, so {problem.choices[problem.gold]} ({problem.answer})"
        assert len(reasoning) <= 120
        assert reasoning.isascii()
        assert not set(reasoning) & {'"', "\\"}


def test_sums_and_extremes_are_right() -> None:
    for problem in problems("train", 900, seed=2):
        answer = problem.choices[problem.gold]
        operands = problem.key.split(": ", 1)[1]
        if problem.category == "addition":
            assert sum(int(part) for part in operands.split()) == int(answer)
        if problem.category == "subtraction":
            first, second = operands.split()
            assert int(first) - int(second) == int(answer)
        if problem.category == "extreme":
            values = [int(choice) for choice in problem.choices]
            assert int(answer) == (max(values) if operands.startswith("largest") else min(values))


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown split"):
        next(questions("tset", 1))


def test_write_jsonl_writes_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    write_jsonl(path, "test", 45, seed=1)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == list(questions("test", 45, seed=1))
