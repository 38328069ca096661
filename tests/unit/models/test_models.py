"""Model folders as they come from interrupted downloads, bad disks and ill will; and their sizes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orch_local.config.model_configs import ModelConfig
from orch_local.errors import ModelError
from orch_local.models.folders import ModelFolder, digests, open_model_folder
from orch_local.models.weights import tensor_names

LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
INDEX = "model.safetensors.index.json"
_BYTES = {"F32": 4, "BF16": 2, "U8": 1}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tensors(**shapes: tuple[str, list[int]]) -> dict[str, Any]:
    """A header for tensors one behind the other."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + math.prod(shape) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    return header


GOOD = tensors(a=("F32", [2, 3]), b=("BF16", [4]), empty=("F32", [0, 5]))
GOOD_DATA = b"\1" * 32


def safetensors(header: object = GOOD, data: bytes = GOOD_DATA, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(begin: object, end: object, shape: object = (2,), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good model folder of one file."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(LLAMA_3_8B))
    (path / "model.safetensors").write_bytes(safetensors())
    (path / "tokenizer.json").write_text("{}")
    return path


def config_of(path: Path | None, **more: Any) -> ModelConfig:
    return ModelConfig(name="m", path=path, **more)


def shard(folder: Path, weight_map: Mapping[str, Any]) -> Path:
    """Make the good folder a sharded one; every shard named is there."""
    (folder / "model.safetensors").unlink()
    for name in set(weight_map.values()):
        inside = tensors(**{key: ("U8", [4]) for key, shard in weight_map.items() if shard == name})
        (folder / str(name)).write_bytes(safetensors(inside, b"\1" * 4 * (len(inside) - 1)))
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder / INDEX


def refused(folder: Path, match: str, where: Path) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        open_model_folder(config_of(folder))
    assert caught.value.where == str(where)


def test_a_good_folder_passes(folder: Path) -> None:
    found = open_model_folder(config_of(folder))
    assert found.weights == (folder / "model.safetensors",)
    assert found.architecture == "LlamaForCausalLM"
    assert found.context == 8192
    assert found.weight_bytes == len(safetensors())


def test_a_file_of_the_safetensors_library_passes(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    arrays = {
        f"t{n}": np.ones((n, 3), dtype) for n, dtype in enumerate((np.float32, np.int8, np.uint16, bool))
    }
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "np"})
    assert set(tensor_names(tmp_path / "x.safetensors")) == arrays.keys()


def test_a_good_sharded_folder_passes(folder: Path) -> None:
    shard(folder, {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"})
    (folder / "consolidated.safetensors").write_bytes(b"of another layout, not in the index")
    found = open_model_folder(config_of(folder))
    assert [file.name for file in found.weights] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_a_missing_folder_says_where_to_get_the_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist") as caught:
        open_model_folder(config_of(tmp_path / "none", hub_id="org/Model"))
    assert str(tmp_path / "none") in caught.value.message
    assert "orch-local fetch --model org/Model" in caught.value.hint
    with pytest.raises(ModelError, match="does not exist"):
        open_model_folder(config_of(None))
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="does not exist"):
        open_model_folder(config_of(tmp_path / "file"))


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, "has no `config.json`", folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_a_config_that_is_none(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    refused(folder, "cannot be read|is not JSON|is not a model config", folder / "config.json")


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "holds no", folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "x.ckpt"])
def test_pickles_are_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).touch()
    refused(folder, f"pickled weights only .{name}", folder)


def test_remote_code_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "evil.Model"}}))
    refused(folder, "never run", folder)


def test_missing_shards_are_counted(folder: Path) -> None:
    shard(folder, {"a": "one.safetensors", "b": "two.safetensors", "c": "three.safetensors"})
    (folder / "two.safetensors").unlink()
    (folder / "three.safetensors").unlink()
    (folder / "three.safetensors").symlink_to(folder / "a-blob-that-was-not-downloaded")
    refused(folder, "2 of 3 weight files are missing, the first is three.safetensors", folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"weight_map": {}}',
        b'{"weight_map": []}',
        b'{"weight_map": null}',
        b'{"weight_map": {"a": ["x"]}}',
        b'{"weight_map": {"a": 1, "b": "x"}}',
        b'{"weight_map": {"a": "../model/model.safetensors"}}',
        b'{"weight_map": {"a": "/etc/passwd"}}',
    ],
)
def test_an_index_that_is_none(folder: Path, content: bytes) -> None:
    (folder / INDEX).write_bytes(content)
    refused(folder, "is not a safetensors index", folder / INDEX)


DAMAGED = {
    "no bytes": b"",
    "seven bytes": b"\0" * 7,
    "no header": struct.pack("<Q", 0),
    "truncated data": safetensors()[:-1],
    "truncated header": safetensors()[:40],
    "trailing bytes": safetensors() + b"\0",
    "header longer than the file": safetensors(length=10_000),
    "header of 2**63 bytes": safetensors(length=2**63),
    "header of 2**64-1 bytes": safetensors(length=2**64 - 1),
    "header no JSON": safetensors(b"{x}"),
    "header no UTF-8": safetensors(b'{"\xff": 1}'),
    "header a list": safetensors([]),
    "header deep": safetensors(b"[" * 100_000),
    "HTML of a login page": b"<!DOCTYPE html><html><body>Please log in</body></html>",
    "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "tensor a number": safetensors({"a": 1}, b""),
    "no offsets": safetensors({"a": {"dtype": "F32", "shape": [2]}}),
    "one offset": safetensors({"a": {"dtype": "F32", "shape": [], "data_offsets": [0]}}),
    "beyond the end": safetensors({"a": tensor(0, 8), "b": tensor(32, 40)}, b"\1" * 32),
    "far beyond the end": safetensors({"a": tensor(2**62, 2**62 + 8)}, b"\1" * 8),
    "overlap": safetensors({"a": tensor(0, 8), "b": tensor(4, 12)}, b"\1" * 12),
    "same place": safetensors({"a": tensor(0, 8), "b": tensor(0, 8)}, b"\1" * 8),
    "a gap": safetensors({"a": tensor(0, 8), "b": tensor(12, 20)}, b"\1" * 20),
    "a gap in front": safetensors({"a": tensor(4, 12)}, b"\1" * 12),
    "negative": safetensors({"a": tensor(-8, 0), "b": tensor(0, 8)}, b"\1" * 8),
    "backwards": safetensors({"a": tensor(8, 0, [-2])}, b""),
    "wrong shape": safetensors({"a": tensor(0, 8, [3])}, b"\1" * 8),
    "negative shape": safetensors({"a": tensor(0, 8, [-1, -2])}, b"\1" * 8),
    "zero shape with data": safetensors({"a": tensor(0, 8, [0])}, b"\1" * 8),
    "shape of text": safetensors({"a": tensor(0, 8, ["x", 10**14])}, b"\1" * 8),
    "fractions": safetensors({"a": tensor(0.0, 8.0, [2.0])}, b"\1" * 8),
    "true and false": safetensors({"a": tensor(False, 8, [2])}, b"\1" * 8),
    "dtype a list": safetensors({"a": tensor(0, 8, [2], [])}, b"\1" * 8),
}


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in DAMAGED.items()])
def test_a_damaged_file_is_named(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "is not a whole safetensors file", folder / "model.safetensors")


def test_a_damaged_shard_is_named(folder: Path) -> None:
    shard(folder, {"a": "one.safetensors", "b": "two.safetensors"})
    (folder / "two.safetensors").write_bytes(safetensors()[:-5])
    refused(folder, "is not a whole safetensors file", folder / "two.safetensors")


def test_the_order_of_the_header_is_free(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(
        safetensors({"b": tensor(8, 16), "c": tensor(16, 16, [0]), "a": tensor(0, 8)}, b"\1" * 16)
    )
    assert set(tensor_names(file)) == {"a", "b", "c"}


def test_dtypes_of_less_than_a_byte(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(safetensors({"a": tensor(0, 6, [12], "F4")}, b"\1" * 6))
    assert tensor_names(file) == ["a"]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_the_head_is_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(safetensors())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    file = tmp_path / "x.safetensors"
    file.write_bytes(content[:cut])
    refusal = None
    try:
        tensor_names(file)
    except ModelError as error:
        refusal = error
    assert refusal is None or refusal.where == str(file)


# --- digests --------------------------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content was read for a digest."""
    names: list[str] = []
    real = hashlib.file_digest

    def file_digest(stream: Any, name: str) -> Any:
        names.append(Path(stream.name).name)
        return real(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", file_digest)
    return names


FILES = ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_digest_changes_with_each_file(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("x")
    (folder / "README.md").write_text("decides nothing")
    opened = open_model_folder(config_of(folder))
    before = digests(opened)
    assert sorted(before) == sorted([*FILES, "generation_config.json", "chat_template.jinja"])
    for name in before:
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")
        after = digests(opened)
        assert {other for other in before if before[other] != after[other]} == {name}
        before = after


def test_a_digest_is_remembered(folder: Path, hashed: list[str]) -> None:
    opened = open_model_folder(config_of(folder))
    first = digests(opened)
    assert sorted(hashed) == FILES
    hashed.clear()
    assert digests(opened) == first
    assert hashed == []


def test_a_changed_file_is_read_again(folder: Path, hashed: list[str]) -> None:
    opened = open_model_folder(config_of(folder))
    digests(opened)
    hashed.clear()
    weights = folder / "model.safetensors"
    os.utime(weights, ns=(0, 0))
    digests(opened)
    assert hashed == ["model.safetensors"]
    hashed.clear()
    weights.write_bytes(b"")
    os.utime(weights, ns=(0, 0))
    digests(opened)
    assert hashed == ["model.safetensors"]
    hashed.clear()
    # The same size and time, but another file moved into place.
    other = folder / "other"
    other.write_bytes(b"")
    os.utime(other, ns=(0, 0))
    other.replace(weights)
    digests(opened)
    assert hashed == ["model.safetensors"]


def test_a_time_of_change_that_is_set_back_hides_nothing(folder: Path, hashed: list[str]) -> None:
    opened = open_model_folder(config_of(folder))
    before = digests(opened)
    hashed.clear()
    weights = folder / "model.safetensors"
    state = weights.stat()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    while weights.stat().st_ctime_ns == state.st_ctime_ns:  # the clock of a file system has coarse ticks
        weights.write_bytes(content)
        os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (weights.stat().st_mtime_ns, weights.stat().st_ino) == (state.st_mtime_ns, state.st_ino)
    assert digests(opened) != before
    assert hashed == ["model.safetensors"]


def test_fresh_digests_trust_no_memory_and_mend_it(folder: Path, tmp_path: Path, hashed: list[str]) -> None:
    opened = open_model_folder(config_of(folder))
    before = digests(opened)
    (memory,) = (tmp_path / "cache").rglob("digests.json")
    memory.write_text(json.dumps(dict.fromkeys(json.loads(memory.read_text()), "0" * 64)))
    assert set(digests(opened).values()) == {"0" * 64}
    hashed.clear()
    assert digests(opened, fresh=True) == before
    assert sorted(hashed) == FILES
    assert digests(opened) == before


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_a_damaged_memory_costs_time_only(folder: Path, tmp_path: Path, content: bytes) -> None:
    opened = open_model_folder(config_of(folder))
    before = digests(opened)
    (memory,) = (tmp_path / "cache").rglob("digests.json")
    memory.write_bytes(content)
    assert digests(opened) == before


def test_no_place_for_the_memory_is_fine(
    folder: Path, tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    opened = open_model_folder(config_of(folder))
    assert digests(opened) == digests(opened)
    assert sorted(hashed) == sorted(FILES * 2)


def test_links_of_the_hub_cache_are_followed(folder: Path, tmp_path: Path, hashed: list[str]) -> None:
    cache = tmp_path / "models--org--name"
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for number, name in enumerate(FILES):
        (cache / "blobs" / str(number)).write_bytes((folder / name).read_bytes())
        (snapshot / name).symlink_to(Path("..", "..", "blobs", str(number)))
    found = digests(open_model_folder(config_of(snapshot)))
    assert found == digests(open_model_folder(config_of(folder)))
    (tmp_path / "link").symlink_to(snapshot)
    hashed.clear()
    assert digests(open_model_folder(config_of(tmp_path / "link"))) == found
    assert not hashed  # one file, one reading, whatever the way to it
    (cache / "blobs" / "1").unlink()
    refused(snapshot, "not a whole safetensors file: No such file", snapshot / "model.safetensors")


# --- sizes ----------------------------------------------------------------------------------------


def test_sizes_may_be_nested() -> None:
    nested = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": LLAMA_3_8B}
    assert ModelFolder(Path(), nested, ()).context == 8192
