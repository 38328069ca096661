"""The sections with plots: how far confidences can be believed, and what the router did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from orch_local.report.findings import flat_sentence
from orch_local.report.page.base import body
from orch_local.report.page.plots import ORCH_STROKE, Curve, Frame, Stroke, curves, reliability, stroke
from orch_local.report.page.wording import name
from orch_local.results.summary import Calibration, RouterPoint, RouterSummary, Summary
from orch_local.results.tables import ORCH

MOST_PLOTS = 12
"""Reliability diagrams of one signal; the table has all systems."""
MOST_POINTS = 25
"""Rows of the table of router states."""
_PHASES = {"warm_up": "in turn (warm-up)", "score": "by score", "explore": "in turn (exploration)"}


@dataclass(frozen=True, slots=True)
class Kept:
    """A line of the table of calibrations, with the abstain thresholds in the order of the targets."""

    calibration: Calibration
    kept: tuple[object, ...]

    def __getattr__(self, wanted: str) -> object:
        return getattr(self.calibration, wanted)


@dataclass(frozen=True, slots=True)
class Diagram:
    """A plot with what stands below it."""

    svg: Markup
    caption: str = ""
    name: str = ""
    n: int = 0
    ece: float = 0.0


@dataclass(frozen=True, slots=True)
class Group:
    """All calibrations of one signal."""

    signal: str
    calibrations: tuple[Calibration, ...]
    plots: tuple[Diagram, ...]
    curves: Markup
    keys: tuple[tuple[str, Stroke], ...]


def strokes(summary: Summary) -> dict[str, Stroke]:
    """The same stroke for the same agent in every plot."""
    agents = [one.name for one in summary.systems]
    return {one: ORCH_STROKE if one == ORCH else stroke(number) for number, one in enumerate(agents)}


def calibration(summary: Summary) -> Markup:
    """Reliability diagrams, risk against coverage, and thresholds."""
    targets = list(dict.fromkeys(target for one in summary.calibration for target in one.abstain))
    targets.sort(key=float)
    rows = [Kept(one, tuple(one.abstain.get(target) for target in targets)) for one in summary.calibration]
    return body(
        "calibration.html.j2",
        calibrations=rows,
        targets=[float(target) for target in targets],
        groups=list(_groups(summary)),
        flat=flat_sentence(summary.calibration, name),
    )


def _groups(summary: Summary) -> Iterator[Group]:
    known = strokes(summary)
    for number, signal in enumerate(dict.fromkeys(one.signal for one in summary.calibration)):
        found = tuple(one for one in summary.calibration if one.signal == signal and _varies(one))
        if not found:
            continue
        first = sorted(found, key=lambda one: one.system != ORCH)[:MOST_PLOTS]
        plots = [
            Diagram(reliability(one, f"rel{number}-{at}", name(one.system)), "", one.system, one.n, one.ece)
            for at, one in enumerate(first)
        ]
        keys = tuple((one.system, known.get(one.system) or stroke(0)) for one in found)
        yield Group(signal, found, tuple(plots), _risk(found, signal, keys, f"risk{number}"), keys)


def _varies(one: Calibration) -> bool:
    """Whether there is anything to draw: of one value a diagram has one bar, and a curve one point."""
    return one.spread is None or not one.spread.is_constant


def _risk(found: Sequence[Calibration], signal: str, keys: Sequence[tuple[str, Stroke]], key: str) -> Markup:
    lines = [
        Curve([point.coverage for point in one.curve], [point.risk for point in one.curve], pen)
        for one, (_, pen) in zip(found, keys, strict=True)
    ]
    ends = ", ".join(f"{name(one.system)} {100 * one.curve[-1].risk:.1f} %" for one in found if one.curve)
    frame = Frame(
        key,
        f"Risk against coverage by {signal}",
        f"Share of errors among the answers kept, by the share kept. With all answers kept: {ends}.",
        "answers kept, most confident first",
        "wrong among them",
    )
    return curves(lines, frame)


def router(summary: Summary, found: RouterSummary) -> Markup:
    """What the router expected of each agent over time, and whom it asked."""
    known = strokes(summary)
    agents = list(found.asked)
    pens = [known.get(agent) or stroke(number) for number, agent in enumerate(agents)]
    plots = _trajectory(found, agents, pens) if found.trajectory else []
    return body(
        "router.html.j2",
        router=found,
        keys=list(zip(agents, pens, strict=True)),
        plots=plots,
        points=_thinned(found.trajectory),
        phases=[(_PHASES.get(phase, phase), count) for phase, count in found.phases.items()],
        questions=summary.questions,
    )


def _trajectory(found: RouterSummary, agents: Sequence[str], pens: Sequence[Stroke]) -> list[Diagram]:
    expected, asked = [], []
    for agent, pen in zip(agents, pens, strict=True):
        states = [(one.question, one.accuracy[agent]) for one in found.trajectory if agent in one.accuracy]
        shares = [(one.question, one.share[agent]) for one in found.trajectory if agent in one.share]
        expected.append(Curve([x for x, _ in states], [y for _, y in states], pen))
        shares = [(0, share) for _, share in shares[:1]] + shares  # the first stretch, from its beginning
        asked.append(Curve([x for x, _ in shares], [y for _, y in shares], pen, steps=True))
    over = "questions routed"
    moving = Frame(
        "router-ema",
        "Expected accuracy of each agent over time",
        "The router's moving average of each agent's accuracy; the table below has the numbers.",
        over,
        "expected accuracy",
        y_from_zero=False,
    )
    share = Frame(
        "router-share",
        "Share of the questions that each agent was asked, over time",
        "Whom the router asked; the table below has the numbers.",
        over,
        "asked",
    )
    return [
        Diagram(curves(expected, moving), "What the router expects: the moving average of accuracy."),
        Diagram(curves(asked, share), "Whom it asks: share of the questions since the point before."),
    ]


def _thinned(points: Sequence[RouterPoint]) -> list[RouterPoint]:
    if len(points) <= MOST_POINTS:
        return list(points)
    step = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(step * number)] for number in range(MOST_POINTS)]
