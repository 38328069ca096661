"""Run files: YAML into one validated, frozen model.

A path in a file is relative to the folder of that file. Every message names the file and the key.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from orch_local.config.blocks import (
    AgentConfig,
    AnswerConfig,
    BenchmarkConfig,
    Block,
    EngineConfig,
    MergeConfig,
    RouterConfig,
)
from orch_local.config.model_search import is_hub_id, is_path, with_home
from orch_local.config.slurm_options import SlurmConfig
from orch_local.config.yaml_files import parse, read_yaml
from orch_local.errors import ConfigError

_TAKEN = frozenset({"merge", "majority", "ORCH", "oracle"})


class RunConfig(Block):
    """One run file."""

    benchmark: BenchmarkConfig
    agents: tuple[AgentConfig, ...] = Field(min_length=1)
    merge: MergeConfig
    router: RouterConfig | None = Field(default=None, description="None asks every agent every question.")
    answer: AnswerConfig = AnswerConfig()
    engine: EngineConfig = EngineConfig()
    slurm: SlurmConfig = SlurmConfig()

    @model_validator(mode="after")
    def _names_and_quorum(self) -> RunConfig:
        names = [agent.name for agent in self.agents]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two agents are named {twice[0]!r}; give each agent a name of its own")
        taken = sorted(set(names) & _TAKEN)
        if taken:
            raise ValueError(f"an agent cannot be named {taken[0]!r}: results have another meaning for it")
        if self.merge.quorum > len(names):
            raise ValueError(f"quorum {self.merge.quorum} is more than the {len(names)} agents")
        if self.router and self.router.budget and self.merge.quorum > 1:
            raise ValueError("a `router.budget` may leave one agent, so `merge.quorum` must be 1")
        asked = self.router.k if self.router and self.router.k else self.merge.quorum
        if not self.merge.quorum <= asked <= len(names):
            raise ValueError(
                f"router.k is {asked}: it must be at least the quorum ({self.merge.quorum}) and at most the "
                f"number of agents ({len(names)})"
            )
        return self


def load_run(path: Path, overrides: dict[str, Any] | None = None) -> RunConfig:
    """Read a run file; ``overrides`` are dotted keys from the command line, e.g. ``benchmark.limit``.

    Raises
    ------
    ConfigError
        Naming the file and the key.
    """
    values = read_yaml(path)
    if values.get("slurm", {}) is None:
        del values["slurm"]  # the block is there, and all its lines are comments
    for dotted, value in (overrides or {}).items():
        *parents, last = dotted.split(".")
        target = values
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError(f"`{parent}` must be a block of settings", where=str(path))
        target[last] = value
    return _absolute_paths(parse(RunConfig, values, str(path)), path.parent)


def _absolute_paths(config: RunConfig, base: Path) -> RunConfig:
    def absolute(path: Path | None) -> Path | None:
        return None if path is None else Path(os.path.abspath(base / with_home(path)))  # noqa: PTH100 - keeps symlinks

    def model(name: str | None) -> str | None:
        if name is None or not is_path(name):
            return name
        place = absolute(Path(name))
        return name if is_hub_id(name) and not os.path.lexists(str(place)) else str(place)

    agents = tuple(
        agent.model_copy(update={"prompt": absolute(agent.prompt), "model": model(agent.model)})
        for agent in config.agents
    )
    merge = config.merge.model_copy(
        update={"prompt": absolute(config.merge.prompt), "model": model(config.merge.model)}
    )
    benchmark = config.benchmark.model_copy(update={"path": absolute(config.benchmark.path)})
    router = config.router and config.router.model_copy(
        update={"state": absolute(config.router.state), "profile": absolute(config.router.profile)}
    )
    engine = config.engine.model_copy(update={"table": absolute(config.engine.table)})
    blocks = {"agents": agents, "merge": merge, "benchmark": benchmark, "router": router, "engine": engine}
    return config.model_copy(update=blocks)
