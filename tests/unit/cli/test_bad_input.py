"""Bad input gives one clear message and exit code 2, before any model is loaded, and loses nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from running import Cli, CliResult, write_run_file


@pytest.fixture
def own_model(models_dir: Path, tmp_path: Path) -> Path:
    """A copy of a good model folder that a test may damage."""
    return Path(shutil.copytree(models_dir / "first", tmp_path / "model"))


def refused(result: CliResult, *parts: str) -> None:
    """The command was refused with one message that holds all ``parts``."""
    assert result.code == 2, result
    assert result.err.startswith("error: "), result.err
    assert "Traceback" not in result.err
    assert len(result.err.splitlines()) <= 3
    for part in parts:
        assert part in result.err, result.err


def with_model(tmp_path: Path, values: dict[str, Any], model: Path | str) -> Path:
    """The run file with another model for its first agent."""
    values["agents"][0]["model"] = str(model)
    return write_run_file(tmp_path, values)


def test_yaml_syntax_error_names_the_line(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("benchmark: {name: jsonl\nagents: [", encoding="utf-8")
    refused(cli("run", file), "run.yaml, line 2", "not valid YAML")


def test_missing_run_file(cli: Cli) -> None:
    refused(cli("run", "nothing.yaml"), "nothing.yaml", "no such file")


def test_unknown_key_names_the_nearest(cli: Cli, tmp_path: Path, run_values: dict[str, Any]) -> None:
    run_values["agents"][1]["promt"] = "x"
    refused(cli("run", write_run_file(tmp_path, run_values)), "agents.1.promt", "did you mean `prompt`?")


def test_two_agents_of_one_name(cli: Cli, tmp_path: Path, run_values: dict[str, Any]) -> None:
    run_values["agents"][1]["name"] = "first"
    refused(cli("run", write_run_file(tmp_path, run_values)), "two agents are named 'first'")


def test_an_agent_named_as_the_merge_agent(cli: Cli, tmp_path: Path, run_values: dict[str, Any]) -> None:
    run_values["agents"][1]["name"] = "merge"
    refused(cli("run", write_run_file(tmp_path, run_values)), "'merge'")


def test_two_agents_that_differ_in_name_only(cli: Cli, tmp_path: Path, run_values: dict[str, Any]) -> None:
    run_values["agents"][1] = {**run_values["agents"][0], "name": "twin"}
    refused(cli("run", write_run_file(tmp_path, run_values)), "'first' and 'twin' are the same")


def test_unknown_model_name_lists_the_nearest(cli: Cli, tmp_path: Path, run_values: dict[str, Any]) -> None:
    refused(cli("run", with_model(tmp_path, run_values, "qwen3-8")), "'qwen3-8'", "qwen3-8b")


def test_missing_model_folder(cli: Cli, tmp_path: Path, run_values: dict[str, Any]) -> None:
    refused(cli("run", with_model(tmp_path, run_values, "qwen3-8b")), "does not exist", "ORCH_MODELS_DIR")


def test_missing_weights(cli: Cli, tmp_path: Path, run_values: dict[str, Any], own_model: Path) -> None:
    (own_model / "model.safetensors").unlink()
    refused(cli("run", with_model(tmp_path, run_values, own_model)), "no *.safetensors")


def test_corrupt_weights(cli: Cli, tmp_path: Path, run_values: dict[str, Any], own_model: Path) -> None:
    weights = own_model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(
        cli("run", with_model(tmp_path, run_values, own_model)),
        "model.safetensors",
        "not a whole safetensors file",
    )


def test_pickled_weights(cli: Cli, tmp_path: Path, run_values: dict[str, Any], own_model: Path) -> None:
    (own_model / "model.safetensors").rename(own_model / "pytorch_model.bin")
    refused(cli("run", with_model(tmp_path, run_values, own_model)), "pickled", "safetensors")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_missing_model_file(
    cli: Cli, tmp_path: Path, run_values: dict[str, Any], own_model: Path, name: str
) -> None:
    (own_model / name).unlink()
    refused(cli("run", with_model(tmp_path, run_values, own_model)), name)


def test_no_chat_template(cli: Cli, tmp_path: Path, run_values: dict[str, Any], own_model: Path) -> None:
    file = own_model / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    del settings["chat_template"]
    file.write_text(json.dumps(settings), encoding="utf-8")
    refused(cli("run", with_model(tmp_path, run_values, own_model)), "no chat template")


def test_unknown_architecture(cli: Cli, tmp_path: Path, run_values: dict[str, Any], own_model: Path) -> None:
    file = own_model / "config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings |= {"model_type": "gpt-9", "architectures": ["Gpt9ForCausalLM"]}
    file.write_text(json.dumps(settings), encoding="utf-8")
    refused(cli("run", with_model(tmp_path, run_values, own_model)), "Gpt9ForCausalLM", "vllm")


def test_empty_benchmark(cli: Cli, tmp_path: Path, run_file: Path) -> None:
    (tmp_path / "questions.jsonl").write_text("", encoding="utf-8")
    refused(cli("run", run_file), "questions.jsonl")


def test_missing_benchmark(cli: Cli, tmp_path: Path, run_file: Path) -> None:
    (tmp_path / "questions.jsonl").unlink()
    refused(cli("run", run_file), "questions.jsonl")


def test_bad_row_names_file_row_and_reason(cli: Cli, tmp_path: Path, run_file: Path) -> None:
    file = tmp_path / "questions.jsonl"
    bad = {"question": "Which?", "choices": ["a", "b"], "answer": "C"}
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(bad) + "\n")
    refused(cli("run", run_file), "questions.jsonl", "13", "skip-bad-rows")
    assert cli("plan", run_file, "--skip-bad-rows").code == 0


def test_not_enough_memory(cli: Cli, run_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orch_local.placement.machine.free_memory_gib", lambda: 0.5)
    refused(cli("run", run_file), "not enough memory", "0.5 GiB")
    refused(cli("plan", run_file), "not enough memory", "0.5 GiB")


def test_unwritable_output(cli: Cli, tmp_path: Path, run_file: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    refused(cli("run", run_file, "--out", "file/run"), "cannot be written")


def test_answer_longer_than_the_context(cli: Cli, tmp_path: Path, run_values: dict[str, Any]) -> None:
    run_values["answer"]["reasoning_chars"] = 8000
    refused(cli("run", write_run_file(tmp_path, run_values)), "max_model_len", "reasoning_chars")


def test_thinking_without_tags(cli: Cli, tmp_path: Path, run_values: dict[str, Any], own_model: Path) -> None:
    tokenizer = own_model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text(encoding="utf-8").replace("think>", "other>"), encoding="utf-8")
    run_values["agents"][0]["thinking"] = True
    refused(cli("run", with_model(tmp_path, run_values, own_model)), "no thinking tags", "think_open")


def test_broken_prompt_template(cli: Cli, tmp_path: Path, run_values: dict[str, Any]) -> None:
    (tmp_path / "mine.txt").write_text("[user]\n{{ qestion }}\n", encoding="utf-8")
    run_values["agents"][0]["prompt"] = "mine.txt"
    refused(cli("run", write_run_file(tmp_path, run_values)), "qestion", "question")


def test_show_of_an_unknown_question(cli: Cli, tmp_path: Path) -> None:
    refused(cli("show", tmp_path, "abc"), str(tmp_path))


def test_nothing_is_written_before_all_is_checked(
    cli: Cli, tmp_path: Path, run_values: dict[str, Any], own_model: Path
) -> None:
    (own_model / "model.safetensors").unlink()
    refused(cli("run", with_model(tmp_path, run_values, own_model), "--out", "runs/x"), "safetensors")
    assert not (tmp_path / "runs").exists()


def test_models_wait_where_memory_holds_one(
    cli: Cli, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orch_local.placement.machine.cpu_cores", lambda: 2)
    monkeypatch.setattr("orch_local.placement.machine.free_memory_gib", lambda: 4.0)
    planned = cli("plan", run_file)
    assert planned.code == 0
    assert "worker 0" in planned.out and "worker 1" not in planned.out


def test_a_machine_that_is_none(cli: Cli, run_file: Path) -> None:
    for written in ("4", "0x80GiB", "4x0", "4x80TiB", "x80", "4xH100", "-1x80GiB"):
        refused(cli("plan", run_file, f"--machine={written}"), "--machine", "4x80GiB")


def test_show_wants_a_question_or_the_timeline(cli: Cli, tmp_path: Path) -> None:
    refused(cli("show", tmp_path), "--timeline")
    refused(cli("show", tmp_path, "abc", "--timeline"), "not both")
    refused(cli("show", tmp_path, "--timeline"), "has no timeline", str(tmp_path))


def test_a_demo_folder_that_is_a_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    refused(cli("demo", "--out", "taken"), "taken", "cannot be written")
