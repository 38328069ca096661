"""The page of a comparison of runs: the frame, style and drawings are those of the report on one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from heapq import nlargest

from markupsafe import Markup

from orch_local.report.comparison_tables import Grid, Name, grids, headline, sentences
from orch_local.report.page.base import Page, Section, body, render
from orch_local.report.page.headline import Card, within_chance
from orch_local.report.page.sections import DOWN, LEVEL, UP, CategoryRow, Cell, shade
from orch_local.report.page.wording import NONE, name, p_sentence, points, signed, signed_span, span
from orch_local.results.compare.comparing import ComparedRun, Comparison
from orch_local.results.summary import CategorySummary, Estimate, PairSummary

MOST_RUNS = 16
"""In a square table."""
MOST_CATEGORIES = 60
MOST_ROWS = 300
_GRIDS = {"merge": "Merge", "agents": "Agents", "cost": "Cost"}


def page(comparison: Comparison) -> str:
    """The content of ``compare.html``."""
    title = f"Comparison of {len(comparison.entries)} runs"
    return render(Page(title, _lead(comparison), tuple(_sections(comparison))))


def _sections(comparison: Comparison) -> Iterator[Section]:
    tables = {grid.id: grid for grid in grids(comparison)}
    yield Section("accuracy", "Accuracy", body("comparison_runs.html.j2", comparison=comparison))
    yield Section("pairs", "Pairs", _pairs(comparison, tables["pairs"]))
    if "categories" in tables:
        yield Section("categories", "Categories", _categories(comparison))
    for id_, title in _GRIDS.items():
        if id_ in tables:
            yield Section(id_, title, _table(tables[id_]))
    yield Section("runs", "Runs", _table(_provenance(comparison)))


def _lead(comparison: Comparison) -> Markup:
    cards = list(_cards(comparison))
    gaps = [card.estimate for card in cards if card.zero and card.estimate]
    reach = max([0.01, *(max(abs(one.low), abs(one.high)) for one in gaps)]) * 1.1
    return body(
        "comparison_lead.html.j2",
        comparison=comparison,
        title=_title(comparison),
        headline=headline(comparison, name),
        sentences=list(sentences(comparison, name)),
        cards=cards,
        reach=reach,
    )


def _title(comparison: Comparison) -> str:
    pair = comparison.pairs[0]
    if pair.difference is None:
        return "The runs cannot be compared by right answers"
    if _within_chance(pair):
        return "The best runs cannot be told apart"
    return f"{name(pair.first)} is {abs(100 * pair.difference.value):.1f} points better than the next run"


def _within_chance(pair: PairSummary) -> bool:
    """Whether the difference may be chance, all pairs of runs considered."""
    return within_chance(pair) or pair.p_holm is None or pair.p_holm >= 0.05


def _cards(comparison: Comparison) -> Iterator[Card]:
    first, pair = comparison.ranked[0], comparison.pairs[0]
    share = first.orch.accuracy
    if share is None:
        return
    note = f"{span(share)}; {first.orch.correct:,} of {first.orch.scored:,} right"
    yield Card(f"{name(first.name, 24)}, right answers", f"{100 * share.value:.1f}", "%", note, share)
    if pair.difference is not None:
        note = f"{signed_span(pair.difference)}; {p_sentence(pair.p_holm)} after Holm"
        label = f"against {name(pair.second, 24)}, the next run"
        yield Card(label, signed(pair.difference.value), "points", note, pair.difference, zero=True)


def _pairs(comparison: Comparison, grid: Grid) -> Markup:
    names = comparison.ranking[:MOST_RUNS]
    known = {(one.first, one.second): one for one in comparison.pairs}
    cells = [[_cell(known, row, column) for column in names] for row in names]
    left_out = len(comparison.ranking) - len(names)
    return body(
        "comparison_pairs.html.j2", names=names, cells=cells, left_out=left_out, grid=grid, most=MOST_ROWS
    )


def _cell(known: Mapping[tuple[str, str], PairSummary], row: str, column: str) -> Cell:
    straight = known.get((row, column))
    pair = straight or known.get((column, row))
    if pair is None or pair.difference is None:
        return Cell("" if row == column else NONE)
    value = pair.difference.value if straight else -pair.difference.value
    tone, mark = _verdict(value, pair)
    return Cell(f"{mark} {signed(value)}", p_sentence(pair.p_holm), tone)


def _verdict(value: float, pair: PairSummary) -> tuple[str, str]:
    if _within_chance(pair) or not value:
        return "chance", LEVEL
    return ("up", UP) if value > 0 else ("down", DOWN)


def _categories(comparison: Comparison) -> Markup:
    names = comparison.ranking[:MOST_RUNS]
    kept = nlargest(MOST_CATEGORIES, comparison.categories, key=lambda one: one.gold)
    rows = [_category(one, names) for one in sorted(kept, key=lambda one: one.name)]
    left_out = len(comparison.categories) - len(rows)
    return body("comparison_heat.html.j2", names=names, shown_rows=rows, left_out=left_out)


def _category(one: CategorySummary, names: Sequence[str]) -> CategoryRow:
    shares = [one.systems[run] for run in names]
    best = max((share.value for share in shares if share), default=0.0)
    cells = tuple(_heat(share, one.scored[run], best) for run, share in zip(names, shares, strict=True))
    pair = one.versus_best
    versus = NONE
    if pair and pair.difference:
        versus = f"{_verdict(pair.difference.value, pair)[1]} {signed(pair.difference.value)}"
    return CategoryRow(one.name, one.gold, cells, versus)


def _heat(share: Estimate | None, scored: int, best: float) -> Cell:
    if share is None:
        return Cell(NONE, "none scored")
    note = f"interval {span(share)}; {scored:,} scored"
    return Cell(points(share.value), note, shade(share.value), 0 < best <= share.value)


def _table(grid: Grid) -> Markup:
    return body("comparison_grid.html.j2", grid=grid, most=MOST_ROWS)


def _provenance(comparison: Comparison) -> Grid:
    heads = ["run", "benchmark", "questions", "determinism", "digest", "folder"]
    return Grid("runs", "The runs", heads, [_facts(one) for one in comparison.entries])


def _facts(one: ComparedRun) -> list[str]:
    return [Name(one.name), one.benchmark, f"{one.questions:,}", one.level, one.digest[:16], one.folder]
