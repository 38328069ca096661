"""What tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

from orch_local.run.context import Display, RunContext, StopRequest
from orch_local.run.pipeline import Result, run
from orch_local.run.supervisor import Progress
from orch_local.store.store import RunFolder

AGENTS = ("first", "second", "third")


class CliResult(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


Cli = Callable[..., CliResult]


class Silent:
    """A display that shows nothing."""

    def stage(self, name: str, total: int, done: int) -> Progress:
        """See `orch_local.run.context.Display`."""
        return lambda done: None

    def again(self, name: str, rows: int) -> None:
        """See `orch_local.run.context.Display`."""


def write_run_file(folder: Path, values: dict[str, object]) -> Path:
    """Write a run file into ``folder``."""
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return file


def execute(
    folder: RunFolder,
    display: Display | None = None,
    retry_failed: bool = False,
    stop: StopRequest | None = None,
) -> Result:
    """Bring a prepared run to its end."""
    return run(RunContext.of(folder, display, stop, retry_failed=retry_failed))
