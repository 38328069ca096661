"""What the statistics add to the result of a run, on the terminal or as plain ASCII tables in a log file.

The accuracies themselves are printed by :mod:`orch_local.report.terminal`.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orch_local.report.console import WARNING, print_list, print_paragraph, print_table, table
from orch_local.report.findings import (
    EXPLANATION,
    HEADS,
    baseline_sentence,
    figures,
    findings,
    flat_sentence,
    label_shares,
    labels,
)
from orch_local.report.formatting import NBSP, counted, p_value, points
from orch_local.report.safe import safe
from orch_local.report.words import (
    cochran_sentence,
    ends,
    merge_sentences,
    multiplicity_sentences,
    number,
    right_sentence,
    router_sentence,
    signed,
    spending_sentence,
    summary_headline,
)
from orch_local.results.diagnostics import Diagnostics
from orch_local.results.summary import AgentPair, Calibration, PairSummary, Spending, Summary
from orch_local.results.tables import ORCH

MAX_ROWS = 20
TARGET = "0.05"
_CHANCE = 0.05


def print_summary(console: Console, summary: Summary) -> None:
    """Print the headline, then pairs, complementarity, multiplicity, diagnostics, calibration, cost."""
    print_paragraph(console, summary_headline(summary), style="bold")
    found = findings(summary.diagnostics, summary.policy)
    for text in found.headline:
        print_paragraph(console, text, style=WARNING)
    if summary.router is not None:
        print_paragraph(console, router_sentence(summary))
    if summary.gold:
        _print_pairs(console, summary)
        _print_together(console, summary)
    for text in multiplicity_sentences(summary)[-1:]:  # the widest tolerance holds the others
        print_paragraph(console, text)
    if summary.diagnostics is not None:
        _print_diagnostics(console, summary.diagnostics, found.agents)
    if summary.calibration:
        print_table(console, "Calibration", _calibration(console, summary.calibration))
        for text in filter(None, [flat_sentence(summary.calibration)]):
            print_paragraph(console, text)
    _print_spending(console, summary.spending)


def _print_pairs(console: Console, summary: Summary) -> None:
    against = [pair for pair in summary.pairs if pair.first == ORCH]
    others = [pair for pair in summary.pairs if pair.first != ORCH]
    made = table(console, "ORCH against", ["n", "won/lost", "points", "interval", "p", "p (Holm)"])
    for pair in against[:MAX_ROWS]:
        made.add_row(safe(pair.second), *map(Text, _pair_cells(pair)))
    print_table(console, "Pairs on common questions (95 % interval, exact McNemar)", made)
    print_paragraph(console, _pairs_sentence(summary, others, cut=len(against) - MAX_ROWS))


def _pair_cells(pair: PairSummary) -> Sequence[str]:
    counts = (f"{pair.n:,}", f"{pair.gained:,}/{pair.lost:,}")
    return (*counts, signed(pair.difference), ends(pair.difference), p_value(pair.p), p_value(pair.p_holm))


def _pairs_sentence(summary: Summary, others: Sequence[PairSummary], cut: int) -> str:
    differ = sum(pair.p_holm is not None and pair.p_holm < _CHANCE for pair in others)
    cochran = cochran_sentence(summary)
    text = [f"... and {cut:,} more in report.json."] if cut > 0 else []
    text += [f"Holm's correction is over all {counted(len(summary.pairs), 'pair')}."]
    text += [f"Of the {len(others):,} without ORCH {differ:,} differ by more than chance."] if others else []
    return " ".join([*text, *([cochran] if cochran else [])])


def _print_together(console: Console, summary: Summary) -> None:
    pairs = summary.complementarity.pairs
    if pairs:
        print_table(console, "How agents err together", _agent_pairs(console, pairs[:MAX_ROWS]))
    more = f"... and {len(pairs) - MAX_ROWS:,} more pairs in report.json. " if len(pairs) > MAX_ROWS else ""
    print_paragraph(console, f"{more}{right_sentence(summary)} {merge_sentences(summary)}")


def _agent_pairs(console: Console, pairs: Sequence[AgentPair]) -> Table:
    made = table(console, "agents", ["n", "disagree %", "correlation", "Yule's Q", "same wrong %"])
    for pair in pairs:
        cells = [f"{pair.n:,}", points(pair.disagreement), number(pair.error_correlation)]
        cells += [number(pair.q_statistic), points(pair.same_wrong)]
        made.add_row(safe(f"{pair.first}, {pair.second}"), *map(Text, cells))
    return made


def _print_diagnostics(console: Console, found: Diagnostics, texts: Sequence[str]) -> None:
    made = table(console, "agent", HEADS)
    for name, one in found.agents.items():
        made.add_row(safe(name), *(Text(cell.replace(NBSP, " ")) for cell in figures(one)))
    print_table(console, "How the agents answered", made)
    print_paragraph(console, EXPLANATION, style="dim")
    print_list(console, "What stands out", texts)
    shares = label_shares(found)
    if shares:
        made = table(console, "answers", labels(found))
        for label, cells in shares:
            made.add_row(safe(label or "gold"), *map(Text, cells), style="" if label else "bold")
        print_table(console, "Labels of multiple-choice answers (%)", made)
        print_paragraph(console, baseline_sentence(found))


def _calibration(console: Console, found: Sequence[Calibration]) -> Table:
    kept = f"% answered at risk {TARGET}"
    made = table(console, "system", ["signal", "n", "ECE", "Brier", "AURC", kept])
    for one in found:
        point = one.abstain.get(TARGET)
        figures = [f"{value:.3f}" for value in (one.ece, one.brier, one.aurc)]
        answered = points(point.coverage) if point else "none"
        made.add_row(safe(one.system), *map(Text, [one.signal, f"{one.n:,}", *figures, answered]))
    return made


def _print_spending(console: Console, spending: Spending) -> None:
    made = table(console, "agent", ["rows", "now", "prompt", "cached", "generated", "load s", "generate s"])
    for one in spending.agents:
        counts = (one.rows, one.generated_now, one.prompt_tokens, one.cached_tokens, one.generated_tokens)
        seconds = (f"{value:,.1f}" for value in (one.load_s, one.generate_s))
        made.add_row(safe(one.name), *map(Text, (*map(_count, counts), *seconds)))
    print_table(console, "Cost (rows, tokens, device-seconds)", made)
    print_paragraph(console, spending_sentence(spending))


def _count(n: int) -> str:
    """As in the table at the end of a run."""
    if n < 100_000:
        return f"{n:,}"
    return f"{n / 1e3:,.0f}k" if n < 10_000_000 else f"{n / 1e6:,.1f}M"
