"""The metrics of a run on the terminal, or as plain ASCII tables in a log file.

Names and categories come from outside, so every one passes through :mod:`orch_local.report.safe`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD, Box
from rich.cells import cell_len
from rich.console import Console
from rich.style import StyleType
from rich.table import Column, Table
from rich.text import Text

from orch_local.report.safe import safe, visible
from orch_local.results.scoring import NOT_ASKED, Comparison, Cost, Metrics, System, Systems

if TYPE_CHECKING:
    from orch_local.report.findings import Findings

MAX_CATEGORIES = 20
_NEGLIGIBLE_P = 1e-20
CHANCE_P = 0.05
WARNING = "bold yellow"
# A space at which a sentence is not wrapped, so that "78.3 %" stays on one line; printed as a space.
NBSP = "\N{NO-BREAK SPACE}"
_ASCII_BOX = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
_GAP = 2
_LEAST_NAME = 8


def print_metrics(
    console: Console,
    metrics: Metrics,
    costs: Mapping[str, Cost],
    *,
    digest: str,
    run_dir: Path,
    findings: Findings | None = None,
) -> None:
    """Print the result of a run: the headline, the tables, the costs, and where to find more.

    Parameters
    ----------
    costs:
        By agent name in agent order, the merge agent last as ``merge``.
    digest:
        Digest of the canonical decisions.
    findings:
        What is to be said of how the agents answered.
    """
    print_paragraph(console, headline(metrics, routed=_is_routed(metrics)), style="bold")
    for said in findings.headline if findings else ():
        print_paragraph(console, said, style=WARNING)
    if metrics.total.gold:
        print_table(console, "Accuracy (%, 95 % interval)", _accuracy_table(console, metrics))
        _print_categories(console, metrics)
    _print_unscored(console, metrics.total)
    print_paragraph(console, _panel_sentence(metrics))
    if findings:
        print_list(console, "How the agents answered", findings.agents)
    if costs:
        print_table(console, "Cost (rows, tokens, seconds)", _cost_table(console, costs))
    # A path or digest with a line break in it cannot be copied, so these lines may be longer than the screen.
    for name, value in (("digest ", digest), ("run    ", str(run_dir))):
        console.print(Text.assemble((name, "dim"), safe(value)), soft_wrap=True)


def print_warnings(
    console: Console, bad_rows: int, violations: int, damaged: int, deaths: Mapping[str, int]
) -> None:
    """Print what a reader of the result must not miss.

    Parameters
    ----------
    bad_rows:
        Rows of the benchmark that were skipped.
    violations:
        Rows of the store with two different answers under one key.
    damaged:
        Files of the store whose bytes had changed.
    deaths:
        How often a worker died and was replaced, by agent.
    """
    for name, count in deaths.items():
        often = counted(count, "time")
        told = f"A worker of {name} died {often} and was replaced; no row is lost, run.log says how."
        print_paragraph(console, visible(told))
    if bad_rows:
        print_paragraph(console, f"{bad_rows:,} bad rows of the benchmark were skipped; see bad_rows.jsonl.")
    if damaged:
        print_paragraph(
            console,
            f"{counted(damaged, 'file')} of the store had been damaged since written: set aside, and their "
            "rows generated again; run.log names them. Check the disk.",
            style="bold red",
        )
    if violations:
        print_paragraph(
            console,
            f"DETERMINISM VIOLATION: {violations:,} rows were generated twice with different answers; "
            "run.log names them.",
            style="bold red",
        )


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


def headline(metrics: Metrics, *, routed: bool = False) -> str:
    """The result in plain words, with its uncertainty; no-break spaces hold numbers and units together.

    Of a ``routed`` run no best agent is named: its agents were asked about different questions.
    """
    orch, gold = metrics.total.orch, metrics.total.gold
    if not gold:
        return (
            f"No question has a gold answer, so nothing can be scored; "
            f"ORCH answered {metrics.answered:,} of {counted(metrics.questions, 'question')}."
        )
    if not orch.scored:
        return f"ORCH answered none of {counted(gold, 'question')} with a gold answer."
    said = (_result_sentence(metrics, routed), *_oracle_sentence(metrics, routed))
    return " ".join((*said, *_missing_sentences(metrics)))


def _is_routed(metrics: Metrics) -> bool:
    return any(NOT_ASKED in agent.unscored for agent in metrics.total.agents.values())


def _result_sentence(metrics: Metrics, routed: bool) -> str:
    orch = metrics.total.orch
    result = f"ORCH answered {percent(orch.accuracy)} of {counted(orch.scored, 'question')} correctly"
    if orch.unscored:
        gold, share = counted(metrics.total.gold, "question"), percent(orch.accuracy)
        result = f"ORCH answered {orch.scored:,} of {gold}, {share} of them correctly"
    parts = [f"{result} (95{NBSP}% interval {_interval(orch, f'{NBSP}to{NBSP}')})"]
    if metrics.best_agent is not None and not routed:
        name = visible(metrics.best_agent)
        versus = metrics.versus.agents[metrics.best_agent]
        parts.append(_versus(versus, f"the best single agent, {name}", orch))
    parts.append(_versus(metrics.versus.majority, "the majority vote", orch))
    said = [part for part in parts if part]
    return ", ".join(said[:2]) + "".join(f", and {part}" for part in said[2:]) + "."


def _versus(comparison: Comparison, other: str, orch: System) -> str:
    if comparison.difference is None or comparison.p is None:
        return ""
    gap = f"{abs(100 * comparison.difference):.1f}"
    side = "above" if comparison.difference > 0 else "below"
    relation = "level with" if gap == "0.0" else f"{gap} points {side}"
    chance = ", within chance" if comparison.p >= CHANCE_P else ""
    both = f", on the {counted(comparison.n, 'question')} that both answered"
    basis = both if comparison.n < orch.scored else ""
    p = f"p{NBSP}{p_value(comparison.p, '=' + NBSP).replace(' ', NBSP)}"
    return f"{relation} {other}{basis} ({p}{chance})"


def _oracle_sentence(metrics: Metrics, routed: bool) -> Iterable[str]:
    if metrics.total.oracle.accuracy is not None:
        reach = percent(metrics.total.oracle.accuracy)
        if routed:
            yield f"An oracle that picks the right one of the agents that were asked would reach {reach}."
            yield "No agent is named as the best: agents were asked about different questions."
        else:
            yield f"An oracle that picks the right agent each time would reach {reach}."


def _missing_sentences(metrics: Metrics) -> Iterable[str]:
    total = metrics.total
    unscored = total.gold - total.orch.scored
    if unscored:
        share = percent(total.orch.accuracy_all)
        yield (
            f"Of all {total.gold:,} questions with a gold answer, the {unscored:,} unscored included, "
            f"ORCH has {share} right."
        )
    if metrics.no_gold:
        yield f"Left out for want of a gold answer: {counted(metrics.no_gold, 'question')}."


def _panel_sentence(metrics: Metrics) -> str:
    how = ", ".join(f"{name} {count:,}" for name, count in metrics.how.items())
    parts = [f"Decided by: {how or 'nothing'}."]
    agreement = metrics.agreement
    if agreement.share is not None:
        share = percent(agreement.share)
        parts.append(f"The agents agreed on {share} of {counted(agreement.panels, 'panel')}.")
    if metrics.merge_calls_saved:
        parts.append(f"Their agreement saved {counted(metrics.merge_calls_saved, 'merge call')}.")
    return " ".join(parts)


def _accuracy_table(console: Console, metrics: Metrics) -> Table:
    partly = any(system.unscored for _, system in metrics.total.named())
    heads = ["accuracy", "interval", "correct", "p vs ORCH"]
    if partly:
        heads[1:1] = ["of all"]
        heads.insert(-1, "unscored")
    made = table(console, "system", heads)
    comparisons = [*metrics.versus.agents.values(), metrics.versus.majority, None, None]
    for (name, system), versus in zip(metrics.total.named(), comparisons, strict=True):
        cells = [points(system.accuracy), _interval(system, " - "), f"{system.correct:,}/{system.scored:,}"]
        cells.append(p_value(versus.p) if versus else "")
        if partly:
            cells[1:1] = [points(system.accuracy_all)]
            cells.insert(-1, f"{sum(system.unscored.values()):,}")
        made.add_row(safe(name), *map(Text, cells), style=_row_style(system, metrics.total))
    return made


def _row_style(system: System, systems: Systems) -> str:
    if system is systems.orch:
        return "bold"
    return "dim" if system is systems.oracle else ""


def _print_categories(console: Console, metrics: Metrics) -> None:
    shown = list(metrics.categories.items())[:MAX_CATEGORIES]
    names = _columns_that_fit(console, metrics)
    made = table(console, "category", ["gold", *names])
    for category, systems in shown:
        named = [(name, system) for name, system in systems.named() if name in names]
        cells = (_category_cell(console, system, systems) for _, system in named)
        made.add_row(safe(category), Text(f"{systems.gold:,}"), *cells)
    legend = ", * = best" if is_plain(console) else ", best in bold"
    print_table(console, f"Accuracy by category (%{legend})", made)
    notes = []
    if len(metrics.categories) > len(shown):
        notes.append(f"... and {len(metrics.categories) - len(shown)} more in metrics.json")
    if len(names) < len(metrics.total.named()):
        notes.append("the other agents do not fit here and are in metrics.json")
    if notes:
        print_paragraph(console, "; ".join(notes), style="dim")


def _columns_that_fit(console: Console, metrics: Metrics) -> list[str]:
    """All systems, or the ones the headline speaks of where the screen is too narrow for all."""
    names = [name for name, _ in metrics.total.named()]
    label = max(min(len(visible(category)), 24) for category in metrics.categories)
    width = label + _GAP + len("gold") + sum(_GAP + max(len(name), len("100.0*")) for name in names)
    if width <= console.width:
        return names
    return [name for name in names if name == metrics.best_agent or name in ("majority", "ORCH", "oracle")]


def _category_cell(console: Console, system: System, systems: Systems) -> Text:
    text = points(system.accuracy)
    # Where nobody is right nobody is best; None is no accuracy.
    best = system is not systems.oracle and bool(system.accuracy)
    best = best and system.accuracy == systems.best_accuracy
    if is_plain(console):
        return Text(f"{text}{'*' if best else ' '}")
    return Text(text, "bold" if best else "")


def _print_unscored(console: Console, total: Systems) -> None:
    made = table(console, "system", ["questions"])
    made.add_column(Text("reason"))
    for name, system in total.named():
        for reason, count in system.unscored.items():
            made.add_row(safe(name), Text(f"{count:,}"), safe(reason))
    if made.row_count:
        print_table(console, "Unscored (neither right nor wrong)", made)


def _cost_table(console: Console, costs: Mapping[str, Cost]) -> Table:
    heads = ["rows", "stored", "prompt", "cached", "generated", "load s", "generate s"]
    made = table(console, "agent", heads)
    for name, cost in costs.items():
        usage = cost.usage
        counts = (cost.rows, cost.rows - cost.generated_now, usage.prompt, usage.cached, usage.generated)
        seconds = (cost.load_s, cost.generate_s)
        cells = [*map(_count, counts), *(f"{value:,.1f}" for value in seconds)]
        made.add_row(safe(name), *map(Text, cells))
    return made


def table(console: Console, first: str, heads: Iterable[str]) -> Table:
    """An empty table: a column of names, which may fold, then columns of numbers, which may not.

    Cells are :class:`~rich.text.Text`, never strings, so that no markup is read from them.
    """
    plain = is_plain(console)
    made = Table(
        box=_ASCII_BOX if plain else SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
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
    least = sum(map(_least_width, content.columns)) + _GAP * (len(content.columns) - 1)
    if least > console.width:
        content.width = least
    console.print(content, crop=False)
    console.print()


def _least_width(column: Column) -> int:
    widest = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
    return widest if column.no_wrap else min(widest, _LEAST_NAME)


def percent(share: float | None) -> str:
    """A share as a percentage with its sign, e.g. ``78.3 %``."""
    return f"{points(share)}{NBSP}%"


def points(share: float | None) -> str:
    """A share as a percentage without its sign; ``-`` where there is none."""
    return "-" if share is None else f"{100 * share:.1f}"


def _interval(system: System, between: str) -> str:
    return "-" if system.low is None else f"{points(system.low)}{between}{points(system.high)}"


def p_value(p: float | None, equals: str = "") -> str:
    """A p-value, ``-`` where there is none; ``equals`` stands before all but the negligible ones."""
    if p is None:
        return "-"
    if p < _NEGLIGIBLE_P:
        return f"< {_NEGLIGIBLE_P:.0e}"
    return f"{equals}{p:.3f}" if p >= 0.001 else f"{equals}{p:.1e}"


def counted(n: int, noun: str) -> str:
    """A number with its noun, e.g. ``1 question``, ``1,000 questions``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _count(n: int) -> str:
    """Exact below 100,000, then in thousands or millions: costs are read for their size."""
    if n < 100_000:
        return f"{n:,}"
    return f"{n / 1e3:,.0f}k" if n < 10_000_000 else f"{n / 1e6:,.1f}M"
