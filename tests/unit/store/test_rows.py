"""Rows as an index over chunks: against a plain dict, and against what happens to files."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from chunks import SPEC, put, row
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.errors import StoreError
from orch_local.records import Analysis, Outcome, Usage, digest
from orch_local.store import rows as rows_module
from orch_local.store import store as store_module
from orch_local.store.rows import Rows
from orch_local.store.store import Store

KEYS = ("a", "b", "c", "d", "0123456789abcdef", "ключ", "")
# Texts that look like fields of a row, or like the ends of one.
TEXTS = (
    "x",
    "y",
    '"key":"b"',
    '\\"key\\":\\"b\\"',
    '"outcome":"failed"',
    "\\",
    '\\"',
    "\ud800",
    "\n\r\x85\u2028",
)
ROWS = st.builds(
    Analysis,
    key=st.sampled_from(KEYS),
    outcome=st.sampled_from([Outcome.OK, Outcome.OK, Outcome.INVALID, Outcome.FAILED]),
    answer=st.sampled_from([None, "A", '"key":"b"']),
    eliminated=st.sampled_from([(), ("key",), ("A", "B")]),
    text=st.sampled_from(TEXTS),
    error=st.sampled_from(TEXTS),
    usage=st.builds(Usage, st.integers(0, 3)),
)
DAMAGES = ("none", "cut", "flipped", "emptied", "gone")


def damage(chunk: Path, how: str) -> None:
    content = chunk.read_bytes()
    middle = len(content) // 2
    if how == "gone":
        chunk.unlink()
    elif how != "none":
        flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
        chunk.write_bytes({"cut": content[:middle], "flipped": flipped, "emptied": b""}[how])


def model(rows: list[Analysis]) -> tuple[dict[str, dict[str, object]], dict[str, int]]:
    """What a reader must find: content by key, and how many other contents there are."""
    by_key: dict[str, list[Analysis]] = {}
    for each in rows:
        by_key.setdefault(each.key, []).append(each)
    found, violations = {}, {}
    for key, group in by_key.items():
        good = [each for each in group if each.outcome is not Outcome.FAILED]
        contents = {digest(each.content()): each.content() for each in good or group}
        found[key] = contents[min(contents)]
        violations[key] = len(contents) - 1 if good else 0
    return found, violations


def check(found: Rows, rows: list[Analysis]) -> None:
    expected, violations = model(rows)
    assert {key: each.content() for key, each in found.items()} == expected
    assert sorted(found) == sorted(expected)
    assert len(found) == len(expected)
    for key in (*KEYS, "elsewhere"):
        assert (key in found) == (key in expected)
        assert found.failed(key) == (expected.get(key, {}).get("outcome") == "failed")
        assert (found.get(key) is None) == (key not in expected)
    told = [violation.key for violation in found.violations]
    assert {key: told.count(key) for key in violations} == violations


@settings(max_examples=60, deadline=None)
@given(
    chunks=st.lists(st.tuples(st.lists(ROWS, max_size=6), st.sampled_from(DAMAGES)), max_size=6),
    looks=st.sets(st.integers(0, 5)),
    flush_rows=st.integers(1, 4),
    handles=st.integers(1, 3),
)
def test_rows_are_those_of_a_dict(
    chunks: list[tuple[list[Analysis], str]], looks: set[int], flush_rows: int, handles: int
) -> None:
    """Writers one after the other, some chunks damaged; one reader looks in between, one at the end."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "FLUSH_ROWS", flush_rows)
        patch.setattr(rows_module, "_OPEN_FILES", handles)
        store = Store(Path(folder))
        early = store.read(SPEC)
        whole: dict[Path, list[Analysis]] = {}
        damaged = set()
        for number, (rows, how) in enumerate(chunks):
            for start in range(0, len(rows), flush_rows):
                part = rows[start : start + flush_rows]
                before = {file: file.stat().st_mtime_ns for file in whole}
                chunk = _written(store, part)
                damaged.discard(chunk)
                whole[chunk] = part
                # Only what is new is damaged: a reader has not seen it yet.
                if chunk not in before and start == 0 and how != "none":
                    damage(chunk, how)
                    del whole[chunk]
                    damaged |= {chunk} if how != "gone" else set()
            if number in looks:
                early.update()
                check(early, [each for part in whole.values() for each in part])
        rows_now = [each for part in whole.values() for each in part]
        late = store.read(SPEC)
        for found in (late, early.update()):
            check(found, rows_now)
            assert set(found.damaged) == damaged
        assert set(early.violations) == set(late.violations)


def _written(store: Store, rows: list[Analysis]) -> Path:
    """Write rows as one chunk, which may be there already; returns its file."""
    with store.writer(SPEC) as writer, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "FLUSH_ROWS", len(rows) + 1)
        for each in rows:
            writer.add(each)
        named: list[Path] = []
        real = store_module.atomic_write
        patch.setattr(store_module, "atomic_write", lambda path: (named.append(path), real(path))[1])
        writer.flush()
    return named[0]


def test_more_chunks_than_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "_OPEN_FILES", 3)
    store = Store(tmp_path)
    for number in range(10):
        put(store, row(f"k{number}"))
    found, before = store.read(SPEC), open_files()
    for _ in range(2):
        assert [found[f"k{number}"].key for number in range(10)] == [f"k{number}" for number in range(10)]
        assert open_files() - before <= 3
    found.close()
    assert open_files() == before
    assert found["k4"] == row("k4")
    del found
    assert open_files() == before


def test_the_file_that_was_used_longest_ago_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions in order go back and forth between the shards: what is in use stays open."""
    monkeypatch.setattr(rows_module, "_OPEN_FILES", 2)
    store, opened = Store(tmp_path), []
    for number in range(3):
        put(store, row(f"k{number}"))
    found, real = store.read(SPEC), os.open
    monkeypatch.setattr(os, "open", lambda file, flags: (opened.append(file), real(file, flags))[1])
    for key in ("k0", "k1", "k0", "k2", "k0", "k1"):
        assert found[key].key == key
    assert len(opened) == 4


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_memory_does_not_grow_with_the_size_of_rows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, *(row(f"k{number}", "x" * 5000) for number in range(200)))
    found = store.read(SPEC)
    parts = vars(found).values()
    sizes = [part.itemsize * len(part) for part in parts if hasattr(part, "itemsize")]
    assert sum(sizes) + len(found._failed) <= 45 * 200
    assert not any(isinstance(part, Analysis) for held in parts if isinstance(held, list) for part in held)


@pytest.mark.parametrize("how", ["cut", "flipped", "emptied", "gone", "other"])
@pytest.mark.parametrize("opened", [True, False])
def test_a_chunk_that_changes_after_it_was_seen_gives_no_wrong_row(
    tmp_path: Path, how: str, opened: bool
) -> None:
    store = Store(tmp_path)
    chunk = put(store, row("a", "1"), row("b", "2"))
    found = store.read(SPEC)
    if opened:
        assert found["a"].text == "1"
    if how == "other":
        chunk.write_bytes(chunk.read_bytes().replace(b'"text":"2"', b'"text":"3"'))
    else:
        damage(chunk, how)
    if how == "gone" and opened:
        assert found["b"].text == "2"  # the bytes live on as long as they are open
        return
    wrong = "cannot be read" if how == "gone" else "has changed"
    with pytest.raises(StoreError, match=wrong) as caught:
        dict(found)
    assert caught.value.where == str(chunk)
    assert caught.value.hint


def test_a_chunk_that_goes_while_the_folder_is_read_counts_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    gone = put(store, row("a"))
    put(store, row("b"))
    real = Path.read_bytes

    def read_bytes(file: Path) -> bytes:
        if file == gone:
            file.unlink(missing_ok=True)
        return real(file)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    found = store.read(SPEC)
    assert (list(found), found.damaged) == (["b"], [])
    monkeypatch.undo()
    put(store, row("a"))
    assert set(found.update()) == {"a", "b"}


def test_a_damaged_chunk_that_was_made_again_is_seen_by_an_update(tmp_path: Path) -> None:
    store = Store(tmp_path)
    chunk = put(store, row("a"))
    damage(chunk, "flipped")
    found = store.read(SPEC)
    assert (dict(found), found.damaged) == ({}, [chunk])
    chunk.unlink()
    put(store, row("a"))
    assert (dict(found.update()), found.damaged) == ({"a": row("a")}, [])


def test_an_update_changes_which_of_two_rows_is_kept_and_tells_of_it_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    low, high = sorted([row("a", "1"), row("a", "2")], key=lambda each: digest(each.content()))
    put(store, high)
    found = store.read(SPEC)
    assert found["a"] == high
    put(store, low)
    for _ in range(2):
        assert found.update()["a"] == low
        assert [(one.key, one.spec) for one in found.violations] == [("a", SPEC)]
        assert (found.violations[0].kept, found.violations[0].other) == (
            digest(low.content()),
            digest(high.content()),
        )


def test_of_failures_the_same_is_kept_whenever_they_were_seen(tmp_path: Path) -> None:
    store = Store(tmp_path)
    failures = [row("a", str(number), Outcome.FAILED) for number in range(6)]
    found = store.read(SPEC)
    for failure in failures:
        put(store, failure)
        assert found.update()["a"] == store.read(SPEC)["a"]
        assert found.failed("a") and not found.violations


def test_a_failed_row_is_told_by_its_own_field(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, row("a", '"outcome":"failed"'), row("b", "", Outcome.FAILED))
    found = store.read(SPEC)
    assert [found.failed(key) for key in ("a", "b", "c")] == [False, True, False]


def test_keys_that_share_a_hash_are_not_taken_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "_hash", lambda key: 7)
    store = Store(tmp_path)
    put(store, row("a"))
    found = store.read(SPEC)
    assert found["a"] == row("a")
    with pytest.raises(KeyError):
        found["b"]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"no JSON at all", id="no JSON"),
        pytest.param(b'{"id":"a"}', id="no key"),
        pytest.param(b'{"key":"a"}', id="no fields"),
        pytest.param(b'{"key":"a",', id="half"),
        pytest.param(b'{"key":"a","\xff":1}', id="no UTF-8"),
    ],
)
def test_rows_of_another_form_are_a_store_error(tmp_path: Path, line: bytes) -> None:
    content = line + b"\n"
    chunk = tmp_path / SPEC / f"{hashlib.sha256(content).hexdigest()}.jsonl"
    chunk.parent.mkdir()
    chunk.write_bytes(content)
    with pytest.raises(StoreError, match="another form") as caught:
        dict(Store(tmp_path).read(SPEC))
    assert caught.value.where == str(chunk)


def test_a_row_with_an_unknown_field_is_a_store_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    chunk = put(store, row("a"))
    content = chunk.read_bytes().replace(b'{"answer"', b'{"a new field":1,"answer"')
    chunk.unlink()
    (chunk.parent / f"{hashlib.sha256(content).hexdigest()}.jsonl").write_bytes(content)
    with pytest.raises(StoreError, match="another form"):
        store.read(SPEC)["a"]


def test_a_chunk_is_set_aside_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    chunk = put(store, row("a"))
    damage(chunk, "cut")
    cut = chunk.read_bytes()
    target = store.set_aside(chunk)
    assert target == chunk.parent / "damaged" / chunk.name
    assert target.read_bytes() == cut
    assert store.set_aside(chunk) is None
    assert store.set_aside(tmp_path / "never" / "was.jsonl") is None
    found = store.read(SPEC)
    assert (dict(found), found.damaged) == ({}, [])
    # Made again and damaged again, it takes the place of the one before.
    damage(put(store, row("a")), "emptied")
    assert store.set_aside(chunk) == target
    assert target.read_bytes() == b""


def test_a_chunk_that_cannot_be_set_aside_is_a_store_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    chunk = put(store, row("a"))

    def refuse(file: Path, target: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StoreError, match="Read-only") as caught:
        store.set_aside(chunk)
    assert caught.value.where == str(chunk)


def test_what_is_only_recorded_makes_no_violation(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, row("a"))
    put(store, replace(row("a"), seconds=1.0, usage=Usage(5), error="slow"))
    assert not store.read(SPEC).violations
