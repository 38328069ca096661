"""What a router did over the course of a run, from the record of its routes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from orch_local.errors import StoreError
from orch_local.plan.plans import Plan
from orch_local.results.summary import RouterPoint, RouterSummary
from orch_local.router.routes import recorded
from orch_local.store.store import RunFolder

MOST_POINTS = 200
LEAST_QUESTIONS = 20
"""Of a stretch; the shares of fewer would jump."""


@dataclass(slots=True)
class _Stretch:
    """Sums over some questions in a row."""

    questions: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    accuracy: Counter[str] = field(default_factory=Counter)
    observed: int = 0


def router_summary(folder: RunFolder, plan: Plan) -> RouterSummary | None:
    """What the router of a finished run did; ``None`` where it had none.

    Raises
    ------
    StoreError
        If the record of its routes is not there, or damaged.
    """
    if plan.config.router is None:
        return None
    asked: Counter[str] = Counter()
    phases: Counter[str] = Counter()
    points: list[RouterPoint] = []
    for stretch in _stretches(folder, phases, max(LEAST_QUESTIONS, -(-plan.questions.count // MOST_POINTS))):
        asked.update(stretch.asked)
        done = stretch.questions + (points[-1].question if points else 0)
        points.append(
            RouterPoint(
                question=done,
                observed=stretch.observed,
                accuracy={name: stretch.accuracy[name] / stretch.questions for name in plan.names},
                share={name: stretch.asked[name] / stretch.questions for name in plan.names},
            )
        )
    by_agent = {name: asked[name] for name in plan.names}
    return RouterSummary(plan.config.router.mode, by_agent, dict(sorted(phases.items())), tuple(points))


def _stretches(folder: RunFolder, phases: Counter[str], length: int) -> Iterator[_Stretch]:
    stretch = _Stretch()
    for number, row in enumerate(recorded(folder), 1):
        try:
            phases[row["phase"]] += 1
            stretch.asked.update(row["asked"])
            for name, estimate in row["estimates"].items():
                stretch.accuracy[name] += estimate["accuracy"]
            stretch.observed = row["observed"]
        except (KeyError, TypeError, AttributeError):
            hint = "`orch-local run`, as the run was begun, makes it anew from the stored rows"
            raise StoreError(f"line {number} is no route", where=str(folder.routes), hint=hint) from None
        stretch.questions += 1
        if stretch.questions == length:
            yield stretch
            stretch = _Stretch()
    if stretch.questions:
        yield stretch
