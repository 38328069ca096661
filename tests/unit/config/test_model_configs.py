"""The shipped model configs: they parse, their facts agree with each other, and the README lists them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from paths import ROOT

from orch_local.config.model_configs import ModelConfig, load_model_config, model_config_files
from orch_local.config.yaml_files import parse, read_yaml
from orch_local.errors import ConfigError

FOLDER = ROOT / "model_configs"
FILES = sorted(FOLDER.glob("*.yaml"))
README = (FOLDER / "README.md").read_text(encoding="utf-8")
TABLE_ROWS = {
    match[1]: [cell.strip() for cell in match[0].strip("|").split("|")]
    for match in re.finditer(r"^\| \[([^\]]+)\]\(\1\.yaml\) \|.*\|$", README, re.MULTILINE)
}
GIB = 2**30

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


@cache
def read(file: Path) -> ModelConfig:
    return parse(ModelConfig, read_yaml(file), str(file))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ORCH_MODELS_DIR", raising=False)
    monkeypatch.delenv("ORCH_MODEL_CONFIGS", raising=False)
    monkeypatch.chdir(tmp_path)


in_a_clean_place = pytest.mark.usefixtures("elsewhere")


@in_a_clean_place
def test_at_least_ten_models_are_shipped() -> None:
    assert len(FILES) >= 10
    assert {file.stem for file in FILES} <= set(model_config_files())


@each_file
def test_names_the_model_its_source_and_its_licence(file: Path) -> None:
    config = read(file)
    assert config.name == file.stem == file.stem.lower()
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", config.hub_id)
    assert config.licence
    assert config.sources
    assert all("read 20" in source or source.startswith("parameter count: ") for source in config.sources)
    assert config.notes


@each_file
def test_leaves_the_path_to_the_user(file: Path) -> None:
    assert read(file).path is None


@each_file
def test_memory_agrees_with_the_parameters(file: Path) -> None:
    config = read(file)
    assert config.parameters_b and config.memory_gib and config.dtype == "bfloat16"
    in_bfloat16 = config.parameters_b * 1e9 * 2 / GIB
    if config.quantization is None:
        assert config.memory_gib == pytest.approx(in_bfloat16, rel=0.01)
    else:
        assert in_bfloat16 / 4 < config.memory_gib < in_bfloat16 * 0.6


@each_file
def test_the_number_of_gpus_is_left_to_the_placement(file: Path) -> None:
    config = read(file)
    assert config.memory_gib is not None
    assert config.tensor_parallel_size is None
    usable = 80e9 / GIB * config.gpu_memory_utilization
    assert config.memory_gib / 2 < usable
    assert config.max_model_len and config.max_model_len >= 8192


@each_file
def test_think_tags_are_both_given_or_neither(file: Path) -> None:
    config = read(file)
    assert bool(config.think_open) == bool(config.think_close)
    if config.thinking_template_kwargs:
        assert config.think_open
        assert config.thinking_template_kwargs != config.chat_template_kwargs


def test_readme_lists_all_models_with_the_facts_of_their_files() -> None:
    assert set(TABLE_ROWS) == {file.stem for file in FILES}
    for file in FILES:
        config = read(file)
        _, licence, memory, thinking, note = TABLE_ROWS[file.stem]
        expected = "no" if not config.think_open else "yes" if config.thinking_template_kwargs else "always"
        assert (licence, float(memory), thinking) == (config.licence, config.memory_gib, expected)
        assert note


def test_readme_explains_every_key() -> None:
    explained = set(re.findall(r"`([a-z_]+)`", README.split("## Keys")[1].split("## Add a model")[0]))
    assert set(ModelConfig.model_fields) <= explained


@in_a_clean_place
def test_unknown_key_is_refused_with_the_nearest_valid_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nmax_modle_len: 4096\n", encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"unknown key `max_modle_len` \(did you mean `max_model_len`\?\)"
    ) as caught:
        load_model_config(str(file))
    assert str(file) in str(caught.value)


@in_a_clean_place
def test_unknown_name_is_refused_with_the_nearest_model() -> None:
    with pytest.raises(ConfigError, match="qwen3-8b"):
        load_model_config("qwen3-8")


@in_a_clean_place
def test_own_file_replaces_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qwen3-8b.yaml").write_text("name: qwen3-8b\nmax_model_len: 512\n", encoding="utf-8")
    monkeypatch.setenv("ORCH_MODEL_CONFIGS", str(tmp_path))
    assert load_model_config("qwen3-8b").max_model_len == 512


@in_a_clean_place
def test_weights_are_looked_for_by_hub_id_then_by_its_last_part_then_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "weights"
    monkeypatch.setenv("ORCH_MODELS_DIR", str(root))
    assert load_model_config("qwen3-8b").path == root / "qwen3-8b"
    for place in ("qwen3-8b", "Qwen3-8B", "Qwen/Qwen3-8B"):
        (root / place).mkdir(parents=True, exist_ok=True)
        assert load_model_config("qwen3-8b").path == root / place


@in_a_clean_place
def test_path_in_the_file_wins_and_is_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "weights"
    (root / "a" / "b").mkdir(parents=True)
    monkeypatch.setenv("ORCH_MODELS_DIR", str(root))
    file = tmp_path / "configs" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("name: mine\nhub_id: a/b\npath: ../own\n", encoding="utf-8")
    assert load_model_config(str(file)).path == tmp_path / "own"


@in_a_clean_place
def test_without_the_variable_weights_are_looked_for_under_models(tmp_path: Path) -> None:
    assert load_model_config("phi-4").path == tmp_path / "models" / "phi-4"
