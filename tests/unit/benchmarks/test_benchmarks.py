"""The benchmark loaders: every hub layout read back, every kind of bad row, selection and few-shot.

Files are written here with `datasets` and pyarrow in the layouts of the hub; nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from paths import ROOT

from orch_local.benchmarks.loading import BadRow, Loaded, load_questions
from orch_local.config.blocks import BenchmarkConfig
from orch_local.config.numerals import canonical_number
from orch_local.errors import BenchmarkError
from orch_local.records import Example, Question, question_id

datasets.disable_progress_bars()

Rows = list[dict[str, Any]]
SHARD = "-00000-of-00001.parquet"


def mmlu_rows(subject: str, count: int = 3, tag: str = "test") -> Rows:
    choices = ["one", "two", "three", "four"]
    return [
        {"question": f"{subject} {tag} {i}?", "subject": subject, "choices": choices, "answer": i % 4}
        for i in range(count)
    ]


MMLU_FEATURES = datasets.Features(
    {
        "question": datasets.Value("string"),
        "subject": datasets.Value("string"),
        "choices": datasets.List(datasets.Value("string")),
        "answer": datasets.ClassLabel(names=["A", "B", "C", "D"]),
    }
)
PRO_ROW: dict[str, Any] = {
    "question_id": 70,
    "question": "Which gas?",
    "options": ["neon", "argon", "xenon"],
    "answer": "B",
    "answer_index": 1,
    "cot_content": "A: Let's think step by step.",
    "category": "chemistry",
    "src": "ori_mmlu-gas",
}
GSM_ROW = {"question": "How many?", "answer": "She has 20 + 22 = <<20+22=42>>42.\n#### 42"}
ARC_ROW = {
    "id": "Mercury_1",
    "question": "Which one?",
    "choices": {"text": ["ice", "fire"], "label": ["A", "B"]},
    "answerKey": "B",
}


def dataset(rows: Rows, features: Any = None) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows, features=features)


def parquet(path: Path, rows: Rows, features: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset(rows, features).to_parquet(str(path))
    return path


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def load(name: str, path: Path, **settings: Any) -> Loaded:
    return load_questions(BenchmarkConfig.model_validate({"name": name, "path": path, **settings}))


def numbered(count: int, category: str = "all") -> Rows:
    return [
        {"question": f"{category} {i}", "choices": ["x", "y"], "answer": "A", "category": category}
        for i in range(count)
    ]


# --- layouts of the hub ---------------------------------------------------------------------------------


@pytest.fixture
def mmlu_copy(tmp_path: Path) -> Path:
    """A copy of cais/mmlu: `all`, two subjects, auxiliary_train, and what else lies in such a folder."""
    hub = tmp_path / "mmlu [copy] *"
    both = mmlu_rows("anatomy") + mmlu_rows("zoology")
    parquet(hub / "all" / f"test{SHARD}", both, MMLU_FEATURES)
    parquet(hub / "all" / f"dev{SHARD}", mmlu_rows("anatomy", tag="dev"), MMLU_FEATURES)
    for subject in ("anatomy", "zoology"):
        parquet(hub / subject / f"test{SHARD}", mmlu_rows(subject), MMLU_FEATURES)
        parquet(hub / subject / f"validation{SHARD}", mmlu_rows(subject, 1, "validation"), MMLU_FEATURES)
    parquet(hub / "auxiliary_train" / f"train{SHARD}", [{"train": row} for row in both])
    (hub / ".cache").mkdir()
    (hub / "README.md").write_text("# MMLU")
    (hub / "dataset_infos.json").write_text("{}")
    return hub


def test_mmlu_hub_copy_prefers_all_to_the_subjects(mmlu_copy: Path) -> None:
    questions = load("mmlu", mmlu_copy).questions
    assert [q.gold for q in questions] == ["A", "B", "C", "A", "B", "C"]
    first = questions[0]
    assert (first.text, first.category) == ("anatomy test 0?", "anatomy")
    assert first.id == question_id(first.text, ("one", "two", "three", "four"))
    assert first.meta == {"subject": "anatomy"}


def test_mmlu_subject_folders_are_read_together_where_all_has_no_such_split(mmlu_copy: Path) -> None:
    questions = load("mmlu", mmlu_copy, split="validation").questions
    assert [q.category for q in questions] == ["anatomy", "zoology"]


def test_mmlu_one_subject_folder(mmlu_copy: Path) -> None:
    assert len(load("mmlu", mmlu_copy / "zoology").questions) == 3


def test_mmlu_without_published_gold_runs_unscored(tmp_path: Path) -> None:
    rows = [row | {"answer": None} for row in mmlu_rows("anatomy", 1)]
    rows += [row | {"answer": -1} for row in mmlu_rows("zoology", 1)]
    parquet(tmp_path / f"test{SHARD}", rows, MMLU_FEATURES)
    assert [q.gold for q in load("mmlu", tmp_path).questions] == [None, None]


def test_missing_split_names_what_is_there(mmlu_copy: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"no split 'tset' \(found dev, test in all/; test, validation"):
        load("mmlu", mmlu_copy, split="tset")


def test_mmlu_pro_hub_copy(tmp_path: Path) -> None:
    parquet(tmp_path / "data" / f"test{SHARD}", [PRO_ROW])
    [question] = load("mmlu_pro", tmp_path).questions
    assert (question.gold, question.category) == ("B", "chemistry")
    assert question.choices == ("neon", "argon", "xenon")
    assert question.meta == {"question_id": 70, "src": "ori_mmlu-gas"}


def test_mmlu_pro_padding_is_no_choice(tmp_path: Path) -> None:
    padded = PRO_ROW | {"options": PRO_ROW["options"] + ["N/A"] * 7}
    honest = PRO_ROW | {"options": ["1", "2", "N/A"]}
    questions = load("mmlu_pro", jsonl(tmp_path / "test.jsonl", [padded, honest])).questions
    assert [q.choices for q in questions] == [("neon", "argon", "xenon"), ("1", "2", "N/A")]


def test_gsm8k_prefers_main_to_socratic(tmp_path: Path) -> None:
    parquet(tmp_path / "main" / f"test{SHARD}", [GSM_ROW])
    parquet(tmp_path / "socratic" / f"test{SHARD}", [GSM_ROW | {"question": "Socratic?"}])
    [question] = load("gsm8k", tmp_path).questions
    assert (question.text, question.choices, question.gold) == ("How many?", (), "42")
    assert question.is_numeric


def test_arc_folder_with_both_parts_asks_for_one(tmp_path: Path) -> None:
    for part in ("ARC-Challenge", "ARC-Easy"):
        parquet(tmp_path / part / f"test{SHARD}", [ARC_ROW])
    with pytest.raises(BenchmarkError, match=r"ARC-Challenge, ARC-Easy\nhint: point .* at one of them"):
        load("arc", tmp_path)
    [question] = load("arc", tmp_path / "ARC-Easy").questions
    assert (question.gold, question.meta) == ("B", {"id": "Mercury_1"})


@pytest.mark.parametrize(
    ("labels", "key", "gold"), [("1234", "3", "C"), ("ABCDE", "E", "E"), ("ABC", "", None)]
)
def test_arc_labels_are_mapped_to_ours(tmp_path: Path, labels: str, key: str, gold: str | None) -> None:
    pairs = {"text": [f"choice {label}" for label in labels], "label": list(labels)}
    parquet(tmp_path / f"test{SHARD}", [ARC_ROW | {"choices": pairs, "answerKey": key}])
    assert load("arc", tmp_path).questions[0].gold == gold


def save_dataset(path: Path) -> Path:
    dataset(mmlu_rows("anatomy"), MMLU_FEATURES).save_to_disk(str(path / "saved"))
    return path / "saved"


def save_dict(path: Path) -> Path:
    splits = {name: dataset(mmlu_rows("anatomy", tag=name), MMLU_FEATURES) for name in ("dev", "test")}
    datasets.DatasetDict(splits).save_to_disk(str(path / "dict"))
    return path / "dict"


def arrow_file(path: Path) -> Path:
    return save_dataset(path) / "data-00000-of-00001.arrow"


def parquet_file(path: Path) -> Path:
    return parquet(path / "anything.parquet", mmlu_rows("anatomy"), MMLU_FEATURES)


def converted(path: Path) -> Path:
    """The hub's own parquet conversion: config/split/0000.parquet."""
    parquet(path / "anatomy" / "test" / "0000.parquet", mmlu_rows("anatomy"), MMLU_FEATURES)
    return path


def shards(path: Path) -> Path:
    for index, row in enumerate(mmlu_rows("anatomy")):
        parquet(path / "shards" / f"test-0000{index}-of-00003-0af1.parquet", [row], MMLU_FEATURES)
    return path / "shards"


def json_lines(path: Path) -> Path:
    return jsonl(path / "test.jsonl", mmlu_rows("anatomy"))


def json_array(path: Path) -> Path:
    (path / "test.json").write_text(" " + json.dumps(mmlu_rows("anatomy"), indent=1))
    return path


@pytest.mark.parametrize(
    "write",
    [save_dataset, save_dict, arrow_file, parquet_file, converted, shards, json_lines, json_array],
)
def test_same_questions_from_every_kind_of_file(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    questions = load("mmlu", write(tmp_path)).questions
    assert [(q.text, q.gold) for q in questions] == [
        ("anatomy test 0?", "A"),
        ("anatomy test 1?", "B"),
        ("anatomy test 2?", "C"),
    ]


# --- files that cannot be used --------------------------------------------------------------------------


def lfs_pointer(path: Path) -> None:
    (path / f"test{SHARD}").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


def torn(path: Path) -> None:
    file = parquet(path / f"test{SHARD}", mmlu_rows("anatomy"), MMLU_FEATURES)
    file.write_bytes(file.read_bytes()[:-20])


def wrong_columns(path: Path) -> None:
    parquet(path / f"test{SHARD}", [GSM_ROW])


def missing_shard(path: Path) -> None:
    (shards(path) / "test-00001-of-00003-0af1.parquet").unlink()


def twice(path: Path) -> None:
    parquet(path / f"test{SHARD}", mmlu_rows("anatomy"), MMLU_FEATURES)
    json_lines(path)


def other_split(path: Path) -> None:
    saved = save_dataset(path)
    state = json.loads((saved / "state.json").read_text())
    (saved / "state.json").write_text(json.dumps(state | {"_split": "train"}))


def torn_saved(path: Path) -> None:
    arrow_file(path).write_bytes(b"ARROW")


def empty_file(path: Path) -> None:
    (path / "test.jsonl").write_text("\n \n")


@pytest.mark.parametrize(
    ("write", "inside", "message"),
    [
        (lambda path: None, "nowhere", "no such file"),
        (lambda path: None, "", r"no split 'test' \(found no parquet"),
        (lambda path: (path / "a.csv").write_text("question"), "a.csv", "not a format"),
        (lfs_pointer, "", "Git LFS pointer.*\n.*git lfs pull"),
        (torn, "", "cannot be read"),
        (wrong_columns, "", r"no column subject, choices \(found: question, answer\)"),
        (missing_shard, "shards", "only 2 of the 3 files"),
        (twice, "", "more than once"),
        (other_split, "saved", "holds the split 'train', not 'test'"),
        (torn_saved, "saved", "cannot be read"),
        (empty_file, "", "holds no questions"),
        (lambda path: (path / "test.json").write_text("[{},"), "", "cannot be read: is not JSON"),
    ],
)
def test_unusable_files_are_named(
    tmp_path: Path, write: Callable[[Path], object], inside: str, message: str
) -> None:
    write(tmp_path)
    with pytest.raises(BenchmarkError, match=message) as caught:
        load("mmlu", tmp_path / inside)
    assert caught.value.where.startswith(str(tmp_path))


# --- bad rows -------------------------------------------------------------------------------------------

GOOD = {"question": "Good?", "choices": ["yes", "no"], "answer": "A"}
NUMERIC = {"question": "Sum?", "answer": 3}


def encoded(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


BAD_LINES = [
    (b"{", "is not JSON"),
    (b"[1]", "is a JSON list, not an object"),
    (b'{"question": "\xff"}', r"is not UTF-8 \(byte 15\)"),
    (encoded(question="\ud800"), "surrogate pair"),
    (encoded(meta={"\udc00": 1}), "surrogate pair"),
    (b'{"question": "a", "question": "b"}', "a key twice"),
    (b'{"question": "a", "answer": NaN}', "NaN, which is not finite"),
    (b'{"question": "a", "answer": 1e999}', "not finite"),
    (b'{"question": "a", "answer": ' + b"1" * 5000 + b"}", "is not JSON"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"answer": "A"}', r"`question` is missing \(found: answer\)"),
    (encoded(question=None), "`question` is missing, not text"),
    (encoded(question=7), "`question` is 7, not text"),
    (encoded(question=" \r\n "), "`question` is empty"),
    (encoded(question="x" * 1_000_001), "1,000,001 characters"),
    (encoded(choices=["yes"]), "1 choices instead of 2 to 10"),
    (encoded(choices=[str(i) for i in range(11)]), "11 choices"),
    (encoded(choices=["yes", "no", "yes "]), "choices A and C are the same"),
    (encoded(choices=["yes", ""]), "choice B is empty"),
    (encoded(choices=["yes", 1]), "choice B is 1, not text"),
    (encoded(choices="yes"), "the choices are 'yes', not a list"),
    (encoded(answer="C"), "'C', not one of the labels A to B"),
    (encoded(answer=0), "0, not one of the labels"),
    (encoded(answer="AB"), "'AB', not one"),
    (encoded(choices=[], answer="A"), "needs a number"),
    (encoded(choices=[], answer=True), "needs a number"),
    (encoded(choices=[], answer="1e999999"), "needs a number"),
    (encoded(category=""), "`category` is empty"),
    (encoded(meta=[]), "`meta` is a list, not an object"),
    (encoded(anwser="A"), "unknown key 'anwser' .did you mean `answer`"),
    (encoded(zzz="A"), "unknown key 'zzz' .valid: question, choices"),
    (encoded(), "the same question and choices as .*line 1"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_bad_line_is_named_or_skipped_and_counted(tmp_path: Path, line: bytes, reason: str) -> None:
    file = tmp_path / "test.jsonl"
    file.write_bytes(encoded() + b"\n\n" + line + b"\n" + json.dumps(NUMERIC).encode())
    with pytest.raises(BenchmarkError, match=reason) as caught:
        load("jsonl", file)
    assert caught.value.where == f"{file}, line 3"
    assert "--skip-bad-rows" in caught.value.hint
    questions, bad_rows, _ = load("jsonl", file, skip_bad_rows=True)
    assert [q.text for q in questions] == ["Good?", "Sum?"]
    assert [(bad.file, bad.row) for bad in bad_rows] == [(str(file), 3)]


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("mmlu", mmlu_rows("a", 1)[0] | {"answer": 4}, "answer 4 is not one of 0 to 3"),
        ("mmlu", mmlu_rows("a", 1)[0] | {"answer": "A"}, "'A', not an index"),
        ("mmlu", mmlu_rows("a", 1)[0] | {"choices": ["1", "2", "3"]}, "3 choices instead of 4"),
        ("mmlu", mmlu_rows("a", 1)[0] | {"subject": None}, "`subject` is missing"),
        ("mmlu_pro", PRO_ROW | {"options": ["1", "2"]}, "2 choices instead of 3 to 10"),
        ("mmlu_pro", PRO_ROW | {"answer_index": 2}, "`answer` is B, but `answer_index` 2 is C"),
        ("gsm8k", GSM_ROW | {"answer": "It is 42."}, "does not end in `#### number`"),
        ("gsm8k", GSM_ROW | {"answer": "#### many"}, "'many'"),
        ("arc", ARC_ROW | {"answerKey": "C"}, "`answerKey` is 'C', not one of A, B"),
        ("arc", ARC_ROW | {"choices": {"text": ["a", "b"], "label": ["A", "A"]}}, "does not name the 2"),
        ("arc", ARC_ROW | {"choices": {"text": ["a", "b"], "label": [1, 2]}}, "not a list of texts"),
        ("arc", ARC_ROW | {"choices": ["a", "b"]}, "not a pair"),
    ],
)
def test_bad_row_of_each_benchmark(tmp_path: Path, name: str, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BenchmarkError, match=f"{reason}.*the only bad row"):
        load(name, jsonl(tmp_path / "test.jsonl", [row]))


def test_bad_rows_of_a_table_are_numbered_and_counted(tmp_path: Path) -> None:
    rows = mmlu_rows("anatomy", 1200)
    rows[1100]["choices"] = ["a", "b", None, "d"]
    rows[1150]["question"] = ""
    parquet(tmp_path / f"test{SHARD}", rows, MMLU_FEATURES)
    with pytest.raises(BenchmarkError, match=r"row 1101: choice C is missing, not text .the first of 2 bad"):
        load("mmlu", tmp_path)
    questions, bad_rows, _ = load("mmlu", tmp_path, skip_bad_rows=True)
    assert len(questions) == 1198
    assert bad_rows[1] == BadRow(str(tmp_path / f"test{SHARD}"), 1151, "`question` is empty")


def test_text_that_is_not_utf8_costs_one_row_of_a_parquet_file(tmp_path: Path) -> None:
    offsets, data = (0, 2, 4, 6), b"ok\xff\xfeno"
    buffer = b"".join(offset.to_bytes(4, "little") for offset in offsets)
    texts = pa.StringArray.from_buffers(3, pa.py_buffer(buffer), pa.py_buffer(data))
    table = pa.table({"question": texts, "answer": ["#### 1"] * 3})
    pyarrow.parquet.write_table(table, tmp_path / "test.parquet")
    questions, [bad], _ = load("gsm8k", tmp_path, skip_bad_rows=True)
    assert [q.text for q in questions] == ["ok", "no"]
    assert bad.row == 2
    assert "not UTF-8" in bad.reason


def test_damaged_offsets_of_an_arrow_file_are_not_followed(tmp_path: Path) -> None:
    file = arrow_file(tmp_path)
    data = file.read_bytes()
    offsets = struct.pack("<4i", 0, 15, 30, 45)
    assert data.count(offsets) == 1
    file.write_bytes(data.replace(offsets, struct.pack("<4i", 0, 15, 1 << 30, 45)))
    with pytest.raises(BenchmarkError, match=r"row 2: is damaged"):
        load("mmlu", file)


def test_only_bad_rows_are_an_error_even_where_they_may_be_skipped(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no good row is left"):
        load("jsonl", jsonl(tmp_path / "test.jsonl", [1, 2]), skip_bad_rows=True)


def test_text_is_kept_but_for_outer_white_space_and_crlf(tmp_path: Path) -> None:
    row = {"question": "\ufeff\t a\r\n  b\u00a0c\n\n{d}\x00 ", "answer": None, "meta": {"k": [1.5]}}
    [question] = load("jsonl", jsonl(tmp_path / "q.jsonl", [row])).questions
    assert question.text == "\ufeff\t a\n  b\u00a0c\n\n{d}\x00"
    assert (question.gold, question.category, question.meta) == (None, "all", {"k": [1.5]})


def test_byte_order_mark_and_crlf_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_bytes(b"\xef\xbb\xbf" + encoded() + b"\r\n")
    assert load("jsonl", tmp_path).questions[0].text == "Good?"


@pytest.mark.parametrize(("answer", "gold"), [(3, "3"), (3.50, "3.5"), ("$1,234.0", "1234"), (None, None)])
def test_numeric_gold_is_canonical(tmp_path: Path, answer: Any, gold: str | None) -> None:
    row = {"question": "Sum?", "choices": [], "answer": answer}
    assert load("jsonl", jsonl(tmp_path / "q.jsonl", [row])).questions[0].gold == gold


@pytest.mark.parametrize("gold", ["1e-30", "-1e24", "9" * 25, "0." + "1" * 21, "1" * 900])
def test_a_gold_that_no_answer_can_hold_is_a_bad_row(tmp_path: Path, gold: str) -> None:
    reason = (
        "is a number that an answer cannot hold: it has at most 24 digits before the point and 20 behind it"
    )
    shown = gold if len(gold) <= 40 else gold[:40] + "..."
    own = jsonl(tmp_path / "own.jsonl", [{"question": "Sum?", "answer": gold}, NUMERIC])
    gsm = jsonl(tmp_path / "gsm.jsonl", [{"question": "Sum?", "answer": f"So.\n#### {gold}"}, GSM_ROW])
    for name, file in (("jsonl", own), ("gsm8k", gsm)):
        loaded = load(name, file, skip_bad_rows=True)
        assert len(loaded.questions) == 1
        assert loaded.bad_rows == [BadRow(str(file), 1, f"the answer {shown} {reason}")]


@pytest.mark.parametrize(
    ("gold", "canonical"),
    [
        *[(-9867630.0, "-9867630"), (4 / 3, "1.3333333333333333"), (0.0000004, "0.0000004")],
        *[(2340000000000000000000, "2340000000000000000000"), (0.1234567, "0.1234567")],
        *[(123456789012345.5, "123456789012345.5"), (12345678901234567, "12345678901234567")],
    ],
)
@pytest.mark.parametrize("quoted", [False, True])
def test_golds_that_programs_computed_are_kept(
    tmp_path: Path, gold: float, canonical: str, quoted: bool
) -> None:
    row = {"question": "How many litres?", "answer": str(gold) if quoted else gold}
    assert load("jsonl", jsonl(tmp_path / "q.jsonl", [row])).questions[0].gold == canonical


# --- selection ------------------------------------------------------------------------------------------


def test_categories_then_shuffle_then_limit(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "q.jsonl", numbered(20, "a") + numbered(20, "b"))
    shuffled = load("jsonl", file, categories=["b"], shuffle_seed=1).questions
    limited = load("jsonl", file, categories=["b"], shuffle_seed=1, limit=5).questions
    assert limited == shuffled[:5]
    assert {q.category for q in shuffled} == {"b"}
    assert len(shuffled) == 20


def test_some_of_each_category_in_the_order_in_which_all_are_asked(tmp_path: Path) -> None:
    rows = [row for pair in zip(numbered(6, "a"), numbered(6, "b"), strict=True) for row in pair]
    file = jsonl(tmp_path / "q.jsonl", [*rows, *numbered(1, "c")])
    assert [q.text for q in load("jsonl", file, per_category=2).questions] == [
        "a 0",
        "b 0",
        "a 1",
        "b 1",
        "c 0",
    ]
    shuffled = list(load("jsonl", file, shuffle_seed=3).questions)
    some = list(load("jsonl", file, shuffle_seed=3, per_category=2).questions)
    of_each = {name: [q for q in shuffled if q.category == name][:2] for name in "abc"}
    assert some == [q for q in shuffled if q in of_each[q.category]]
    assert list(load("jsonl", file, shuffle_seed=3, per_category=2, limit=3).questions) == some[:3]
    assert len(load("jsonl", file, per_category=2, categories=["a", "c"]).questions) == 3


def test_categories_that_could_be_asked_are_counted(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "q.jsonl", numbered(3, "a") + numbered(3, "b") + numbered(3, "c"))
    assert load("jsonl", file, limit=1).categories == 3
    assert load("jsonl", file, limit=1, categories=["a", "b"]).categories == 2


def test_unknown_category_lists_the_valid_ones(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "q.jsonl", numbered(1, "law") + numbered(1, "math"))
    with pytest.raises(BenchmarkError, match=r"'maths' .did you mean 'math'.*\nhint: valid: law, math"):
        load("jsonl", file, categories=["law", "maths"])


@given(seed=st.integers(0, 1000), order=st.permutations(range(8)))
@settings(max_examples=20, deadline=None)
def test_shuffle_depends_on_seed_and_ids_alone(seed: int, order: list[int]) -> None:
    rows = numbered(8)
    with tempfile.TemporaryDirectory() as folder:
        one = load("jsonl", jsonl(Path(folder) / "a.jsonl", rows), shuffle_seed=seed)
        other = load("jsonl", jsonl(Path(folder) / "b.jsonl", [rows[i] for i in order]), shuffle_seed=seed)
    assert one == other
    assert len(one.questions) == 8


def test_shuffle_is_the_recorded_one(tmp_path: Path) -> None:
    questions = load("jsonl", jsonl(tmp_path / "q.jsonl", numbered(5)), shuffle_seed=7).questions
    assert [q.text for q in questions] == ["all 1", "all 3", "all 2", "all 4", "all 0"]


# --- few-shot -------------------------------------------------------------------------------------------


def test_few_shot_takes_the_first_of_the_same_category(mmlu_copy: Path) -> None:
    questions = load("mmlu", mmlu_copy, few_shot=2).questions
    choices = ("one", "two", "three", "four")
    assert questions[0].examples == (
        Example("anatomy dev 0?", choices, "A"),
        Example("anatomy dev 1?", choices, "B"),
    )
    assert questions[-1].category == "zoology"
    assert questions[-1].examples == questions[0].examples, "a category without examples takes them from all"


def test_few_shot_is_never_the_question_itself_nor_unsolved(tmp_path: Path) -> None:
    jsonl(tmp_path / "test.jsonl", numbered(4))
    jsonl(tmp_path / "dev.jsonl", [numbered(1)[0] | {"answer": None, "question": "unsolved"}, *numbered(4)])
    for question in load("jsonl", tmp_path, few_shot=3).questions:
        texts = [one.text for one in question.examples]
        assert texts == [f"all {i}" for i in range(4) if f"all {i}" != question.text]


@pytest.mark.parametrize(
    ("written", "rationale"),
    [
        ("A: Let's think step by step. Neon is lighter. The answer is (B).", "Neon is lighter."),
        ("Neon is lighter.\nTherefore, the answer is B", "Neon is lighter."),
        ("It is light, so the answer is (B).", "It is light, so the answer is (B)."),
        ("The answer is (A) or not. The rest is noise.", "The answer is (A) or not. The rest is noise."),
        ("A: Let's think step by step.", ""),
        ("", ""),
        (None, ""),
    ],
)
@pytest.mark.parametrize("write", [parquet, jsonl])
def test_few_shot_of_mmlu_pro_has_the_steps_without_opening_and_label(
    tmp_path: Path, write: Callable[[Path, Rows], Path], written: str | None, rationale: str
) -> None:
    suffix = "parquet" if write is parquet else "jsonl"
    write(tmp_path / f"test.{suffix}", [PRO_ROW])
    write(tmp_path / f"validation.{suffix}", [PRO_ROW | {"question": "Solved?", "cot_content": written}])
    [question] = load("mmlu_pro", tmp_path, few_shot=1).questions
    assert question.examples == (Example("Solved?", ("neon", "argon", "xenon"), "B", rationale),)
    assert not set(question.meta) & {"cot_content", "rationale"}
    assert Question.from_row(json.loads(json.dumps(question.to_row()))) == question


def test_few_shot_of_gsm8k_has_the_worked_solution_without_annotations(tmp_path: Path) -> None:
    solved = {"question": "Sum?", "answer": "20+22 = <<20+22=42>>42 eggs.\nSo $<<42*1=42>>42.\n#### 42"}
    jsonl(tmp_path / "test.jsonl", [GSM_ROW])
    jsonl(tmp_path / "train.jsonl", [solved, solved | {"question": "Bare?", "answer": "#### 7"}])
    [question] = load("gsm8k", tmp_path, few_shot=2).questions
    assert question.examples == (
        Example("Sum?", (), "42", "20+22 = 42 eggs.\nSo $42."),
        Example("Bare?", (), "7", ""),
    )


def test_a_rationale_is_part_of_the_key() -> None:
    question = Question("1" * 16, "How many?", (), "2", "all")
    shown = [Example("Sum?", (), "42", rationale) for rationale in ("", "20 + 22", "21 + 21")]
    assert len({dataclasses.replace(question, examples=(one,)).key for one in shown}) == 3


def test_examples_of_earlier_versions_have_no_rationale() -> None:
    question = Question("1" * 16, "How many?", (), "2", "all", examples=(Example("Sum?", (), "42"),))
    row = question.to_row()
    del row["examples"][0]["rationale"]
    assert Question.from_row(row) == question


def test_few_shot_takes_what_is_there(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "mine.jsonl", numbered(2))
    jsonl(tmp_path / "dev.jsonl", [NUMERIC, NUMERIC])
    assert [len(q.examples) for q in load("jsonl", file, few_shot=5).questions] == [1, 1]


def test_few_shot_split_may_be_named(tmp_path: Path) -> None:
    save_dict(tmp_path)
    [first, *_] = load("mmlu", tmp_path / "dict", split="dev", few_shot=1, few_shot_split="test").questions
    assert first.examples[0].text == "anatomy test 0?"


def test_few_shot_without_its_split_says_where_to_put_it(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "dev.jsonl", numbered(2))
    with pytest.raises(BenchmarkError, match=r"no split 'dev' for the few-shot.*\nhint: put dev.jsonl"):
        load("jsonl", file, few_shot=1)


def test_few_shot_split_without_answers_is_refused(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "mine.jsonl", numbered(2))
    jsonl(tmp_path / "dev.jsonl", [NUMERIC | {"answer": None}])
    with pytest.raises(BenchmarkError, match="no example of the split 'dev' has an answer"):
        load("jsonl", file, few_shot=1)


# --- robustness -----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3)), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_mutated_jsonl_gives_an_error_of_ours_or_valid_questions(edits: list[tuple[int, bytes]]) -> None:
    rows: list[Any] = [*numbered(3), NUMERIC, GOOD | {"meta": {"a": "\u00e9\U0001f600"}}]
    data = "\n".join(json.dumps(row) for row in rows).encode()
    for position, new in edits:
        position %= len(data) + 1
        data = data[:position] + new + data[position + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "q.jsonl"
        file.write_bytes(data)
        try:
            questions, bad_rows, _ = load("jsonl", file, skip_bad_rows=True)
        except BenchmarkError:
            return
    lines = sum(1 for line in data.split(b"\n") if line.strip())
    assert len(questions) + len(bad_rows) == lines, "no row is lost without a word"
    for question in questions:
        assert question.text == question.text.strip() != ""
        assert question.gold is None or question.gold in question.labels or question.is_numeric
        json.dumps([question.text, question.choices, question.meta], ensure_ascii=False).encode("utf-8")


@pytest.mark.child
def test_loading_tables_does_not_import_torch(tmp_path: Path) -> None:
    parquet_file(tmp_path)
    save_dataset(tmp_path)
    code = (
        "import sys; from orch_local.benchmarks.loading import load_questions as load\n"
        "from orch_local.config.run_files import BenchmarkConfig as C\n"
        "assert 'datasets' not in sys.modules and 'pyarrow' not in sys.modules\n"
        "for path in sys.argv[1:]: assert load(C(name='mmlu', path=path)).questions\n"
        "assert 'torch' not in sys.modules"
    )
    files = [str(tmp_path / "anything.parquet"), str(tmp_path / "saved")]
    root = ROOT
    subprocess.run([sys.executable, "-c", code, *files], check=True, cwd=root, timeout=600)


# --- numbers --------------------------------------------------------------------------------------------

finite = st.decimals(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1,234.0", "1234"),
        ("$1,234", "1234"),
        ("-$5.50", "-5.5"),
        ("$-5.50", "-5.5"),
        ("-0.00", "0"),
        (" +3.50 ", "3.5"),
        ("007", "7"),
        (".5", "0.5"),
        ("42.", "42"),
        ("1e3", "1000"),
        ("25E-3", "0.025"),
        ("0e9999", "0"),
        ("0.1234567890123456789012345678901", "0.1234567890123456789012345678901"),
    ],
)
def test_canonical_number_of_what_people_write(text: str, canonical: str) -> None:
    assert canonical_number(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "$", "nan", "inf", "-Infinity", "1e999999", "1e9999", "1e-9999", "1,23", "1 2", "0x1"),
        *("1_0", "\u0664\u0662", "4\n2", "1" * 1001, "--1", "5%", "1e"),
    ],
)
def test_canonical_number_refuses(text: str) -> None:
    assert canonical_number(text) is None


@given(finite, finite)
@settings(deadline=None)
@example(Decimal("1E+1"), Decimal("10.0"))
@example(Decimal("-0"), Decimal("0E-5"))
def test_canonical_numbers_are_equal_exactly_when_the_numbers_are(one: Decimal, other: Decimal) -> None:
    first, second = canonical_number(str(one)), canonical_number(str(other))
    if first is not None and second is not None:
        assert (first == second) == (one == other)
        assert Decimal(first) == one


@given(st.one_of(finite.map(str), st.text("0123456789-+$,.eE n\u0664", max_size=12)))
@settings(deadline=None)
def test_canonical_number_is_idempotent_and_plain(text: str) -> None:
    number = canonical_number(text)
    if number is not None:
        assert canonical_number(number) == number
        assert not set(number) & set("eE$+, ")
