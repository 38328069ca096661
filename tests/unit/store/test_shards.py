"""Shards are disjoint and complete, and a reader of one finds all its rows, however they were written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from chunks import SPEC, row
from hypothesis import given
from hypothesis import strategies as st
from run_folders import question

from orch_local.errors import InputError
from orch_local.records import Example, Question
from orch_local.store.questions import read_questions, write_questions
from orch_local.store.shards import Shard
from orch_local.store.store import Store

KEYS = st.text("0123456789abcdef", min_size=16, max_size=16)
SHARDS = st.integers(1, 40).flatmap(lambda of: st.builds(Shard, st.integers(1, of), st.just(of)))


@given(KEYS, st.integers(1, 100))
def test_every_key_is_in_exactly_one_shard(key: str, of: int) -> None:
    assert sum(Shard(number, of).holds(key) for number in range(1, of + 1)) == 1


@given(SHARDS, SHARDS, KEYS)
def test_shards_that_share_a_key_meet(one: Shard, other: Shard, key: str) -> None:
    assert one.meets(other) or not (one.holds(key) and other.holds(key))


@given(SHARDS, SHARDS)
def test_shards_that_meet_share_keys(one: Shard, other: Shard) -> None:
    keys = (f"{number:015x}0" for number in range(one.of * other.of))
    assert any(one.holds(key) and other.holds(key) for key in keys) == one.meets(other)


@given(SHARDS)
def test_a_shard_is_told_by_its_texts(shard: Shard) -> None:
    assert Shard.parse(str(shard)) == Shard.named(shard.name) == shard


@pytest.mark.parametrize(
    "text", ["", "3", "3/", "/8", "0/8", "9/8", "-1/8", "1/0", "1/8/2", "a/b", "1.5/2", "²/3"]
)
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="shard") as caught:
        Shard.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    "name", ["evidence", "damaged", "00000-of-00008", "00009-of-00008", "1-of-", "1-of-2x"]
)
def test_other_folders_are_no_shards(name: str) -> None:
    assert Shard.named(name) is None


@given(st.lists(st.tuples(KEYS, st.none() | st.integers(1, 6)), max_size=30), SHARDS)
def test_a_reader_of_a_shard_finds_all_its_rows(rows: list[tuple[str, int | None]], mine: Shard) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for key, of in rows:
            home = next(s for n in range(1, of + 1) if (s := Shard(n, of)).holds(key)) if of else None
            with Store(Path(folder), home).writer(SPEC) as writer:
                writer.add(row(key))
        whole, part = Store(Path(folder)).read(SPEC), Store(Path(folder), mine).read(SPEC)
        assert set(whole) == {key for key, _ in rows}
        assert {key for key in part if mine.holds(key)} == {key for key, _ in rows if mine.holds(key)}


def test_a_reader_of_a_shard_does_not_open_what_is_not_its_own(tmp_path: Path) -> None:
    with Store(tmp_path, Shard(1, 2)).writer(SPEC) as writer:
        writer.add(row("0" * 16))
    (chunk,) = (tmp_path / SPEC / "00001-of-00002").glob("*.jsonl")
    chunk.write_text("damaged")
    assert Store(tmp_path, Shard(2, 2)).read(SPEC).damaged == []
    assert Store(tmp_path, Shard(3, 4)).read(SPEC).damaged == [chunk]
    store = Store(tmp_path)
    assert store.read(SPEC).damaged == [chunk]
    store.set_aside(chunk)
    assert store.read(SPEC).damaged == []


def test_questions_of_a_shard_are_told_without_reading_them_all(tmp_path: Path) -> None:
    asked: list[Question] = [question(number) for number in range(50)]
    shown = (Example('{"id": "', ("a",), '"examples": []}'),)
    asked[7:9] = [
        Question(f"{number:016x}", 'a "examples": []}\\', (), "1", "x", {}, shown) for number in (7, 8)
    ]
    file = tmp_path / "questions.jsonl"
    write_questions(file, asked)
    questions = read_questions(file)
    assert list(questions.keys()) == [one.key for one in asked]
    parts = [list(questions.of_shard(Shard(number, 3))) for number in (1, 2, 3)]
    assert [one for one in asked if Shard(2, 3).holds(one.key)] == parts[1]
    assert sum(map(len, parts)) == len(asked)
