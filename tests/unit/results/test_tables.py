"""The columns of a finished run hold what its decisions say, and nothing else is taken for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from any_decisions import NAMES, many_decisions, table_from, utf8
from hypothesis import given, settings
from two_runs import decision

from orch_local.errors import StoreError
from orch_local.records import Decision
from orch_local.results.files import write_decisions
from orch_local.results.scoring import is_correct
from orch_local.results.tables import MAJORITY, NOT_ASKED, ORACLE, ORCH, Codes, Column, Shares, read_table
from orch_local.store.store import RunFolder

FEW = settings(max_examples=40, deadline=None)


def texts(names: Sequence[str], codes: Codes) -> list[str | None]:
    """What a column of codes says."""
    return [None if code < 0 else names[code] for code in codes.tolist()]


def parts(column: Column) -> tuple[Sequence[str], Codes]:
    return column.names, column.codes


def numbers(column: Shares) -> list[float | None]:
    return [None if np.isnan(value) else value for value in column.tolist()]


@FEW
@given(many_decisions())
def test_columns_hold_what_the_decisions_say(made: list[Decision]) -> None:
    table = table_from(made)
    assert len(table) == len(made)
    assert [str(one) for one in table.ids] == [one.question_id for one in made]
    assert texts(table.answers, table.gold) == [one.gold for one in made]
    assert texts(table.answers, table.final) == [one.answer for one in made]
    assert texts(table.answers, table.majority) == [one.majority for one in made]
    assert texts(*parts(table.category)) == [utf8(one.category) for one in made]
    assert texts(*parts(table.cluster)) == [utf8(one.cluster) or None for one in made]
    assert texts(*parts(table.reason)) == [one.reason or None for one in made]
    assert texts(*parts(table.how)) == [str(one.how) for one in made]


@FEW
@given(many_decisions())
def test_each_agent_has_its_own_columns(made: list[Decision]) -> None:
    table = table_from(made)
    for i, name in enumerate(NAMES):
        assert texts(table.answers, table.answer[i]) == [one.answers.get(name) for one in made]
        assert texts(*parts(table.outcome[i])) == [one.outcomes.get(name, NOT_ASKED) for one in made]
        stated = [one.confidences.get(name) for one in made]
        assert numbers(table.confidence[i]) == [None if c is None else c / 100 for c in stated]
        assert numbers(table.probability[i]) == [one.probabilities.get(name) for one in made]
    assert numbers(table.final_probability) == [one.probability for one in made]
    assert numbers(table.final_confidence) == [
        None if one.confidence is None else one.confidence / 100 for one in made
    ]


@FEW
@given(many_decisions())
def test_verdicts_are_those_of_scoring(made: list[Decision]) -> None:
    verdicts = table_from(made).verdicts
    assert list(verdicts) == [*NAMES, MAJORITY, ORCH, ORACLE]
    by_system = {name: [one.answers.get(name) for one in made] for name in NAMES}
    by_system |= {MAJORITY: [one.majority for one in made], ORCH: [one.answer for one in made]}
    for name, answers in by_system.items():
        right = [is_correct(a, one.gold) for a, one in zip(answers, made, strict=True)]
        assert verdicts[name].tolist() == [-1 if r is None else int(r) for r in right]
    best = [max((verdicts[name][i] for name in NAMES), default=-1) for i in range(len(made))]
    assert verdicts[ORACLE].tolist() == best


def test_text_that_is_not_unicode_is_read_as_its_escape() -> None:
    table = table_from([replace(decision(0, "ABA"), category="\ud800")], ("quant", "chrono"))
    assert table.category.names == ("\\ud800",)


def test_equal_answers_have_equal_codes_in_all_columns() -> None:
    table = table_from([decision(0, "BBB", gold="B"), decision(1, "-CA", gold="C")], ("quant", "chrono"))
    first, second = table.answer[:, 0].tolist(), table.answer[:, 1].tolist()
    assert first == [table.gold[0]] * 2
    assert second == [-1, table.gold[1]]


def test_a_run_without_its_table_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not finished") as caught:
        read_table(RunFolder(tmp_path), NAMES)
    assert caught.value.where == str(tmp_path)
    assert "finish the run" in str(caught.value.hint)


def test_a_damaged_table_is_told_with_its_path(tmp_path: Path) -> None:
    write_decisions(tmp_path, [decision(0, "ABA")], ("quant", "chrono"))
    file = tmp_path / "decisions.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(StoreError, match="cannot be used") as caught:
        read_table(RunFolder(tmp_path), ("quant", "chrono"))
    assert caught.value.where == str(file)


def test_the_table_of_other_agents_is_refused(tmp_path: Path) -> None:
    write_decisions(tmp_path, [decision(0, "ABA")], ("quant", "chrono"))
    with pytest.raises(StoreError, match=r"answer\.verbal"):
        read_table(RunFolder(tmp_path), ("quant", "verbal"))
