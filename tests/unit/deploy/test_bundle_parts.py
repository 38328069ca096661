"""Parts of a bundle: cut and joined they are the same bytes, and damage is found by name."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundles import FILES, entry_of, make_bundle

from orch_local.deploy.bundle import inside, parts
from orch_local.deploy.bundle.checking import BundleFaults, check_files, open_bundle
from orch_local.deploy.bundle.inside import BLOCK
from orch_local.deploy.bundle.manifest import Manifest, parse
from orch_local.deploy.bundle.parts import open_content, write_parts
from orch_local.errors import InputError, StoreError

CONTENTS = st.dictionaries(
    st.sampled_from(["a", "a.b", "b/c", "b/d/e", "wheels/x.whl", "models/m/w"]), st.binary(max_size=400)
)


def joined(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """What is read back."""
    return {entry.path: b"".join(blocks) for entry, blocks in open_content(folder, manifest)}


def found_in(folder: Path) -> BundleFaults:
    """What a check of a bundle finds."""
    return check_files(open_bundle(folder, None), lambda _path, _size: None)


@given(CONTENTS, st.integers(1, 500))
@fuzz(150)
def test_any_files_cut_anywhere_are_the_same_joined(files: dict[str, bytes], part_size: int) -> None:
    with TemporaryDirectory() as folder:
        bundle = Path(folder, "bundle")
        manifest = make_bundle(bundle, files, part_size)
        assert joined(bundle, manifest) == files
        assert parse(manifest.to_bytes(), "here") == manifest
        assert [part.size for part in manifest.parts[:-1]] == [part_size] * (len(manifest.parts) - 1)
        assert found_in(bundle).passed


@given(CONTENTS, st.integers(1, 200), st.data())
@fuzz(100)
def test_any_flipped_byte_is_found_by_the_name_of_its_part(
    files: dict[str, bytes], part_size: int, data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        bundle = Path(folder, "bundle")
        manifest = make_bundle(bundle, {**files, "a": b"one byte at least"}, part_size)
        part = bundle / data.draw(st.sampled_from(manifest.parts)).path
        content = bytearray(part.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        part.write_bytes(content)
        assert found_in(bundle) == BundleFaults(wrong_bytes=(part.name,))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of several parts."""
    make_bundle(tmp_path / "bundle", FILES, 1000)
    return tmp_path / "bundle"


def test_missing_short_long_and_swapped_parts_are_told_apart(bundle: Path) -> None:
    names = sorted(path.name for path in bundle.glob("part-*"))
    assert len(names) == 7
    (bundle / names[0]).unlink()
    os.truncate(bundle / names[1], 999)
    with (bundle / names[2]).open("ab") as file:
        file.write(b"x")
    (bundle / names[3]).rename(bundle / "aside")
    (bundle / names[4]).rename(bundle / names[3])
    (bundle / "aside").rename(bundle / names[4])
    found = found_in(bundle)
    # Two parts of the same bytes could be swapped, and it would not matter; these are not.
    assert found.missing == (names[0],)
    assert found.wrong_size == (names[1], names[2])
    assert found.wrong_bytes == (names[3], names[4])
    assert found.broken == tuple(names[:5])
    assert not found.passed


@pytest.mark.parametrize("plant", ["link", "pipe", "folder", "link to itself"])
def test_what_is_no_plain_file_is_not_read(bundle: Path, plant: str) -> None:
    part = bundle / "part-00002"
    aside = part.rename(bundle.parent / "aside")
    if plant == "link":
        part.symlink_to(aside)  # the right bytes, and still not taken
    elif plant == "pipe":
        os.mkfifo(part)
    elif plant == "folder":
        part.mkdir()
    else:
        part.symlink_to(part)
    assert found_in(bundle).not_plain == (part.name,)


def test_a_file_that_becomes_a_link_between_two_looks_is_not_read(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = bundle / "part-00002"
    look = inside._check_plain

    def swap(status: os.stat_result, path: str) -> None:
        look(status, path)
        if path == part.name and not part.is_symlink():
            part.symlink_to(part.rename(bundle.parent / "aside"))

    monkeypatch.setattr(inside, "_check_plain", swap)
    assert found_in(bundle).not_plain == (part.name,)


def test_a_device_is_not_read(bundle: Path) -> None:
    part = bundle / "part-00001"
    part.unlink()
    try:
        os.mknod(part, 0o20666, os.makedev(1, 5))  # endless zeros
    except PermissionError:
        pytest.skip("only root may make a device")
    assert found_in(bundle).not_plain == (part.name,)


def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    make_bundle(bundle, FILES)
    (bundle / "models").rename(tmp_path / "models")
    (bundle / "models").symlink_to(tmp_path / "models")
    found = found_in(bundle)
    assert found.not_plain == tuple(path for path in sorted(FILES) if path.startswith("models/"))


def test_a_source_that_changed_meanwhile_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    for now in (b"other", b"longer than it was", b"cut", b""):
        file.write_bytes(now)
        with pytest.raises(InputError, match="changed while the bundle was made") as caught:
            write_parts(_new(tmp_path), [(file, entry_of("models/weights", b"bytes"))], 3)
        assert "models/weights" in caught.value.where


def test_a_source_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        write_parts(_new(tmp_path), [(tmp_path / "gone", entry_of("a", b""))], 3)


def test_parts_that_are_there_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "part-00001").write_bytes(b"mine")
    file = tmp_path / "a"
    file.write_bytes(b"bytes")
    with pytest.raises(StoreError, match="cannot be written"):
        write_parts(tmp_path, [(file, entry_of("a", b"bytes"))], 3)
    assert (tmp_path / "part-00001").read_bytes() == b"mine"


def test_too_small_a_part_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cannot be"):
        write_parts(tmp_path, [], 0)
    monkeypatch.setattr(parts, "MOST_PARTS", 2)
    file = tmp_path / "a"
    file.write_bytes(b"bytes")
    with pytest.raises(InputError, match="more than 2 parts"):
        write_parts(tmp_path, [(file, entry_of("a", b"bytes"))], 2)


def test_blocks_are_never_longer_than_a_mebibyte(tmp_path: Path) -> None:
    content = os.urandom(2 * BLOCK + 7)
    for part_size in (BLOCK + 1, 10 * BLOCK):
        bundle = tmp_path / str(part_size)
        manifest = make_bundle(bundle, {"a": b"1", "b": content}, part_size)
        blocks = [list(blocks) for _, blocks in open_content(bundle, manifest)]
        assert max(map(len, blocks[1])) <= BLOCK
        assert b"".join(blocks[1]) == content


def test_files_that_are_skipped_are_not_opened(bundle: Path) -> None:
    manifest = open_bundle(bundle, None).manifest
    for part in manifest.parts[:2]:
        (bundle / part.path).unlink()
    last = next(
        blocks for entry, blocks in open_content(bundle, manifest) if entry.path.startswith("run-files")
    )
    assert b"".join(last) == FILES["run-files/tiny.yaml"]


def _new(tmp_path: Path) -> Path:
    folder = tmp_path / f"parts-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    return folder
