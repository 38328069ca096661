"""An ablation as a table: on the terminal, and as Markdown with every row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orch_local.report.console import is_plain, print_paragraph, print_table, table
from orch_local.report.formatting import counted, p_value, percent, points
from orch_local.report.gantt import duration
from orch_local.report.safe import safe, visible
from orch_local.results.summary import Estimate

if TYPE_CHECKING:
    from orch_local.ablate.missing import Missing, Price
    from orch_local.ablate.orders import AgentOrder
    from orch_local.ablate.scores import AblationRow
    from orch_local.ablate.study import Ablation

ROUTER = "router"
FAMILIES = (
    "ORCH as run",
    "merge rules",
    "merge, one agent left out",
    "merge, other subsets",
    "merge, other order",
    "one agent alone",
    "votes",
    "votes, one agent left out",
    "votes, other subsets",
    "fixed, random, oracle",
    ROUTER,
)
"""In the order in which they are shown."""
_USUAL_ALPHA = 0.1
_MOST_ROWS = 12
_BY = {"majority": "maj.", "confidence": "conf.", "probability": "prob."}
_HEADS = ("decided by", "accuracy", "interval", "vs ORCH", "interval", "p Holm", "unscored", "cost")


def ordered(rows: Iterable[AblationRow]) -> list[tuple[str, list[AblationRow]]]:
    """Rows by family, in the order in which they are shown; unknown families last."""
    place = {family: number for number, family in enumerate(FAMILIES)}
    known = sorted(rows, key=lambda row: place.get(row.family, len(place)))
    return [(family, list(group)) for family, group in groupby(known, key=lambda row: row.family)]


def shown(rows: Sequence[AblationRow]) -> list[AblationRow]:
    """The rows of one family for where room is short: of many the best, of routers the usual alpha."""
    main = [row for row in rows if row.main]
    if main and main[0].family == ROUTER:
        return [row for row in main if row.facts["alpha"] == _USUAL_ALPHA]
    if len(main) <= _MOST_ROWS:
        return main
    best = sorted(main, key=lambda row: -(row.accuracy.value if row.accuracy else 0.0))
    return best[:_MOST_ROWS]


def print_ablation(console: Console, ablation: Ablation, generated: int) -> None:
    """Print the short tables."""
    for paragraph in _words(ablation, generated):
        print_paragraph(console, paragraph)
    print_table(console, "Accuracy (%)", _rows_table(console, ablation))
    routed = [row for _, rows in ordered(ablation.rows) for row in shown(rows) if "saved" in row.facts]
    if routed:
        title = f"Routed by the {ablation.main_vote} vote (points of all questions with gold)"
        print_table(console, title, _routed_table(console, routed, ablation.gold))
        print_paragraph(console, _SAVED, style="dim")
    if ablation.orders:
        print_table(console, "Order of the agents (merge agent)", _orders_table(console, ablation.orders))
        title = "Contested questions: share (%) chosen from each position / right there"
        print_table(console, title, _positions_table(console, ablation.orders))
    for note in ablation.notes:
        print_paragraph(console, note, style="dim")


def print_missing(console: Console, missing: Sequence[Missing], price: Price) -> None:
    """Print which variants need merges that are not stored, and what generating them would take."""
    rows = table(console, "variant", ["merges"])
    for one in missing:
        rows.add_row(safe(f"{one.family}: {one.label}"), Text(f"{one.merges:,}"))
    print_table(console, "Not stored", rows)
    print_paragraph(console, _price(missing, price))


def _price(missing: Sequence[Missing], price: Price) -> str:
    needed = f"{counted(len(missing), 'variant')} would need up to {counted(price.merges, 'merge')}"
    if price.tokens is not None:
        needed += f", about {counted(price.tokens, 'token')}"
    if price.seconds is not None:
        needed += f", about {duration(price.seconds)} by the speed of the run"
    return f"{needed}; the analyses are all there."


def _words(ablation: Ablation, generated: int) -> list[str]:
    made = counted(generated, "merge")
    unscored = sum(row.unscored for row in ablation.rows[:1])
    text = (
        f"Over the frozen panel of {counted(ablation.questions, 'question')} and "
        f"{counted(len(ablation.agents), 'agent')}; no analysis and {made} generated now."
    )
    tested = sum(row.p_holm is not None for row in ablation.rows)
    rules = (
        "Accuracy and differences in percentage points with 95 % intervals; p: exact McNemar against ORCH as "
        f"run, by Holm for the {tested:,} rows that have one (ORCH itself and what hindsight or chance chose "
        "are no hypotheses); cost: tokens of analyses and merges over those of the run."
    )
    if unscored:
        rules += f" ORCH left {counted(unscored, 'question')} unscored."
    return [text, rules]


def _rows_table(console: Console, ablation: Ablation) -> Table:
    """One table with a line above each family."""
    made = table(console, "system", ["by", "acc.", "interval", "vs ORCH", "p Holm", "uns.", "cost"])
    for family, rows in ordered(ablation.rows):
        kept = shown(rows)
        if len(rows) > 1:
            title = family if len(kept) == len(rows) else f"{family} ({len(kept)} of {len(rows)} rows)"
            made.add_row(safe(title, "" if is_plain(console) else "bold"))
        for row in kept:
            cells = [_BY.get(row.vote, row.vote), points(_value(row.accuracy)), _interval(row.accuracy)]
            cells += [
                signed(_value(row.difference)),
                p_value(row.p_holm),
                f"{row.unscored:,}",
                share(row.cost),
            ]
            indent = "  " if len(rows) > 1 else ""
            made.add_row(safe(indent + _short(row)), *map(Text, cells))
    return made


def _routed_table(console: Console, rows: Sequence[AblationRow], gold: int) -> Table:
    made = table(console, "agents chosen", ["right", "regret to fixed", "to oracle", "tokens saved"])
    for row in rows:
        saved = row.facts.get("saved")
        cells = [points(row.correct / gold if gold else None), _gap(row, "regret_fixed")]
        cells += [_gap(row, "regret_oracle"), share(saved if isinstance(saved, float) else None)]
        made.add_row(safe(_short(row)), *map(Text, cells))
    return made


def _short(row: AblationRow) -> str:
    """A routed row says the usual alpha nowhere."""
    return row.name.replace(f", alpha {_USUAL_ALPHA:g}", "") if row.family == ROUTER else row.name


def _orders_table(console: Console, orders: Sequence[AgentOrder]) -> Table:
    made = table(console, "order", ["questions", "flips", "rate", "interval", "to wrong", "to right"])
    for one in orders[1:]:
        cells = [f"{one.n:,}", f"{one.flips:,}", points(_value(one.rate)), _interval(one.rate)]
        cells += [f"{one.to_wrong:,}", f"{one.to_right:,}"]
        made.add_row(safe(", ".join(one.order)), *map(Text, cells))
    return made


def _positions_table(console: Console, orders: Sequence[AgentOrder]) -> Table:
    heads = ["contested", *(str(one.position) for one in orders[0].positions)]
    made = table(console, "order", heads)
    for one in orders:
        cells = [f"{one.contested:,}", *_position_cells(one)]
        made.add_row(safe(", ".join(one.order)), *map(Text, cells))
    return made


def _position_cells(order: AgentOrder) -> list[str]:
    n = order.contested
    return [f"{points(p.chosen / n)} / {points(p.right / n)}" if n else "-" for p in order.positions]


def markdown(ablation: Ablation) -> str:
    """All rows as one Markdown table, and the audit of orders as two more."""
    parts = [f"# Ablation of {_cell(ablation.title)}", ""]
    parts += [*_words(ablation, 0)[1:], ""]
    parts[2] = f"{counted(ablation.questions, 'question')}, {ablation.gold:,} with gold. {parts[2]}"
    parts += _lines(
        ["family", "system", *_HEADS], [_full(row) for _, rows in ordered(ablation.rows) for row in rows]
    )
    routed = [row for row in ablation.rows if row.family in (ROUTER, "fixed, random, oracle")]
    if routed:
        parts += ["", "## Routed against chosen otherwise", "", f"{_REGRET} {_SAVED}", ""]
        heads = [
            "system",
            "decided by",
            "right of all with gold",
            "regret to best fixed",
            "to oracle",
            "tokens saved",
        ]
        parts += _lines(heads, [_routed(row, ablation.gold) for row in routed])
    if ablation.orders:
        parts += ["", "## Order of the agents", "", _POSITIONS, ""]
        heads = [
            "order",
            "questions",
            "unscored in one",
            "flips",
            "rate",
            "interval",
            "right to wrong",
            "wrong to right",
        ]
        heads += ["contested", *(f"position {one.position}" for one in ablation.orders[0].positions)]
        parts += _lines(heads, [_order(one) for one in ablation.orders])
    parts += ["", *(f"- {note}" for note in ablation.notes)]
    return "\n".join(parts).rstrip().replace("\N{NO-BREAK SPACE}", " ") + "\n"


_REGRET = (
    "Regret: right answers per 100 questions with gold that the best fixed agents, or the oracle, of the "
    "same number and vote have more; both are chosen in hindsight. Expected: the mean over all fixed choices."
)
_SAVED = (
    "Tokens saved: share of the tokens of all analyses of the run that are not asked for; of the analyses "
    "alone, without merges (cost counts both)."
)
_POSITIONS = (
    "A position's two numbers: on contested questions (at least two different answers), the share (%) "
    "where the final answer is what stands there / where what stands there is right."
)


def _full(row: AblationRow) -> list[str]:
    return [
        row.family,
        row.name,
        row.vote,
        f"{points(_value(row.accuracy))} ({row.correct:,}/{row.scored:,})",
        _interval(row.accuracy),
        signed(_value(row.difference)),
        _signed_interval(row.difference),
        p_value(row.p_holm),
        f"{row.unscored:,}",
        share(row.cost),
    ]


def _routed(row: AblationRow, gold: int) -> list[str]:
    reached = f"{points(row.correct / gold)}" if gold else "-"
    expected = row.facts.get("expected")
    if isinstance(expected, float):
        reached += f" (expected {points(expected)})"
    saved = row.facts.get("saved")
    text = points(saved) if isinstance(saved, float) else "-"
    return [row.name, row.vote, reached, _gap(row, "regret_fixed"), _gap(row, "regret_oracle"), f"{text} %"]


def _order(one: AgentOrder) -> list[str]:
    cells = [
        ", ".join(one.order),
        f"{one.n:,}",
        f"{one.unscored:,}",
        f"{one.flips:,}",
        points(_value(one.rate)),
    ]
    cells += [_interval(one.rate), f"{one.to_wrong:,}", f"{one.to_right:,}", f"{one.contested:,}"]
    return cells + _position_cells(one)


def _lines(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * min(2, len(heads)) + ["--:"] * (len(heads) - 2), *rows]
    return ["| " + " | ".join(map(_cell, cells)) + " |" for cells in lines]


def _cell(text: str) -> str:
    """Text of a cell: nothing in it ends the cell, or is read as HTML or Markdown."""
    for character in "\\`*[]|":
        text = text.replace(character, f"\\{character}")
    return visible(text).replace("&", "&amp;").replace("<", "&lt;")


def signed(value: float | None) -> str:
    """A difference in percentage points with its sign."""
    return "-" if value is None else f"{100 * value:+.1f}"


def share(value: float | None) -> str:
    """A cost over that of the run."""
    return "-" if value is None else percent(value)


def _gap(row: AblationRow, name: str) -> str:
    value = row.facts.get(name)
    return signed(value) if isinstance(value, float) else "-"


def _value(estimate: Estimate | None) -> float | None:
    return estimate.value if estimate else None


def _interval(estimate: Estimate | None) -> str:
    return f"{points(estimate.low)} - {points(estimate.high)}" if estimate else "-"


def _signed_interval(estimate: Estimate | None) -> str:
    return f"{signed(estimate.low)} to {signed(estimate.high)}" if estimate else "-"
