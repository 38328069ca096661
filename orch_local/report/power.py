"""What so many questions can show, on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orch_local.report.console import print_paragraph, print_table, table
from orch_local.report.formatting import NBSP, counted, percent, points
from orch_local.report.safe import visible
from orch_local.results.sizing import Pilot, PowerTable, SizeRow

Shares = Sequence[float | None]
_BY_SHARE = "by share of questions on which exactly one is right"


def print_power(console: Console, found: PowerTable, pilot: Pilot | None = None) -> None:
    """Print what a comparison can show: a sentence, then a table over sizes and discordant shares."""
    if pilot:
        print_paragraph(console, pilot_sentence(pilot))
    for sentence in _sentences(found):
        print_paragraph(console, sentence, style="bold")
    if found.needed:
        made = table(console, "", _heads(found))
        made.add_row(Text("questions"), *map(Text, map(_needed, found.needed)))
        print_table(console, f"Questions needed to see {_wanted(found)} points, {_BY_SHARE}", made)
    if found.sizes:
        _print_sizes(console, found)
    print_paragraph(console, _note(found), style="dim")


def pilot_sentence(pilot: Pilot) -> str:
    """What was measured in the pilot run."""
    share, between = pilot.discordant, f"{NBSP}to{NBSP}"
    interval = f"{points(share.low)}{between}{points(share.high)}"
    return (
        f"In {visible(pilot.run)} exactly one of ORCH and the best agent, {visible(pilot.agent)}, is right "
        f"on {percent(share.value)} of {counted(pilot.n, 'question')} (95{NBSP}% interval {interval}); their "
        f"accuracies differ by {100 * pilot.difference:+.1f} points."
    )


def _sentences(found: PowerTable) -> Iterator[str]:
    """What was asked for, where it was one thing."""
    wish, middle = found.wish, len(found.discordant) // 2
    share = (
        f"where exactly one of two systems is right on {percent(found.discordant[middle])} of the questions"
    )
    seen = f"in {100 * wish.power:.3g}{NBSP}% of such runs"
    if wish.questions is not None:
        row = next(row for row in found.sizes if row.questions == wish.questions)
        size, smallest = counted(wish.questions, "question"), row.detectable[middle]
        if smallest is None:
            yield f"With {size}, {share}, no difference shows {seen}."
        else:
            yield f"With {size}, {share}, a difference of {points(smallest)} points shows {seen}."
        if row.chance:
            yield f"One of {_wanted(found)} points shows in {percent(row.chance[middle])} of them."
    elif wish.difference is not None:
        needed = found.needed[middle]
        size = "no number of questions is enough"
        if needed is not None:
            size = f"{counted(needed, 'question')} {'is' if needed == 1 else 'are'} needed"
        yield f"To see a difference of {_wanted(found)} points {seen}, {share}, {size}."


def _wanted(found: PowerTable) -> str:
    return f"{100 * (found.wish.difference or 0):.3g}"


def _print_sizes(console: Console, found: PowerTable) -> None:
    if found.wish.difference is not None:
        title = f"Chance (%) to see {_wanted(found)} points, {_BY_SHARE}"
        print_table(console, title, _by_size(console, found, _chance))
    title = f"Smallest difference that shows (points), {_BY_SHARE}"
    print_table(console, title, _by_size(console, found, _detectable))


def _by_size(console: Console, found: PowerTable, cells: Callable[[SizeRow], Shares]) -> Table:
    made = table(console, "questions", _heads(found))
    for row in found.sizes:
        style = "bold" if row.questions == found.wish.questions else ""
        made.add_row(Text(f"{row.questions:,}"), *(Text(points(one)) for one in cells(row)), style=style)
    return made


def _chance(row: SizeRow) -> Shares:
    return row.chance


def _detectable(row: SizeRow) -> Shares:
    return row.detectable


def _heads(found: PowerTable) -> list[str]:
    return [f"{points(share)} %" for share in found.discordant]


def _needed(questions: int | None) -> str:
    return "-" if questions is None else f"{questions:,}"


def _note(found: PowerTable) -> str:
    wish = found.wish
    return (
        f"Exact two-sided McNemar test, alpha {wish.alpha:g}, power {wish.power:g}, for one comparison; "
        "- = nothing shows, or no number is enough"
    )
