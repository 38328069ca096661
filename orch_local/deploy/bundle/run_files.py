"""Run files for another machine: everything that they name goes along, and is named from where it lies there.

A run digest covers contents, not paths: the run of the rewritten file is the run of the old one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orch_local.config.model_configs import ModelConfig, load_model_config
from orch_local.config.run_files import RunConfig, load_run
from orch_local.config.yaml_files import parse
from orch_local.deploy.bundle.contents import (
    BundleSource,
    benchmark_content,
    benchmark_files,
    folder_name,
    free_name,
    model_content,
    model_files,
    split_files,
    whole_benchmark,
)
from orch_local.deploy.bundle.manifest import Content
from orch_local.errors import ConfigError

MODELS, BENCHMARKS, RUN_FILES = "models", "benchmarks", "run-files"


class _Dumper(yaml.SafeDumper):
    """Quotes what our reader takes for a number and PyYAML does not, such as an agent named 1e5."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@dataclass
class PackedFiles:
    """What has been packed so far. Each model folder and benchmark goes along once, whoever names it."""

    sources: dict[str, BundleSource] = field(default_factory=dict)
    """By place in the bundle."""
    texts: dict[str, str] = field(default_factory=dict)
    """Files that are written anew, by place in the bundle."""
    models: dict[Path, Content] = field(default_factory=dict)
    benchmarks: dict[Path, Content] = field(default_factory=dict)
    run_files: list[str] = field(default_factory=list)

    def add(self, sources: list[BundleSource]) -> None:
        """Take files along."""
        self.sources |= {source.to: source for source in sources}

    def model(self, name: str) -> str:
        """Take a model along, with its config; returns the place of the config.

        Raises
        ------
        ConfigError, ModelError
            If it is not there, not safe, or names files of this machine.
        """
        config = load_model_config(name)
        assert config.path is not None
        _check_arguments(config)
        real = config.path.resolve()
        if real not in self.models:
            # Where ORCH_MODELS_DIR names the folder of the models, it is found by this name, too.
            names = [content.name for content in self.models.values()]
            folder = f"{MODELS}/{free_name(config.name, names)}"
            self.add(model_files(config, folder))
            self.models[real] = model_content(config, folder)
        values = config.model_dump(mode="json", exclude_defaults=True)
        text = _yaml(values | {"path": self.models[real].name})
        parse(ModelConfig, yaml.safe_load(text), name)
        return self._text(MODELS, config.name, text)

    def benchmark(self, path: Path, files: list[Path]) -> str:
        """Take files of a benchmark along; returns what names ``path`` in the bundle."""
        real = path.resolve()
        if real not in self.benchmarks:
            names = [content.name for content in self.benchmarks.values()]
            folder = f"{BENCHMARKS}/{folder_name(path, names)}"
            self.benchmarks[real] = benchmark_content(path, folder)
        folder = self.benchmarks[real].folder
        self.add(benchmark_files(path, files, folder))
        return folder if path.is_dir() else f"{folder}/{path.name}"

    def whole(self, path: Path) -> None:
        """Take a benchmark along that no run file names."""
        path = path.absolute()
        self.benchmark(path, whole_benchmark(path))

    def run(self, file: Path) -> None:
        """Take a run file along, with all that it names.

        Raises
        ------
        ConfigError, BenchmarkError, ModelError
            If it is not valid, or something that it names is not there.
        """
        config = load_run(file)
        name = free_name(file.stem, [Path(path).stem for path in self.run_files])
        values = config.model_dump(mode="json", exclude_defaults=True, exclude={"slurm"})
        self._rewrite(values, config, name)
        text = _yaml(values)
        place = f"{RUN_FILES}/{name}.yaml"
        _check_same(text, values, place)
        self.texts[place] = text
        self.run_files.append(place)

    def _rewrite(self, values: dict[str, Any], config: RunConfig, name: str) -> None:
        """Put the places in the bundle into the values of a run file."""
        benchmark = self.benchmark(config.benchmark.path, split_files(config.benchmark))
        values["benchmark"]["path"] = f"../{benchmark}"
        for block, agent in zip(values["agents"], config.agents, strict=True):
            self._agent(block, agent.model, agent.prompt, name)
        if config.merge.model is not None:
            self._agent(values["merge"], config.merge.model, config.merge.prompt, name)
        elif config.merge.prompt is not None:
            del values["merge"]["prompt"]  # nobody reads it
        if config.engine.table is not None:
            values["engine"]["table"] = self._beside(config.engine.table, name)
        for key in ("state", "profile"):
            path = getattr(config.router, key, None)
            if path is not None:
                values["router"][key] = self._beside(path, name)

    def _agent(self, block: dict[str, Any], model: str, prompt: Path | None, name: str) -> None:
        block["model"] = f"../{self.model(model)}"
        if prompt is not None:
            block["prompt"] = self._beside(prompt, name)

    def _beside(self, file: Path, name: str) -> str:
        """Take a small file along, in a folder named as the run file; returns its path from there."""
        if not file.is_file():
            raise ConfigError("no such file", where=str(file), hint="the run file names it")
        folder = f"{RUN_FILES}/{name}"
        there = {source.file: to for to, source in self.sources.items() if to.startswith(f"{folder}/")}
        if file not in there:
            # Two prompts may have one name, in two folders.
            stem = free_name(file.stem, [Path(to).stem for to in there.values()])
            there[file] = f"{folder}/{stem}{file.suffix}"
            self.add([BundleSource(file, there[file])])
        return there[file].removeprefix(f"{RUN_FILES}/")

    def _text(self, folder: str, name: str, text: str) -> str:
        """Place a text; one of the same name and content is the same."""
        same = f"{folder}/{name}.yaml"
        if self.texts.get(same, text) != text:
            names = [Path(place).stem for place in self.texts if place.startswith(f"{folder}/")]
            same = next(
                (
                    place
                    for place, other in self.texts.items()
                    if place.startswith(f"{folder}/") and other == text
                ),
                f"{folder}/{free_name(name, names)}.yaml",
            )
        self.texts[same] = text
        return same


def pack(
    run_files: list[Path], models: list[str], benchmarks: list[Path], notify: Callable[[str], None]
) -> PackedFiles:
    """Look for everything that goes along beside the wheels; nothing is copied yet."""
    packed = PackedFiles()
    for file in run_files:
        notify(f"run file {file.name}")
        packed.run(file)
    for name in models:
        packed.model(name)
    for path in benchmarks:
        packed.whole(path)
    return packed


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _check_same(text: str, values: dict[str, Any], where: str) -> None:
    """What is read from the new file must be what was meant: it is another program's YAML."""
    if parse(RunConfig, yaml.safe_load(text), where) != parse(RunConfig, values, where):
        raise ConfigError("cannot be written so that it is read the same", where=where)


def _check_arguments(config: ModelConfig) -> None:
    """Arguments for vLLM may name files that nobody takes along."""
    for name, value in sorted(config.vllm_args.items()):
        for path in _absolute(value):
            raise ConfigError(
                f"`vllm_args.{name}` names {path[:80]}, which does not go into a bundle",
                where=f"model config {config.name}",
                hint="leave it out, or set it on the other side",
            )


def _absolute(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _absolute(item)
    elif isinstance(value, str) and value.startswith(("/", "~/")):
        yield value
