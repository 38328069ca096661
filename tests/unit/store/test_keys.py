"""Mappings of keys held as numbers, against plain dicts."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folders import question

from orch_local.errors import StoreError
from orch_local.store.keys import QuestionsByKey, RowKeys
from orch_local.store.questions import as_key, as_number, read_questions, write_questions

NUMBERS = st.integers(0, 2**64 - 1) | st.integers(0, 5)


@given(pairs=st.dictionaries(NUMBERS, NUMBERS, max_size=20), other=NUMBERS)
def test_row_keys_are_those_of_a_dict(pairs: dict[int, int], other: int) -> None:
    expected = {as_key(question): as_key(row) for question, row in pairs.items()}
    found = RowKeys(array("Q", pairs), array("Q", pairs.values()))
    assert dict(found) == expected
    assert list(found.items()) == list(expected.items())
    assert list(found.values()) == list(expected.values())
    assert len(found) == len(expected)
    assert found.get(as_key(other)) == expected.get(as_key(other))
    odd = list(expected.items())[1::2]
    assert list(found.picked(range(1, len(pairs), 2)).items()) == odd


def test_a_question_that_was_asked_twice_has_one_row() -> None:
    asked, merges = array("Q", [5, 3, 5, 1]), array("Q", [50, 30, 50, 10])
    assert [as_number(key) for key in RowKeys(asked)] == [5, 3, 1]
    assert [as_number(key) for key in RowKeys(asked, merges).values()] == [50, 30, 10]
    with pytest.raises(KeyError):
        RowKeys(asked)["no number"]


def test_analyses_take_eight_bytes_a_question() -> None:
    keys = RowKeys(array("Q", range(1000)))
    assert keys._rows is keys._questions
    assert keys.picked(range(10))._rows is not keys._questions
    assert dict(keys.picked([3, 1])) == {as_key(3): as_key(3), as_key(1): as_key(1)}


def test_questions_are_found_by_their_keys(tmp_path: Path) -> None:
    asked = [question(number) for number in range(20)]
    write_questions(tmp_path / "questions.jsonl", asked)
    found = QuestionsByKey(read_questions(tmp_path / "questions.jsonl"))
    assert dict(found) == {one.key: one for one in asked}
    assert "0" * 16 not in found


def test_a_question_that_has_become_another_is_told(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    write_questions(file, [question(1)])
    other = question(1).key[::-1]
    file.write_text(file.read_text().replace(question(1).key, other))
    with pytest.raises(StoreError, match=other):
        QuestionsByKey(read_questions(file))[question(1).key]
