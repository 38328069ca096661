"""Replay: a run's rows come to its decisions and digest again, and any tampering is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_folders import Run, analysis, finished_run, snapshot
from two_runs import rewrite, write_lines

from orch_local.audit.replay import replay
from orch_local.errors import StoreError
from orch_local.records import Outcome
from orch_local.store.questions import write_questions
from orch_local.store.store import Store, read_json, write_json


def decisions(run: Run) -> list[str]:
    """Lines of decisions.jsonl."""
    return run.folder.decisions.read_text().splitlines()


def edited(line: str, **changes: Any) -> str:
    return json.dumps({**json.loads(line), **changes})


def edit_chunk(run: Run, name: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change lines of the only chunk of an agent, and give it the name that goes with its bytes."""
    (chunk,) = run.store.folder(run.spec(name)).glob("*.jsonl")
    content = b"".join(line + b"\n" for line in change(chunk.read_bytes().splitlines()))
    chunk.unlink()
    chunk.with_name(f"{hashlib.sha256(content).hexdigest()}.jsonl").write_bytes(content)


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"when": "disagreement"},
        {"candidates": "nominated"},
        {"quorum": "2"},
        {"policy": "majority"},
        {"policy": "confidence"},
        {"policy": "probability"},
    ],
    ids=str,
)
def test_a_finished_run_replays_to_its_digest(tmp_path: Path, rules: dict[str, str]) -> None:
    run = finished_run(tmp_path, **rules)
    before = snapshot(tmp_path)
    found = replay(run.folder)
    assert found.same
    assert found.decisions == 4
    assert found.digest == found.recorded == json.loads(run.folder.metrics.read_text())["digest"]
    assert (found.missing, found.different, found.misread, found.violations) == ({}, [], [], [])
    assert snapshot(tmp_path) == before


def test_the_run_has_decisions_of_every_kind(tmp_path: Path) -> None:
    told = [json.loads(line) for line in decisions(finished_run(tmp_path, when="disagreement"))]
    assert [one["how"] for one in told] == ["unanimous", "merge", "merge", "unanimous"]
    assert [one["answer"] for one in told] == ["B", "B", "C", "A"]
    assert told[3]["outcomes"]["chrono"] == "failed"


@pytest.mark.parametrize("line", [0, 1, 3])
@pytest.mark.parametrize(
    "change",
    [
        {"answer": "C"},
        {"gold": "C"},
        {"how": "majority"},
        {"majority": "C"},
        {"question_id": "0" * 16},
        {"category": "other"},
        {"reason": "why not"},
        {"answers": {"quant": "C", "chrono": "C"}},
        {"confidences": {"quant": 1, "chrono": 1}},
        {"outcomes": {"quant": "ok", "chrono": "invalid"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_edited_decision_is_told(tmp_path: Path, line: int, change: dict[str, Any]) -> None:
    run = finished_run(tmp_path)
    rewrite(run.folder, line, edited(decisions(run)[line], **change))
    found = replay(run.folder)
    assert not found.same
    (pair,) = found.different
    assert pair[0] is not None and pair[1] is not None
    assert pair[1].question_id == run.questions[line].id
    (field,) = change
    assert getattr(pair[0], field) == change[field] != getattr(pair[1], field)
    # The digest is of what was replayed, which is as it was.
    assert found.digest == found.recorded


def test_decisions_that_are_missing_or_too_many_are_told(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    lines = decisions(run)
    write_lines(run.folder, lines[:2])
    found = replay(run.folder)
    assert not found.same
    assert found.decisions == 4
    assert [before for before, _ in found.different] == [None, None]
    assert found.digest == found.recorded

    write_lines(run.folder, [*lines, lines[0]])
    found = replay(run.folder)
    assert not found.same
    assert [(before is None, after) for before, after in found.different] == [(False, None)]

    write_lines(run.folder, [lines[1], lines[0], *lines[2:]])
    assert len(replay(run.folder).different) == 2


def test_a_line_that_is_no_decision_is_a_store_error(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    rewrite(run.folder, 2, "{")
    with pytest.raises(StoreError, match="line 3 is no decision") as caught:
        replay(run.folder)
    assert caught.value.where == str(run.folder.decisions)


def test_another_digest_is_told(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    write_json(run.folder.metrics, {**read_json(run.folder.metrics), "digest": "f" * 64})
    found = replay(run.folder)
    assert not found.same
    assert (found.different, found.misread, found.missing, found.forged) == ([], [], {}, [])
    assert found.recorded == "f" * 64 != found.digest
    assert found.findings() == ["the decisions are what they were, but metrics.json has another digest"]


def _reduced(values: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(values, dict):
        name = next(iter(values))
        return {**values, name: _reduced(values[name])}
    return 7 if isinstance(values, (int, float)) else "x"


def test_every_number_of_the_metrics_must_follow_from_the_rows(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    whole = read_json(run.folder.metrics)
    numbers = set(whole) - {"digest", "standing", "cost"}
    assert {"questions", "total", "versus", "how", "agreement"} <= numbers
    for name in numbers:
        without = {key: value for key, value in whole.items() if key != name}
        for values in ({**whole, name: _reduced(whole[name])}, without):
            write_json(run.folder.metrics, values)
            found = replay(run.folder)
            assert found.forged == [run.folder.metrics] and not found.same, name
            assert found.digest == found.recorded
            told = f"{run.folder.metrics} holds something else than follows from the rows"
            assert found.findings() == [told]


def test_what_is_measured_or_stated_later_is_no_forgery(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    later = {"standing": {"level": "bitwise"}, "cost": {"quant": {"rows": 9}}}
    write_json(run.folder.metrics, {**read_json(run.folder.metrics), **later})
    assert replay(run.folder).same


def edit_table(run: Run, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Path:
    """Change rows of decisions.parquet."""
    path = run.folder.decisions.with_suffix(".parquet")
    table = pq.read_table(path)
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), table.schema), path)
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: [*rows[:3], {**rows[3], "answer": "C"}],
        lambda rows: [{**rows[0], "correct": False}, *rows[1:]],
        lambda rows: [{**rows[0], "confidence.quant": 81}, *rows[1:]],
        lambda rows: [{**rows[0], "reason": None}, *rows[1:]],
        lambda rows: rows[:3],
        lambda rows: [*rows, rows[0]],
        lambda rows: [rows[1], rows[0], *rows[2:]],
        lambda rows: [],
    ],
)
def test_a_table_that_does_not_follow_from_the_rows_is_told(tmp_path: Path, change: Any) -> None:
    run = finished_run(tmp_path)
    assert edit_table(run, lambda rows: rows).exists()
    assert replay(run.folder).same, "written by another hand, with the same rows"
    path = edit_table(run, change)
    found = replay(run.folder)
    assert found.forged == [path] and not found.same
    assert found.findings() == [f"{path} holds something else than follows from the rows"]


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "no table", "a folder"])
def test_a_damaged_table_is_told(tmp_path: Path, damage: str) -> None:
    run = finished_run(tmp_path)
    path = run.folder.decisions.with_suffix(".parquet")
    content = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "no table": b"x" * 999}[damage])
    assert replay(run.folder).forged == [path]


def test_both_files_are_told(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    path = edit_table(run, lambda rows: rows[:3])
    write_json(run.folder.metrics, {**read_json(run.folder.metrics), "questions": 5})
    assert replay(run.folder).forged == [run.folder.metrics, path]


@pytest.mark.parametrize("values", [{}, {"digest": 3}, {"digest": None}, [], "digest"])
def test_metrics_without_a_digest_are_a_store_error(tmp_path: Path, values: Any) -> None:
    run = finished_run(tmp_path)
    write_json(run.folder.metrics, values)
    with pytest.raises(StoreError, match="holds no digest"):
        replay(run.folder)


@pytest.mark.parametrize("name", ["quant", "merge"])
def test_a_missing_row_is_told(tmp_path: Path, name: str) -> None:
    run = finished_run(tmp_path)
    edit_chunk(run, name, lambda lines: lines[1:])
    found = replay(run.folder)
    assert not found.same
    # Without the whole panel nobody can tell which merge is wanted, so it is not called missing.
    assert found.missing == {name: 1}
    again = "run the same command again to generate them anew"
    assert found.findings() == [f"{name}: 1 rows are not in the store: {again}"]
    assert found.forged == [], "numbers of rows that are not there prove nothing"
    assert [pair[1].question_id for pair in found.different if pair[1]] == [run.questions[0].id]
    assert found.digest != found.recorded


def test_rows_of_a_damaged_chunk_are_missing(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    (chunk,) = run.store.folder(run.spec("chrono")).glob("*.jsonl")
    chunk.write_bytes(chunk.read_bytes()[:-1])
    found = replay(run.folder)
    assert not found.same
    assert found.missing == {"chrono": 4} and found.damaged == [chunk]
    again = "run the same command again to generate them anew"
    assert found.findings() == [f"{chunk} is damaged", f"chrono: 4 rows are not in the store: {again}"]


def test_a_damaged_chunk_of_rows_that_are_there_twice_is_told(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    chunk = run.add("quant", analysis(run.questions[1].key, "A"), analysis("e" * 16, "C"))
    assert replay(run.folder).same
    chunk.write_bytes(chunk.read_bytes()[:-1])
    found = replay(run.folder)
    assert not found.same
    assert (found.missing, found.different) == ({}, [])
    assert found.findings() == [f"{chunk} is damaged"]


@pytest.mark.parametrize("name", ["chrono", "merge"])
@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("answer", "C", "its text has another answer than the row"),
        ("confidence", 81, "its text has another confidence than the row"),
        ("reasoning", "no", "its text has another reasoning than the row"),
        ("cut", True, "its text has another cut than the row"),
        ("eliminated", ["A"], "its text has another eliminated than the row"),
        ("text", '{"answer":"B"}', "its text is no answer: the text does not match the answer schema"),
        ("outcome", "invalid", "its text is an answer, which the row calls invalid"),
    ],
)
def test_a_row_whose_text_says_otherwise_is_told(
    tmp_path: Path, name: str, field: str, value: Any, told: str
) -> None:
    run = finished_run(tmp_path)

    def change(lines: list[bytes]) -> list[bytes]:
        values = {**json.loads(lines[1]), field: value}
        return [lines[0], json.dumps(values, separators=(",", ":")).encode(), *lines[2:]]

    edit_chunk(run, name, change)
    found = replay(run.folder)
    assert not found.same
    assert [tuple(one) for one in found.misread] == [(name, run.questions[1].id, told)]


def test_a_row_that_really_is_invalid_is_not_misread(tmp_path: Path) -> None:
    run = Run.begin(tmp_path)
    invalid: dict[str, Any] = {"text": "{", "answer": None, "outcome": Outcome.INVALID}
    cut: dict[str, Any] = {"text": "{}", "answer": None, "outcome": Outcome.TRUNCATED}
    run.add("quant", *(replace(analysis(one.key, "A"), **invalid) for one in run.questions))
    run.add("chrono", *(replace(analysis(one.key, "B"), **cut) for one in run.questions))
    run.decide()
    assert replay(run.folder).same


@pytest.mark.parametrize("field", ["text", "gold", "category", "choices"])
def test_edited_questions_are_told(tmp_path: Path, field: str) -> None:
    run = finished_run(tmp_path)
    value: Any = ("7", "8", "9") if field == "choices" else "C"
    write_questions(run.folder.questions, [replace(run.questions[0], **{field: value}), *run.questions[1:]])
    found = replay(run.folder)
    assert not found.same_questions
    assert not found.same


def test_questions_in_another_order_or_number_are_told(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    for asked in (run.questions[::-1], run.questions[:3], [*run.questions, run.questions[0]], []):
        write_questions(run.folder.questions, asked)
        found = replay(run.folder)
        assert not found.same_questions and not found.same


@pytest.mark.parametrize("name", ["quant", "merge"])
def test_two_contents_under_one_key_are_told(tmp_path: Path, name: str) -> None:
    run = finished_run(tmp_path)
    key = run.questions[0].key if name == "quant" else next(iter(run.merged().values())).key
    run.add(name, analysis(key, "C"))
    found = replay(run.folder)
    assert not found.same
    assert [(one.spec, one.key) for one in found.violations] == [(run.spec(name), key)]


def test_only_the_probabilities_may_differ_and_it_is_still_told(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    run.add("quant", analysis(run.questions[0].key, "B", probabilities={"A": 0.25, "B": 0.75}))
    found = replay(run.folder)
    assert found.digest == found.recorded
    assert not found.same
    assert len(found.violations) == 1


@pytest.mark.parametrize(
    ("missing", "hint"),
    [
        ("metrics", "finish the run first"),
        ("decisions", "finish the run first"),
        ("plan", "folder of a run"),
        ("questions", "folder of a run"),
    ],
)
def test_an_unfinished_run_is_a_store_error_with_a_hint(tmp_path: Path, missing: str, hint: str) -> None:
    run = finished_run(tmp_path)
    getattr(run.folder, missing).unlink()
    with pytest.raises(StoreError) as caught:
        replay(run.folder)
    assert hint in caught.value.hint


def test_rows_of_others_in_the_store_change_nothing(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    run.add("quant", analysis("e" * 16, "C"))
    Store(run.store.root).writer("f" * 32).add(analysis(run.questions[0].key, "C"))
    assert replay(run.folder).same
