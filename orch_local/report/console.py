"""Paragraphs, lists and tables on a terminal, or as plain ASCII in a log file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD, Box
from rich.cells import cell_len
from rich.console import Console
from rich.style import StyleType
from rich.table import Column, Table
from rich.text import Text

from orch_local.report.formatting import NBSP
from orch_local.report.safe import safe

WARNING = "bold yellow"
GAP = 2
"""Blanks between two columns of a table."""
_ASCII_BOX = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
_LEAST_NAME = 8


def is_plain(console: Console) -> bool:
    """Whether the output is a file or pipe, or a terminal that shows only ASCII."""
    return not console.is_terminal or console.options.ascii_only


def print_paragraph(console: Console, text: str, style: StyleType = "") -> None:
    """Print one paragraph, wrapped at ordinary spaces only, and an empty line."""
    lines = textwrap.wrap(text, console.width)
    console.print(Text("\n".join(lines).replace(NBSP, " "), style))
    console.print()


def print_list(console: Console, title: str, items: Sequence[str]) -> None:
    """Print sentences under their title, and an empty line; nothing without a sentence."""
    if not items:
        return
    console.print(Text(title, "bold"))
    for item in items:
        lines = textwrap.wrap(item, console.width, initial_indent="- ", subsequent_indent="  ")
        console.print(Text("\n".join(lines).replace(NBSP, " ")))
    console.print()


def table(console: Console, first: str, heads: Iterable[str]) -> Table:
    """An empty table: a column of names, which may fold, then columns of numbers, which may not.

    Cells are :class:`~rich.text.Text`, never strings, so that no markup is read from them.
    """
    plain = is_plain(console)
    made = Table(
        box=_ASCII_BOX if plain else SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),
        header_style="" if plain else "dim",
    )
    made.add_column(Text(first), overflow="fold")
    for head in heads:
        made.add_column(safe(head), justify="right", no_wrap=True, overflow="fold")
    return made


def print_table(console: Console, title: str, content: Table) -> None:
    """Print a table under its title, and an empty line.

    On a screen too narrow for the numbers the lines are longer than it: a cut number would be a wrong one.
    """
    console.print(Text(title, "bold"))
    least = sum(map(_least_width, content.columns)) + GAP * (len(content.columns) - 1)
    if least > console.width:
        content.width = least
    console.print(content, crop=False)
    console.print()


def _least_width(column: Column) -> int:
    widest = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
    return widest if column.no_wrap else min(widest, _LEAST_NAME)
