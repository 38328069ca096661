"""Two thousand damaged question files: a row is refused by file and line, or read as it says; none is lost.

What a row says is worked out a second time here, by rules that are small enough to be seen to be right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet
import pytest
from fuzzing import assert_clear, damaged, fuzz
from hypothesis import example, given
from hypothesis import strategies as st

from orch_local.benchmarks.loading import BadRow, Loaded, load_questions
from orch_local.config.blocks import BenchmarkConfig
from orch_local.errors import BenchmarkError
from orch_local.records import Question, canonical_json

PLAIN_NUMBER = re.compile(r"0|-?(?:[1-9][0-9]*|0(?=\.))(?:\.[0-9]*[1-9])?")
OWN_KEYS = {"question", "choices", "answer", "category", "meta"}

Row = list[tuple[str, str]]
"""An object as it may be written: a key can come twice, and a value can be any text."""


class Said(NamedTuple):
    """What a row says."""

    text: str
    choices: tuple[str, ...]
    gold: str | Fraction | None
    category: str


# --- the rules, a second time -----------------------------------------------------------------------------


def strictly(line: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8 without repeated keys, NaN or infinity; numbers with a point stay exact."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), "a key twice"
        return dict(pairs)

    def refused(name: str) -> None:
        raise AssertionError(f"{name} is no number")

    text = line.decode("utf-8")
    row = json.loads(text, object_pairs_hook=once, parse_constant=refused, parse_float=Fraction)
    assert isinstance(row, dict)
    json.dumps(row, ensure_ascii=False, default=str).encode()  # no half of a surrogate pair
    return row


def clean(value: Any) -> str:
    assert isinstance(value, str)
    text = value.replace("\r\n", "\n").strip()
    assert 0 < len(text) <= 1_000_000
    return text


def clean_all(values: Any, sizes: range) -> tuple[str, ...]:
    assert isinstance(values, list)
    choices = tuple(map(clean, values))
    assert len(choices) in sizes and len(set(choices)) == len(choices)
    return choices


def at(index: Any, choices: tuple[str, ...]) -> str:
    assert type(index) is int and 0 <= index < len(choices)
    return "ABCDEFGHIJ"[index]


def letter(value: Any, choices: tuple[str, ...]) -> str:
    assert isinstance(value, str) and value.strip() in [at(i, choices) for i in range(len(choices))]
    return value.strip()


def number(value: Any) -> Fraction:
    if isinstance(value, str):
        plain = value.strip().replace("$", "").replace(",", "")
        assert re.fullmatch(r"[-+.0-9eE]+", plain)
        return Fraction(plain)
    assert type(value) in (int, Fraction)
    return Fraction(value)


def own(row: dict[str, Any]) -> Said:
    assert set(row) <= OWN_KEYS
    choices = clean_all(row["choices"], range(2, 11)) if row.get("choices") not in (None, []) else ()
    answer, category = row.get("answer"), row.get("category")
    assert row.get("meta") is None or isinstance(row["meta"], dict)
    gold = None if answer is None else letter(answer, choices) if choices else number(answer)
    return Said(clean(row["question"]), choices, gold, "all" if category is None else clean(category))


def mmlu(row: dict[str, Any]) -> Said:
    choices, answer = clean_all(row["choices"], range(4, 5)), row["answer"]
    hidden = answer is None or (type(answer) is int and answer == -1)
    category = "all" if row["subject"] == "" else clean(row["subject"])
    return Said(clean(row["question"]), choices, None if hidden else at(answer, choices), category)


def mmlu_pro(row: dict[str, Any]) -> Said:
    options = list(row["options"])
    while len(row["options"]) == 10 and options and options[-1] == "N/A":
        options.pop()
    choices, answer, index = clean_all(options, range(3, 11)), row["answer"], row["answer_index"]
    by_letter = None if answer in (None, "") else letter(answer, choices)
    by_index = None if index is None or (type(index) is int and index == -1) else at(index, choices)
    assert by_letter is None or by_index is None or by_letter == by_index
    return Said(clean(row["question"]), choices, by_letter or by_index, clean(row["category"]))


def gsm8k(row: dict[str, Any]) -> Said:
    answer = row["answer"]
    if answer is not None:
        assert "####" in answer
        answer = number(answer.split("####")[-1])
    return Said(clean(row["question"]), (), answer, "all")


def arc(row: dict[str, Any]) -> Said:
    choices, labels, key = (
        clean_all(row["choices"]["text"], range(2, 11)),
        row["choices"]["label"],
        row["answerKey"],
    )
    assert all(isinstance(label, str) for label in labels) and len(set(labels)) == len(labels) == len(choices)
    gold = (
        None if key in (None, "") else next(at(i, choices) for i, label in enumerate(labels) if label == key)
    )
    return Said(clean(row["question"]), choices, gold, "all")


RULES: dict[str, Callable[[dict[str, Any]], Said]] = {
    "jsonl": own,
    "mmlu": mmlu,
    "mmlu_pro": mmlu_pro,
    "gsm8k": gsm8k,
    "arc": arc,
}


# --- good rows --------------------------------------------------------------------------------------------


def good_row(name: str, index: int, answer: int) -> dict[str, Any]:
    """A good row; the answer is its choice number ``answer`` of four, or that number."""
    text, four = f"Question {index}?", ["one", "two", "three", "four"]
    if name == "mmlu":
        return {"question": text, "subject": "anatomy", "choices": four, "answer": answer}
    if name == "mmlu_pro":
        pro = {"question": text, "options": four, "answer": "ABCD"[answer], "answer_index": answer}
        return pro | {"category": "law", "src": "x", "question_id": index}
    if name == "gsm8k":
        return {"question": text, "answer": f"2 + 2 = <<2+2=4>>4.\n#### {answer}"}
    if name == "arc":
        labels = list(("ABCD", "1234", "CADB")[index % 3])
        return {"question": text, "choices": {"text": four, "label": labels}, "answerKey": labels[answer]}
    if index % 3 == 2:
        return {"question": text, "answer": answer, "meta": {"level": 1.5}}
    return {"question": text, "choices": four, "answer": "ABCD"[answer], "category": "x"}


def as_row(values: dict[str, Any]) -> Row:
    return [(json.dumps(key), json.dumps(value, ensure_ascii=False)) for key, value in values.items()]


def as_line(row: Row) -> bytes:
    return ("{" + ", ".join(f"{key}: {value}" for key, value in row) + "}").encode("utf-8", "surrogatepass")


# --- what can happen to a row -----------------------------------------------------------------------------

VALUES = (
    *"null true false 0 1 2 3 4 10 99 -1 -1.0 1.0 1.5 -0 -0.0 01 1e2 1e400 -1e400 NaN -Infinity".split(),
    *(
        '"A"',
        '"B"',
        '"D"',
        '"E"',
        '"a"',
        '"\uff22"',
        '"\u0412"',
        '" B "',
        '"B."',
        '"AB"',
        '"(B)"',
        '""',
        '" "',
        '"1"',
    ),
    *(
        '"0"',
        '"-1"',
        '"1.0"',
        '"\u0661"',
        '"\uff11"',
        '"#### 7"',
        '"7 ####"',
        '"#### 7 #### 8"',
        '"#### NaN"',
        '"N/A"',
    ),
    *(
        '"#### $1,234.50"',
        '"1,23"',
        '"1e2"',
        '"#### 1e9999"',
        '"1/2"',
        '"5%"',
        '"#### -0.0"',
        '"true"',
        '"null"',
    ),
    *(
        "0.1000000000000000055",
        "12345678901234567890.25",
        "1" + "0" * 30,
        "9" * 5000,
        "0.1",
        "1e22",
        "1E-7",
        "9" * 40,
    ),
    *(
        "[]",
        "{}",
        "[1]",
        '["A"]',
        '{"a": 1}',
        '["x", "y"]',
        '["x", "x"]',
        '["x", " x"]',
        '["x", ""]',
        '["x", null]',
    ),
    *(
        '["x", 1]',
        '["four", "three", "two", "one"]',
        '["one", "two", "three", "four", "five"]',
        '"one"',
        '[["x"], "y"]',
    ),
    *(json.dumps(list("abcdefghijk")[:size]) for size in (3, 9, 10, 11)),
    *(
        '["a", "b", "c", "d", "e", "f", "g", "h", "N/A", "N/A"]',
        '["x\\r\\ny", "x\\ny"]',
        '["N/A", "x", "y", "N/A"]',
    ),
    *(
        '{"text": ["x", "y"], "label": ["A", "B"]}',
        '{"text": ["x", "y"], "label": ["B", "A"]}',
        '{"text": ["x"]}',
    ),
    *(
        '{"text": ["x", "y"], "label": ["A", "A"]}',
        '{"text": ["x", "y"], "label": ["A"]}',
        '{"label": [], "text": []}',
    ),
    *(
        '{"text": ["x", "y"], "label": [1, 2]}',
        '{"text": ["x", "y"], "label": ["", "B"]}',
        '{"text": "xy", "label": "AB"}',
    ),
    *(
        r'"\ud800"',
        r'"x\ud83d"',
        r'"\ud83d\ude00"',
        '"\ud800"',
        r'"\u0000"',
        '"\x00"',
        '"\u202eabc"',
        '"\u2028"',
        '"\ufeff"',
    ),
    *('{"deep": ' + "[" * depth + "]" * depth + "}" for depth in (20, 200, 400, 700, 2000)),
    *(
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        '{"a": 1e999}',
        r'{"\ud800": 1}',
        "'A'",
        "A",
        "",
        "[",
        '"',
        '"unclosed',
        "1 2",
    ),
)
"""Pieces of JSON, not all of them whole, that stand where a value was."""
KEYS = (
    *'"question" "choices" "answer" "category" "meta" "subject" "options" "answer_index" "answerKey"'.split(),
    *(
        '"Answer"',
        '"answer "',
        '"\u0430nswer"',
        '"a\\u006eswer"',
        '""',
        '"label"',
        '"gold"',
        "answer",
        "1",
        "null",
    ),
)


def _set(draw: st.DrawFn, row: Row, index: int) -> None:
    row[index] = (row[index][0], draw(st.sampled_from(VALUES)))


def _drop(draw: st.DrawFn, row: Row, index: int) -> None:
    del row[index]


def _twice(draw: st.DrawFn, row: Row, index: int) -> None:
    row.insert(
        draw(st.integers(0, len(row))), (row[index][0], draw(st.sampled_from([row[index][1], *VALUES])))
    )


def _rename(draw: st.DrawFn, row: Row, index: int) -> None:
    row[index] = (draw(st.sampled_from(KEYS)), row[index][1])


def _add(draw: st.DrawFn, row: Row, index: int) -> None:
    row.append((draw(st.sampled_from(KEYS)), draw(st.sampled_from(VALUES))))


def _reverse(draw: st.DrawFn, row: Row, index: int) -> None:
    row.reverse()


def _padded(draw: st.DrawFn, row: Row, index: int) -> None:
    """White space around a text, which is no part of it."""
    if row[index][1].startswith('"'):
        row[index] = (
            row[index][0],
            row[index][1][0] + draw(st.sampled_from([" ", "\\r\\n", "\u00a0"])) + row[index][1][1:],
        )


ROW_EDITS = [_set, _set, _set, _set, _drop, _twice, _rename, _add, _reverse, _padded]
LINE_EDITS: list[Callable[[bytes], bytes]] = [
    lambda line: line,
    lambda line: line,
    lambda line: line,
    lambda line: line[: len(line) // 2],
    lambda line: line[:-1],
    lambda line: line + b",",
    lambda line: b"[" + line + b"]",
    lambda line: b"  " + line + b"\t\r",
    lambda line: line.replace(b"one", b"\xe9n\xe9"),
    lambda line: line.replace(b"one", "\u00e9n\u00e9".encode()),
    lambda line: line.decode("utf-8", "replace").encode("utf-16"),
    lambda line: line + b" " + line,
    lambda line: b"\xef\xbb\xbf" + line,
]


class Case(NamedTuple):
    """A question file, and which of its lines were left alone."""

    name: str
    lines: list[bytes]
    whole: list[bool]


@st.composite
def spoilt_rows(draw: st.DrawFn) -> Case:
    """Good rows, some of them changed, in a file as Linux or Windows writes it."""
    name = draw(st.sampled_from(sorted(RULES)))
    lines, whole = [], []
    for index in range(draw(st.integers(1, 5))):
        row = as_row(good_row(name, index, draw(st.integers(0, 3))))
        changed = draw(st.integers(0, 3)) > 0
        for _ in range(draw(st.sampled_from([1, 1, 2])) if changed else 0):
            if row:
                draw(st.sampled_from(ROW_EDITS))(draw, row, draw(st.integers(0, len(row) - 1)))
        line = as_line(row)
        lines.append(draw(st.sampled_from(LINE_EDITS))(line) if changed else line)
        whole.append(not changed)
        if draw(st.integers(0, 9)) == 0:
            lines.append(draw(st.sampled_from([b"", b" ", b"\r", lines[0], lines[-1]])))
            whole.append(False)
    if draw(st.integers(0, 9)) == 0:
        lines[0] = b"\xef\xbb\xbf" + lines[0]
    if draw(st.integers(0, 9)) == 0:
        lines = [line + b"\r" for line in lines]
    return Case(name, lines, whole)


@st.composite
def spoilt_bytes(draw: st.DrawFn) -> Case:
    """Good rows in a file that was damaged as a whole."""
    name = draw(st.sampled_from(sorted(RULES)))
    good = [as_line(as_row(good_row(name, index, index % 4))) for index in range(4)]
    lines = draw(damaged(b"\n".join(good) + b"\n")).split(b"\n")
    return Case(name, lines, [line in good for line in lines])


# --- what must hold ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def loaded(name: str, path: Path, *, skip: bool) -> Loaded | BenchmarkError:
    try:
        return load_questions(BenchmarkConfig(name=name, path=path, skip_bad_rows=skip))  # type: ignore[arg-type]
    except BenchmarkError as error:
        assert_clear(error, str(path))
        return error


def assert_right(case: Case, folder: Path) -> None:
    """Every line is a question that says what the line says, or a bad row; a good line is a question."""
    path = folder / "questions.jsonl"
    path.write_bytes(b"\n".join(case.lines))
    lines = dict(enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1))
    filled = [number for number, line in lines.items() if line.strip()]
    lenient, strict = loaded(case.name, path, skip=True), loaded(case.name, path, skip=False)
    if isinstance(lenient, BenchmarkError):
        assert not any(case.whole), "a good row was refused with the bad ones"
        assert str(strict) == str(lenient)
        return
    bad = {row.row: row for row in lenient.bad_rows}
    assert all(row.file == str(path) and row.reason for row in bad.values())
    read = [number for number in filled if number not in bad]
    assert len(read) == len(lenient.questions) and len(read) + len(lenient.bad_rows) == len(filled)
    first: dict[tuple[str, tuple[str, ...]], int] = {}
    for line_number, question in zip(read, lenient.questions, strict=True):
        assert_says(question, RULES[case.name](strictly(lines[line_number])))
        assert first.setdefault((question.text, question.choices), line_number) == line_number
    for line_number in (number for number, whole in enumerate(case.whole, 1) if whole and number in bad):
        said = RULES[case.name](strictly(lines[line_number]))
        repeats = first.get((said.text, said.choices), line_number) < line_number
        assert repeats, f"a good line was refused: {bad[line_number]}"
    assert_strict(strict, lenient.bad_rows, list(lenient.questions))


def assert_says(question: Question, said: Said) -> None:
    assert (question.text, question.choices, question.category) == (said.text, said.choices, said.category)
    if isinstance(said.gold, Fraction):
        assert question.gold is not None and PLAIN_NUMBER.fullmatch(question.gold)
        assert Fraction(question.gold) == said.gold
    else:
        assert question.gold == said.gold
    row = json.loads(canonical_json(question.to_row()).encode())
    assert Question.from_row(row) == question


def assert_strict(strict: Loaded | BenchmarkError, bad_rows: list[BadRow], questions: list[Question]) -> None:
    """Without `skip_bad_rows` the first bad row stops the run; without bad rows nothing differs."""
    if isinstance(strict, BenchmarkError):
        assert bad_rows
        assert strict.where == bad_rows[0].place
        assert strict.message.startswith(bad_rows[0].reason)
    else:
        assert not bad_rows
        assert list(strict.questions) == questions


@pytest.mark.parametrize("name", RULES)
def test_good_rows_say_what_they_were_made_to_say(name: str, folder: Path) -> None:
    lines = [as_line(as_row(good_row(name, index, index % 4))) for index in range(8)]
    assert_right(Case(name, lines, [True] * 8), folder)
    questions = load_questions(BenchmarkConfig(name=name, path=folder / "questions.jsonl")).questions  # type: ignore[arg-type]
    labels = [
        question.gold if question.choices else "ABCD"[int(question.gold or -1)] for question in questions
    ]
    assert "".join(map(str, labels)) == "ABCDABCD"


def one(name: str, **changes: str) -> Case:
    """A good row, and one with values of ``changes`` as JSON."""
    row = dict(as_row(good_row(name, 0, 1))) | {json.dumps(key): value for key, value in changes.items()}
    return Case(name, [as_line(list(row.items())), as_line(as_row(good_row(name, 1, 2)))], [False, True])


@fuzz(1200)
@given(case=spoilt_rows())
@example(case=one("jsonl", choices="null", answer="0.1000000000000000055"))
@example(case=one("jsonl", choices="null", answer="12345678901234567890.25"))
@example(case=one("jsonl", meta='{"deep": ' + "[" * 700 + "]" * 700 + "}"))
@example(case=one("mmlu", answer="-1.0"))
@example(case=one("mmlu_pro", answer="null", answer_index="-1.0"))
def test_a_spoilt_row_is_refused_or_read_as_it_says(case: Case, folder: Path) -> None:
    assert_right(case, folder)


@fuzz(800)
@given(case=spoilt_bytes())
def test_a_damaged_file_loses_no_good_row(case: Case, folder: Path) -> None:
    assert_right(case, folder)


@pytest.mark.parametrize("checksums", [False, True])
def test_a_flipped_bit_in_a_parquet_file_is_no_crash(checksums: bool, folder: Path) -> None:
    """With checksums in the file, no flipped bit changes a question either."""
    path, random = folder / "questions.parquet", Random(0)
    table = pa.Table.from_pylist([good_row("mmlu", index, index % 4) for index in range(8)])
    pa.parquet.write_table(table, path, write_page_checksum=checksums)
    content = path.read_bytes()
    good = loaded("mmlu", path, skip=False)
    assert isinstance(good, Loaded) and len(good.questions) == 8
    refused = 0
    for _ in range(60):
        place = random.randrange(len(content))
        path.write_bytes(
            content[:place] + bytes([content[place] ^ (1 << random.randrange(8))]) + content[place + 1 :]
        )
        found = loaded("mmlu", path, skip=True)
        if isinstance(found, BenchmarkError):
            refused += 1
        elif checksums:
            assert list(found.questions) == list(good.questions)
        else:
            assert len(found.questions) + len(found.bad_rows) == 8
    assert refused > 10


@pytest.mark.parametrize("value", [float("nan"), datetime(2020, 1, 1), b"x", [[1], [float("inf")]]])
def test_facts_that_json_does_not_have_are_refused_in_a_table(value: Any, folder: Path) -> None:
    path = folder / "facts.parquet"
    pa.parquet.write_table(pa.Table.from_pylist([{"question": "x", "answer": 1, "meta": {"a": value}}]), path)
    found = loaded("jsonl", path, skip=False)
    assert isinstance(found, BenchmarkError)
    assert "`meta`" in found.message and found.where == f"{path}, row 1"


@pytest.mark.parametrize("split", ["", ".", "..", "/", "test/", "../fuzz", "./test", "x" * 300])
def test_a_split_is_no_path(split: str, folder: Path) -> None:
    """As a path, `.` would be all splits together."""
    both = folder / "both"
    both.mkdir(exist_ok=True)
    for name in ("test", "train"):
        (both / f"{name}.jsonl").write_bytes(as_line(as_row(good_row("jsonl", 0, 1))))
    for config in (
        BenchmarkConfig(name="jsonl", path=both, split=split),
        BenchmarkConfig(name="jsonl", path=both, few_shot=1, few_shot_split=split),
    ):
        if config.few_shot_split == "":
            continue  # the usual split
        with pytest.raises(BenchmarkError) as caught:
            load_questions(config)
        assert_clear(caught.value)
        assert caught.value.where == str(both)


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "\0", "questions.jsonl/x"])
def test_a_path_that_no_file_can_have_is_no_crash(name: str, folder: Path) -> None:
    (folder / "questions.jsonl").write_bytes(b"{}")
    assert isinstance(loaded("jsonl", folder / name, skip=False), BenchmarkError)
