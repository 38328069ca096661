"""What golds say of a set of questions before a run, and how a plan and the start of a run tell it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import Cli, write_run_file

from orch_local.benchmarks.gold_checks import (
    MetaColumn,
    frequent_labels,
    gold_facts,
    narrowed_by_limit,
    only_label,
)
from orch_local.config.blocks import BenchmarkConfig
from orch_local.errors import EngineError
from orch_local.records import Question


def asked(gold: str | None, /, choices: int = 4, category: str = "all", **meta: Any) -> Question:
    return Question("0" * 16, "Which?", tuple("wxyzuvabcd"[:choices]), gold, category, meta)


def numeric(gold: str | None, /, **meta: Any) -> Question:
    return asked(gold, 0, **meta)


def benchmark(**settings: Any) -> BenchmarkConfig:
    return BenchmarkConfig(name="jsonl", path=Path("q.jsonl"), **settings)


# --- shares of labels -----------------------------------------------------------------------------------


def test_shares_and_baselines_of_questions_with_unlike_numbers_of_choices() -> None:
    facts = gold_facts([*[asked("A", 2)] * 3, *[asked("D", 4)] * 5, asked(None), numeric("7")])
    assert (facts.questions, facts.golds, facts.labelled) == (10, 9, 8)
    assert [(one.label, one.count, one.possible) for one in facts.labels] == [
        ("A", 3, 8),
        ("B", 0, 8),
        ("C", 0, 5),
        ("D", 5, 5),
    ]
    assert [one.expected for one in facts.labels] == [2.75, 2.75, 1.25, 1.25]
    assert facts.majority and facts.majority.label == "D"
    assert facts.chance == pytest.approx((3 / 2 + 5 / 4) / 8)


def test_numeric_questions_have_no_labels() -> None:
    facts = gold_facts([numeric("7"), numeric("8")])
    assert (facts.labels, facts.majority, facts.chance, only_label(facts)) == ((), None, None, None)


def test_p_is_that_of_the_exact_binomial_test() -> None:
    label = gold_facts([asked("A")] * 3 + [asked("B")]).labels[0]
    assert label.p == pytest.approx((4 * 3 + 1) / 4**4)  # three or four of four


@pytest.mark.parametrize(("count", "odd"), [(64, False), (65, True)])
def test_a_label_is_too_frequent_below_one_in_a_million(count: int, odd: bool) -> None:
    others = [asked("BCD"[number % 3]) for number in range(150 - count)]
    facts = gold_facts([asked("A")] * count + others)
    assert [one.label for one in frequent_labels(facts)] == ["A"] * odd
    assert (facts.labels[0].p < 1e-6) == odd


def test_an_even_share_is_never_odd_however_many_questions() -> None:
    assert not frequent_labels(gold_facts([asked("ABCD"[number % 4]) for number in range(20_000)]))


@given(st.lists(st.sampled_from("ABCD"), max_size=30))
def test_all_golds_of_one_label(golds: list[str]) -> None:
    found = only_label(gold_facts([asked(gold) for gold in golds]))
    assert (found is not None) == (len(golds) >= 5 and len(set(golds)) == 1)


def test_questions_are_read_once_and_not_kept() -> None:
    class Counted(Sequence[Question]):
        """A million questions that are made when they are asked for."""

        read = 0

        def __len__(self) -> int:
            return 3_000

        @overload
        def __getitem__(self, index: int) -> Question: ...
        @overload
        def __getitem__(self, index: slice) -> Sequence[Question]: ...
        def __getitem__(self, index: int | slice) -> Question | Sequence[Question]:
            if isinstance(index, slice):
                return [self[number] for number in range(*index.indices(len(self)))]
            self.read += 1
            return numeric(None, answer=index)

        def __iter__(self) -> Iterator[Question]:
            return map(self.__getitem__, range(len(self)))

    questions = Counted()
    assert gold_facts(questions).column == MetaColumn("answer", "0")
    assert questions.read <= len(questions) + 200


# --- where the golds may be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "column"),
    [
        (numeric(None, answer_number=8), MetaColumn("answer_number", "8")),
        (numeric(None, steps=3, gold="$1,200.0"), MetaColumn("gold", "$1,200.0")),
        (numeric(None, steps=3), MetaColumn("steps", "3")),
        (numeric(None, id=3), None),
        (numeric(None, answer="1e-30"), None),
        (numeric(None, answer=True), None),
        (numeric(None, answer="none", solution=[4]), None),
        (asked(None, label=0), MetaColumn("label", "0")),
        (asked(None, label=4), None),
        (asked(None, grade=3), None),
        (asked(None, key="B "), MetaColumn("key", "B ")),
        (asked(None, key="E"), None),
        (asked(None, key=""), None),
        (asked(None, correct="y"), MetaColumn("correct", "y")),
    ],
)
def test_a_column_looks_like_the_golds_where_its_values_would_be_valid(
    question: Question, column: MetaColumn | None
) -> None:
    assert gold_facts([question] * 3).column == column


def test_a_column_must_fit_most_questions() -> None:
    fits, others = [numeric(None, answer=4)], [numeric(None, answer="four")]
    assert gold_facts(fits * 2 + others).column is not None
    assert gold_facts(fits + others).column is None


def test_no_column_is_looked_for_where_there_is_any_gold() -> None:
    assert gold_facts([numeric(None, answer=4), numeric("5", answer=5)]).column is None


# --- categories -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "held", "narrowed"),
    [
        ({"limit": 10}, 3, True),
        ({"limit": 10}, 1, False),
        ({"limit": 10, "shuffle_seed": 0}, 3, False),
        ({}, 3, False),
    ],
)
def test_one_category_because_of_the_limit(settings: dict[str, Any], held: int, narrowed: bool) -> None:
    facts = gold_facts([asked("A", category="law")] * 10)
    assert narrowed_by_limit(facts, benchmark(**settings), held) == narrowed


@pytest.mark.parametrize(("categories", "narrowed"), [(2, True), (5, True), (6, False), (10, False)])
def test_half_of_the_categories_that_so_many_questions_can_be_of(categories: int, narrowed: bool) -> None:
    facts = gold_facts([asked("A", category=str(number % categories)) for number in range(10)])
    assert narrowed_by_limit(facts, benchmark(limit=10), 57) == narrowed


# --- told by `plan` and `run` ---------------------------------------------------------------------------


@pytest.fixture
def planned(tmp_path: Path, run_values: dict[str, Any], cli: Cli) -> Any:
    """Plan a run over rows, with one agent; its output without line breaks."""

    def plan(rows: list[dict[str, Any]], command: str = "plan", **settings: Any) -> str:
        lines = [json.dumps(row) + "\n" for row in rows]
        (tmp_path / "test.jsonl").write_text("".join(lines), encoding="utf-8")
        run_values["benchmark"] = {"name": "jsonl", "path": "test.jsonl", **settings}
        run_values["agents"] = run_values["agents"][:1]
        run_values["merge"] = {"policy": "majority"}
        result = cli(command, write_run_file(tmp_path, run_values))
        assert "Traceback" not in result.err
        assert result.code == (0 if command == "plan" else 1), result.err
        return " ".join((result.out if command == "plan" else result.err).split())

    return plan


def rows_of(golds: str, **more: Any) -> list[dict[str, Any]]:
    """Multiple-choice rows of the own format; ``-`` stands for no gold."""
    choices = ["ash", "beech", "cedar", "date"]
    return [
        {
            "question": f"Tree {number}?",
            "choices": choices,
            "answer": None if gold == "-" else gold,
            **more,
        }
        for number, gold in enumerate(golds)
    ]


def test_a_plan_names_the_column_that_holds_the_golds(planned: Any) -> None:
    rows = [
        {"question": f"Mia buys {number}?", "answer": None, "answer_number": number + 8, "solution": None}
        for number in range(3)
    ]
    said = planned(rows, name="gsm8k")
    assert "no question has a gold answer, so nothing can be scored" in said
    assert "'answer_number' looks like it holds them (e.g. 8)" in said
    assert "Golds by label" not in said


def test_a_plan_counts_hidden_golds(planned: Any) -> None:
    def row(number: int, key: str) -> dict[str, Any]:
        choices = {"text": ["shelf", "lake"], "label": ["A", "B"]}
        return {"id": f"c{number}", "question": f"Dish {number}?", "choices": choices, "answerKey": key}

    some = planned([row(1, "A"), row(2, ""), row(3, "")], name="arc")
    assert "2 of 3 questions have no gold answer: they are asked, but not scored." in some
    none = planned([row(1, ""), row(2, "")], name="arc")
    assert "no question has a gold answer" in none
    assert "is there another `split`?" in none


def test_a_plan_shows_the_shares_of_labels(planned: Any) -> None:
    said = planned(rows_of("ABCDAB"))
    assert "Golds by label (6 questions): A 33.3 %, B 33.3 %, C 16.7 %, D 16.7 %." in said
    assert "Always answering A is right on 33.3 %, a random guess on 25.0 %." in said
    assert "Warning" not in said


def test_a_plan_warns_of_golds_that_are_all_one_label(planned: Any) -> None:
    said = planned(rows_of("A" * 24))
    assert "all 24 golds are A" in said
    assert said.count("Warning") == 1


def test_a_plan_warns_of_a_label_that_is_far_too_frequent(planned: Any) -> None:
    said = planned(rows_of("B" * 40 + "ACD" * 5))
    assert "B is the gold of 40 of 55 questions that have it (72.7 %), where 25.0 % would be expected" in said


def test_a_plan_warns_of_a_limit_that_leaves_one_category(planned: Any) -> None:
    rows = [{**row, "category": f"c{number // 8}"} for number, row in enumerate(rows_of("ABCD" * 6))]
    assert "the 8 questions are from one of 3 categories only" in planned(rows, limit=8)
    assert "`per_category: N`" in planned(rows, limit=8)
    assert "Warning" not in planned(rows, limit=8, shuffle_seed=0)
    assert "Warning" not in planned(rows, per_category=2)
    assert "`per_category: N`" not in planned(rows, per_category=8, limit=8)


def test_a_plan_counts_golds_that_hold_errors_of_rounding(planned: Any) -> None:
    rows = [{"question": f"Crate {gold}?", "answer": gold} for gold in (10 / 3, 2.5, 10**21)]
    assert "golds with more than 15 digits: 1." in planned(rows)


def test_hostile_names_of_columns_are_made_visible(planned: Any) -> None:
    rows = [{"question": f"Q{number}?", "meta": {"answer\x1b[2J": 5}} for number in range(3)]
    said = planned(rows)
    assert "\x1b" not in said
    assert "looks like it holds them" in said


def test_a_run_begins_with_the_same_warnings_and_logs_them(
    planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        raise EngineError("stopped by the test")

    monkeypatch.setattr("orch_local.run.pipeline.run", stopped)
    said = planned(rows_of("A" * 9 + "-"), command="run")
    for warning in ("1 of 10 questions have no gold answer", "all 9 golds are A"):
        assert warning in said
        assert warning in (tmp_path / "runs" / "run" / "run.log").read_text(encoding="utf-8")
