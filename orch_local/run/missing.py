"""What a run still lacks, told from the store alone."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from orch_local.merge.merging import merge_task, needs_merge
from orch_local.merge.panels import Panels
from orch_local.plan.plans import AgentPlan
from orch_local.run.sessions import Session
from orch_local.store.keys import RowKeys
from orch_local.store.questions import as_number

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lack:
    """The rows of one agent that are wanted and not in the store."""

    agent: AgentPlan
    wanted: int
    rows: RowKeys
    """Question key -> row key, in the order of the questions."""

    @property
    def stored(self) -> int:
        """Rows that are wanted and in the store."""
        return self.wanted - len(self.rows)


def lacking_analyses(session: Session) -> list[Lack]:
    """What each agent of the panel lacks, in agent order."""
    return [lack_of(session, agent, wanted) for agent, wanted in _wanted_analyses(session)]


def _wanted_analyses(session: Session) -> Iterator[tuple[AgentPlan, RowKeys]]:
    agents, routes = session.plan.agents, session.routes
    if session.plan.config.router is None:  # then all agents have the same keys, held once
        wanted = RowKeys(array("Q", map(as_number, session.questions.keys())))
        yield from ((agent, wanted) for agent in agents)
        return
    for place, agent in enumerate(agents):
        asked = (key for key in session.questions.keys() if place in routes.of(key))  # noqa: SIM118 - a method
        yield agent, RowKeys(array("Q", map(as_number, asked)))


def lack_of(session: Session, agent: AgentPlan, wanted: RowKeys) -> Lack:
    """Which of the rows ``wanted`` (question key -> row key) are missing; damaged chunks are set aside."""
    stored, retry = session.store.read(agent.spec), session.retry_failed
    lacking = (row not in stored or (retry and stored.failed(row)) for row in wanted.values())
    rows = wanted.picked(place for place, lacks in enumerate(lacking) if lacks)
    for chunk in () if session.looks_only else stored.damaged:
        session.store.set_aside(chunk)
        session.damaged.add(chunk)
        log.warning("%s: %s was damaged and is set aside; its rows are generated again", agent.name, chunk)
    log.info("%s: %d of %d rows are in the store", agent.name, len(wanted) - len(rows), len(wanted))
    return Lack(agent, len(wanted), rows)


class Merges:
    """The merges that a run wants: known where the panel is complete, open where it is not."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._asked, self._merges = array("Q"), array("Q")
        """Keys of the questions that want a merge, and of its row."""
        self.open = session.questions
        """Questions whose panel is not complete."""
        # A failed analysis that is made again is another panel, so nothing is known yet.
        if session.plan.merger and not session.retry_failed:
            self.look()

    def look(self) -> None:
        """Look again at the questions that are open."""
        session, rules = self._session, self._session.plan.config.merge
        panels, still_open = Panels(session.plan, session.store, session.routes), array("I")
        for place, key in enumerate(self.open.keys()):
            if not panels.complete(key):
                still_open.append(place)
                continue
            question = self.open[place]
            panel = panels.of(question)
            if needs_merge(panel, rules):
                self._asked.append(as_number(key))
                self._merges.append(as_number(merge_task(question, panel, rules).key))
        self.open = self.open.picked(still_open)

    def most(self) -> int:
        """The most merges that may still be missing, if every open question comes to want one."""
        merger = self._session.plan.merger
        return len(self.lack(merger).rows) + len(self.open) if merger else 0

    def lack(self, merger: AgentPlan) -> Lack:
        """What the merge agent lacks, of what is known."""
        return lack_of(self._session, merger, RowKeys(self._asked, self._merges))
