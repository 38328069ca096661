"""Merging while analyses are still being written: each question as soon as its panel is complete."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from orch_local.merge.panels import Panels
from orch_local.plan.plans import AgentPlan, Plan
from orch_local.records import Question
from orch_local.router.routes import Routes
from orch_local.run.generating import Unit
from orch_local.store.store import Store

LOOK_EVERY_S = 2.0
"""Chunks come every few seconds; looking more often would find nothing new."""
INCOMPLETE_IN_A_ROW = 2000
"""Agents go through the questions in one order, so behind so many incomplete panels a look may end."""


class Following:
    """Makes the merge agent's units, those of a question when its panel is in the store."""

    def __init__(
        self,
        plan: Plan,
        merger: AgentPlan,
        store: Store,
        questions: Mapping[str, Question],
        routes: Routes | None = None,
    ) -> None:
        self._panels = Panels(plan, store, routes)
        self._stored = store.read(merger.spec)
        self._questions = questions

    def units(self, keys: Sequence[str], complete: Callable[[], bool]) -> Iterator[Unit | None]:
        """A unit for each question that needs a merge which is not stored; ``None`` stands for "not yet".

        ``complete`` tells that all panels which there will be are in the store. What is incomplete then is
        left out.
        """
        waiting, looked = list(keys), -LOOK_EVERY_S
        while waiting:
            last = complete()  # asked before the look: what was written before that is seen
            if not last and time.monotonic() - looked < LOOK_EVERY_S:
                yield None
                continue
            looked = time.monotonic()
            self._panels.update()
            ready, waiting = self._ready(waiting, len(waiting) if last else INCOMPLETE_IN_A_ROW)
            yield from filter(None, map(self._unit, ready))
            if last:
                return

    def _ready(self, keys: Sequence[str], patience: int) -> tuple[list[str], list[str]]:
        """The keys whose panels are complete, and the others."""
        ready: list[str] = []
        waiting: list[str] = []
        incomplete = 0
        for place, key in enumerate(keys):
            if incomplete > patience:
                return ready, waiting + list(keys[place:])
            complete = self._panels.complete(key)
            incomplete = 0 if complete else incomplete + 1
            (ready if complete else waiting).append(key)
        return ready, waiting

    def _unit(self, key: str) -> Unit | None:
        task = self._panels.merge_of(self._questions[key])
        return None if task is None or task.key in self._stored else Unit(key, task)
