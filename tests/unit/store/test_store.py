"""The store against what disks, kills and second writers do to files."""

from __future__ import annotations

import errno
import hashlib
import itertools
import resource
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from chunks import SPEC, put, row
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.errors import StoreError
from orch_local.records import Analysis, Outcome, Question, Usage, question_id
from orch_local.store import store as store_module
from orch_local.store.questions import read_questions, write_questions
from orch_local.store.rows import Rows
from orch_local.store.store import RunFolder, Spec, Store, atomic_write, read_json, write_json, write_text

# Any code point at all, lone surrogates included: what a model wrote must not stop a run.
TEXT = st.text(st.characters(), max_size=20) | st.sampled_from(
    ["", "\ud800", "a\udfffb", "\u2028\u2029\x85", "\r\n", "\x00", "😀", "e\u0301", '"\\']
)
KEYS = st.text("0123456789abcdef", min_size=1, max_size=3)
ROWS = st.builds(
    Analysis,
    key=KEYS,
    outcome=st.sampled_from(Outcome),
    answer=st.none() | TEXT,
    confidence=st.none() | st.integers(0, 100),
    reasoning=TEXT,
    cut=st.booleans(),
    eliminated=st.lists(st.sampled_from("ABCDEFGHIJ"), max_size=3).map(tuple),
    probabilities=st.none() | st.dictionaries(st.sampled_from("ABCD"), st.floats(0, 1), max_size=4),
    thought=TEXT,
    thought_cut=st.booleans(),
    text=TEXT,
    error=TEXT,
    usage=st.builds(Usage, st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)),
    seconds=st.floats(0, 1e6),
)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Files may grow to ``room`` bytes; the kernel then refuses to write on, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(ROWS, unique_by=lambda r: r.key, max_size=8), flush_rows=st.integers(1, 4))
def test_rows_come_back_as_they_were_written(rows: list[Analysis], flush_rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "FLUSH_ROWS", flush_rows)
        store = Store(Path(folder) / "store")
        with store.writer(SPEC) as writer:
            for each in rows:
                writer.add(each)
        found = store.read(SPEC)
        assert dict(found) == {each.key: each for each in rows}
        assert not found.violations
        assert not found.damaged
        chunks = list(store.folder(SPEC).glob("*")) if rows else []
        assert len(chunks) == -(-len(rows) // flush_rows)
        assert all(c.name == f"{hashlib.sha256(c.read_bytes()).hexdigest()}.jsonl" for c in chunks)


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=4))
def test_questions_come_back_as_they_were_written(texts: list[str]) -> None:
    questions = [
        Question(question_id(text, ("a", text)), text, ("a", text), "A", text, {"n": 1}) for text in texts
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = RunFolder(Path(folder)).questions
        write_questions(file, questions)
        assert list(read_questions(file)) == questions


def test_a_row_is_found_by_its_key(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, row("a"), row("b"), row("c"))
    found = store.read(SPEC)
    assert [key in found for key in ("a", "c", "z")] == [True, True, False]
    assert found["c"] == row("c")
    assert found.get("z") is None
    assert len(store.read("f" * 32)) == 0


def test_rows_are_written_after_a_while_even_if_there_are_few(tmp_path: Path) -> None:
    now = [0.0]
    writer = Store(tmp_path).writer(SPEC, clock=lambda: now[0])
    assert not writer.add(row("a"))
    now[0] = store_module.FLUSH_SECONDS - 0.1
    assert not writer.flush_if_due()
    now[0] = store_module.FLUSH_SECONDS
    assert writer.flush_if_due()
    assert Store(tmp_path).read(SPEC).keys() == {"a"}
    now[0] += store_module.FLUSH_SECONDS
    assert writer.flush_if_due()  # nothing new: no empty chunk
    assert len(files(tmp_path / SPEC)) == 1


def test_a_slow_writer_makes_fewer_chunks_the_longer_it_runs(tmp_path: Path) -> None:
    """A row a second for ten hours: chunks every 5 s at first, every 60 s in the end."""
    now, flushed = [0.0], [0.0]
    writer = Store(tmp_path).writer(SPEC, clock=lambda: now[0])
    for _ in range(36_000):
        now[0] += 1.0
        if writer.flush_if_due():
            flushed.append(now[0])
    waits = [later - earlier for earlier, later in itertools.pairwise(flushed)]
    assert waits[:100] == [5.0] * 100
    assert waits == sorted(waits)
    assert all(wait <= max(6.0, 0.01 * end + 1) for wait, end in zip(waits, flushed[1:], strict=True))
    assert waits[-1] == 60.0
    assert len(waits) < 36_000 / 5 / 8


def test_rows_are_kept_when_the_block_of_a_writer_raises(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def killed() -> None:
        with store.writer(SPEC) as writer:
            writer.add(row("a"))
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        killed()
    assert "a" in store.read(SPEC)


def _interrupted_write(path: Path, error: BaseException) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error


def test_atomic_write_leaves_the_old_file_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"old": 1})
    with pytest.raises(KeyError):
        _interrupted_write(path, KeyError())
    assert read_json(path) == {"old": 1}
    assert files(tmp_path) == ["file.json"]


def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with full_disk(1000), pytest.raises(StoreError) as caught:
        write_text(path, "n" * 5000)
    assert path.read_text() == "old"
    assert files(tmp_path) == ["file.txt"]
    assert caught.value.where == str(path)
    assert "finished rows are kept" in caught.value.hint


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT"])
def test_no_space_and_no_quota_ask_for_space(tmp_path: Path, number: str) -> None:
    with pytest.raises(StoreError, match="free some space"):
        _interrupted_write(tmp_path / "file", OSError(getattr(errno, number), "no room"))
    assert files(tmp_path) == []


def test_rows_on_a_full_disk_are_written_once_there_is_space(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = store.writer(SPEC)
    writer.add(row("a", "n" * 5000))
    with full_disk(1000), pytest.raises(StoreError):
        writer.flush()
    assert files(tmp_path / SPEC) == []
    writer.flush()
    assert "a" in store.read(SPEC)


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match="Not a directory") as caught, store.writer(SPEC) as writer:
        writer.add(row("a"))
    assert "--out" in caught.value.hint
    with pytest.raises(StoreError, match="Not a directory"):
        store.declare(Spec.of({}))
    assert not store.read(SPEC)


def test_files_are_as_readable_as_the_umask_says(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "")
    (tmp_path / "plain").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("text", [None, "", "{", "\udcff"])
def test_read_json_names_a_missing_or_damaged_file(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "run.json"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreError) as caught:
        read_json(path)
    assert caught.value.where == str(path)


def _flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-7], id="truncated"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content + content, id="doubled"),
        pytest.param(_flip, id="bit flipped"),
    ],
)
def test_a_damaged_chunk_is_reported_and_the_others_are_read(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    store = Store(tmp_path)
    bad = put(store, row("a"), row("b"))
    put(store, row("c"))
    bad.write_bytes(damage(bad.read_bytes()))
    found = store.read(SPEC)
    assert found.damaged == [bad]
    assert found.keys() == {"c"}
    # Made again, the same rows come to the same name and replace the damaged chunk.
    with store.writer(SPEC) as writer:
        writer.add(row("a"))
        writer.add(row("b"))
    assert store.read(SPEC).damaged == []
    assert store.read(SPEC).keys() == {"a", "b", "c"}


def test_a_chunk_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, row("a"))
    chunk = tmp_path / SPEC / f"{'0' * 64}.jsonl"
    chunk.mkdir()  # tests run as root, whom no permission stops
    with pytest.raises(StoreError, match="cannot be read") as caught:
        store.read(SPEC)
    assert caught.value.where == str(chunk)


def test_a_temporary_file_left_by_a_kill_is_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    chunk = put(store, row("a"))
    chunk.with_name(f".{chunk.name[:40]}.abc.tmp").write_bytes(b'{"key": "half')
    found = store.read(SPEC)
    assert (list(found), found.damaged) == (["a"], [])


def test_writers_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "FLUSH_ROWS", 3)
    store, start = Store(tmp_path / "store"), threading.Barrier(4)

    def write(number: int) -> None:
        start.wait()
        with store.writer(SPEC) as writer:
            for index in range(25):
                writer.add(row(f"{number}-{index}"))
                writer.add(row(f"both-{index}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store.read(SPEC)
    assert len(found) == 5 * 25
    assert not found.violations
    assert not found.damaged


def test_the_same_row_twice_is_no_violation(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put(store, row("a"))
    put(store, replace(row("a"), seconds=9.5, usage=Usage(1, 2, 3)))
    found = store.read(SPEC)
    assert len(files(tmp_path / SPEC)) == 2
    assert not found.violations
    assert found["a"].content() == row("a").content()


def _orders(tmp_path: Path, rows: Sequence[Analysis]) -> Iterator[Rows]:
    """What is read after these rows were written as one chunk, in each of the possible orders."""
    for number, order in enumerate(itertools.permutations(rows)):
        store = Store(tmp_path / str(number))
        put(store, *order)
        yield store.read(SPEC)


def test_two_contents_under_one_key_are_one_violation_and_one_choice(tmp_path: Path) -> None:
    found = list(_orders(tmp_path, [row("a", "one"), row("a", "two"), row("b")]))
    assert {len(each.violations) for each in found} == {1}
    assert len({each["a"].text for each in found}) == 1
    assert len({each.violations[0] for each in found}) == 1
    violation = found[0].violations[0]
    assert (violation.spec, violation.key) == (SPEC, "a")
    assert violation.kept < violation.other


def test_a_violation_is_noted_once_however_often_its_rows_occur(tmp_path: Path) -> None:
    rows = [row("a", "one"), row("a", "two"), row("a", "one"), row("a", "two")]
    assert {len(each.violations) for each in _orders(tmp_path, rows)} == {1}


def test_of_three_contents_the_same_is_kept_in_any_order(tmp_path: Path) -> None:
    found = list(_orders(tmp_path, [row("a", "one"), row("a", "two"), row("a", "three")]))
    assert len({each["a"].text for each in found}) == 1
    assert all(each.violations for each in found)


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.TRUNCATED, Outcome.INVALID, Outcome.TOO_LONG])
def test_a_failed_row_gives_way_in_any_order(tmp_path: Path, outcome: Outcome) -> None:
    rows = [row("a", "", Outcome.FAILED), row("a", "better", outcome), row("a", "half", Outcome.FAILED)]
    for found in _orders(tmp_path, rows):
        assert found["a"].outcome == outcome
        # Two failures may differ, in how far the text had come: that is no determinism broken.
        assert not found.violations


def test_a_spec_is_declared_once(tmp_path: Path) -> None:
    store, spec = Store(tmp_path), Spec.of({"b": 1, "a": [2]})
    assert spec == Spec({"b": 1, "a": [2]}, Spec.of({"a": [2], "b": 1}).digest)
    store.declare(spec)
    before = (tmp_path / spec.digest / "spec.json").stat().st_ino
    store.declare(spec)
    assert (tmp_path / spec.digest / "spec.json").stat().st_ino == before
    assert read_json(tmp_path / spec.digest / "spec.json") == spec.content
