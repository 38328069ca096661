"""An ablation as one plot: a dot with its interval for each system, by family, against ORCH as run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from orch_local.report.ablation import ROUTER, ordered, shown
from orch_local.report.safe import visible
from orch_local.store.store import atomic_write

if TYPE_CHECKING:
    from orch_local.ablate.scores import AblationRow
    from orch_local.ablate.study import Ablation

_WIDTH_IN = 9.5
_ROW_IN = 0.235
_AROUND_IN = 1.25
_LONGEST = 46
_GAP = 0.35
"""Rows left free above the name of a family."""
# Okabe & Ito (2008): distinguishable for the colour-blind too; a hue a family.
_COLOURS = ("#000000", "#0072B2", "#56B4E9", "#56B4E9", "#CC79A7", "#E69F00", "#D55E00", "#009E73", "#009E73")
_OTHERS = "#666666"
_ROUTED = "#7A5195"


def write_plot(ablation: Ablation, *paths: Path) -> None:
    """Draw the main rows into these files; the ending of a name tells the format (svg, png).

    Raises
    ------
    StoreError
        If a file cannot be written.
    """
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "ablation", "font.size": 9, "svg.fonttype": "path"}):
        figure = _figure(ablation)
        for path in paths:
            kind = path.suffix[1:]
            # No date: the same ablation is the same file.
            metadata = {"Date": None} if kind == "svg" else {}
            with atomic_write(path) as temporary:
                figure.savefig(temporary, format=kind, dpi=150, metadata=metadata, facecolor="white")


def _figure(ablation: Ablation) -> Any:
    from matplotlib.figure import Figure

    families = [(family, rows) for family, all_rows in ordered(ablation.rows) if (rows := shown(all_rows))]
    lines = sum(len(rows) + 1 + _GAP for _, rows in families)
    height = lines * _ROW_IN + _AROUND_IN
    figure = Figure(figsize=(_WIDTH_IN, height), layout="constrained")
    axes = figure.add_subplot()
    place = 0.0
    ticks: list[tuple[float, str]] = []
    for number, (family, rows) in enumerate(families):
        if [row.name for row in rows] != [family]:
            place += _GAP
            _heading(axes, place, visible(family))
            place += 1
        for row in rows:
            _draw(axes, place, row, _colour(number, family))
            ticks.append((place, _label(row)))
            place += 1
    _reference(axes, ablation)
    axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks])
    axes.set_ylim(place - 0.4, -0.8)
    _dress(figure, axes, ablation)
    return figure


def _heading(axes: Any, at: float, text: str) -> None:
    axes.text(-0.005, at, text, transform=axes.get_yaxis_transform(), ha="right", va="center", weight="bold")


def _colour(number: int, family: str) -> str:
    if family == ROUTER:
        return _ROUTED
    return _COLOURS[number] if number < len(_COLOURS) else _OTHERS


def _draw(axes: Any, at: float, row: AblationRow, colour: str) -> None:
    if row.accuracy is None:
        axes.text(0.01, at, "unscored", va="center", color=colour, transform=axes.get_yaxis_transform())
        return
    found = row.accuracy
    axes.plot(
        [100 * found.low, 100 * found.high], [at, at], color=colour, linewidth=1.6, solid_capstyle="butt"
    )
    axes.plot([100 * found.value], [at], "o", color=colour, markersize=5)
    cost = f"{100 * row.cost:.0f} %" if row.cost is not None else ""
    right = axes.get_yaxis_transform()
    axes.text(1.012, at, f"{100 * found.value:.1f}", va="center", transform=right, family="monospace")
    axes.text(1.125, at, cost, va="center", ha="right", transform=right, color="#555555", family="monospace")


def _label(row: AblationRow) -> str:
    name = visible(row.name).replace(", alpha 0.1", "")
    decided = "" if row.vote in ("merge", "agent") else f" ({row.vote})"
    text = f"{name}{decided}" if row.family == "votes" else name
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _reference(axes: Any, ablation: Ablation) -> None:
    orch = ablation.rows[0].accuracy
    if orch is None:
        return
    axes.axvspan(100 * orch.low, 100 * orch.high, color="#000000", alpha=0.07, linewidth=0)
    axes.axvline(100 * orch.value, color="#000000", linewidth=0.9, linestyle=(0, (4, 3)))


def _dress(figure: Any, axes: Any, ablation: Ablation) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("accuracy (%), 95 % Wilson interval; dashed line and band: ORCH as run")
    axes.text(1.012, -1.0, "acc.", transform=axes.get_yaxis_transform(), va="bottom", color="#555555")
    axes.text(
        1.125, -1.0, "cost", transform=axes.get_yaxis_transform(), va="bottom", ha="right", color="#555555"
    )
    vote = f"panels without the merge agent decided by the {ablation.main_vote} vote unless said otherwise"
    title = f"Ablation of {visible(ablation.title)}: {ablation.gold:,} questions with gold\n"
    figure.suptitle(title + vote, fontsize=10, x=0.01, ha="left")
