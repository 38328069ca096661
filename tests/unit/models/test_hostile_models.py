"""Model folders made to do harm: each ends in an error that names the file, and nothing is read outside."""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzzing import assert_clear, damaged, fuzz
from hostile_models import (
    CANARY,
    CONFIG,
    GOOD,
    good_folder,
    opened,
    refused,
    safetensors,
    tensor,
)
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from typer.testing import CliRunner

from orch_local.cli import commands
from orch_local.config.model_configs import ModelConfig
from orch_local.errors import InputError, ModelError, PromptError
from orch_local.models.folders import digests, open_model_folder
from orch_local.models.opening import check_entries, open_file, read_text
from orch_local.models.weights import tensor_names
from orch_local.prompts import probing
from orch_local.prompts.tokenizer import PromptTokenizer

INDEX = "model.safetensors.index.json"
_BITS = {"F32": 32, "BF16": 16, "U8": 8, "BOOL": 8, "F4": 4}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return good_folder(tmp_path)


# --- links and what is no file --------------------------------------------------------------------


def linked(name: str, target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return make


def pipe(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return make


def bound_socket(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        here = Path.cwd()
        os.chdir(folder)  # the path of a socket has 108 bytes at most
        try:
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(name)
        finally:
            os.chdir(here)

    return make


def subfolder(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return make


def folder_elsewhere(folder: Path) -> None:
    (folder / "original").symlink_to(folder.parent / "outside", target_is_directory=True)


def through_a_link_inside(folder: Path) -> None:
    (folder / "way").symlink_to("..")
    (folder / "x.json").symlink_to("way/outside/secret")


def circle(folder: Path) -> None:
    (folder / "a.json").symlink_to("b.json")
    (folder / "b.json").symlink_to("a.json")


def pipe_of_templates(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    os.mkfifo(folder / "additional_chat_templates" / "rag.jinja")


def other_entry_of_the_cache(folder: Path) -> None:
    (folder / "x.json").symlink_to("../../../models--other--name/blobs/1")


OUT = "is a link out of the model folder, to "
ENTRIES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "config beside": (linked("config.json", "../outside/secret"), OUT, "config.json"),
    "weights beside": (linked("model.safetensors", "../outside/secret"), OUT, "model.safetensors"),
    "template beside": (linked("chat_template.jinja", "../outside/secret"), OUT, "chat_template.jinja"),
    "what only engines read": (
        linked("processor_config.json", "../outside/secret"),
        OUT,
        "processor_config.json",
    ),
    "absolute": (linked("tokenizer.json", "/etc/passwd"), OUT, "tokenizer.json"),
    "endless": (linked("config.json", "/dev/zero"), OUT, "config.json"),
    "environment": (linked("x.json", "/proc/self/environ"), OUT, "x.json"),
    "nothing outside": (linked("x.json", "/no/such/file"), OUT, "x.json"),
    "a folder": (folder_elsewhere, OUT, "original"),
    "by way of a link": (through_a_link_inside, OUT, "way"),
    "another entry of a cache": (other_entry_of_the_cache, OUT, "x.json"),
    "circle": (circle, "leads in a circle", "a.json"),
    "pipe as config": (pipe("config.json"), "a named pipe", "config.json"),
    "pipe as weights": (pipe("model.safetensors"), "a named pipe", "model.safetensors"),
    "pipe as index": (pipe(INDEX), "a named pipe", INDEX),
    "pipe as tokenizer": (pipe("tokenizer.json"), "a named pipe", "tokenizer.json"),
    "pipe nobody reads": (pipe("README.md"), "a named pipe", "README.md"),
    "pipe of templates": (pipe_of_templates, "a named pipe", "additional_chat_templates/rag.jinja"),
    "socket": (bound_socket("x.safetensors"), "a socket", "x.safetensors"),
    "folder as config": (subfolder("config.json"), "a folder", "config.json"),
    "folder as weights": (subfolder("model.safetensors"), "a folder", "model.safetensors"),
    "folder as tokenizer": (subfolder("tokenizer.json"), "a folder", "tokenizer.json"),
    "folder as template": (subfolder("chat_template.jinja"), "a folder", "chat_template.jinja"),
}


@pytest.mark.parametrize(
    ("make", "match", "name"), [pytest.param(*case, id=name) for name, case in ENTRIES.items()]
)
def test_no_way_out_and_no_waiting(folder: Path, make: Callable[[Path], None], match: str, name: str) -> None:
    make(folder)
    refused(folder, match, name)


def test_the_target_of_a_link_is_named(folder: Path) -> None:
    linked("config.json", "../outside/secret")(folder)
    with pytest.raises(ModelError, match="outside/secret") as caught:
        opened(folder)
    assert "copy the file into the folder" in caught.value.hint


def test_devices_are_not_opened(tmp_path: Path) -> None:
    for device in ("/dev/zero", "/dev/tty"):
        if Path(device).exists():
            with pytest.raises(ModelError, match="it is a device"):
                open_file(Path(device))


def test_links_inside_are_fine(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors").symlink_to(folder / "weights")  # absolute, and into the folder itself
    (folder / "self").symlink_to(".")
    (tmp_path / "link").symlink_to(folder)
    opened(tmp_path / "link")


def test_a_pipe_that_came_later_is_not_waited_for(folder: Path) -> None:
    """Between the look at a file and its opening it may become another."""
    file = folder / "x.json"
    os.mkfifo(file)
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    os.close(descriptor)
    done = threading.Event()

    def read() -> None:
        with pytest.raises(ModelError):
            read_text(file)
        done.set()

    threading.Thread(target=read, daemon=True).start()
    assert done.wait(200)


def test_what_may_not_be_read_is_named(folder: Path) -> None:
    (folder / "config.json").chmod(0)
    if os.access(folder / "config.json", os.R_OK):
        pytest.skip("root may read everything")
    refused(folder, "Permission denied", "config.json")


def test_hub_cache(tmp_path: Path) -> None:
    cache = tmp_path / "models--org--name"
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs" / "1").write_text("{}")
    (snapshot / "a.json").symlink_to("../../blobs/1")
    check_entries(snapshot)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0123")
    (snapshot / "b.json").symlink_to("../../refs/main")
    with pytest.raises(ModelError, match="out of the model folder"):
        check_entries(snapshot)


# --- sizes and JSON -------------------------------------------------------------------------------


def sparse(file: Path, size: int) -> None:
    with file.open("wb") as stream:
        stream.truncate(size)


LARGE = {
    "config.json": 2**40,
    "tokenizer.json": 2**40,
    "tokenizer_config.json": 2**40,
    "special_tokens_map.json": 17 * 2**20,
    "chat_template.jinja": 2**21,
    "chat_template.json": 17 * 2**20,
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_file_is_not_read(folder: Path, name: str) -> None:
    sparse(folder / name, LARGE[name])
    refused(folder, r"is larger than \d+ MiB", name)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "chat_template.json"])
def test_deep_json(folder: Path, name: str) -> None:
    (folder / name).write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    refused(folder, "is not JSON", name)


def test_a_long_template_in_a_config(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|im_end|>", "chat_template": "x" * 2**21})
    )
    refused(folder, "chat template of 2,097,152 characters", None)


def config(**values: Any) -> str:
    return json.dumps(CONFIG | values)


CONFIGS = {
    "layers of a float": (config(num_hidden_layers=1e308), "num_hidden_layers"),
    "layers without end": ('{"architectures": ["A"], "num_hidden_layers": 1e999}', "infinity"),
    "layers that are none": ('{"architectures": ["A"], "num_hidden_layers": NaN}', "NaN"),
    "negative heads": (config(num_attention_heads=-4), "num_attention_heads"),
    "fewer than one head": (config(num_attention_heads=0.5), "num_attention_heads"),
    "a large context": (config(max_position_embeddings=10**30), "max_position_embeddings"),
    "a long number": ('{"hidden_size": ' + "9" * 5000 + "}", "Exceeds the limit"),
    "a long text": (config(hidden_size="9" * 5000), "hidden_size|Exceeds"),
    "a list": (config(hidden_size=[1]), "size that is none"),
    "an object": (config(head_dim={"a": 1}), "size that is none"),
    "architectures a number": (config(architectures=5), "architectures"),
    "nested": (config(text_config={"num_hidden_layers": 2**64}), "num_hidden_layers"),
    "escapes in a number": (config(hidden_size="\x1b[31mred\x07"), "size that is none"),
    "weights of another": (
        config(speculators_config={"verifier": {"name_or_path": "/outside"}}),
        "another model",
    ),
}


@pytest.mark.parametrize(
    ("content", "match"), [pytest.param(*case, id=name) for name, case in CONFIGS.items()]
)
def test_a_config_that_lies(folder: Path, content: str, match: str) -> None:
    (folder / "config.json").write_text(content)
    refused(folder, match, "config.json")


def test_an_adapter_leads_to_another_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "../outside"}))
    refused(folder, "another model", "adapter_config.json")


@pytest.mark.parametrize("value", ["../outside", "/etc", "https://example.org/x"])
def test_a_name_that_leads_elsewhere_is_not_followed(folder: Path, value: str) -> None:
    (folder / "config.json").write_text(config(_name_or_path=value))
    opened(folder)


# --- indexes --------------------------------------------------------------------------------------

INDEXES: dict[str, object] = {
    "outside": {"weight_map": {"a": "../outside/secret"}},
    "absolute": {"weight_map": {"a": "/etc/passwd"}},
    "itself": {"weight_map": {"a": "."}},
    "parent": {"weight_map": {"a": ".."}},
    "empty": {"weight_map": {"a": ""}},
    "null byte": {"weight_map": {"a": "x\0y"}},
    "surrogate": {"weight_map": {"a": "\ud800"}},
    "very many files": {"weight_map": {str(n): f"{n}.safetensors" for n in range(20_000)}},
    "long": {"weight_map": {"a": "x" * 5000}},
}


@pytest.mark.parametrize("content", [pytest.param(value, id=name) for name, value in INDEXES.items()])
def test_an_index_that_leads_elsewhere(folder: Path, content: object) -> None:
    (folder / INDEX).write_text(json.dumps(content))
    with pytest.raises(ModelError) as caught:
        opened(folder)
    assert caught.value.where in (str(folder), str(folder / INDEX), *map(str, folder.iterdir()))
    assert CANARY not in str(caught.value)
    assert_clear(caught.value)


def test_very_many_tensors_of_one_file(folder: Path) -> None:
    (folder / INDEX).write_text(
        json.dumps({"weight_map": dict.fromkeys(map(str, range(200_000)), "model.safetensors")})
    )
    opened(folder)


def test_a_tensor_that_is_there_twice(folder: Path) -> None:
    (folder / "other.safetensors").write_bytes(GOOD)
    refused(folder, "holds the tensor 'a', and so does model.safetensors", "other.safetensors")


# --- safetensors ----------------------------------------------------------------------------------

HEADERS = {
    "blanks of 90 MB": safetensors(b"{" + b" " * 90_000_000 + b"]"),
    "of 101 MB": safetensors(b"{}" + b" " * 101_000_000),
    "length 2**64 - 1": safetensors(b"{}", length=2**64 - 1),
    "a nested metadata": safetensors({"__metadata__": {"a": {"b": "c"}}, "a": tensor(0, 8)}, b"\1" * 8),
    "two dtypes": safetensors(
        b'{"a":{"dtype":"F32","dtype":"U8","shape":[2],"data_offsets":[0,8]}}', b"\1" * 8
    ),
    "UTF-16": safetensors(
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.encode("utf-16-le"), b"\1" * 8
    ),
    "byte order mark": safetensors(b"\xef\xbb\xbf{}"),
    "surrogate": safetensors(rb'{"\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', b"\1" * 8),
    "unknown dtype": safetensors({"a": tensor(0, 8, [2], "F32\x1b[31m")}, b"\1" * 8),
    "long dtype": safetensors({"a": tensor(0, 8, [2], "F" * 10**6)}, b"\1" * 8),
    "product too large": safetensors({"a": tensor(0, 0, [2**33, 2**33, 0])}),
    "size too large": safetensors({"a": tensor(0, 8, [2**63])}, b"\1" * 8),
    "number too large": safetensors({"a": tensor(0, 8, [2**64])}, b"\1" * 8),
    "minus nothing": safetensors(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[-0,8]}}', b"\1" * 8),
    "half a byte": safetensors({"a": tensor(0, 1, [1], "F4")}, b"\1"),
    "not a number": safetensors(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', b"\1" * 8),
    "deep inside": safetensors(b'{"a":{"x":' + b"[" * 500 + b"]" * 500 + b"}}"),
    "overlap": safetensors({"a": tensor(0, 8), "b": tensor(4, 12)}, b"\1" * 12),
    "bytes behind": GOOD + b"\0",
    "a pickle": b"\x80\x04\x95" + b"cos\nsystem\n(S'id'\ntR." * 9,
    "a zip": b"PK\3\4" + b"\0" * 90,
}


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in HEADERS.items()])
def test_a_header_that_lies(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "is not a whole safetensors file", "model.safetensors")


def test_a_sparse_file_of_a_terabyte(folder: Path) -> None:
    sparse(folder / "model.safetensors", 2**40)
    refused(folder, "is not a whole safetensors file: header of 0 bytes", "model.safetensors")
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.write(struct.pack("<Q", 99_999_999))
    refused(folder, "is not a whole safetensors file", "model.safetensors")


def test_thousands_of_dimensions(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(safetensors({"a": tensor(0, 4, [1] * 100_000)}, b"\1" * 4))
    assert tensor_names(file) == ["a"]


@st.composite
def headers(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """A good header and the bytes of its data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if draw(st.booleans()) else {}
    end = 0
    names = draw(
        st.lists(st.text(max_size=6).filter(lambda name: name != "__metadata__"), max_size=4, unique=True)
    )
    for name in names:
        dtype = draw(st.sampled_from(sorted(_BITS)))
        shape = [*draw(st.lists(st.integers(0, 4), max_size=3)), 2]
        begin, end = end, end + math.prod(shape) * _BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    return header, end


_values = st.sampled_from(
    [-1, 0, 1, 7, 8, 2**31, 2**63, 2**64, 1.5, True, None, "F32", "F64", "x", [], {}, [8, 0]]
)


@fuzz(150)
@given(good=headers(), data=st.data())
def test_the_library_has_the_last_word(
    tmp_path_factory: pytest.TempPathFactory, good: Any, data: Any
) -> None:
    header, size = good
    if data.draw(st.booleans()) and (names := [name for name in header if name != "__metadata__"]):
        name = data.draw(st.sampled_from(names))
        header[name][data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "more"]))] = data.draw(
            _values
        )
    content = safetensors(header, b"\1" * size)
    if data.draw(st.booleans()):
        content = data.draw(damaged(content))
    file = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    file.write_bytes(content)
    try:
        with safe_open(file, framework="np") as opened:
            theirs = sorted(opened.keys())
    except (SafetensorError, OSError):
        theirs = None
    try:
        ours = sorted(tensor_names(file))
    except ModelError as error:
        ours = None
        assert_clear(error, str(file))
    assert ours == theirs


# --- tokenizers -----------------------------------------------------------------------------------


ODD_CONFIGS = {
    "a name that is a list": ({"chat_template": [{"name": [], "template": "x"}]}, "no chat template"),
    "half a surrogate pair": ({"eos_token": "\ud800"}, "end-of-sequence"),
}


@pytest.mark.parametrize("name", ODD_CONFIGS)
def test_an_odd_tokenizer_config_is_an_error(folder: Path, name: str) -> None:
    values, match = ODD_CONFIGS[name]
    file = folder / "tokenizer_config.json"
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    with pytest.raises((ModelError, PromptError), match=match):
        opened(folder)


def test_a_tokenizer_is_tried_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PromptTokenizer(folder)
    monkeypatch.delattr(probing, "Child")
    PromptTokenizer(folder)


# --- what lies beside -----------------------------------------------------------------------------


def test_pickles_and_code_beside_are_told(folder: Path) -> None:
    for name in ("pytorch_model.bin", "x.pt", "y.pth", "z.ckpt"):
        (folder / name).write_bytes(b"cos\nsystem\n")
    (folder / "modeling_evil.py").write_text(f"raise SystemExit({CANARY!r})")
    (folder / "config.json").write_text(config(auto_map={"AutoModelForCausalLM": "modeling_evil.Model"}))
    opened(folder)
    notes = open_model_folder(ModelConfig(name="m", path=folder)).notes
    assert notes == (
        "pickled weights are not loaded: pytorch_model.bin, x.pt, y.pth and 1 more",
        "code of the folder is not run: modeling_evil.py",
    )


DECIDING = [
    "added_tokens.json",
    "tekken.json",
    "tokenizer.model.v3",
    "params.json",
    "hf_quant_config.json",
    "quantize_config.json",
]


@pytest.mark.parametrize("name", DECIDING)
def test_whatever_engines_read_is_digested(folder: Path, name: str) -> None:
    before = digests(open_model_folder(ModelConfig(name="m", path=folder)))
    (folder / name).write_text("{}")
    (folder / "README.md").write_text("decides nothing")
    after = digests(open_model_folder(ModelConfig(name="m", path=folder)))
    assert after.keys() - before.keys() == {name}


# --- the command line -----------------------------------------------------------------------------

COMMANDS = ["config beside", "pipe as config", "pipe as weights", "endless"]


@pytest.mark.parametrize("case", COMMANDS)
def test_the_command_line_ends_with_2(folder: Path, case: str, tmp_path: Path) -> None:
    ENTRIES[case][0](folder)
    model = tmp_path / "m.yaml"
    model.write_text(json.dumps({"name": "m", "path": str(folder)}))
    done = CliRunner().invoke(commands.app, ["models", str(model)])
    assert isinstance(done.exception, InputError)
    assert done.exception.exit_code == 2
    assert ENTRIES[case][2] in done.output
    assert CANARY not in done.output


def test_plan_ends_with_2_and_prints_no_escapes(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text(
        config(architectures=["\x1b[31mEvil\x07\u202e"], model_type="\x1b]0;x\x07")
    )
    (tmp_path / "m.yaml").write_text(json.dumps({"name": "m", "path": str(folder)}))
    (tmp_path / "q.jsonl").write_text(
        json.dumps({"question": "x?", "choices": ["a", "b"], "answer": "A"}) + "\n"
    )
    run = {
        "benchmark": {"name": "jsonl", "path": "q.jsonl"},
        "agents": [{"name": "one", "model": "m.yaml"}],
        "merge": {"policy": "majority"},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    done = CliRunner().invoke(commands.app, ["plan", str(tmp_path / "run.yaml")])
    assert isinstance(done.exception, InputError), done.output
    assert_clear(done.exception)
    assert "does not know" in str(done.exception)
