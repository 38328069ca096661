"""A comparison of runs on the terminal, and as files: Markdown, one HTML page, JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from orch_local.report.comparison_tables import Grid, Name, grids, headline, sentences
from orch_local.report.console import print_paragraph, print_table, table
from orch_local.report.formatting import NBSP
from orch_local.report.markdown import code
from orch_local.report.safe import safe, visible
from orch_local.results.compare.comparing import Comparison
from orch_local.results.summarise import plain
from orch_local.store.store import write_json, write_text

MAX_ROWS = 30
"""Of each table, on the terminal and in Markdown; the JSON has all."""
_CUT = "compare.json, which --out writes,"


def print_comparison(console: Console, comparison: Comparison, agents: bool = False) -> None:
    """Print which run is best: the headline, what was compared, the tables.

    Parameters
    ----------
    agents:
        Also print the best run against every agent of every run.
    """
    print_paragraph(console, headline(comparison, visible), style="bold")
    for text in sentences(comparison, visible):
        print_paragraph(console, text)
    for grid in grids(comparison, agents):
        _print_grid(console, grid)


def write_comparison(folder: Path, comparison: Comparison) -> list[Path]:
    """Write ``compare.md``, ``compare.html`` and ``compare.json``; returns their paths.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    # Deferred: drawing takes a second to load, and the terminal does without.
    from orch_local.report.page.comparison import page

    files = [folder / f"compare.{kind}" for kind in ("md", "html", "json")]
    write_text(files[0], markdown(comparison))
    write_text(files[1], page(comparison))
    write_json(files[2], plain(comparison))
    return files


def markdown(comparison: Comparison) -> str:
    """The content of ``compare.md``."""
    parts = ["# Comparison of runs", headline(comparison, code), *sentences(comparison, code)]
    for grid in grids(comparison):
        parts += _markdown_grid(grid)
    digests = [
        f"- {code(one.name)}: digest {code(one.digest, 80)}, level {code(one.level)}"
        for one in comparison.entries
    ]
    parts += ["## Runs", "\n".join(digests)]
    return "\n\n".join(parts).replace(NBSP, " ") + "\n"


def _print_grid(console: Console, grid: Grid) -> None:
    first, *others = grid.heads
    made = table(console, first, others)
    for number, row in enumerate(grid.rows[:MAX_ROWS]):
        best = "bold" if number == 0 and grid.id == "runs" else ""
        made.add_row(*(safe(cell) if isinstance(cell, Name) else Text(cell) for cell in row), style=best)
    print_table(console, grid.title, made)
    note = _note(grid)
    if note:
        print_paragraph(console, note, style="dim")


def _note(grid: Grid) -> str:
    cut = len(grid.rows) - MAX_ROWS
    more = [f"... and {cut:,} more: {_CUT} has them"] if cut > 0 else []
    return "; ".join([*more, *([grid.note] if grid.note else [])])


def _markdown_grid(grid: Grid) -> Iterator[str]:
    heads = [_inert(head) for head in grid.heads]
    rows = [[_inert(cell) for cell in row] for row in grid.rows[:MAX_ROWS]]
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    yield f"## {grid.title}"
    yield "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    note = _note(grid)
    if note:
        yield f"{note[0].upper()}{note[1:]}."


def _inert(cell: str) -> str:
    return code(cell) if isinstance(cell, Name) else cell
