"""Plans of the shipped models on four machines: `python tests/support/golden_plans.py` writes the table anew.

Read the difference then, as one who runs such machines: would you do the same?
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from paths import ROOT, TESTS

from orch_local.config.model_configs import ModelConfig
from orch_local.config.yaml_files import parse, read_yaml
from orch_local.engines.base import EngineSettings
from orch_local.errors import InputError
from orch_local.models.folders import ModelFolder
from orch_local.placement.estimates import Load, LoadedModel, best_tensor_parallel, job, need
from orch_local.placement.machine import Machine, read_machine
from orch_local.placement.placing import place

GOLDEN = TESTS / "golden"
TABLE = GOLDEN / "plans.txt"
SHAPES = GOLDEN / "model_shapes.json"
"""What of each shipped model's config.json its memory and speed depend on."""
CONFIGS = ROOT / "model_configs"
MACHINES = ("1x24GiB", "1x80GiB", "4x80GiB", "8x141GiB")
ROWS = Load(10_000, 5_000_000, 1_500_000)
LONGEST = 4096
HEAD = """\
One agent with 10,000 rows of 500 tokens of prompt and 150 of answer, the longest 4,096 together.
GPUs: that share the model. Need: GiB on each with one longest row. At once: rows of the length of these.
Fits: the longest row that there is room for, at most the model's context. Hours: of all rows, with the load.
"""
_ARGS = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "max_num_seqs",
    "gpu_memory_utilization",
    "kv_cache_dtype",
)
_COLUMNS = "{:<32}{:>5}{:>10}{:>9}{:>7}{:>9}{:>9}{:>8}"


def shapes() -> Mapping[str, Mapping[str, Any]]:
    """By name of the model config."""
    values: Mapping[str, Mapping[str, Any]] = json.loads(SHAPES.read_text(encoding="utf-8"))
    return values


def table() -> str:
    """The whole file."""
    with tempfile.TemporaryDirectory() as folder:
        models = [_loaded(file, Path(folder)) for file in sorted(CONFIGS.glob("*.yaml"))]
        return "\n".join([HEAD, *(line for text in MACHINES for line in _machine(text, models))]) + "\n"


def _loaded(file: Path, folder: Path) -> LoadedModel:
    """A model with weights of its true size that take no room on the disk."""
    config = parse(ModelConfig, read_yaml(file), str(file))
    assert config.memory_gib is not None
    folder /= file.stem
    folder.mkdir()
    shape = shapes()[file.stem]
    (folder / "config.json").write_text(json.dumps(shape), encoding="utf-8")  # whether it is recurrent
    weights = folder / "model.safetensors"
    with weights.open("wb") as stream:
        stream.truncate(round(config.memory_gib * 2**30))
    settings = EngineSettings(
        name="vllm",
        model_path=folder,
        device="cuda",
        grammar="guidance",
        dtype="bfloat16",
        max_model_len=config.max_model_len or 32768,
        args={name: getattr(config, name) for name in _ARGS},
        longest=LONGEST,
    )
    return LoadedModel(config, settings, ModelFolder(folder, shape, (weights,)))


def _machine(text: str, models: list[LoadedModel]) -> Iterator[str]:
    machine = read_machine(text)
    heads = ("GPUs", "replicas", "weights", "need", "fits", "at once", "hours")
    yield _COLUMNS.format(text, *heads)
    for model in models:
        yield _row(model, machine).rstrip()
    yield ""


def _row(model: LoadedModel, machine: Machine) -> str:
    size = best_tensor_parallel(model, machine)
    settings = replace(model.settings, args={**model.settings.args, "tensor_parallel_size": size})
    shared = model._replace(settings=settings)
    needed = need(shared, ROWS, machine)
    try:
        placement = place(machine, [job(model.config.name, shared, needed)], None, per_gpu=1)
    except InputError as error:
        return f"{model.config.name:<32}{error.message}; {error.hint}"
    return _COLUMNS.format(
        model.config.name,
        size,
        len(placement.replicas),
        f"{model.folder.weight_bytes / 2**30:.1f}",
        f"{needed.memory_gib:.1f}",
        f"{min(needed.fitting, settings.max_model_len):,}",
        needed.sequences,
        f"{placement.seconds / 3600:.2f}",
    )


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
