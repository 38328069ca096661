"""The metrics of a run on the terminal, or as plain ASCII tables in a log file.

Names and categories come from outside, so every one passes through :mod:`orch_local.report.safe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orch_local.report.console import (
    GAP,
    WARNING,
    is_plain,
    print_list,
    print_paragraph,
    print_table,
    table,
)
from orch_local.report.formatting import counted, interval, p_value, percent, points, rough_count
from orch_local.report.headline import headline
from orch_local.report.safe import safe, visible
from orch_local.results.scoring import NOT_ASKED, Cost, Metrics, System, Systems

if TYPE_CHECKING:
    from orch_local.report.findings import Findings

MAX_CATEGORIES = 20


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
        Sentences on how the agents answered.
    """
    print_paragraph(console, headline(metrics, routed=_is_routed(metrics)), style="bold")
    for text in findings.headline if findings else ():
        print_paragraph(console, text, style=WARNING)
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
        text = f"A worker of {name} died {often} and was replaced; no row is lost, run.log says how."
        print_paragraph(console, visible(text))
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


def _is_routed(metrics: Metrics) -> bool:
    return any(NOT_ASKED in agent.unscored for agent in metrics.total.agents.values())


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
        cells = [points(system.accuracy), interval(system, " - "), f"{system.correct:,}/{system.scored:,}"]
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
    width = label + GAP + len("gold") + sum(GAP + max(len(name), len("100.0*")) for name in names)
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
        cells = [*map(rough_count, counts), *(f"{value:,.1f}" for value in seconds)]
        made.add_row(safe(name), *map(Text, cells))
    return made
