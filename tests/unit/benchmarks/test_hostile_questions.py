"""Files of questions made to do harm: a bad row, or an error with a way out; memory stays small."""

from __future__ import annotations

import gzip
import json
import resource
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_files import GOOD, LAST, lines, loaded, table
from running import Cli

from orch_local.benchmarks.jsonl import LAYOUT
from orch_local.benchmarks.reading import MAX_ROW_BYTES, read_rows
from orch_local.benchmarks.rows import MAX_CHARS, RowError
from orch_local.config.yaml_files import read_yaml
from orch_local.errors import BenchmarkError, ConfigError
from orch_local.prompts.data import question_data
from orch_local.store.questions import read_questions, write_questions


def test_the_longest_line_is_read_and_one_more_byte_is_not(tmp_path: Path) -> None:
    def padded(size: int) -> str:
        return GOOD.rstrip() + " " * (size - len(GOOD)) + "\n"

    file = lines(tmp_path / "test.jsonl", padded(MAX_ROW_BYTES), LAST.rstrip() + " " * MAX_ROW_BYTES + "\n")
    found = loaded(file)
    assert [question.text for question in found.questions] == ["1 + 1?"]
    assert [row.row for row in found.bad_rows] == [2]


def test_a_row_group_of_zeros_is_refused_by_its_own_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet

    file = tmp_path / "test.parquet"
    zeros = table(["\0" * 10_000_000] * 2, 2)
    pyarrow.parquet.write_table(zeros, file, compression="zstd", use_dictionary=False)
    assert file.stat().st_size < 10_000
    monkeypatch.setattr("orch_local.benchmarks.reading.MAX_GROUP_BYTES", 2**24)
    with pytest.raises(BenchmarkError, match=r"row group 1 has 20,000,\d+ bytes uncompressed, more than"):
        loaded(file)


def test_rows_of_all_row_groups_are_those_of_the_table(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [f"What is {number}?" for number in range(2500)]
    made = table(pyarrow.array(rows), len(rows))
    for size in (1, 7, 1000, 2500):
        pyarrow.parquet.write_table(made.slice(0, 1500), tmp_path / f"{size}.parquet", row_group_size=size)
        found = loaded(tmp_path / f"{size}.parquet")
        assert [question.text for question in found.questions] == rows[:1500]
        assert not found.bad_rows


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_an_arrow_file_that_is_compressed_inside_is_refused(tmp_path: Path, compression: str) -> None:
    import pyarrow

    file = tmp_path / "test.arrow"
    made = table(["\0" * 10_000_000], 1)
    options = pyarrow.ipc.IpcWriteOptions(compression=compression)
    with pyarrow.ipc.new_stream(str(file), made.schema, options=options) as writer:
        writer.write_table(made)
    with pytest.raises(BenchmarkError, match="compressed inside"):
        loaded(file)
    with pyarrow.ipc.new_stream(str(file), made.schema) as writer:
        writer.write_table(table(["1 + 1?"], 1))
    assert [question.text for question in loaded(file).questions] == ["1 + 1?"]


BAD = {
    "a number of a million digits": ('{"question": "q", "answer": ' + "9" * 10**6 + "}", "4300 digits"),
    "a fact of 5,000 digits": ('{"question": "q", "meta": {"n": ' + "9" * 5000 + "}}", "4300 digits"),
    "an exponent": ('{"question": "q", "answer": 1e999999}', "not finite"),
    "an exponent as text": ('{"question": "q", "answer": "1e999999999"}', "needs a number"),
    "ten million characters": (json.dumps({"question": "q" * 10**7}), f"more than {MAX_CHARS:,}"),
    "a million choices": (json.dumps({"question": "q", "choices": list(map(str, range(10**6)))}), "1000000"),
    "a tower of brackets": ('{"question": "q", "meta": {"a": ' + "[" * 10**5 + "]" * 10**5 + "}}", "deeply"),
    "a tower of objects": ('{"a": ' * 10**5 + "1" + "}" * 10**5, "deeply"),
    "half a surrogate pair": ('{"question": "a\\ud800b"}', "surrogate"),
    "half of one in a choice": ('{"question": "q", "choices": ["a", "\\udfff"], "answer": "A"}', "surrogate"),
    "an id of its own": ('{"id": "../../etc/passwd", "question": "q"}', "unknown key 'id'"),
    "a key of a megabyte": ('{"' + "k" * 10**6 + '": 1, "question": "q"}', "unknown key"),
    "a key twice": ('{"question": "q", "question": "r"}', "key twice"),
    "the same question": (GOOD.replace("1 + 1", " 1 + 1"), "the same question and choices as"),
    "not a number": ('{"question": "q", "answer": NaN}', "not finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_hostile_row_is_a_bad_row_with_a_reason(tmp_path: Path, name: str) -> None:
    row, reason = BAD[name]
    start = time.process_time()
    found = loaded(lines(tmp_path / "test.jsonl", GOOD, row.strip() + "\n", LAST))
    assert [question.text for question in found.questions] == ["1 + 1?", "1 + 2?"]
    (bad,) = found.bad_rows
    assert bad.row == 2
    assert reason in bad.reason
    assert len(bad.reason) < 300
    assert time.process_time() - start < 5


STRANGE = {
    "bidi": "\u202eabc\u202c \u2066x\u2069 \u200f",
    "nul": "a\x00b",
    "escape": "\x1b[2J\x1b]0;title\x07",
    "zalgo": "a" + "\u0300" * 5000,
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466" * 50,
    "tags": "flag \U0001f3f4\U000e0067\U000e0062\U000e007f",
    "private use": "\ue0f0question\ue0f1",
    "not a character": "\ufdd0\uffff\U0010ffff",
    "byte order mark": "a\ufeffb",
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_characters_are_kept_as_they_are(tmp_path: Path, name: str) -> None:
    text = STRANGE[name]
    row = {"question": text, "choices": ["x", f"x{text}"], "answer": "B", "category": text}
    found = loaded(lines(tmp_path / "test.jsonl", json.dumps(row) + "\n"))
    (question,) = found.questions
    assert (question.text, question.choices[1], question.category) == (
        text.strip(),
        f"x{text}".strip(),
        text.strip(),
    )
    assert len(question.id) == 16
    assert question.id.isalnum()
    file = tmp_path / "questions.jsonl"
    write_questions(file, found.questions)
    assert list(read_questions(file)) == [question]
    assert unicodedata.normalize("NFC", "\u212b") != "\u212b"  # so nothing above was normalised


def test_a_gzipped_file_named_jsonl_says_what_it_is_not(tmp_path: Path) -> None:
    file = tmp_path / "test.jsonl"
    file.write_bytes(gzip.compress((GOOD * 10_000).encode()))
    with pytest.raises(BenchmarkError) as caught:
        loaded(file)
    assert "UTF-8" in caught.value.message or "JSON" in caught.value.message
    assert "test.jsonl" in caught.value.where


def test_a_question_of_900_000_characters_is_read_and_shown(tmp_path: Path) -> None:
    text = ("word " * 60 + "\n") * 2990
    row = {"question": text, "choices": ["1", "2"], "answer": "A"}
    start = time.process_time()
    (question,) = loaded(lines(tmp_path / "test.jsonl", json.dumps(row) + "\n")).questions
    assert len(question_data(question)["question"]) > 890_000
    assert time.process_time() - start < 5


def bombs() -> Iterator[tuple[str, str]]:
    def levels(form: str) -> str:
        return "".join(form.format(n=n, m=n - 1) for n in range(1, 40))

    yield "lists", "a0: &a0 [x, x]\n" + levels("a{n}: &a{n} [*a{m}, *a{m}]\n")
    yield "mappings", "a0: &a0 {x: 1, y: 2}\n" + levels("a{n}: &a{n} {{x: *a{m}, y: *a{m}}}\n")
    yield "merges", "a0: &a0 {x: 1, y: 2}\n" + levels("a{n}: &a{n} {{<<: [*a{m}, *a{m}], z{n}: 1}}\n")
    yield "itself", "a: &a [*a]\n"
    yield "depth", "a: " + "[" * 20_000 + "]" * 20_000 + "\n"
    yield "digits", "a: " + "9" * 100_000 + "\n"


@pytest.mark.parametrize(("name", "text"), list(bombs()), ids=[name for name, _ in bombs()])
def test_a_yaml_bomb_is_refused_at_once(cli: Cli, tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    result = cli("plan", file)
    assert result.code == 2
    assert str(file) in result.err
    assert "hint: " in result.err
    assert len(result.err) < 5000
    assert time.process_time() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_yaml_makes_no_object_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    mark = tmp_path / "mark"
    file.write_text(f"a: !!python/object/apply:os.mkdir ['{mark}']\n", encoding="utf-8")
    with pytest.raises(ConfigError):
        read_yaml(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["../other/data-00000-of-00001.arrow", "/etc/passwd", "link.arrow", "gone.arrow"]
)
def test_a_saved_folder_reads_no_file_of_another_one(tmp_path: Path, name: str) -> None:
    import datasets

    for folder in ("mine", "other"):
        datasets.Dataset.from_list([json.loads(GOOD)]).save_to_disk(str(tmp_path / folder))
    (tmp_path / "mine" / "link.arrow").symlink_to(tmp_path / "other" / "data-00000-of-00001.arrow")
    state = tmp_path / "mine" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_data_files": [{"filename": name}]}))
    with pytest.raises(BenchmarkError, match="which is no file of the folder"):
        list(read_rows(tmp_path / "mine", LAYOUT))


def test_a_saved_folder_is_looked_at_by_what_it_names(tmp_path: Path) -> None:
    import datasets
    import pyarrow

    datasets.Dataset.from_list([json.loads(GOOD)]).save_to_disk(str(tmp_path / "mine"))
    table = pyarrow.table({"question": ["q" * 10**6]})
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
    with pyarrow.ipc.new_stream(str(tmp_path / "mine" / "data.bin"), table.schema, options=options) as out:
        out.write_table(table)
    state = tmp_path / "mine" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_data_files": [{"filename": "data.bin"}]}))
    with pytest.raises(BenchmarkError, match="is compressed inside"):
        list(read_rows(tmp_path / "mine", LAYOUT))


def test_a_date_that_python_has_not_is_one_bad_row(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    days = pyarrow.array([1, 2**31 - 1, 2], pyarrow.int32()).cast(pyarrow.date32())
    table = pyarrow.table({"question": ["a", "b", "c"], "choices": [["1", "2"]] * 3, "day": days})
    pyarrow.parquet.write_table(table, tmp_path / "q.parquet")
    rows = [row for _, row in read_rows(tmp_path / "q.parquet", LAYOUT)]
    assert [isinstance(row, RowError) for row in rows] == [False, True, False]
