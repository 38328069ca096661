"""Manifests from strangers: refused in words, or every path of them stays in its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from fuzzing import assert_clear, fuzz
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundles import FILES, entry_of, make_bundle, target_here

from orch_local.deploy.bundle import describing, placing
from orch_local.deploy.bundle.checking import Bundle, open_bundle
from orch_local.deploy.bundle.manifest import MAX_BYTES, Content, Manifest, ManifestError, parse
from orch_local.util.paths import check_path

NASTY = [
    *". .. ... a A b a/b a. a: C: \\ c\\d ~ - -rf part-00001 PART-00001 manifest.json Manifest.JSON".split(),
    *"ß ss ﬁ fi é É \u212a k İ i\u0307 e\u0301 %2e%2e ..%2f \uff0e\uff0e \u2215 nul".split(),
    *"venv wheels $(id) `id` *".split(),
    *[
        "",
        " ",
        "a ",
        "\0",
        "a\n",
        "\t",
        "\x1b[2J",
        "\u202e",
        "\u200b",
        "\ud800",
        "\u05d0\u05d1",
        "\U000e0041",
    ],
    *["x" * 255, "x" * 256, "é" * 128, "\u3164"],
]
PATHS = st.one_of(
    st.lists(st.sampled_from(NASTY), min_size=1, max_size=4).map("/".join),
    st.text(max_size=20),
    st.text(alphabet="./\\aA:", max_size=8),
)
NUMBERS = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.sampled_from([2**50, 2**50 + 1, 10**400, -1])
)
JSON = st.recursive(
    st.none() | NUMBERS | PATHS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PATHS, inner, max_size=4),
    max_leaves=10,
)


def values_of(files: dict[str, bytes]) -> dict[str, Any]:
    """A manifest, before it is written."""
    entries = tuple(entry_of(path, content) for path, content in sorted(files.items()))
    manifest = Manifest("1.0", target_here(), entries, models=(Content("m", "models/m"),))
    loaded: dict[str, Any] = json.loads(manifest.to_bytes())
    return loaded


def parsed(values: object) -> Manifest | None:
    """The manifest, or nothing where it is refused as it should be."""
    try:
        return parse(json.dumps(values).encode("utf-8", "surrogatepass"), "here")
    except ManifestError as error:
        assert_clear(error, "here")
        return None


def put(values: Any, keys: tuple[Any, ...], value: object) -> None:
    """Replace what is somewhere inside."""
    for key in keys[:-1]:
        values = values[key]
    values[keys[-1]] = value


def places(values: Any) -> list[tuple[Any, ...]]:
    """Where something is inside, as keys on the way."""
    items = (
        values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    )
    return [(key, *rest) for key, inner in items for rest in [(), *places(inner)]]


@given(st.lists(PATHS, min_size=1, max_size=5))
@fuzz(250)
def test_any_paths_are_refused_or_stay_inside(paths: list[str]) -> None:
    content = {path: f"{number}".encode() for number, path in enumerate(paths)}
    values = values_of({})
    values["files"] = [
        {"path": path, "size": len(data), "sha256": entry_of("x", data).sha256}
        for path, data in sorted(content.items())
    ]
    if (manifest := parsed(values)) is None:
        return
    with TemporaryDirectory() as outside:
        root = Path(outside, "inside", "target")
        root.mkdir(parents=True)
        for entry in manifest.files:
            placing.place(root, entry, [content[entry.path]], lambda _path, _size: None)
        assert [path.name for path in Path(outside).iterdir()] == ["inside"]
        assert [path.name for path in root.parent.iterdir()] == ["target"]
        written = {
            Path(above, name).relative_to(root).as_posix(): Path(above, name).read_bytes()
            for above, _, names in os.walk(root)
            for name in names
        }
        assert written == content
        lows = [path.casefold() for path in written]
        assert len(set(lows)) == len(lows)


@given(JSON)
@fuzz(150)
def test_any_json_is_refused_as_a_manifest(values: Any) -> None:
    assert parsed(values) is None


@given(st.binary(max_size=200))
@fuzz(200)
def test_any_bytes_are_refused_as_a_manifest(content: bytes) -> None:
    with pytest.raises(ManifestError):
        parse(content, "here")


@given(st.data(), JSON)
@fuzz(400)
def test_a_manifest_with_anything_in_one_place_is_refused_or_harmless(
    data: st.DataObject, value: object
) -> None:
    values = values_of({"a": b"1", "models/m/w": b"2"})
    put(values, data.draw(st.sampled_from(places(values))), value)
    if (manifest := parsed(values)) is None:
        return
    assert parse(manifest.to_bytes(), "here") == manifest
    for line in describing.lines_of(Bundle(Path(), manifest, b"", None), "no"):
        assert line.isprintable()


@pytest.mark.parametrize(
    "path",
    [
        *"/etc/passwd ../x a/../../x a//b a/ ./a C:/x c:x a\\..\\b a. a:stream".split(),
        *"manifest.json manifest.json.sig part-00001 part-00001/x".split(),
        *["a\0b", "a\u202eb", "e\u0301", "a /b", "\ud800", "x" * 256, "", "a\n", "/".join("a" * 600)],
    ],
)
def test_paths_that_are_tricks_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        check_path(path)


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["A", "a"], "twice"),
        (["wheels/X.whl", "wheels/x.whl"], "twice"),
        (["strasse", "stra\u00dfe"], "twice"),
        (["a", "a/b"], "a file and a folder"),
        (["A", "a/b"], "a file and a folder"),
        (["b", "a"], "not in order"),
        (["a", "a"], "twice"),
    ],
)
def test_two_paths_that_are_one_somewhere_are_refused(paths: list[str], words: str) -> None:
    values = values_of({})
    values["files"] = [{"path": path, "size": 0, "sha256": "0" * 64} for path in paths]
    with pytest.raises(ManifestError, match=words):
        parse(json.dumps(values).encode(), "here")


def _part(name: str, size: int) -> dict[str, object]:
    return {"path": name, "size": size, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values.update(parts=[_part("part-00001", 5)]), "as long as"),
        (lambda values: values.update(parts=[_part("../part-00001", 1)]), "another name"),
        (lambda values: values.update(parts=[_part("part-00001\n", 1)]), "short text|another name"),
        (
            lambda values: values.update(parts=[_part("part-\u0660\u0660\u0660\u0660\u0661", 1)]),
            "another name",
        ),
        (lambda values: values.update(parts=[_part("part-00002", 0), _part("part-00001", 1)]), "order"),
        (lambda values: values.update(parts=[_part("part-00001", 0), _part("part-00001", 1)]), "order"),
        (lambda values: values["files"][0].update(size=-1), "size"),
        (lambda values: values["files"][0].update(size=True), "size"),
        (lambda values: values["files"][0].update(size=1.0), "size"),
        (lambda values: values["files"][0].update(size=2**60), "size"),
        (lambda values: values["files"][0].update(sha256="A" * 64), "SHA-256"),
        (lambda values: values["files"][0].update(sha256="0" * 63 + "\n"), "SHA-256|short text"),
        (lambda values: values.update(format=2), "format"),
        (lambda values: values.update(format=None), "format"),
        (lambda values: values.update(run_files=["b"]), "run file"),
        (lambda values: values["models"][0].update(folder="../m"), "leads out"),
        (lambda values: values["models"][0].update(licence="\x1b[31mfree"), "short text"),
        (lambda values: values["models"].__setitem__(0, []), "is not the manifest"),
        (lambda values: values.update(target=["3.11"]), "is not the manifest"),
        (lambda values: values["target"].update({"\x1b[2J": "x"}), "is not the manifest"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(change: Callable[[Any], None], words: str) -> None:
    values = values_of({"a": b"1"})
    assert parsed(values) is not None
    change(values)
    with pytest.raises(ManifestError, match=words) as caught:
        parse(json.dumps(values).encode(), "here")
    assert_clear(caught.value, "here")


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"format": ' + b"1" * 10_000 + b"}",
        b'{"format": 1, "files": NaN}',
        b"\xff\xfe" + '{"format": 1}'.encode("utf-16-le"),
        b"",
        b"null",
        b" " * (MAX_BYTES + 1),
    ],
    ids="deep-lists deep-objects long-number nan utf-16 empty null long".split(),
)
def test_bombs_are_refused(content: bytes) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(content, "here")
    assert_clear(caught.value)


def test_many_names_that_are_one_are_refused_at_once() -> None:
    values = values_of({})
    names = sorted([f"a{number:06}" for number in range(30_000)] + ["z", "Z"])
    values["files"] = [{"path": name, "size": 0, "sha256": "0" * 64} for name in names]
    with pytest.raises(ManifestError, match="twice"):
        parse(json.dumps(values).encode(), "here")


def test_the_same_content_makes_the_same_manifest(tmp_path: Path) -> None:
    make_bundle(tmp_path / "one", FILES, 1000)
    make_bundle(tmp_path / "two", dict(reversed(FILES.items())), 1000)
    assert open_bundle(tmp_path / "one", None).content == open_bundle(tmp_path / "two", None).content
