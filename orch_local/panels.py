"""Panels as they stand in the store: the analyses of one question at a time, never all of them."""

from __future__ import annotations

from orch_local.merging import Panel
from orch_local.plans import Plan
from orch_local.records import Question
from orch_local.rows import Rows
from orch_local.store import Store


class Panels:
    """Looks up the panel of a question.

    Raises
    ------
    StoreError
        If the rows of an agent cannot be read.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self.rows: tuple[Rows, ...] = tuple(store.read(agent.spec) for agent in plan.agents)
        """Rows of each agent, in agent order."""
        self._names = plan.names

    def update(self) -> None:
        """Take in the rows that were written since."""
        for rows in self.rows:
            rows.update()

    def complete(self, key: str) -> bool:
        """Whether every agent has a row for the question with this key."""
        return all(key in rows for rows in self.rows)

    def of(self, question: Question) -> Panel:
        """The analyses of ``question``, ``None`` where there is none."""
        return Panel(self._names, tuple(rows.get(question.key) for rows in self.rows))
