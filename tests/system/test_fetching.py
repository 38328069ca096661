"""Fetching: from a hub of our own on 127.0.0.1, by the real `huggingface_hub`, into a folder for a run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hub_server
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Hub
from hypothesis import given
from hypothesis import strategies as st
from running import Cli, write_run_file

import orch_local
from orch_local.benchmarks.loading import load_questions
from orch_local.config.blocks import BenchmarkConfig
from orch_local.config.model_configs import load_model_config
from orch_local.deploy.fetch import getting
from orch_local.deploy.fetch.choosing import Listed, choose
from orch_local.deploy.fetch.record import FETCHED, Fetched, FetchedFile, add_to_record, read_record
from orch_local.deploy.fetch.wanted import BENCHMARKS, Wanted, wanted
from orch_local.errors import InputError, OrchError
from orch_local.models.folders import open_model_folder
from orch_local.util.paths import check_path

MODEL = Path(orch_local.__file__).parent / "demo" / "models" / "quant"
WEIGHTS = "model.safetensors"
REPO = "Qwen/Qwen3-8B"
TOKEN = "hf_secretSECRETsecret"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """A model as a repository has it, with all that must not be taken."""
    model = {path.name: path.read_bytes() for path in MODEL.iterdir()}
    refused = (
        "pytorch_model.bin",
        "modeling_x.py",
        "model.gguf",
        "consolidated.safetensors",
        ".gitattributes",
    )
    deep = ("original/model.safetensors", "onnx/model.onnx", "metal/config.json")
    return {
        **model,
        "README.md": b"---\nlicense: apache-2.0\n---\n",
        "LICENSE": b"You may.",
        **dict.fromkeys((*refused, *deep), b"not this"),
    }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, bytes]) -> Iterator[Hub]:
    """A hub with one model, which this process takes for the hub."""
    from huggingface_hub import constants

    for name in (
        "HF_HUB_OFFLINE",
        "HF_HUB_DISABLE_TELEMETRY",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN",
        "DOWNLOAD_CHUNK_SIZE",
    ):
        monkeypatch.setattr(constants, name, getattr(constants, name))  # the command sets them
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("ORCH_MODELS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    with hub_server.running() as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        server.add(REPO, files)
        yield server


@pytest.fixture
def get(cli: Cli) -> Any:
    """`orch-local fetch ARGUMENTS --to out --allow-network` in this process."""

    def call(*arguments: str) -> Any:
        return cli("fetch", *arguments, "--to", "out", "--allow-network")

    return call


def there(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def downloads(hub: Hub) -> list[str]:
    """Files that were sent, as often as they were."""
    return [one.path for one in hub.seen if one.status in (200, 206) and not one.path.startswith("/api/")]


def parquet(rows: list[dict[str, Any]], folder: Path) -> bytes:
    file = folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.read_bytes()


# What comes


def test_a_model_is_fetched_as_a_run_can_use_it(
    hub: Hub, get: Any, tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = get("qwen3-8b")
    assert result.code == 0, result.err
    folder = tmp_path / "out" / "models" / "Qwen3-8B"
    taken = {path.name for path in MODEL.iterdir()} | {"README.md", "LICENSE"}
    assert there(folder) == taken, "weights as pickles, code and copies are not taken"
    assert all((folder / name).read_bytes() == files[name] for name in taken)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_symlink()]
    assert "apache-2.0" in result.out
    assert f"export ORCH_MODELS_DIR={tmp_path / 'out' / 'models'}" in result.out

    monkeypatch.setenv("ORCH_MODELS_DIR", str(tmp_path / "out" / "models"))
    assert open_model_folder(load_model_config("qwen3-8b")).path == folder


def test_the_record_says_what_came_and_nothing_of_this_machine(
    hub: Hub, get: Any, tmp_path: Path, files: dict[str, bytes]
) -> None:
    get("qwen3-8b")
    one = read_record(tmp_path / "out")["models/Qwen3-8B"]
    assert (one.kind, one.name, one.repo, one.licence, one.gated) == (
        "model",
        "Qwen3-8B",
        REPO,
        "apache-2.0",
        False,
    )
    assert one.revision == hub.repos["model", REPO].refs["main"]
    assert [file.path for file in one.files] == sorted(file.path for file in one.files)
    assert all(file.sha256 == hub_server.sha256_of(files[file.path]) for file in one.files)
    assert all(file.size == len(files[file.path]) for file in one.files)
    text = (tmp_path / "out" / FETCHED).read_text()
    assert str(tmp_path) not in text and hub.url not in text
    before = (tmp_path / "out" / FETCHED).read_bytes()
    get("qwen3-8b")
    assert (tmp_path / "out" / FETCHED).read_bytes() == before


QUESTION = {"question": "What is 1 + 1?"}
LAYOUTS: dict[str, tuple[dict[str, Any], list[str], set[str]]] = {
    "mmlu": (
        {**QUESTION, "subject": "sums", "choices": ["1", "2", "3", "4"], "answer": 1},
        [f"{name}/{split}-00000-of-00001.parquet" for name in ("all", "sums") for split in ("test", "dev")],
        {"all/test-00000-of-00001.parquet", "all/dev-00000-of-00001.parquet"},
    ),
    "mmlu_pro": (
        {**QUESTION, "options": ["1", "2", "3"], "answer": "B", "answer_index": 1, "category": "sums"},
        ["data/test-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"],
        {"data/test-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"},
    ),
    "gsm8k": (
        {**QUESTION, "answer": "It is two.\n#### 2"},
        [
            f"{name}/{split}-00000-of-00001.parquet"
            for name in ("main", "socratic")
            for split in ("test", "train")
        ],
        {"main/test-00000-of-00001.parquet", "main/train-00000-of-00001.parquet"},
    ),
    "arc": (
        {**QUESTION, "choices": {"text": ["1", "2"], "label": ["A", "B"]}, "answerKey": "B"},
        [f"{name}/test-00000-of-00001.parquet" for name in ("ARC-Challenge", "ARC-Easy")],
        {"ARC-Challenge/test-00000-of-00001.parquet", "ARC-Easy/test-00000-of-00001.parquet"},
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_benchmark_is_fetched_as_its_loader_reads_it(hub: Hub, get: Any, tmp_path: Path, name: str) -> None:
    row, paths, taken = LAYOUTS[name]
    content = parquet([row], tmp_path)
    rest = {"README.md": b"words", "dataset_infos.json": b"{}", f"{name}.py": b"raise", "data.csv": b"1"}
    hub.add(BENCHMARKS[name], {**dict.fromkeys(paths, content), **rest}, "dataset", licence="mit")
    result = get(name)
    assert result.code == 0, result.err
    assert there(tmp_path / "out" / "benchmarks" / name) == taken | {"README.md"}
    path = tmp_path / "out" / "benchmarks" / name
    path = path / "ARC-Challenge" if name == "arc" else path
    assert f"benchmark: {{name: {name}, path: {path}}}" in result.out
    loaded = load_questions(BenchmarkConfig(name=name, path=path))  # type: ignore[arg-type]
    assert [question.text for question in loaded.questions] == ["What is 1 + 1?"]
    assert read_record(tmp_path / "out")[f"benchmarks/{name}"].licence == "mit"


def test_what_a_run_file_names_is_fetched_and_the_run_can_be_planned(
    hub: Hub, get: Any, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, paths, _ = LAYOUTS["mmlu"]
    rows = [{**row, "question": f"What is {number} + 1?"} for number in range(3)]
    hub.add("cais/mmlu", dict.fromkeys(paths, parquet(rows, tmp_path)), "dataset")
    values = {
        "benchmark": {"name": "mmlu", "path": "out/benchmarks/mmlu"},
        "agents": [
            {"name": "one", "model": "qwen3-8b"},
            {"name": "two", "model": "qwen3-8b", "role": "verify"},
        ],
        "merge": {"policy": "majority"},
        "engine": {"name": "transformers", "device": "cpu"},
    }
    run_file = write_run_file(tmp_path, values)
    result = get(str(run_file))
    assert result.code == 0, result.err
    assert set(read_record(tmp_path / "out")) == {"models/Qwen3-8B", "benchmarks/mmlu"}

    monkeypatch.setenv("ORCH_MODELS_DIR", str(tmp_path / "out" / "models"))
    planned = cli("plan", run_file)
    assert planned.code == 0, planned.err
    hub.seen.clear()
    assert "here already" in get(str(run_file)).out
    assert not hub.seen
    (tmp_path / "out" / "benchmarks" / "mmlu" / ".partial").mkdir()
    assert "cais/mmlu" in get(str(run_file)).out, "a fetch that was not finished goes on"


def test_any_repository_can_be_named(hub: Hub, get: Any, tmp_path: Path) -> None:
    hub.add("me/quiz", {"test.jsonl": b'{"question": "1 + 1?", "answer": 2}\n', "more.txt": b"no"}, "dataset")
    assert get("--model", REPO, "--dataset", "me/quiz").code == 0
    record = read_record(tmp_path / "out")
    assert list(record) == ["benchmarks/quiz", "models/Qwen3-8B"]
    assert [file.path for file in record["benchmarks/quiz"].files] == ["test.jsonl"]
    path = tmp_path / "out" / "benchmarks" / "quiz"
    assert load_questions(BenchmarkConfig(name="jsonl", path=path)).questions[0].gold == "2"


def test_a_long_listing_is_read_to_its_end(hub: Hub, get: Any, tmp_path: Path) -> None:
    hub.page = 2
    assert get("qwen3-8b").code == 0
    assert (tmp_path / "out" / "models" / "Qwen3-8B" / WEIGHTS).exists()


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ({"license": "llama3.1"}, "llama3.1"),
        ({"license": "other", "license_name": "tongyi"}, "tongyi"),
        ({"license": ["mit", "cc-by-4.0"]}, "mit, cc-by-4.0"),
        ({"license": "\x1b[31mmit"}, "unknown"),
        ({"license": 3}, "unknown"),
        (None, "unknown"),
    ],
)
def test_the_licence_is_what_the_card_names(card: dict[str, Any] | None, licence: str) -> None:
    from huggingface_hub import ModelCardData

    from orch_local.deploy.fetch.hub import _licence

    assert _licence(ModelCardData(**card, ignore_metadata_errors=True) if card else None) == licence


# Without leave


def test_without_leave_nothing_is_asked(hub: Hub, cli: Cli, tmp_path: Path) -> None:
    result = cli("fetch", "qwen3-8b", "mmlu@abc", "--to", "out")
    assert result.code == 2
    assert REPO in result.out and "cais/mmlu" in result.out and "abc" in result.out
    assert "nothing" in result.out and str(tmp_path / "out" / "models" / "Qwen3-8B") in result.out
    assert "--allow-network" in result.err
    assert not hub.seen and not (tmp_path / "out").exists()


def test_without_leave_it_says_what_is_here(hub: Hub, get: Any, cli: Cli, tmp_path: Path) -> None:
    get("qwen3-8b")
    sha = hub.repos["model", REPO].refs["main"]
    hub.seen.clear()
    out = cli("fetch", "qwen3-8b", "--to", "out").out
    assert "whole" in out and sha[:12] in out
    (tmp_path / "out" / "models" / "Qwen3-8B" / WEIGHTS).unlink()
    assert "6 of 7 files" in cli("fetch", "qwen3-8b", "--to", "out").out
    assert not hub.seen


def in_process_of_its_own(hub: Hub, tmp_path: Path, *arguments: str, **environment: str) -> list[Any]:
    command = [sys.executable, "-m", "orch_local", "fetch", "qwen3-8b", "--to", "out", *arguments]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {**inherited, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), **environment}
    return [command, environment]


def test_the_process_connects_only_with_leave_and_says_nothing_of_itself(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text(TOKEN)  # as `hf auth login` leaves it
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "AI_AGENT": "someone"}
    command, environment = in_process_of_its_own(hub, tmp_path, **offline)
    refused = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 2 and not hub.seen, refused.stderr
    command, environment = in_process_of_its_own(hub, tmp_path, "--allow-network", **offline)
    fetched = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stderr == "", "quiet where no terminal is"
    assert {one.token for one in hub.seen} == {""}, "a token of another login is not ours to send"
    assert all(one.agent.startswith("orch-local/") and "torch" not in one.agent for one in hub.seen)
    asked = {one.path.split("/")[1] for one in hub.seen if one.path.startswith("/")}
    assert asked == {"api", "Qwen"} and not [one for one in hub.seen if "harness" in one.path]
    assert there(tmp_path / "home") == {"token"}, "the library leaves nothing behind"


# Which commit


def test_a_commit_stays_until_an_update(hub: Hub, get: Any, tmp_path: Path, files: dict[str, bytes]) -> None:
    repo, folder = hub.repos["model", REPO], tmp_path / "out" / "models" / "Qwen3-8B"
    first = repo.refs["main"]
    get("qwen3-8b")
    newer = {**files, "generation_config.json": b'{"eos_token_id": 1}'}
    del newer["LICENSE"]
    second = repo.commit(newer)
    hub.seen.clear()
    get("qwen3-8b")
    assert read_record(tmp_path / "out")["models/Qwen3-8B"].revision == first
    assert downloads(hub) == []
    get("qwen3-8b", "--update")
    assert read_record(tmp_path / "out")["models/Qwen3-8B"].revision == second
    assert downloads(hub) == ["generation_config.json"]
    assert not (folder / "LICENSE").exists(), "a file of the former commit"
    repo.refs["v1"] = first
    get("qwen3-8b@v1")
    assert read_record(tmp_path / "out")["models/Qwen3-8B"].revision == first
    assert (folder / "generation_config.json").read_bytes() == files["generation_config.json"]
    get(f"qwen3-8b@{second}")
    assert read_record(tmp_path / "out")["models/Qwen3-8B"].revision == second


def test_only_what_is_missing_or_damaged_comes_again(hub: Hub, get: Any, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "models" / "Qwen3-8B"
    get("qwen3-8b")
    damaged = bytearray((folder / WEIGHTS).read_bytes())
    damaged[-1] ^= 1
    (folder / WEIGHTS).write_bytes(damaged)
    (folder / "README.md").unlink()
    hub.seen.clear()
    assert get("qwen3-8b").code == 0
    assert sorted(downloads(hub)) == ["README.md", WEIGHTS]
    assert (folder / WEIGHTS).read_bytes() == (MODEL / WEIGHTS).read_bytes()


def test_the_record_says_nothing_of_a_folder_that_is_half_of_two_commits(
    hub: Hub, get: Any, tmp_path: Path, files: dict[str, bytes]
) -> None:
    repo = hub.repos["model", REPO]
    get("qwen3-8b")
    second = repo.commit({**files, "config.json": files["config.json"] + b" ", "tokenizer.json": b"{}"})
    repo.served["tokenizer.json"] = b"[]"
    assert get("qwen3-8b", "--update").code == 1
    assert read_record(tmp_path / "out") == {}
    repo.served.clear()
    repo.commit(files)
    get("qwen3-8b")
    assert read_record(tmp_path / "out")["models/Qwen3-8B"].revision == second, "what was begun is finished"


# What breaks off


def test_a_cut_connection_goes_on_where_it_broke_off(hub: Hub, get: Any, tmp_path: Path) -> None:
    size = (MODEL / WEIGHTS).stat().st_size
    hub.cut[WEIGHTS] = [size - 1000]
    assert get("qwen3-8b").code == 0
    assert hub.bytes_of(WEIGHTS) < 1.5 * size
    assert [one.range for one in hub.seen if one.path == WEIGHTS] == ["", f"bytes={2**20}-"]
    assert (tmp_path / "out" / "models" / "Qwen3-8B" / WEIGHTS).read_bytes() == (MODEL / WEIGHTS).read_bytes()


def size_now(path: Path) -> int:
    """The size of a file that another process may have moved away since it was listed."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_an_interrupted_fetch_keeps_its_commit_and_what_has_come(
    hub: Hub, get: Any, tmp_path: Path, files: dict[str, bytes]
) -> None:
    repo, size = hub.repos["model", REPO], (MODEL / WEIGHTS).stat().st_size
    first = repo.refs["main"]
    hub.stuck[WEIGHTS] = 2**20
    command, environment = in_process_of_its_own(hub, tmp_path, "--allow-network")
    running = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    partial = tmp_path / "out" / "models" / "Qwen3-8B" / ".partial"
    until = time.monotonic() + 200
    # Its own buffer may hold the last few kilobytes back until it is stopped.
    while not any(size_now(path) > 2**19 for path in partial.glob("*")) and time.monotonic() < until:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=600)
    assert (running.returncode, "run the same command again" in err) == (130, True), err
    assert not read_record(tmp_path / "out")
    came = max(map(size_now, partial.glob("*")))
    assert 2**19 < came <= 2**20

    hub.stuck.clear()
    while not hub.bytes_of(WEIGHTS) and time.monotonic() < until:
        time.sleep(0.05)  # the server, too, sees that the client is gone
    hub.seen.clear()
    repo.commit({**files, "config.json": b"{}"})
    assert get("qwen3-8b").code == 0
    assert read_record(tmp_path / "out")["models/Qwen3-8B"].revision == first
    assert WEIGHTS in downloads(hub) and "config.json" not in downloads(hub)
    assert [one.range for one in hub.seen if one.path == WEIGHTS] == [f"bytes={came}-"]
    assert hub.bytes_of(WEIGHTS) == size - came
    assert not partial.exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_beginning_that_is_wrong_is_thrown_away(hub: Hub, get: Any, tmp_path: Path, ranges: bool) -> None:
    hub.ranges = ranges
    listed = Listed(WEIGHTS, 0, "", hub_server.sha256_of((MODEL / WEIGHTS).read_bytes()))
    partial = tmp_path / "out" / "models" / "Qwen3-8B" / ".partial"
    partial.mkdir(parents=True)
    (partial / listed.key).write_bytes(b"x" * 1000)
    assert get("qwen3-8b").code == 0
    assert (tmp_path / "out" / "models" / "Qwen3-8B" / WEIGHTS).read_bytes() == (MODEL / WEIGHTS).read_bytes()
    assert "bytes=1000-" in [one.range for one in hub.seen]


def test_no_network_is_said_in_one_message(
    hub: Hub, get: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    result = get("qwen3-8b")
    assert result.code == 1 and "cannot be reached" in result.err and "Traceback" not in result.err
    assert not hub.seen


@pytest.mark.parametrize(
    "address", ["hub.example", "ftp://hub.example", "http://[", "https://", "http://a:b"]
)
def test_an_address_that_is_none_is_refused(
    hub: Hub, get: Any, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    result = get("qwen3-8b")
    assert result.code == 2 and "HF_ENDPOINT is no address" in result.err


def test_a_disk_that_is_too_small_is_told_before_anything_comes(
    hub: Hub, get: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr("orch_local.deploy.fetch.files.shutil.disk_usage", lambda path: usage)
    result = get("qwen3-8b")
    assert result.code == 2 and "1.4 MB are to come, and 1.0 MB are free" in result.err
    assert downloads(hub) == []


def test_a_file_that_the_hub_does_not_give_is_told_before_anything_comes(
    hub: Hub, get: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE", 1_000_000)
    result = get("qwen3-8b")
    assert result.code == 2 and f"{WEIGHTS} has 1,423,056 bytes" in result.err
    assert downloads(hub) == []


def test_a_disk_that_fills_up_keeps_what_has_come(
    hub: Hub, get: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("orch_local.deploy.fetch.files.os.fsync", full)
        result = get("qwen3-8b")
    assert result.code == 2 and "free some space" in result.err and "No space left" in result.err
    assert get("qwen3-8b").code == 0


# What is not as it should be


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer_config.json"])
@pytest.mark.parametrize("change", ["other", "longer", "shorter"])
def test_a_file_that_is_not_as_listed_never_takes_its_place(
    hub: Hub, get: Any, tmp_path: Path, files: dict[str, bytes], name: str, change: str
) -> None:
    right = files[name]
    wrong = {
        "other": right[:-1] + bytes([right[-1] ^ 1]),
        "longer": right + b"?" * 3_000_000,
        "shorter": right[:-1],
    }[change]
    hub.repos["model", REPO].served[name] = wrong
    result = get("qwen3-8b")
    told = {
        "other": f"{name} is not what the hub lists",
        "longer": "more than it lists",
        "shorter": "broke off",
    }
    assert result.code == 1 and told[change] in result.err
    assert not (tmp_path / "out" / "models" / "Qwen3-8B" / name).exists()
    assert not read_record(tmp_path / "out")
    assert all(path.stat().st_size <= len(right) for path in (tmp_path / "out").rglob(".partial/*[0-9a-f]"))
    hub.repos["model", REPO].served.clear()
    assert get("qwen3-8b").code == 0


HOSTILE = ["../config.json", "/tmp/config.json", "a/../../x", "..\\x", "\\\\host\\x", "config.json\0"]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_path_that_leads_out_refuses_the_repository(hub: Hub, get: Any, tmp_path: Path, path: str) -> None:
    hub.repos["model", REPO].extra.append(hub_server.entry(path, b"{}"))
    result = get("qwen3-8b")
    assert result.code == 2 and "refused, nothing was downloaded" in result.err
    assert downloads(hub) == [] and not read_record(tmp_path / "out")


@pytest.mark.parametrize(
    "path", ["data/te:st.parquet", "data/te\u202est.parquet", "data /x.parquet", "a/\x1b[2J.parquet"]
)
def test_a_path_that_is_another_elsewhere_is_refused(hub: Hub, get: Any, path: str) -> None:
    hub.add("me/odd", {"test.parquet": b"", path: b""}, "dataset")
    result = get("--dataset", "me/odd")
    assert (
        result.code == 2
        and "refused" in result.err
        and "\x1b" not in result.err
        and "\u202e" not in result.err
    )


def test_names_that_differ_in_case_alone_are_refused(hub: Hub, get: Any, files: dict[str, bytes]) -> None:
    hub.add("me/case", {**files, "license": b"You may not."})
    result = get("--model", "me/case")
    assert result.code == 2 and "case alone" in result.err


@pytest.mark.parametrize(
    "link", ["models", "models/Qwen3-8B", "models/Qwen3-8B/config.json", "models/Qwen3-8B/.partial"]
)
def test_nothing_is_written_through_a_symlink(hub: Hub, get: Any, tmp_path: Path, link: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    place = tmp_path / "out" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "elsewhere")
    result = get("qwen3-8b")
    assert result.code == 2 and "symbolic link" in result.err
    assert not there(tmp_path / "elsewhere") and downloads(hub) == []


def test_a_file_of_somebody_else_that_a_run_would_read_is_refused(hub: Hub, get: Any, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "models" / "Qwen3-8B"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    assert get("qwen3-8b").code == 0, "a note does no harm"
    (folder / "adapter.safetensors").write_bytes(b"")
    result = get("qwen3-8b")
    assert result.code == 2 and "adapter.safetensors" in result.err and "a run would read it" in result.err


def test_a_folder_holds_one_repository(hub: Hub, get: Any, files: dict[str, bytes]) -> None:
    hub.add("other/Qwen3-8B", files)
    assert get("qwen3-8b").code == 0
    result = get("--model", "other/Qwen3-8B")
    assert result.code == 2 and f"holds {REPO}" in result.err
    assert get("--model", REPO, "--model", "other/Qwen3-8B").code == 2


@pytest.mark.parametrize(
    ("without", "told"),
    [
        ([WEIGHTS], "holds no *.safetensors weights but model.gguf"),
        (["config.json"], "holds no `config.json`"),
    ],
)
def test_a_repository_that_no_run_could_use_is_refused_before_a_download(
    hub: Hub, get: Any, files: dict[str, bytes], without: list[str], told: str
) -> None:
    left = {
        path: content for path, content in files.items() if path not in (*without, "consolidated.safetensors")
    }
    hub.add("me/lacking", left)
    result = get("--model", "me/lacking")
    assert result.code == 2 and told in result.err and downloads(hub) == []


def test_code_of_a_repository_is_refused_before_the_weights_come(
    hub: Hub, get: Any, tmp_path: Path, files: dict[str, bytes]
) -> None:
    config = {"auto_map": {"AutoModelForCausalLM": "modeling_x.Model"}, "model_type": "x"}
    hub.add("me/coded", {**files, "config.json": json.dumps(config).encode()})
    result = get("--model", "me/coded")
    assert result.code == 2 and "never run" in result.err
    assert downloads(hub) == ["config.json"] and not read_record(tmp_path / "out")
    assert get("--model", "me/coded").code == 2
    assert downloads(hub) == ["config.json"]
    hub.add("me/broken", {**files, "config.json": b"[1]"})
    assert get("--model", "me/broken").code == 2


def test_a_data_set_without_data_is_refused(hub: Hub, get: Any) -> None:
    hub.add("me/script", {"quiz.py": b"raise", "quiz.csv": b"1", "dataset_infos.json": b"{}"}, "dataset")
    result = get("--dataset", "me/script")
    assert result.code == 2 and "refs/convert/parquet" in result.err


# What the hub refuses


def test_what_is_not_there_is_said(hub: Hub, get: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    result = get("--model", "me/none")
    assert result.code == 2 and "me/none" in result.err and "no such model" in result.err
    result = get("qwen3-8b@nowhere")
    assert result.code == 2 and "has no revision 'nowhere'" in result.err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    result = get("--dataset", "me/none")
    assert result.code == 2 and "no such data set" in result.err and TOKEN not in result.err


FAILURES = [
    (401, {}, 2, "hub shows no such model (401)"),
    (403, {}, 2, "accepted its terms"),
    (404, {}, 2, "hub shows no such model (404)"),
    (429, {"RateLimit": '"api";r=0;t=55'}, 1, "wait 55 seconds"),
    (429, {"Retry-After": "\x41soon"}, 1, "wait some minutes"),
    (500, {}, 1, "the hub fails (500)"),
    (200, {}, 1, "cannot be understood"),
]


@pytest.mark.parametrize(("status", "headers", "code", "told"), FAILURES)
def test_a_failing_hub_is_one_message(
    hub: Hub, get: Any, status: int, headers: dict[str, str], code: int, told: str
) -> None:
    hub.failing["/api/models/"] = (status, headers)
    result = get("qwen3-8b")
    assert result.code == code and told in result.err, result.err
    assert "hint:" in result.err and "Traceback" not in result.err and "failing" not in result.err


def test_a_hub_that_fails_in_the_middle_can_be_asked_again(hub: Hub, get: Any, tmp_path: Path) -> None:
    hub.failing["resolve-cache"] = (500, {})
    assert get("qwen3-8b").code == 1
    hub.failing = {"/resolve/": (404, {"X-Error-Code": "EntryNotFound"})}
    assert get("qwen3-8b").code == 2
    hub.failing = {}
    assert get("qwen3-8b").code == 0


def test_a_gated_model_needs_a_token_which_goes_to_the_hub_alone(
    hub: Hub, get: Any, tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("meta/gated", files, gated="manual", allowed=TOKEN, licence="llama3.1")
    page = f"accept its terms at {hub.url}/meta/gated"
    result = get("--model", "meta/gated")
    assert result.code == 2 and page in result.err and "HF_TOKEN" in result.err
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    result = get("--model", "meta/gated")
    assert result.code == 2 and "no access yet" in result.err and "hf_other" not in result.err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.seen.clear()
    result = get("--model", "meta/gated")
    assert result.code == 0, result.err
    assert "llama3.1 (terms to accept)" in result.out and TOKEN not in result.out + result.err
    assert {one.token for one in hub.seen if one.host == "hub"} == {f"Bearer {TOKEN}"}
    assert {one.token for one in hub.seen if one.host == "storage"} == {""}
    assert read_record(tmp_path / "out")["models/gated"].gated
    held = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert held == []


@pytest.mark.parametrize("token", ["hf_a b", "hf_\x00", "hf_é", "a\nb"])
def test_a_token_that_is_none_is_not_shown(
    hub: Hub, get: Any, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    from orch_local.deploy.fetch.hub import _token

    monkeypatch.setattr(os, "environ", {**os.environ, "HF_TOKEN": token})
    with pytest.raises(InputError, match="holds no token") as error:
        _token(hub.url)
    assert token not in str(error.value)


def test_a_token_is_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    from orch_local.deploy.fetch.hub import _token

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert _token("https://mirror.example") == TOKEN
    with pytest.raises(InputError, match="in the clear") as error:
        _token("http://mirror.example")
    assert TOKEN not in str(error.value)


# Names


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("qwen3-8c", "did you mean `qwen3-8b`"),
        ("Qwen/Qwen3-8B", "--model Qwen/Qwen3-8B"),
        ("mmlu@../x", "is no revision"),
        ("none.yaml", "none.yaml"),
    ],
)
def test_a_name_that_is_none_is_refused(hub: Hub, get: Any, name: str, told: str) -> None:
    result = get(name)
    assert result.code == 2 and told in result.err, result.err
    assert not hub.seen


def test_nothing_named_is_refused(hub: Hub, get: Any) -> None:
    assert get().code == 2
    assert get("--model", "a/b/c").code == 2
    assert get("--model", "a--b").code == 2
    assert get("qwen3-8b@a", "qwen3-8b@b").code == 2


def test_a_model_config_with_its_own_path_is_told(hub: Hub, get: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"name: mine\nhub_id: {REPO}\npath: weights\n")
    result = get("mine.yaml")
    assert result.code == 0 and f"your file has {tmp_path / 'weights'}" in result.out, result.err
    (tmp_path / "none.yaml").write_text("name: none\n")
    result = get("none.yaml")
    assert result.code == 2 and "hub_id" in result.err


def test_questions_that_no_hub_has_are_told(hub: Hub, get: Any, tmp_path: Path) -> None:
    values = {
        "benchmark": {"name": "jsonl", "path": "mine.jsonl"},
        "agents": [{"name": "one", "model": "qwen3-8b"}],
        "merge": {"policy": "majority"},
    }
    result = get(str(write_run_file(tmp_path, values)))
    assert result.code == 2 and "mine.jsonl" in result.err and not hub.seen


@given(st.text(max_size=40))
def test_no_name_leads_out_of_the_folder(text: str) -> None:
    for models, datasets in (([text], []), ([], [text])):
        try:
            found = wanted([], models, datasets)
        except InputError:
            continue
        for one in found:
            check_path(one.folder)
            assert one.folder.count("/") == 1


PATHS = st.lists(
    st.sampled_from(
        ["config.json", WEIGHTS, "a", "..", "", ".", "x.parquet", "LICENSE", "\\", "C:", "\u202e", "é", "/"]
    ),
    max_size=4,
).map("/".join)


@given(st.lists(PATHS | st.text(max_size=20), max_size=6), st.sampled_from(["model", "benchmark"]))
def test_no_listing_leads_out_of_the_folder(paths: list[str], kind: Any) -> None:
    listing = [Listed(path, 1, "0" * 40) for path in ["config.json", WEIGHTS, "x.jsonl", *paths]]
    try:
        chosen = choose(Wanted(kind, "x", "a/x"), listing)
    except OrchError:
        return
    for file in chosen:
        check_path(file.path)
        assert not file.path.endswith((".py", ".bin"))


# The record


def a_model(**changes: Any) -> Fetched:
    values: dict[str, Any] = {
        "kind": "model",
        "name": "x",
        "repo": "a/x",
        "revision": "0" * 40,
        "licence": "mit",
    }
    return Fetched(
        **{**values, "gated": False, "files": (FetchedFile("config.json", 2, "0" * 64),), **changes}
    )


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    assert read_record(tmp_path) == {}
    add_to_record(tmp_path, a_model())
    add_to_record(tmp_path, a_model(kind="benchmark"))
    assert read_record(tmp_path) == {"benchmarks/x": a_model(kind="benchmark"), "models/x": a_model()}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../x"},
        {"repo": "a/b/c"},
        {"revision": "main"},
        {"licence": "\x1b[31m"},
        {"kind": "other"},
        {"files": (FetchedFile("../x", 1, "0" * 64),)},
        {"files": (FetchedFile("x", -1, "0" * 64),)},
        {"files": (FetchedFile("x", 1, "0"),)},
    ],
)
def test_a_record_that_says_what_it_may_not_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    add_to_record(tmp_path, a_model())
    text = (tmp_path / FETCHED).read_text()
    values = json.loads(text)
    values["fetched"]["models/x"] = (
        asdict(a_model(**changes)) if changes.get("kind") != "other" else {"kind": "other"}
    )
    (tmp_path / FETCHED).write_text(json.dumps(values))
    with pytest.raises(InputError):
        read_record(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["format", "fetched", "models/x", "kind", "files"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_a_record_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    folder = tmp_path_factory.mktemp("record")
    (folder / FETCHED).write_text(json.dumps({"format": 1, "fetched": value}))
    with contextlib.suppress(OrchError):
        assert isinstance(read_record(folder), dict)


def test_a_terminal_sees_a_bar_and_a_pipe_does_not() -> None:
    from rich.console import Console

    from orch_local.deploy.fetch.terminal import display_for

    for terminal, quiet, told in ((True, False, True), (True, True, False), (False, False, False)):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
        with display_for(console, quiet=quiet).bar("[b]Qwen3", 2_000_000) as came:
            came(1_000_000)
            came(1_000_000)
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert (told and "[b]Qwen3" in shown and "2.0/2.0 MB" in shown) or (not told and shown == "")


def test_two_fetches_into_one_folder_wait_for_each_other(hub: Hub, tmp_path: Path) -> None:
    from filelock import FileLock

    waits: list[float] = []

    class Watching:
        def bar(self, name: str, total: int) -> Any:
            raise AssertionError("it did not wait")

        def waiting(self, seconds: float) -> None:
            waits.append(seconds)
            raise KeyboardInterrupt

    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / getting._LOCK), pytest.raises(KeyboardInterrupt):
        getting.fetch([Wanted("model", "Qwen3-8B", REPO)], tmp_path / "out", Watching(), update=False)
    assert waits and downloads(hub) == []
