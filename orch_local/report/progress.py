"""Progress of the stages: live bars on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from orch_local.report.formatting import counted

PLAIN_EVERY_S = 15.0
_LEAST_S = 1.0


class _Rate(ProgressColumn):
    """Rows a second of this stage."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", "dim")


class LiveDisplay:
    """Bars for a terminal; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> LiveDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, name: str, total: int, done: int) -> Callable[[int], None]:
        """Show a bar that stands at ``done`` of ``total``; the old one, where the name is known (waves)."""
        # Loading is no part of the rate: the clock of a bar starts with its first row.
        if name in self._bars:
            self._progress.reset(self._bars[name], start=False, total=total, completed=done, note="")
        else:
            bar = self._progress.add_task(name, total=total, completed=done, start=False, note="")
            self._bars[name] = bar
        bar = self._bars[name]

        def update(now: int) -> None:
            if now:
                self._progress.start_task(bar)
            self._progress.update(bar, completed=done + now)

        return update

    def again(self, name: str, rows: int) -> None:
        """Show at the bar of a stage that a worker generates so many rows again; 0 ends that."""
        if name in self._bars:
            self._progress.update(self._bars[name], note=_again(rows) if rows else "")


class PlainDisplay:
    """Lines for logs and pipes; nothing at all where ``quiet``."""

    def __init__(self, console: Console, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._quiet = quiet
        self._clock = clock

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def stage(self, name: str, total: int, done: int) -> Callable[[int], None]:
        """Say where the stage stands, then again every few seconds and at its end."""
        self._say(f"{name}: {done:,} of {total:,} rows done")
        # Loading is no part of the rate: the clock starts with the first rows.
        began = last = 0.0
        first = 0

        def update(now: int) -> None:
            nonlocal began, last, first
            at = self._clock()
            if now and not first:
                began = last = at
                first = now
            elif now and (done + now >= total or at - last >= PLAIN_EVERY_S):
                last = at
                self._say(
                    f"{name}: {done + now:,} of {total:,}{_pace(now - first, at - began, total - done - now)}"
                )

        return update

    def again(self, name: str, rows: int) -> None:
        """Say that a worker of a stage generates so many rows again; nothing for 0."""
        if rows:
            self._say(f"{name}: {_again(rows)}")

    def _say(self, line: str) -> None:
        if not self._quiet:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _again(rows: int) -> str:
    return f"generating {counted(rows, 'row')} again"


def _pace(rows: int, seconds: float, left: int) -> str:
    """Rows a second and the time left; nothing of what lasted too short to tell."""
    if rows == 0 or seconds < _LEAST_S:
        return ""
    rate = rows / seconds
    return f", {rate:.1f}/s" + (f", {left / rate:.0f} s left" if left else "")


def display_for(console: Console, *, quiet: bool) -> LiveDisplay | PlainDisplay:
    """The display that fits the console."""
    if console.is_terminal and not quiet:
        return LiveDisplay(console)
    return PlainDisplay(console, quiet=quiet)
