"""Model configs: which file or folder a model name stands for, and what it needs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from orch_local.config.blocks import Block, DType, Name
from orch_local.config.model_search import (
    find_folder,
    find_in_caches,
    hub_id_of,
    is_folder,
    is_hub_id,
    is_path,
    model_folders,
    models_root,
    snapshot_of,
    with_home,
)
from orch_local.config.yaml_files import nearest, parse, read_yaml
from orch_local.errors import ConfigError


class ModelConfig(Block):
    """One flat file of `model_configs/`: where a model is, what it needs, how vLLM loads it."""

    name: Name
    hub_id: str = Field(default="", description="Where the weights come from, as owner/name on the hub.")
    path: Path | None = Field(
        default=None,
        description="Local folder; none looks for it in ORCH_MODELS_DIR by hub_id, then by name, then in the "
        "hub's cache.",
    )
    licence: str = ""
    parameters_b: float | None = Field(
        default=None, gt=0, description="Parameters in 10^9, all experts counted."
    )
    memory_gib: float | None = Field(default=None, gt=0, description="GPU memory of the weights alone.")
    think_open: str | None = Field(default=None, description="Tag that opens a thought, e.g. <think>.")
    think_close: str | None = Field(
        default=None,
        description="All that stands between a thought and the answer, e.g. </think> and two line breaks.",
    )
    chat_template_kwargs: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="Passed to the chat template, e.g. enable_thinking."
    )
    thinking_template_kwargs: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="Instead of chat_template_kwargs where the agent thinks."
    )
    system_role: bool | None = Field(
        default=None,
        description="Whether the system text has a turn of its own; none looks whether the chat template "
        "writes it.",
    )
    answer_prefix: str = Field(
        default="",
        description="Text before an answer without a thought, e.g. a channel header.",
    )
    dtype: DType = "auto"
    quantization: str | None = None
    max_model_len: int | None = Field(default=None, ge=16)
    best_level: Literal["bitwise", "verified"] | None = Field(
        default=None, description="The level to expect on a GPU, as far as it is known."
    )
    tested: str = Field(
        default="", description="Who has tried whether its bytes stay the same in another batch."
    )
    tensor_parallel_size: int | None = Field(
        default=None,
        ge=1,
        description="GPUs that share each layer; none takes the number by which a row costs least.",
    )
    pipeline_parallel_size: int = Field(default=1, ge=1)
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    kv_cache_dtype: str = "auto"
    max_num_seqs: int = Field(default=256, ge=1)
    cpu_kv_cache_gib: float = Field(default=1.0, gt=0, description="KV cache on a CPU.")
    vllm_args: dict[str, Any] = Field(
        default_factory=dict, description="Any further keyword arguments of vllm.EngineArgs."
    )
    sources: tuple[str, ...] = Field(default=(), description="Where the facts of this file were read.")
    notes: str = ""

    def template_options(self, *, thinking: bool) -> dict[str, bool | int | float | str]:
        """Keyword arguments for the chat template."""
        return dict(self.thinking_template_kwargs if thinking else self.chat_template_kwargs)


def config_folders() -> list[Path]:
    """Folders searched for model configs: ORCH_MODEL_CONFIGS, ./model_configs, the shipped ones."""
    named = os.environ.get("ORCH_MODEL_CONFIGS")
    folders = [Path(named)] if named else []
    folders += [Path.cwd() / "model_configs", *_shipped_folders()]
    return list(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def _shipped_folders() -> list[Path]:
    package = Path(__file__).resolve().parents[1]
    return [package / "model_configs", package.parent / "model_configs"]


def load_model_config(name: str) -> ModelConfig:
    """The model config that a run file names; see :func:`find_model`.

    The returned ``path`` is absolute. A model folder without a config gets all defaults.

    Raises
    ------
    ConfigError
        If nothing of that name is found, or the file is not valid.
    ModelError
        If a hub cache has several snapshots of the model and does not say which is meant.
    """
    found = find_model(name)
    if not is_folder(found):
        return _read_model_config(found)
    path = found.resolve()
    hub_id = hub_id_of(path)
    own = os.path.basename(os.path.abspath(found))  # noqa: PTH100, PTH119 - that of a link, not of its target
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", hub_id.split("/")[-1] or own)
    return ModelConfig(name=safe.lstrip("._-")[:64] or "model", hub_id=hub_id, path=path)


def find_model(name: str) -> Path:
    """The model config file or the model folder that a name stands for.

    That is, in this order: the name of a config file; the path of a config file, of a model folder, or of a
    repository in a hub cache; the ``hub_id`` of a config, or its last part; the name of a folder in
    ORCH_MODELS_DIR; the id of a repository in a hub cache.

    Raises
    ------
    ConfigError
        If nothing of that name is found.
    ModelError
        If a hub cache has several snapshots of the model and does not say which is meant.
    """
    path = with_home(Path(name))
    known = model_config_files()
    # A bare name means a config first: a folder that happens to lie here must not take its place.
    if name in known:
        return known[name]
    if is_folder(path):
        return snapshot_of(path.resolve()) or path
    if is_path(name) and (not is_hub_id(name) or path.exists()):
        return path
    found = _by_hub_id(name, known) or find_folder(name)
    if found is None:
        hint = _how_to_name(name, [*known, *dict(model_folders())])
        raise ConfigError(f"no model config and no model folder is named {name!r}", hint=hint)
    return found


def _how_to_name(name: str, known: Sequence[str]) -> str:
    listed = "`orch-local models` lists the names; the path of a model folder will do as well"
    close = nearest(name, known).strip(" ()")
    if close.startswith("did"):
        return f"{close} {listed}"
    fetch = f"`orch-local fetch --model {name} --to DIR --allow-network` on a connected machine fetches it"
    return f"{listed}; {fetch}" if is_hub_id(name) else listed


def _by_hub_id(name: str, known: Mapping[str, Path]) -> Path | None:
    """The config of a repository of the hub, by its id or the last part of that."""
    for file in known.values():
        try:
            hub_id = str(read_yaml(file).get("hub_id", ""))
        except ConfigError:
            continue  # a run that names that file gets the error
        if hub_id and name in (hub_id, hub_id.split("/")[-1]):
            return file
    return None


def is_shipped(name: str) -> bool:
    """Whether a name of a model stands for a config that came with orch-local."""
    return find_model(name).resolve().parent in _shipped_folders()


def model_config_files() -> dict[str, Path]:
    """All model configs by name (the name of the file), those of earlier folders first."""
    found: dict[str, Path] = {}
    for folder in config_folders():
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return found


def _read_model_config(file: Path) -> ModelConfig:
    config = parse(ModelConfig, read_yaml(file), str(file))
    return config.model_copy(update={"path": _model_path(config, file)})


def _model_path(config: ModelConfig, file: Path) -> Path:
    """Where the weights should be; whether they are there is for `models.py` to say."""
    if config.path is not None:
        path = Path(os.path.abspath(file.parent / with_home(config.path)))  # noqa: PTH100 - keeps symlinks
        return snapshot_of(path) or path
    named = models_root() / config.name
    if not config.hub_id:
        return named
    places = (models_root() / config.hub_id, models_root() / config.hub_id.split("/")[-1], named)
    return next(filter(is_folder, places), None) or find_in_caches(config.hub_id) or named
