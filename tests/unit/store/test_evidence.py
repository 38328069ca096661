"""Evidence: which rows are generated again, in which batches, and what is kept of it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.records import Analysis, Outcome, Usage
from orch_local.store.evidence import (
    SMALL_BATCH,
    Evidence,
    keep_evidence,
    other_batches,
    read_evidence,
    same_bytes,
    sampled,
)
from orch_local.store.store import Store

SPEC = "0" * 32
KEYS = st.lists(st.text("0123456789abcdef", min_size=1, max_size=4), max_size=60)
UNIQUE = st.lists(st.integers(0, 10**6).map(str), unique=True, max_size=80)
ROW = Analysis("k", Outcome.OK, "A", 80, "r", False, ("B",), {"A": 0.5, "B": 0.5}, "t", False, "x")
CHANGES: list[dict[str, Any]] = [
    {},
    {"text": "y"},
    {"thought": "u"},
    {"thought_cut": True},
    {"answer": "B"},
    {"confidence": 81},
    {"reasoning": ""},
    {"cut": True},
    {"eliminated": ()},
    {"probabilities": None},
    {"probabilities": {"A": 0.5000000000000001, "B": 0.5}},
    {"outcome": Outcome.INVALID},
]


@settings(deadline=None)
@given(KEYS, st.integers(0, 70), st.booleans(), st.randoms())
def test_a_sample_is_a_fixed_one_of_the_keys(keys: list[str], count: int, last: bool, dice: Any) -> None:
    sample = sampled(keys, count, last=last)
    mixed = list(keys)
    dice.shuffle(mixed)
    assert sampled(iter(mixed), count, last=last) == sample
    assert len(sample) == len(set(sample)) == min(count, len(set(keys)))
    assert set(sample) <= set(keys)


@settings(deadline=None)
@given(KEYS, st.integers(0, 40))
def test_first_and_last_are_others_where_there_are_enough(keys: list[str], count: int) -> None:
    first, last = sampled(keys, count), sampled(keys, count, last=True)
    assert len(set(first) & set(last)) == max(0, 2 * min(count, len(set(keys))) - len(set(keys)))


@settings(deadline=None)
@given(UNIQUE)
def test_other_batches_are_a_partition_unlike_a_run(keys: list[str]) -> None:
    batches = other_batches(keys)
    assert sorted(key for batch in batches for key in batch) == sorted(keys)
    assert all(batches)
    # A run has all of them in order in one batch.
    assert len(keys) < 2 or keys not in batches
    alone = [batch for batch in batches if len(batch) == 1]
    assert 4 * len(alone) >= len(keys)
    # From 14 rows on there are all three: alone, by sevens, and others together.
    sizes = {len(batch) for batch in batches}
    assert len(keys) < 2 * SMALL_BATCH or {1, SMALL_BATCH} <= sizes
    assert sum(len(batch) not in (1, SMALL_BATCH) for batch in batches) <= 1
    backwards = [batch for batch in batches if len(batch) > 1]
    assert all(batch == sorted(batch, key=keys.index, reverse=True) for batch in backwards)


def test_small_samples_by_hand() -> None:
    assert other_batches([]) == []
    assert other_batches(["a"]) == [["a"]]
    assert other_batches(["a", "b"]) == [["b"], ["a"]]
    assert other_batches(list("abcde")) == [["e"], ["d"], ["c", "b", "a"]]
    assert [len(batch) for batch in other_batches([str(n) for n in range(32)])] == [1] * 8 + [7, 7, 10]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_field_of_the_content_must_be_the_same(change: dict[str, Any]) -> None:
    assert same_bytes(ROW, replace(ROW, **change)) == (not change)
    assert same_bytes(ROW, replace(ROW, seconds=9.0, usage=Usage(1, 2, 3), error="slow"))
    assert not same_bytes(ROW, None)


@settings(deadline=None)
@given(st.lists(st.none() | st.sampled_from(CHANGES), max_size=30))
def test_rows_are_counted(changes: list[dict[str, Any] | None]) -> None:
    rows = [replace(ROW, key=f"{number:03}") for number in range(len(changes))]
    pairs = [
        (row, None if change is None else replace(row, **change))
        for row, change in zip(rows, changes, strict=True)
    ]
    found = Evidence.of("verify", iter(pairs))
    assert (found.by, found.rows) == ("verify", len(changes))
    assert found.same == sum(change == {} for change in changes)
    assert found.same_text == sum(change is not None and "text" not in change for change in changes)
    different = [row.key for row, change in zip(rows, changes, strict=True) if change != {}]
    assert found.different == tuple(different[:20])
    assert Evidence.of("verify", reversed(pairs)) == found
    assert not pairs or Evidence.of("verify", pairs[1:]).sample != found.sample


EVIDENCE = st.builds(
    Evidence,
    by=st.sampled_from(["worker", "verify"]),
    rows=st.integers(0, 9),
    same=st.integers(0, 9),
    same_text=st.integers(0, 9),
    sample=st.sampled_from(["a" * 64, "b" * 64]),
    different=st.lists(st.sampled_from(["k1", "k2"]), max_size=2).map(tuple),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(EVIDENCE, max_size=5))
def test_what_is_kept_is_read_and_the_same_counts_once(evidence: list[Evidence]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for one in (*evidence, *evidence):
            keep_evidence(store, SPEC, one)
        found = read_evidence(store, SPEC)
        assert set(found.evidence) == set(evidence)
        assert len(found.evidence) == len(set(evidence))
        assert found.damaged == []
        assert read_evidence(store, SPEC) == found
        assert read_evidence(store, "f" * 32) == ([], [])


def _damages() -> list[Any]:
    values = {"by": "worker", "rows": 4, "same": 3, "same_text": 3, "sample": "s", "different": ["k"]}
    without = {name: value for name, value in values.items() if name != "same"}
    return [
        pytest.param("", id="empty"),
        pytest.param(json.dumps(values)[:-5], id="cut"),
        pytest.param("[]", id="a list"),
        pytest.param("null", id="null"),
        pytest.param(json.dumps(without), id="a field missing"),
        pytest.param(json.dumps({**values, "more": 1}), id="a field more"),
        pytest.param(json.dumps({**values, "different": 3}), id="no keys"),
        pytest.param(json.dumps({**values, "rows": "4"}), id="a text for a number"),
        pytest.param(json.dumps({**values, "rows": float("nan")}), id="no number"),
        pytest.param(json.dumps({**values, "same": 4, "different": []}), id="made better"),
    ]


@pytest.mark.parametrize("text", _damages())
def test_damaged_evidence_is_named_and_the_rest_is_read(tmp_path: Path, text: str) -> None:
    store, whole = Store(tmp_path), Evidence("verify", 9, 9, 9, "t", ())
    keep_evidence(store, SPEC, Evidence("worker", 4, 3, 3, "s", ("k",)))
    (file,) = store.evidence(SPEC).iterdir()
    keep_evidence(store, SPEC, whole)
    file.write_text(text)
    assert read_evidence(store, SPEC) == ([whole], [file])


def test_whole_evidence_under_another_name_is_damaged(tmp_path: Path) -> None:
    store, whole = Store(tmp_path), Evidence("verify", 9, 9, 9, "t", ())
    keep_evidence(store, SPEC, whole)
    (file,) = store.evidence(SPEC).iterdir()
    copy = file.with_name("copy.json")
    copy.write_bytes(file.read_bytes())
    assert read_evidence(store, SPEC) == ([whole], [copy])


def test_what_an_engine_tells_of_its_attention_is_kept_and_older_evidence_keeps_its_name(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    older = Evidence("worker", 8, 8, 8, "a", ())
    newer = replace(older, head_size=128, attention="FLASH_ATTN")
    keep_evidence(store, SPEC, older)
    (file,) = store.evidence(SPEC).iterdir()
    # As versions wrote it that did not know these fields.
    assert list(json.loads(file.read_text())) == ["by", "rows", "same", "same_text", "sample", "different"]
    assert file.stem == "9a6db37705573a1b48263d0fa77664a30ea4e684b5b3aac1d834b1805eae77c1"
    keep_evidence(store, SPEC, newer)
    found = read_evidence(store, SPEC)
    assert not found.damaged
    assert sorted(found.evidence, key=str) == sorted([older, newer], key=str)
