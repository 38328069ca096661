"""The plots of a page: curves and reliability diagrams, drawn by matplotlib.

They hold numbers and fixed words alone. Names stand in a legend of HTML beside the plot (`legend` in
`macros.html.j2`), where any text is safe and its size is that of the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from orch_local.report.page.svg import INKS, SERIES, SETTINGS, inline
from orch_local.results.summary import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = ((1, 0), (5, 2), (1.5, 1.5), (7, 2, 1.5, 2), (9, 3), (3, 1, 1, 1, 1, 1))
ORCH_INK = "orch"
_POINTS = 72
"""Of an inch, the unit of matplotlib; the page takes one for a pixel."""


@dataclass(frozen=True, slots=True)
class Stroke:
    """How a curve is distinguished from the others: by colour and by dashes, never by colour alone."""

    ink: str
    dash: tuple[float, ...]
    width: float = 1.8

    @property
    def svg_dash(self) -> str:
        """As an attribute of SVG; ``none`` for a solid line."""
        return " ".join(f"{self.width * part:g}" for part in self.dash) if self.dash[1] else "none"


def stroke(number: int) -> Stroke:
    """The stroke of the agent with this number, from 0."""
    turn = number // SERIES
    return Stroke(f"s{number % SERIES + 1}", _DASHES[(number + turn) % len(_DASHES)])


ORCH_STROKE = Stroke(ORCH_INK, (1, 0), 2.6)


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot."""

    x: Sequence[float]
    y: Sequence[float]
    stroke: Stroke
    steps: bool = False
    """Each value holds since the one before."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The axes of a plot and what it is about; ``key`` is another one for each plot of a page."""

    key: str
    title: str
    described: str
    x_label: str
    y_label: str
    width: int = 420
    height: int = 270
    y_from_zero: bool = True


def curves(lines: Sequence[Curve], frame: Frame) -> Markup:
    """Lines over shares: both axes in per cent where all values lie within 0 and 1."""
    with _figure(frame.width, frame.height) as (figure, axes):
        for line in lines:
            style = "steps-pre" if line.steps else "default"
            alone: dict[str, Any] = (
                {"marker": "o", "markersize": 6, "clip_on": False} if len(line.x) == 1 else {}
            )
            axes.plot(line.x, line.y, drawstyle=style, **_pen(line.stroke), **alone)
        _percent(axes.yaxis)
        if all(0 <= x <= 1 for line in lines for x in line.x):
            axes.set_xlim(0, 1)
            _percent(axes.xaxis)
        else:
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        top = max((y for line in lines for y in line.y), default=1.0)
        least = 0.0 if frame.y_from_zero else min((y for line in lines for y in line.y), default=0.0)
        axes.set_ylim(max(0.0, least - 0.03), min(1.02, max(top * 1.08, 0.02)))
        axes.set_xlabel(frame.x_label)
        axes.set_ylabel(frame.y_label)
        return inline(figure, frame.key, frame.title, frame.described)


def reliability(calibration: Calibration, key: str, name: str) -> Markup:
    """Accuracy over confidence with intervals; below, how many questions fall into each bin."""
    from matplotlib.figure import Figure

    bins = calibration.bins
    middle = [(one.low + one.high) / 2 for one in bins]
    wide = [0.92 * (one.high - one.low) for one in bins]
    value = [one.accuracy.value for one in bins]
    below = [one.accuracy.value - one.accuracy.low for one in bins]
    above = [one.accuracy.high - one.accuracy.value for one in bins]
    with _settings():
        figure = Figure(figsize=(280 / _POINTS, 270 / _POINTS), layout="constrained")
        axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
        axes.plot([0, 1], [0, 1], color=INKS["muted"], linewidth=1, dashes=(3, 3))
        axes.bar(middle, value, wide, color=INKS["bar"])
        axes.errorbar(
            middle, value, yerr=[below, above], fmt="none", ecolor=INKS["ink"], elinewidth=1.2, capsize=2.5
        )
        axes.plot(
            [one.confidence for one in bins], value, "D", color=INKS["orch"], markersize=4.5, clip_on=False
        )
        counts.bar(middle, [one.n for one in bins], wide, color=INKS["muted"])
        for one in (axes, counts):
            one.grid(visible=False, axis="x")
        axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="right")
        counts.set(xlabel=calibration.signal, ylabel="n", yticks=[])
        _percent(axes.yaxis)
        _percent(counts.xaxis)
        title = f"Reliability of {name}, by {calibration.signal}"
        text = (
            f"Share of right answers by {calibration.signal} in {len(bins)} bins, {calibration.n:,} answers; "
            f"expected calibration error {100 * calibration.ece:.1f} points. A table below has the numbers."
        )
        return inline(figure, key, title, text)


@contextmanager
def _figure(width: int, height: int) -> Iterator[tuple[Figure, Axes]]:
    from matplotlib.figure import Figure

    with _settings():
        figure = Figure(figsize=(width / _POINTS, height / _POINTS), layout="constrained")
        yield figure, figure.add_subplot()


@contextmanager
def _settings() -> Iterator[None]:
    # Without pyplot: no window, no state shared with whoever calls us.
    import matplotlib

    settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, "backend": "svg", **SETTINGS}
    with matplotlib.rc_context(settings):
        yield


def _pen(stroke: Stroke) -> dict[str, Any]:
    dashes = {"dashes": stroke.dash} if stroke.dash[1] else {}
    return {"color": INKS[stroke.ink], "linewidth": stroke.width, **dashes}


def _percent(axis: object) -> None:
    axis.set_major_formatter(lambda value, _: f"{100 * value:g}\N{NO-BREAK SPACE}%")  # type: ignore[attr-defined]
