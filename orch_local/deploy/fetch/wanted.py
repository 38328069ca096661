"""What is to be fetched: the names on the command line and in a run file, as repositories of the hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from orch_local.config.blocks import BenchmarkConfig
from orch_local.config.model_configs import find_model, load_model_config, model_config_files
from orch_local.config.run_files import load_run
from orch_local.config.yaml_files import nearest, read_yaml
from orch_local.deploy.fetch.record import FOLDERS, PARTIAL, Kind
from orch_local.errors import ConfigError, InputError

BENCHMARKS: Mapping[str, str] = {
    "mmlu": "cais/mmlu",
    "mmlu_pro": "TIGER-Lab/MMLU-Pro",
    "gsm8k": "openai/gsm8k",
    "arc": "allenai/ai2_arc",
}
"""Repositories of the benchmarks whose columns there is a loader for."""
_REPO = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]*/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_-])?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A repository of the hub, and the folder that it is for."""

    kind: Kind
    name: str
    """Of its folder."""
    repo: str
    revision: str = ""
    """Branch, tag or commit that the user asked for; empty where it is the recorded or the newest one."""
    elsewhere: str = ""
    """Where a run looks for it instead, because a file of the user says so."""

    @property
    def folder(self) -> str:
        """Relative to the fetched folder."""
        return f"{FOLDERS[self.kind]}/{self.name}"


def wanted(names: Iterable[str], models: Iterable[str], datasets: Iterable[str]) -> list[Wanted]:
    """Everything asked for, each once, in the order asked.

    Parameters
    ----------
    names:
        Of model configs, benchmarks, and paths of run files or model configs; with ``@REVISION`` or not.
    models, datasets:
        Repositories as owner/name; with ``@REVISION`` or not.

    Raises
    ------
    InputError
        If a name is unknown, nothing says where something comes from, or two want the same folder.
    """
    found = [one for name in names for one in _named(name)]
    found += [_repository("model", name) for name in models]
    found += [_repository("benchmark", name) for name in datasets]
    if not found and not names:
        hint = "e.g. `orch-local fetch qwen3-8b mmlu --to DIR`; `orch-local models` lists the models"
        raise InputError("nothing is named that could be fetched", hint=hint)
    return _each_once(found)


def _each_once(found: Iterable[Wanted]) -> list[Wanted]:
    by_folder: dict[str, Wanted] = {}
    for one in found:
        other = by_folder.setdefault(one.folder, one)
        if other.repo != one.repo:
            hint = "fetch one of them with another --to"
            raise InputError(f"{other.repo} and {one.repo} would both be {one.folder}", hint=hint)
        if one.revision and other.revision and one.revision != other.revision:
            message = f"{one.repo} is asked for at {other.revision} and at {one.revision}"
            raise InputError(message, hint="one folder holds one revision: use two --to")
        by_folder[one.folder] = other if other.revision else one
    return list(by_folder.values())


def _split(text: str) -> tuple[str, str]:
    """A name and the revision that it may have."""
    name, at, revision = text.partition("@")
    if at and (_REVISION.fullmatch(revision) is None or ".." in revision):
        hint = "write NAME@REVISION with a branch, tag or commit hash"
        raise InputError(f"{revision!r} is no revision", where=name or text, hint=hint)
    return name, revision


def _repository(kind: Kind, text: str) -> Wanted:
    repo, revision = _split(text)
    if _REPO.fullmatch(repo) is None or len(repo) > 96 or ".." in repo:
        raise InputError(f"{repo!r} is no repository of the hub", hint="write OWNER/NAME, as its page has it")
    known = next((name for name, other in BENCHMARKS.items() if other == repo), None)
    name = known if known and kind == "benchmark" else repo.split("/")[-1]
    return Wanted(kind, name, repo, revision)


def _named(text: str) -> list[Wanted]:
    if text.endswith((".yaml", ".yml")):
        return _of_file(Path(text))
    name, revision = _split(text)
    if name in BENCHMARKS:
        return [Wanted("benchmark", name, BENCHMARKS[name], revision)]
    if "/" in name:
        hint = f"`--model {text}` or `--dataset {text}` fetches any repository of the hub"
        raise InputError(f"{name!r} is neither a model config nor a benchmark", hint=hint)
    known = model_config_files()
    if name not in known:
        close = nearest(name, [*known, *BENCHMARKS])
        hint = (
            "`orch-local models` lists the models; `--model OWNER/NAME` and `--dataset OWNER/NAME` take any"
        )
        raise ConfigError(f"no model config and no benchmark is named {name!r}{close}", hint=hint)
    return [replace(_of_model(name), revision=revision)]


def _of_model(name: str) -> Wanted:
    """The repository of a model config, given by its name or its file."""
    config = load_model_config(name)
    file = find_model(name)
    if not config.hub_id:
        hint = "set `hub_id` in the model config, or use `--model OWNER/NAME`"
        message = f"nothing says where the model {config.name!r} comes from"
        raise ConfigError(message, where=str(file), hint=hint)
    own = str(config.path) if not file.is_dir() and "path" in read_yaml(file) else ""
    return replace(_repository("model", config.hub_id), elsewhere=own)


def _of_file(file: Path) -> list[Wanted]:
    """What a run file names and is not here; of a model config, its model."""
    if not {"agents", "benchmark", "merge"} & read_yaml(file).keys():
        return [_of_model(str(file))]
    run = load_run(file)
    names = [agent.model for agent in run.agents] + ([run.merge.model] if run.merge.model else [])
    missing = [name for name in dict.fromkeys(names) if not _is_here(load_model_config(name).path)]
    return [*map(_of_model, missing), *_of_benchmark(run.benchmark, file)]


def _of_benchmark(benchmark: BenchmarkConfig, file: Path) -> Iterator[Wanted]:
    if _is_here(benchmark.path):
        return
    if benchmark.name not in BENCHMARKS:
        message = f"`benchmark.path` is not there, and no hub has it: {benchmark.path}"
        hint = "put the questions there, or fetch a data set of the hub with `--dataset OWNER/NAME`"
        raise ConfigError(message, where=str(file), hint=hint)
    yield Wanted("benchmark", benchmark.name, BENCHMARKS[benchmark.name], elsewhere=str(benchmark.path))


def _is_here(path: Path | None) -> bool:
    """Whether something is there that no fetch has left unfinished; of ARC, ``path`` is a folder deeper."""
    try:
        unfinished = path is None or any((place / PARTIAL).exists() for place in (path, path.parent))
        return path is not None and path.exists() and not unfinished
    except OSError:
        return False
