"""What of the rows of a run is missing, told from the store alone."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orch_local.merge.panels import Panels
from orch_local.plan.plans import AgentPlan
from orch_local.router.routes import Routes
from orch_local.run.context import RunContext
from orch_local.store.keys import RowKeys
from orch_local.store.questions import Questions, as_number

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MissingRows:
    """The rows of one agent that are wanted and not in the store."""

    agent: AgentPlan
    wanted: int
    rows: RowKeys
    """Question key -> row key, in the order of the questions."""
    damaged: tuple[Path, ...] = ()
    """Chunks that were damaged and were set aside."""

    @property
    def stored(self) -> int:
        """Rows that are wanted and in the store."""
        return self.wanted - len(self.rows)


def missing_analyses(context: RunContext, questions: Questions, routes: Routes) -> list[MissingRows]:
    """The analyses of these questions that each agent has not written, in agent order."""
    agents = context.plan.agents
    return [
        missing_rows(context, agent, wanted)
        for agent, wanted in zip(agents, _wanted(context, questions, routes), strict=True)
    ]


def _wanted(context: RunContext, questions: Questions, routes: Routes) -> Iterator[RowKeys]:
    """Question key -> row key of the analyses that each agent is asked for."""
    if context.plan.config.router is None:  # then all agents have the same keys, held once
        everything = RowKeys(array("Q", map(as_number, questions.keys())))
        yield from (everything for _ in context.plan.agents)
        return
    for place in range(len(context.plan.agents)):
        asked = (key for key in questions.keys() if place in routes.of(key))  # noqa: SIM118 - a method
        yield RowKeys(array("Q", map(as_number, asked)))


def missing_rows(context: RunContext, agent: AgentPlan, wanted: RowKeys) -> MissingRows:
    """Which of the rows ``wanted`` (question key -> row key) are missing; damaged chunks are set aside."""
    stored, retry = context.store.read(agent.spec), context.retry_failed
    missing = (row not in stored or (retry and stored.failed(row)) for row in wanted.values())
    rows = wanted.picked(place for place, is_missing in enumerate(missing) if is_missing)
    damaged = () if context.read_only else tuple(stored.damaged)
    for chunk in damaged:
        context.store.set_aside(chunk)
        log.warning("%s: %s was damaged and is set aside; its rows are generated again", agent.name, chunk)
    log.info("%s: %d of %d rows are in the store", agent.name, len(wanted) - len(rows), len(wanted))
    return MissingRows(agent, len(wanted), rows, damaged)


class WantedMerges:
    """The merges that a run wants: known where the panel is complete, open where it is not."""

    def __init__(self, context: RunContext, routes: Routes) -> None:
        self._context, self._routes = context, routes
        self._asked, self._merges = array("Q"), array("Q")
        """Keys of the questions that want a merge, and of its row."""
        self._open = context.questions
        self.damaged: frozenset[Path] = frozenset()
        """Chunks of the merge agent that were damaged and were set aside."""
        # A failed analysis that is generated again is another panel, so nothing is known yet.
        if context.plan.merger and not context.retry_failed:
            self.update()

    def open_keys(self) -> Iterator[str]:
        """Keys of the questions whose panel is not complete."""
        return self._open.keys()

    def update(self) -> None:
        """Look again at the questions that are open."""
        panels = Panels(self._context.plan, self._context.store, self._routes)
        still_open = array("I")
        for place, key in enumerate(self._open.keys()):
            if not panels.complete(key):
                still_open.append(place)
            elif request := panels.merge_of(self._open[place]):
                self._asked.append(as_number(key))
                self._merges.append(as_number(request.key))
        self._open = self._open.picked(still_open)

    def most(self) -> int:
        """The most merges that may still be missing, if every open question comes to want one."""
        merger = self._context.plan.merger
        return len(self.missing(merger).rows) + len(self._open) if merger else 0

    def missing(self, merger: AgentPlan) -> MissingRows:
        """The merges that are missing, of those that are known."""
        found = missing_rows(self._context, merger, RowKeys(self._asked, self._merges))
        self.damaged |= frozenset(found.damaged)
        return found
