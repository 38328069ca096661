"""Models are found where they lie: in ORCH_MODELS_DIR, with or without a config, and in caches of the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from running import Cli
from safetensors.numpy import save_file

from orch_local.config.model_configs import ModelConfig, find_model, load_model_config
from orch_local.config.model_search import hub_id_of, is_hub_id, model_folders, snapshot_of
from orch_local.config.run_files import load_run
from orch_local.errors import ConfigError, ModelError
from orch_local.models.folders import open_model_folder

COMMITS = ("1" * 40, "2" * 40)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """ORCH_MODELS_DIR, empty; no cache of the hub but those that a test makes."""
    for name in ("HF_HUB_CACHE", "HF_HOME", "ORCH_MODEL_CONFIGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ORCH_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def folder(place: Path) -> Path:
    """A folder that is taken for a model."""
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}", encoding="utf-8")
    return place


def repository(cache: Path, hub_id: str, *commits: str, main: str = "") -> Path:
    """A repository in a hub cache: blobs, snapshots that link to them, and where its main branch is."""
    place = cache / f"models--{hub_id.replace('/', '--')}"
    (place / "blobs").mkdir(parents=True)
    (place / "blobs" / "b0").write_text("{}", encoding="utf-8")
    for commit in commits:
        (place / "snapshots" / commit).mkdir(parents=True)
        (place / "snapshots" / commit / "config.json").symlink_to("../../blobs/b0")
    if main:
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(main, encoding="utf-8")
    return place


# --- folders without a config


@pytest.mark.parametrize("name", ["My-Model", "owner/My-Model"])
def test_a_folder_without_a_config_is_found_by_its_name(root: Path, name: str) -> None:
    place = folder(root / name)
    assert load_model_config(name) == ModelConfig(name="My-Model", path=place)
    assert find_model(name) == place


def test_a_link_has_its_own_name(root: Path, tmp_path: Path) -> None:
    place = folder(tmp_path / "disk" / "a1b2c3")
    (root / "My-Model").symlink_to(place)
    assert load_model_config("My-Model") == ModelConfig(name="My-Model", path=place)


def test_a_name_means_a_config_first(root: Path, tmp_path: Path) -> None:
    folder(root / "qwen3-8b")
    config = load_model_config("qwen3-8b")
    assert (config.hub_id, config.path) == ("Qwen/Qwen3-8B", root / "qwen3-8b")
    # A folder that the config is about is that config's model, under whatever name.
    folder(root / "Qwen3-8B")
    for name in ("Qwen3-8B", "Qwen/Qwen3-8B"):
        assert load_model_config(name) == load_model_config("qwen3-8b")
    # The path of a folder is that folder, with defaults.
    assert load_model_config(str(root / "Qwen3-8B")) == ModelConfig(name="Qwen3-8B", path=root / "Qwen3-8B")
    assert tmp_path in root.parents


def test_an_unknown_name_is_refused_with_the_nearest(root: Path) -> None:
    folder(root / "My-Model")
    (root / "no-model").mkdir()
    for name in ("My-Modell", "no-model", "owner/My-Model"):
        with pytest.raises(ConfigError, match="no model config and no model folder is named"):
            load_model_config(name)
    with pytest.raises(ConfigError) as caught:
        load_model_config("My-Modell")
    assert "did you mean `My-Model`?" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        load_model_config("xyz/zyx")
    assert "`orch-local fetch --model xyz/zyx --to DIR --allow-network`" in caught.value.hint


def test_all_folders_are_listed(root: Path, cli: Cli, tmp_path: Path) -> None:
    folder(root / "My-Model")
    folder(root / "owner" / "Other")
    folder(root / "Qwen3-8B")
    (root / "nothing").mkdir()
    (root / "file").write_text("", encoding="utf-8")
    repository(root, "owner/Cached", COMMITS[0])
    repository(root / "hub", "owner/Several", *COMMITS)
    repository(tmp_path / "home/.cache/huggingface/hub", "microsoft/phi-4", COMMITS[0])
    names = {"My-Model", "owner/Other", "Qwen3-8B", "owner/Cached", "owner/Several", "microsoft/phi-4"}
    assert {name for name, _ in model_folders()} == names
    lines = {line.split()[0]: line for line in cli("models").out.splitlines() if line.split()}
    for name in ("My-Model", "owner/Other", "owner/Cached", "owner/Several"):
        assert lines[name].endswith("found; no config, defaults")
    assert lines["qwen3-8b"].endswith("found")
    assert lines["phi-4"].endswith("found")
    assert lines["qwen3-32b"].endswith("not here")
    assert not {"Qwen3-8B", "microsoft/phi-4", "nothing", "file"} & lines.keys()


# --- caches of the hub


def test_where_a_cache_may_be(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home/.cache/huggingface"
    caches = (root, root / "hub", home / "hub", tmp_path / "hf/hub", tmp_path / "own")
    for number, cache in enumerate(caches):
        place = repository(cache, f"owner/M{number}", COMMITS[0])
        if number == 3:
            monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        if number == 4:
            monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "own"))
        config = load_model_config(f"owner/M{number}")
        expected = place / "snapshots" / COMMITS[0]
        assert config == ModelConfig(name=f"M{number}", hub_id=f"owner/M{number}", path=expected)


def test_the_weights_of_a_config_are_found_in_a_cache(root: Path) -> None:
    place = repository(root, "Qwen/Qwen3-8B", *COMMITS, main=COMMITS[1] + "\n") / "snapshots" / COMMITS[1]
    for name in ("qwen3-8b", "Qwen3-8B", "Qwen/Qwen3-8B"):
        assert load_model_config(name).path == place
        assert load_model_config(name).think_open == "<think>"
    folder(root / "Qwen3-8B")  # what lies there by its name goes first
    assert load_model_config("qwen3-8b").path == root / "Qwen3-8B"


def test_a_path_in_a_config_may_name_a_repository(root: Path, tmp_path: Path) -> None:
    place = repository(tmp_path / "cache", "owner/M", COMMITS[0])
    (tmp_path / "mine.yaml").write_text("name: mine\npath: cache/models--owner--M\n", encoding="utf-8")
    assert load_model_config("mine.yaml").path == place / "snapshots" / COMMITS[0]
    assert root.is_dir()


def test_which_snapshot_is_taken(tmp_path: Path) -> None:
    first, second = COMMITS
    one = repository(tmp_path / "one", "o/m", first)
    assert snapshot_of(one) == one / "snapshots" / first
    main = repository(tmp_path / "main", "o/m", first, second, main=second)
    assert snapshot_of(main) == main / "snapshots" / second
    gone = repository(tmp_path / "gone", "o/m", first, main=second)
    assert snapshot_of(gone) == gone / "snapshots" / first
    assert snapshot_of(repository(tmp_path / "none", "o/m")) is None
    assert snapshot_of(tmp_path) is None
    for number, branch in enumerate(("", "3" * 40, "../..", "\xff", ".", "x" * 10_000)):
        several = repository(tmp_path / str(number), "o/m", first, second, main=branch)
        with pytest.raises(ModelError, match=f"holds 2 snapshots.*{first}, {second}") as caught:
            snapshot_of(several)
        assert str(several / "snapshots" / first) in caught.value.hint


def test_a_repository_or_snapshot_by_its_path_has_the_name_of_the_model(tmp_path: Path) -> None:
    place = repository(tmp_path / "cache", "owner/My.Model", COMMITS[0])
    snapshot = place / "snapshots" / COMMITS[0]
    for path in (place, snapshot):
        assert load_model_config(str(path)) == ModelConfig(
            name="My.Model", hub_id="owner/My.Model", path=snapshot
        )


def test_hub_ids() -> None:
    assert is_hub_id("Qwen/Qwen3-8B")
    for name in ("Qwen3-8B", "./Qwen3-8B", "../a/b", "a/b/c", "a/b.yaml", "/a/b", "~/a", "a/", "a/..", ""):
        assert not is_hub_id(name)
    assert hub_id_of(Path("/x/models--a--b--c")) == "a/b--c"
    assert hub_id_of(Path("/x/models--a--b/snapshots/123")) == "a/b"
    for path in ("/x/models--a", "/x/datasets--a--b", "/x/a", "/models--a--b/blobs"):
        assert hub_id_of(Path(path)) == ""


def test_a_whole_model_in_a_cache_is_usable(root: Path) -> None:
    place = repository(root, "owner/Tiny", COMMITS[0]) / "snapshots" / COMMITS[0]
    save_file({"weight": np.zeros(4, np.float32)}, place.parents[1] / "blobs" / "b1")
    (place / "model.safetensors").symlink_to("../../blobs/b1")
    assert open_model_folder(load_model_config("owner/Tiny")).path == place
    # Links into the blobs of another repository, or beside the blobs, are refused as ever.
    other = repository(root, "owner/Other", COMMITS[1])
    (place / "config.json").unlink()
    (place / "config.json").symlink_to(other / "blobs" / "b0")
    with pytest.raises(ModelError, match="is a link out of the model folder"):
        open_model_folder(load_model_config("owner/Tiny"))


def test_a_cache_copied_without_its_links_is_told(root: Path) -> None:
    place = repository(root, "owner/Tiny", COMMITS[0]) / "snapshots" / COMMITS[0]
    (place / "config.json").unlink()
    (place / "config.json").write_text("../../blobs/b0", encoding="utf-8")
    with pytest.raises(ModelError, match=r"is the text of a link: \.\./\.\./blobs/b0") as caught:
        open_model_folder(load_model_config("owner/Tiny"))
    assert "copied without its links" in caught.value.hint


# --- run files


def test_names_of_the_hub_in_run_files(tmp_path: Path, root: Path) -> None:
    run = tmp_path / "runs" / "run.yaml"
    run.parent.mkdir()
    run.write_text(
        "benchmark: {name: jsonl, path: q.jsonl}\nmerge: {policy: majority}\n"
        "agents:\n- {name: a, model: owner/M}\n- {name: b, model: M}\n- {name: c, model: ./owner/M}\n",
        encoding="utf-8",
    )
    assert [agent.model for agent in load_run(run).agents] == [
        "owner/M",
        "M",
        str(tmp_path / "runs/owner/M"),
    ]
    folder(tmp_path / "runs/owner/M")  # a folder that lies there goes first, as it always did
    assert load_run(run).agents[0].model == str(tmp_path / "runs/owner/M")
    assert root.is_dir()
