"""The sections of a report that are tables alone: what their templates are given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest

from markupsafe import Markup

from orch_local.report.findings import findings
from orch_local.report.formatting import CHANCE_P, counted
from orch_local.report.page.base import body
from orch_local.report.page.headline import headline, versus
from orch_local.report.page.wording import NONE, clipped, name, plain, points, signed, span
from orch_local.results.summary import CategorySummary, Estimate, PairSummary, Summary, SystemSummary
from orch_local.results.tables import MAJORITY, ORACLE, ORCH

MOST_CATEGORIES = 60
MOST_SYSTEMS = 24
"""In a square table."""
MOST_REASONS = 40
MOST_FACTS = 100
UP, DOWN, LEVEL = "\N{BLACK UP-POINTING TRIANGLE}", "\N{BLACK DOWN-POINTING TRIANGLE}", "\N{WHITE CIRCLE}"
_SHADES = 10
_MEANING = {
    "bitwise": "Every engine is batch-invariant by its set-up: the same run gives the same bytes again.",
    "verified": "Rows generated again in other batches came to the same bytes; that is evidence, not proof.",
    "rules": "Greedy decoding and fixed tie-breaks. An engine may round otherwise in another batch.",
}
_DECLARED = " On a GPU batch invariance is what vLLM declares; measured are the rows generated again."


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """A system in the first table."""

    system: SystemSummary
    kind: str
    pair: PairSummary | None
    """ORCH against it."""
    best: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """Of a square table, or of a heat map."""

    text: str
    note: str = ""
    tone: str = "none"
    """Class of the style sheet."""
    best: bool = False


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """A category in the heat map."""

    name: str
    gold: int
    cells: tuple[Cell, ...]
    versus: str


@dataclass(frozen=True, slots=True)
class Unscored:
    """How many questions a system left unscored for one reason."""

    system: str
    kind: str
    reason: str
    count: int


def kind_of(name: str) -> str:
    """Class of a system in the style sheet."""
    return name if name in (MAJORITY, ORCH, ORACLE) else "agent"


def lead(summary: Summary) -> Markup:
    """The first screen."""
    text = headline(summary)
    gaps = [card.estimate for card in text.cards if card.zero and card.estimate]
    reach = max([0.01, *(max(abs(one.low), abs(one.high)) for one in gaps)]) * 1.1
    unscored = sum(summary.unscored.values())
    agents = sum(kind_of(one.name) == "agent" for one in summary.systems)
    found = findings(summary.diagnostics, summary.policy, name)
    values = {"headline": text, "findings": found, "unscored": unscored, "agents": agents}
    return body("lead.html.j2", summary=summary, reach=reach, **values)


def accuracy(summary: Summary) -> Markup:
    """All systems with their accuracies."""
    rows = [
        AccuracyRow(one, kind_of(one.name), versus(summary, one.name), one.name == summary.best_agent)
        for one in summary.systems
    ]
    return body(
        "accuracy.html.j2",
        rows=rows,
        partly=any(one.unscored for one in summary.systems),
        clustered=any(one.clustered for one in summary.systems),
        cochran=summary.cochran,
        how=summary.how,
        agreement=summary.agreement,
    )


def pairs(summary: Summary) -> Markup:
    """Every system against every other one."""
    names = [one.name for one in summary.systems if one.name != ORACLE][-MOST_SYSTEMS:]
    known = {(one.first, one.second): one for one in summary.pairs}
    cells = [[_pair_cell(known, row, column) for column in names] for row in names]
    return body("pairs.html.j2", names=names, cells=cells, pairs=summary.pairs)


def _pair_cell(known: dict[tuple[str, str], PairSummary], row: str, column: str) -> Cell:
    straight, turned = known.get((row, column)), known.get((column, row))
    pair = straight or turned
    if pair is None or pair.difference is None:
        return Cell("" if row == column else NONE)
    value = pair.difference.value if straight else -pair.difference.value
    tone, mark = _verdict(value, pair.p_holm)
    return Cell(f"{mark} {signed(value)}", f"p {_equals(pair.p_holm)}", tone)


def _equals(p: float | None) -> str:
    from orch_local.report.page.wording import p_sentence

    return p_sentence(p).removeprefix("p\N{NO-BREAK SPACE}")


def _verdict(value: float, p: float | None) -> tuple[str, str]:
    if p is None or p >= CHANCE_P or not value:
        return "chance", LEVEL
    return ("up", UP) if value > 0 else ("down", DOWN)


def categories(summary: Summary) -> Markup:
    """Accuracy by category as a heat map."""
    names = [one.name for one in summary.systems]
    kept = summary.categories
    if len(kept) > MOST_CATEGORIES:
        largest = {one.name for one in nlargest(MOST_CATEGORIES, kept, key=lambda one: one.gold)}
        kept = tuple(one for one in kept if one.name in largest)
    rows = [_category_row(one, names) for one in kept]
    left_out = len(summary.categories) - len(kept)
    return body(
        "categories.html.j2", names=names, shown_rows=rows, left_out=left_out, best=summary.best_agent
    )


def _category_row(category: CategorySummary, names: Sequence[str]) -> CategoryRow:
    known = [one.value for name, one in category.systems.items() if one and name != ORACLE]
    best = max(known, default=0.0)
    cells = (_heat(category.systems.get(name), category.scored.get(name, 0), best, name) for name in names)
    return CategoryRow(category.name, category.gold, tuple(cells), _versus_best(category.versus_best))


def _heat(estimate: Estimate | None, scored: int, best: float, name: str) -> Cell:
    if estimate is None:
        return Cell(NONE, "none scored")
    top = name != ORACLE and 0 < best <= estimate.value
    note = f"interval {span(estimate)}; {scored:,} scored"
    return Cell(points(estimate.value), note, shade(estimate.value), top)


def shade(share: float) -> str:
    """Class of a heat-map cell."""
    return f"h{max(0, min(_SHADES - 1, int(share * _SHADES)))}"


def _versus_best(pair: PairSummary | None) -> str:
    if pair is None or pair.difference is None:
        return NONE
    value = pair.difference.value
    return f"{_verdict(value, pair.p_holm)[1]} {signed(value)}"


def panel(summary: Summary) -> Markup:
    """What the agents could do together, and what ORCH made of it."""
    found = summary.complementarity
    names = [one.name for one in summary.systems if kind_of(one.name) == "agent"][:MOST_SYSTEMS]
    known = {frozenset((one.first, one.second)): one for one in found.pairs}
    cells = []
    for row, first in enumerate(names):
        pairs = [known.get(frozenset((first, second))) for second in names]
        cells.append([_agents_cell(pair, row - at) for at, pair in enumerate(pairs)])
    return body(
        "panel.html.j2",
        c=found,
        right_total=sum(found.right_counts),
        right_most=max(found.right_counts, default=0),
        names=names,
        cells=cells if found.pairs else [],
        multiplicity=summary.multiplicity,
    )


def _agents_cell(pair: object, side: int) -> Cell:
    from orch_local.results.summary import AgentPair

    if not isinstance(pair, AgentPair) or side == 0:
        return Cell("")
    if side > 0:
        share = pair.disagreement
        if share is None:
            return Cell(NONE, "one right")
        return Cell(f"{points(share)} %", "one right", shade(share))
    phi = pair.error_correlation
    if phi is None:
        return Cell(NONE, "φ", "none")
    return Cell(plain(phi), "φ", shade(phi) if phi >= 0 else "negative")


def unscored(summary: Summary) -> Markup:
    """Unscored questions by reason."""
    rows = list(_unscored_rows(summary))
    if len(rows) > MOST_REASONS:
        kept = nlargest(MOST_REASONS, range(len(rows)), key=lambda at: rows[at].count)
        rows = [rows[at] for at in sorted(kept)]
    return body("unscored.html.j2", rows=rows, more=sum(1 for _ in _unscored_rows(summary)) - len(rows))


def _unscored_rows(summary: Summary) -> Iterator[Unscored]:
    for reason, count in summary.unscored.items():
        yield Unscored(ORCH, ORCH, reason, count)
    for one in summary.systems:
        if one.name not in (ORCH, ORACLE):
            kind = kind_of(one.name)
            yield from (Unscored(one.name, kind, why, count) for why, count in one.unscored.items())


def provenance(summary: Summary) -> Markup:
    """How far the run can be repeated, and what it ran on."""
    facts = dict.fromkeys(fact for known in summary.agents.values() for fact in known)
    reasons = [clipped(reason, 400) for reason in summary.level_reasons[:MOST_FACTS]]
    if len(summary.level_reasons) > MOST_FACTS:
        reasons.append(counted(len(summary.level_reasons) - MOST_FACTS, "further reason"))
    return body(
        "provenance.html.j2",
        summary=summary,
        meaning=_MEANING.get(summary.level, "") + (_DECLARED if summary.declared else ""),
        reasons=reasons,
        facts=list(facts),
        environment=list(summary.environment.items())[:MOST_FACTS],
    )
