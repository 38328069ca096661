"""Panels as they stand in the store: the analyses of one question at a time, never all of them."""

from __future__ import annotations

from collections.abc import Container

from orch_local.errors import StoreError
from orch_local.merge.merging import Panel, merge_of
from orch_local.plan.plans import Plan
from orch_local.prompts.tasks import Task
from orch_local.records import Question
from orch_local.router.routes import Routes
from orch_local.store.rows import Rows
from orch_local.store.store import Store


class Panels:
    """Looks up the panel of a question. ``routes`` tells who is asked; none is for a run without a router.

    With ``only`` no other questions than those with these keys can be looked up.

    Raises
    ------
    StoreError
        If the rows of an agent cannot be read.
    """

    def __init__(
        self, plan: Plan, store: Store, routes: Routes | None = None, only: Container[str] | None = None
    ) -> None:
        self.rows: tuple[Rows, ...] = tuple(store.read(agent.spec, only) for agent in plan.agents)
        """Rows of each agent, in agent order."""
        self._names = plan.names
        self._rules = plan.config.merge
        if routes is None and plan.config.router:
            raise ValueError("the panels of a routed run need its routes")
        self._routes = routes or Routes(len(plan.agents))

    def update(self) -> None:
        """Take in the rows that were written since."""
        for rows in self.rows:
            rows.update()

    def complete(self, key: str) -> bool:
        """Whether every agent that is asked has a row for the question with this key."""
        return self._routes.is_routed(key) and all(key in self.rows[place] for place in self._routes.of(key))

    def of(self, question: Question) -> Panel:
        """The analyses of ``question`` by the agents that are asked, ``None`` where there is none.

        Raises
        ------
        StoreError
            If the question is not routed yet.
        """
        if not self._routes.is_routed(question.key):
            hint = "`orch-local run`, as the run was begun, routes what is missing"
            raise StoreError(f"question {question.id} is not in routes.jsonl", hint=hint)
        asked = self._routes.of(question.key)
        names = tuple(self._names[place] for place in asked)
        return Panel(names, tuple(self.rows[place].get(question.key) for place in asked))

    def merge_of(self, question: Question) -> Task | None:
        """The request to the merge agent about this question; ``None`` where it is not asked.

        Raises
        ------
        StoreError
            If the question is not routed yet.
        """
        return merge_of(question, self.of(question), self._rules)
