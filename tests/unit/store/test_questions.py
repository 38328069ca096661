"""Questions in a file: a sequence like a list, of which only places are held in memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.errors import StoreError
from orch_local.records import Example, Question
from orch_local.store.questions import Pile, Questions, read_questions, write_questions
from orch_local.store.shards import Shard

# Any code point, lone surrogates included, and all that someone takes for the end of a line.
TEXT = st.text(st.characters(), max_size=10) | st.sampled_from(
    ["\ud800", "a\udfffb", "\u2028\u2029\x85", "\r\n", "\n", "\x00", "😀", '"\\']
)
EXAMPLES = st.builds(Example, TEXT, st.lists(TEXT, max_size=2).map(tuple), TEXT)
QUESTIONS = st.builds(
    Question,
    id=st.text("0123456789abcdef", min_size=16, max_size=16),
    text=TEXT,
    choices=st.lists(TEXT, max_size=3).map(tuple),
    gold=st.none() | TEXT,
    category=TEXT,
    meta=st.dictionaries(TEXT, TEXT | st.integers() | st.none(), max_size=2),
    examples=st.lists(EXAMPLES, max_size=2).map(tuple),
)
LISTS = st.lists(QUESTIONS, max_size=5)


def question(number: int, text: str = "?") -> Question:
    return Question(f"{number:016x}", f"{text} {number}", ("yes", "no"), "A", "c")


@contextmanager
def written(questions: list[Question], piled: bool = False) -> Iterator[Questions]:
    """The same questions, written at once or put onto a pile."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "questions.jsonl"
        write_questions(path, questions)
        if not piled:
            yield read_questions(path)
            return
        pile = Pile()
        for each in questions:
            pile.add(each)
        yield pile


@settings(max_examples=60, deadline=None)
@given(LISTS, st.booleans(), st.data())
def test_they_are_a_sequence_like_a_list(questions: list[Question], piled: bool, data: st.DataObject) -> None:
    with written(questions, piled) as found:
        assert list(found) == questions
        assert len(found) == len(questions)
        assert found == questions
        assert list(reversed(found)) == questions[::-1]
        for index in range(-len(questions), len(questions)):
            assert found[index] == questions[index]
        for outside in (len(questions), -len(questions) - 1):
            with pytest.raises(IndexError):
                found[outside]
        part = data.draw(st.slices(max(1, len(questions))))
        assert list(found[part]) == questions[part]
        order = data.draw(st.lists(st.sampled_from(range(len(questions)))) if questions else st.just([]))
        assert list(found.picked(order)) == [questions[number] for number in order]
        assert list(found.picked(order)[::-1]) == [questions[number] for number in order][::-1]


@settings(max_examples=40, deadline=None)
@given(LISTS, LISTS)
def test_they_are_equal_where_lists_are(one: list[Question], other: list[Question]) -> None:
    with written(one) as a, written(other, piled=True) as b:
        assert (a == b) == (one == other)
        assert (a == other) == (one == other)
        assert a == one
        assert a != 3


@settings(max_examples=30, deadline=None)
@given(LISTS)
def test_written_again_they_are_the_same_bytes(questions: list[Question]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "one", Path(folder) / "two"
        write_questions(first, questions)
        write_questions(second, read_questions(first))
        assert first.read_bytes() == second.read_bytes()
        # A file can be written from itself: it is replaced when it is whole.
        write_questions(first, read_questions(first))
        assert first.read_bytes() == second.read_bytes()


def test_a_part_outlives_the_whole() -> None:
    pile = Pile()
    for number in range(3):
        pile.add(question(number))
    part, picked = pile[1:], pile.picked([2, 0])
    del pile
    assert list(part) == [question(1), question(2)]
    assert list(picked) == [question(2), question(0)]


def test_the_file_is_closed_with_the_last_part(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    write_questions(path, [question(0)])
    before = open_files()
    found = read_questions(path)
    part = found[:1]
    del found
    assert part[0] == question(0)
    del part
    assert open_files() == before


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_pile_is_read_while_it_grows() -> None:
    pile, expected = Pile(), []
    for number in range(5):
        pile.add(question(number))
        expected.append(question(number))
        assert list(pile) == expected
        assert pile[0] == question(0)  # and the next one still goes on top


def test_questions_are_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    write_questions(path, (question(number, "x" * 2000) for number in range(500)))
    found = read_questions(path)
    list(found)
    assert found._places.itemsize * len(found._places) == 8 * 500
    assert found[3] is not found[3]
    assert not any(isinstance(held, (list, dict)) for held in vars(found).values())


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="cut"),
        pytest.param("[]", id="a list"),
        pytest.param("3", id="a number"),
        pytest.param('"text"', id="a text"),
        pytest.param('{"id": "x"}', id="fields missing"),
        pytest.param(json.dumps({**question(1).to_row(), "more": 1}), id="a field more"),
        pytest.param(json.dumps({**question(1).to_row(), "choices": None}), id="no choices"),
        pytest.param("\udcff", id="no UTF-8"),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "questions.jsonl"
    write_questions(path, map(question, range(4)))
    lines = path.read_bytes().split(b"\n")
    lines[2] = bad.encode("utf-8", "surrogateescape")
    path.write_bytes(b"\n".join(lines))
    found = read_questions(path)
    assert found[1] == question(1)
    assert found[3] == question(3)
    for place, part in ((2, found), (-2, found), (0, found[2:]), (1, found.picked([0, 2]))):
        with pytest.raises(StoreError, match="line 3 is no question") as caught:
            part[place]
        assert caught.value.where == str(path)
        assert "--out" in caught.value.hint


def test_a_last_line_that_was_cut_is_named(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    write_questions(path, map(question, range(2)))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match="line 2"):
        list(read_questions(path))


def test_a_missing_file_asks_for_the_folder_of_a_run(tmp_path: Path) -> None:
    for path in (tmp_path / "questions.jsonl", tmp_path):
        with pytest.raises(StoreError, match="cannot be read") as caught:
            read_questions(path)
        assert caught.value.where == str(path)
        assert caught.value.hint == "is this the folder of a run?"


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    write_questions(path, [question(0)])

    def broken() -> Iterator[Question]:
        yield question(1)
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space"):
        write_questions(path, broken())
    assert list(read_questions(path)) == [question(0)]
    assert [file.name for file in tmp_path.iterdir()] == ["questions.jsonl"]


@pytest.mark.parametrize("how", ["whole", "gone", "cut", "flipped", "emptied", "of another file"])
def test_with_or_without_a_good_index_the_questions_are_the_same(tmp_path: Path, how: str) -> None:
    path, asked = tmp_path / "questions.jsonl", [question(number) for number in range(30)]
    write_questions(path, asked)
    index = path.with_suffix(".index")
    content = index.read_bytes()
    if how == "gone":
        index.unlink()
    elif how == "of another file":
        asked = asked[:-1]
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    elif how != "whole":
        flipped = content[:99] + bytes([content[99] ^ 1]) + content[100:]
        index.write_bytes({"cut": content[:-8], "flipped": flipped, "emptied": b""}[how])
    found = read_questions(path)
    assert (found._keys is not None) == (how == "whole")
    assert list(found) == asked
    assert list(found.keys()) == [one.key for one in asked]
    for part in (found[3:9:2], found.picked([5, 2])):
        assert list(part.keys()) == [one.key for one in part]
    for number in (1, 2, 3):
        shard = Shard(number, 3)
        assert list(found.of_shard(shard)) == [one for one in asked if shard.holds(one.key)]
        assert list(found.of_shard(shard)) == list(found.by_shard(3)[number - 1])


def test_a_shard_of_indexed_questions_is_found_without_reading_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "questions.jsonl"
    write_questions(path, [question(number) for number in range(30)])
    found = read_questions(path)
    monkeypatch.setattr(found, "_file", None)
    assert len(found.of_shard(Shard(1, 3))) + len(found.of_shard(Shard(2, 3))[::2]) < 30
