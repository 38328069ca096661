"""What the doctor found, on the terminal. Nothing but rich is imported: it must work where little does."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orch_local.deploy.doctor.checks import CHECKS, THEMES, DoctorReport, Finding, Severity
from orch_local.report.safe import safe, visible

MOST_WIDE = 100
"""Longer lines are hard to read."""
_STYLES = {
    Severity.RED: "bold red",
    Severity.YELLOW: "yellow",
    Severity.GREEN: "green",
    Severity.UNCHECKED: "dim",
}
_TITLE = 19
_MOST_TITLES = 2
_INDENT = "  "


class Line(NamedTuple):
    """One line of a theme: a finding, or several that say the same."""

    level: Severity
    title: str
    fact: str


class _Terminal(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would end the process, with the code for red


def terminal() -> Console:
    """Standard output."""
    return _Terminal(highlight=False)


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Say on standard error what is being done; the function that it gives changes the text."""
    shown = Console(stderr=True, highlight=False).status("looking at this machine")
    with suppress(Exception):  # rich may be what is broken
        shown.start()
    try:
        yield lambda text: shown.update(f"{text} ...")
    finally:
        shown.stop()


def print_page(console: Console, page: DoctorReport) -> None:
    """Print the verdict, what to do, and then all findings by theme."""
    width = min(console.width, MOST_WIDE)
    style = "bold red" if page.exit_code else "bold"
    console.print(Text(_wrapped(page.verdict, width), style))
    console.print()
    _print_advice(console, page, width)
    for theme, title in THEMES.items():
        found = lines([one for one in page.findings if one.theme == theme])
        if found:
            console.print(Text(title, "bold"))
            console.print(_table(found, width), crop=False)
            console.print()
    counts = ", ".join(f"{len(page.of_level(level))} {level.value}" for level in Severity)
    console.print(Text(_wrapped(f"{counts}. docs/doctor.md explains each check.", width), "dim"))


def _print_advice(console: Console, page: DoctorReport, width: int) -> None:
    """What to do, reds first; equal advice is given once."""
    urgent = [*page.of_level(Severity.RED), *page.of_level(Severity.YELLOW)]
    if not urgent:
        return
    console.print(Text("What to do", "bold"))
    for number, group in enumerate(_alike(urgent), 1):
        first = group[0]
        about = ", ".join(one.about for one in group if one.about)
        title = f"{CHECKS[first.id].title}{f' ({about})' if about else ''}"
        made = Table(box=None, show_header=False, padding=(0, 1, 0, 0), width=width, pad_edge=False)
        made.add_column(width=4, justify="right", no_wrap=True)
        made.add_column(width=6, no_wrap=True)
        made.add_column(overflow="fold", ratio=1)
        text = Text.assemble((f"{visible(title)}: ", "bold"), safe(first.fact))
        made.add_row(Text(f"{number}."), Text(first.level.value, _STYLES[first.level]), text)
        if first.advice:
            made.add_row(Text(), Text(), Text.assemble(("do: ", "dim"), safe(first.advice)))
        console.print(made, crop=False)
    console.print()


def _alike(findings: Iterable[Finding]) -> Iterator[list[Finding]]:
    """Findings of one check that say the same, about several things."""
    groups: dict[tuple[str, Severity, str, str], list[Finding]] = {}
    for one in findings:
        groups.setdefault((one.id, one.level, one.fact, one.advice), []).append(one)
    yield from groups.values()


def lines(findings: Iterable[Finding]) -> list[Line]:
    """The lines of a theme; what was not checked for the same reason is one line."""
    made: list[Line] = []
    skipped: dict[str, list[str]] = {}
    for group in _alike(findings):
        first = group[0]
        title, about = CHECKS[first.id].title, ", ".join(one.about for one in group if one.about)
        fact = f"{about}: {first.fact}" if about else first.fact
        if first.level is Severity.UNCHECKED:
            fact += f" ({first.advice})" if first.advice else ""
            skipped.setdefault(fact, []).append(title)
            continue
        made.append(Line(first.level, title, fact))
    return made + [Line(Severity.UNCHECKED, _titles(titles), fact) for fact, titles in skipped.items()]


def _titles(titles: Sequence[str]) -> str:
    if len(titles) <= _MOST_TITLES:
        return ", ".join(titles)
    return f"{titles[0]} and {len(titles) - 1} more"


def _table(found: Iterable[Line], width: int) -> Table:
    made = Table(box=None, show_header=False, padding=(0, 2, 0, 0), width=width, pad_edge=False)
    made.add_column(width=len(_INDENT) + len(Severity.UNCHECKED), no_wrap=True)
    made.add_column(width=_TITLE, overflow="fold")
    made.add_column(overflow="fold", ratio=1)
    before = ""
    for line in found:
        title = "" if line.title == before else line.title
        level = Text(_INDENT + line.level.value, _STYLES[line.level])
        made.add_row(level, safe(title), safe(line.fact, "dim" if line.level is Severity.UNCHECKED else ""))
        before = line.title
    return made


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(visible(text), width))
