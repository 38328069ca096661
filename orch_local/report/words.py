"""What a summary says in sentences, for the terminal, a Markdown file or a page.

``shown`` makes a foreign name harmless where the sentence goes. No-break spaces hold numbers and units
together, as in :mod:`orch_local.report.headline`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from orch_local.report.formatting import CHANCE_P, NBSP, counted, p_value, percent
from orch_local.report.headline import headline
from orch_local.report.safe import visible
from orch_local.results.scoring import (
    Agreement,
    Metrics,
    PairedComparison,
    PairedComparisons,
    System,
    Systems,
)
from orch_local.results.summary import Estimate, Multiplicity, PairSummary, Spending, Summary, SystemSummary
from orch_local.results.tables import MAJORITY, ORACLE, ORCH

Shown = Callable[[str], str]
DEVICES = {"cuda": "GPU", "cpu": "CPU worker"}


def summary_headline(summary: Summary, shown: Shown = visible) -> str:
    """The result in plain words, with its uncertainty; the same as at the end of the run."""
    systems = {one.name: _system(one) for one in summary.systems}
    best = shown(summary.best_agent) if summary.best_agent is not None else None
    versus = {one.second: _comparison(one) for one in summary.pairs if one.first == ORCH}
    agents = {best: versus[summary.best_agent]} if best is not None and summary.best_agent in versus else {}
    total = Systems(summary.gold, {}, systems[MAJORITY], systems[ORCH], systems[ORACLE])
    return headline(
        Metrics(
            questions=summary.questions,
            no_gold=summary.no_gold,
            answered=summary.questions - sum(summary.unscored.values()),
            total=total,
            categories={},
            versus=PairedComparisons(agents, versus[MAJORITY]),
            best_agent=best,
            how=summary.how,
            merge_calls=0,
            merge_calls_saved=0,
            agreement=Agreement(0, 0, summary.agreement),
        ),
        routed=summary.router is not None,
    )


def _system(one: SystemSummary) -> System:
    share = one.accuracy
    return System(
        scored=one.scored,
        correct=one.correct,
        accuracy=share.value if share else None,
        low=share.low if share else None,
        high=share.high if share else None,
        accuracy_all=one.accuracy_all,
        unscored=one.unscored,
    )


def _comparison(pair: PairSummary) -> PairedComparison:
    return PairedComparison(
        pair.n, pair.gained, pair.lost, pair.difference.value if pair.difference else None, pair.p
    )


def cochran_sentence(summary: Summary) -> str:
    """Whether the systems are equally good; empty where that cannot be asked."""
    found = summary.cochran
    if found is None:
        return ""
    verdict = "could all be equally good" if found.p >= CHANCE_P else "are not all equally good"
    text = f"Cochran's Q{NBSP}={NBSP}{found.statistic:,.1f}, df{NBSP}{found.df}, {_p(found.p)}"
    basis = f"on the {counted(found.n, 'question')} where all are scored"
    return f"The {found.systems} systems without the oracle {verdict} ({text}, {basis})."


def merge_sentences(summary: Summary, shown: Shown = visible) -> str:
    """What the merge made of the panels."""
    found = summary.complementarity
    texts = [_saved("the majority vote", found.saves, found.breaks)]
    if summary.best_agent is not None and summary.router is None:
        best = f"the best agent, {shown(summary.best_agent)},"
        texts.append(_saved(best, found.saves_against_best, found.breaks_against_best))
    texts.append(
        f"ORCH is right on {counted(found.beyond_panel, 'question')} where no agent is, "
        f"and wrong on {found.lost_by_merge:,} where one is right."
    )
    return " ".join(texts)


def _saved(other: str, saves: int, breaks: int) -> str:
    return f"Against {other} ORCH saved {counted(saves, 'question')} and broke {breaks:,}."


def right_sentence(summary: Summary) -> str:
    """How many agents were right, over the questions with gold."""
    counts = summary.complementarity.right_counts
    text = ", ".join(f"{number}{NBSP}on{NBSP}{count:,}" for number, count in enumerate(counts))
    of = f"of {len(counts) - 1}" if summary.router is None else "of those asked"
    return f"Agents that were right, {of}: {text}."


def router_sentence(summary: Summary, shown: Shown = visible) -> str:
    """Whom the router asked, and why; empty where there was none."""
    found = summary.router
    if found is None:
        return ""
    asked = ", ".join(
        f"{shown(name)} asked {count:,} of {summary.questions:,}" if not place else f"{shown(name)} {count:,}"
        for place, (name, count) in enumerate(found.asked.items())
    )
    phased = sorted(found.phases.items(), key=lambda one: (one[0] != "warm_up", one[0]))
    phases = ", ".join(f"{name.replace('_', '-')} {count:,}" for name, count in phased)
    return f"Router: {'; '.join(filter(None, (found.mode, asked, phases)))}."


def multiplicity_sentences(summary: Summary, shown: Shown = visible) -> list[str]:
    """What agents about as good as the best make of the same questions, for each set of such agents."""
    alike = groupby(summary.multiplicity, key=lambda one: one.competing)
    return [_multiplicity(list(group), shown) for _, group in alike]


def _multiplicity(group: Sequence[Multiplicity], shown: Shown) -> str:
    one, best = group[0], shown(group[0].competing[0])
    tolerances = " or ".join(f"{100 * each.tolerance:g}" for each in group)
    points = f"{tolerances}{NBSP}point" + ("" if tolerances == "1" else "s")
    if one.ambiguity is None or one.discrepancy is None:
        return f"Within {points} of {best}: no agent to compare it with."
    return (
        f"Within {points} of {best}: {counted(len(one.competing) - 1, 'agent')}; at least one answers "
        f"otherwise on {percent(one.ambiguity)} of {counted(one.n, 'question')} (ambiguity), one alone on up "
        f"to {percent(one.discrepancy)} (discrepancy)."
    )


def spending_sentence(spending: Spending) -> str:
    """How the device time was spent; empty where none was recorded."""
    parts = {
        "load": spending.load_s,
        "generate": spending.generate_s,
        "merge": spending.merge_s,
        "idle": spending.idle_s,
    }
    held, device = sum(parts.values()), DEVICES.get(spending.device, spending.device)
    if not held:
        return "No device time is recorded."
    shares = ", ".join(f"{name} {percent(seconds / held)}" for name, seconds in parts.items())
    text = f"{device}-seconds held: {held:,.1f}, of these {shares}."
    if spending.correct_per_device_hour is None:
        return f"{text} Not all rows are of these executions, so no answers per hour are told."
    return f"{text} Right answers per {device}-hour: {spending.correct_per_device_hour:,.0f}."


def _p(p: float) -> str:
    return f"p{NBSP}{p_value(p, '=' + NBSP).replace(' ', NBSP)}"


def signed(estimate: Estimate | None) -> str:
    """A difference in points with its sign; ``-`` where there is none."""
    return "-" if estimate is None else f"{100 * estimate.value:+.1f}"


def ends(estimate: Estimate | None, between: str = " to ", scale: float = 100) -> str:
    """Both ends of an interval."""
    if estimate is None:
        return "-"
    return f"{_end(scale * estimate.low)}{between}{_end(scale * estimate.high)}"


def ratio(estimate: Estimate | None) -> str:
    """An odds ratio with its interval."""
    if estimate is None:
        return "-"
    return f"{_end(estimate.value)} ({ends(estimate, ' to ', scale=1)})"


def number(value: float | None) -> str:
    """A coefficient; ``-`` where there is none."""
    return "-" if value is None else f"{value:.3f}"


def _end(value: float) -> str:
    """Three digits of what is small, none behind the point of what is large."""
    if math.isinf(value):
        return "inf"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"
