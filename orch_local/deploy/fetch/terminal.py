"""The output of a fetch: what it would request, its progress, and what a run needs to find the files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from orch_local.deploy.fetch.files import OnBytes, RepositoryFolder, ignore_bytes, size
from orch_local.deploy.fetch.getting import planned_revision
from orch_local.deploy.fetch.record import Fetched, read_record
from orch_local.deploy.fetch.wanted import Wanted
from orch_local.errors import InputError
from orch_local.report.console import print_table, table
from orch_local.report.safe import safe


class NotAllowedError(InputError):
    """The command was not allowed to use the network."""


def refuse_network(console: Console, wanted: Sequence[Wanted], root: Path, *, update: bool) -> None:
    """Print what would be asked for.

    Raises
    ------
    NotAllowedError
        Always.
    """
    record = read_record(root)
    rows = table(console, "repository", ["kind", "revision", "into", "here"])
    for one in wanted:
        place = RepositoryFolder(root, one)
        revision = planned_revision(place, record, update=update) or "newest"
        into = str(root / one.folder)
        cells = (one.kind, revision[:12], into, _here(place, record.get(one.folder)))
        rows.add_row(safe(one.repo), *map(safe, cells))
    print_table(console, "This would be fetched", rows)
    hint = "on a machine that may reach the hub, add --allow-network to the same command"
    raise NotAllowedError("no connection was opened: the network is not allowed", hint=hint)


def _here(place: RepositoryFolder, before: Fetched | None) -> str:
    if place.begun().revision:
        return "begun"
    if before is None:
        return "nothing"
    there = [file for file in before.files if (place.path / file.path).is_file()]
    return "whole" if len(there) == len(before.files) else f"{len(there)} of {len(before.files)} files"


class FetchBars:
    """A bar on a terminal for each model and benchmark, one after the other."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[OnBytes]:
        """See :class:`~orch_local.deploy.fetch.getting.Display`."""
        from rich import progress

        columns = (
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=30),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=self._console) as shown:
            task = shown.add_task(name, total=total)
            yield lambda count: shown.advance(task, count)

    def waiting(self, seconds: float) -> None:
        """See :class:`~orch_local.deploy.fetch.getting.Display`."""
        _say_waiting(self._console, seconds)


class NoBars:
    """No bars: for a file, a pipe, or --quiet."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[OnBytes]:  # noqa: ARG002 - as the other display
        """See :class:`~orch_local.deploy.fetch.getting.Display`."""
        yield ignore_bytes

    def waiting(self, seconds: float) -> None:
        """See :class:`~orch_local.deploy.fetch.getting.Display`."""
        _say_waiting(self._console, seconds)


def display_for(console: Console, *, quiet: bool) -> FetchBars | NoBars:
    """Bars where somebody looks at them."""
    return FetchBars(console) if console.is_terminal and not quiet else NoBars(console)


def _say_waiting(console: Console, seconds: float) -> None:
    if seconds < 3:
        console.print("Another fetch is at work in this folder; waiting for it.", markup=False)


def print_fetched(console: Console, found: Sequence[Fetched], wanted: Iterable[Wanted], root: Path) -> None:
    """What was fetched, under which licence, and what a run needs to find it."""
    rows = table(console, "fetched", ["commit", "licence", "files", "size"])
    for one in found:
        licence = f"{one.licence} (terms to accept)" if one.gated else one.licence
        cells = (one.revision[:12], licence, f"{len(one.files):,}", size(one.size))
        rows.add_row(safe(one.repo), *map(safe, cells))
    print_table(console, f"In {root}", rows)
    for line in _needs(found, root):
        console.print(safe(line), soft_wrap=True)
    for item in wanted:
        into = root / item.folder
        if item.elsewhere and not Path(item.elsewhere).is_relative_to(into):
            text = f"note: your file has {item.elsewhere} for {item.repo}; change it, or move {into} there"
            console.print(safe(text), soft_wrap=True)


def _needs(found: Sequence[Fetched], root: Path) -> Iterator[str]:
    if any(one.kind == "model" for one in found):
        yield f"export ORCH_MODELS_DIR={_quoted(root / 'models')}"
    for one in found:
        if one.kind == "benchmark":
            first, *others = _paths(root / one.folder, one)
            also = f"    # or {', '.join(path.name for path in others)}" if others else ""
            yield f"benchmark: {{name: {one.name}, path: {_quoted(first)}}}{also}"


def _paths(folder: Path, one: Fetched) -> list[Path]:
    """What `benchmark.path` may be: the folder, or, of ARC, one of its two."""
    if one.name != "arc":
        return [folder]
    names = sorted({file.path.split("/")[0] for file in one.files if "/" in file.path})
    return [folder / name for name in names] or [folder]


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
