"""Options and small words that commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orch_local.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from orch_local.store.store import RunFolder

Folder = Annotated[Path, typer.Argument(help="Folder of a run.")]
RunFile = Annotated[Path, typer.Argument(help="The run file (YAML); `orch-local schema` describes it.")]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder. [default: runs/NAME-OF-RUN-FILE]")]
StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Where rows are kept. [default: beside the run]")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Ask the first N questions only.")]
PerCategory = Annotated[
    int | None, typer.Option("--per-category", min=1, help="Ask the first N questions of each category only.")
]
Categories = Annotated[str | None, typer.Option(help="Ask these categories only, separated by commas.")]
Split = Annotated[str | None, typer.Option(help="Split of the benchmark.")]
Shuffle = Annotated[int | None, typer.Option("--shuffle-seed", min=0, help="Fixed shuffle of the questions.")]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="Record and count bad rows, do not stop.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Generate rows again that failed before.")]
Fast = Annotated[
    bool, typer.Option("--fast", help="Give the promise of equal bytes up for speed (docs/determinism.md).")
]
NewEnvironment = Annotated[
    bool,
    typer.Option(
        "--accept-new-environment",
        help="Continue with other libraries or on another device: all rows are generated anew.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")]


@dataclass(frozen=True)
class QuestionOptions:
    """Which questions are asked."""

    limit: Limit = None
    per_category: PerCategory = None
    categories: Categories = None
    split: Split = None
    shuffle_seed: Shuffle = None
    skip_bad_rows: SkipBadRows = False

    def settings(self, *, fast: bool) -> dict[str, Any]:
        """The options that were given, by the key of the run file that they stand for."""
        names = self.categories
        values = {
            "benchmark.limit": self.limit,
            "benchmark.per_category": self.per_category,
            "benchmark.split": self.split,
            "benchmark.shuffle_seed": self.shuffle_seed,
            "benchmark.categories": [name.strip() for name in names.split(",")] if names else None,
            "benchmark.skip_bad_rows": self.skip_bad_rows or None,
            "engine.fast": fast or None,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class ExecutionOptions:
    """How a run is executed."""

    retry_failed: RetryFailed = False
    fast: Fast = False
    accept_new_environment: NewEnvironment = False


def run_folder_at(path: Path) -> RunFolder:
    from orch_local.store.store import RunFolder

    if path.is_file():
        raise InputError("is a file, not the folder of a run", where=str(path))
    return RunFolder(path.absolute())


def console_of(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(highlight=False, stderr=stderr)


def short(path: Path) -> Path:
    """The path as the user would type it."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def shown_path(path: Path) -> str:
    """The same for a line of output: a path may hold what moves a cursor, or ends the line."""
    from orch_local.report.safe import visible

    return visible(str(short(path)))
