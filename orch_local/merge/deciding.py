"""From the rows of the store to decisions, one question at a time, with no engine: every run ends here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from orch_local.merge.merging import Panel, decide, merge_of, needs_merge
from orch_local.merge.panels import Panels
from orch_local.plan.plans import Plan
from orch_local.records import Analysis, Decision, Question, Usage, canonical_json
from orch_local.router.routes import Routes
from orch_local.store.rows import Rows, Violation
from orch_local.store.store import Store


class Deciding:
    """Decides question after question, and counts what their rows cost. ``routes`` as in :class:`Panels`.

    With ``only`` no other questions than these can be decided, and the rest of the store is not indexed.

    Raises
    ------
    StoreError
        If the rows of an agent cannot be read.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        routes: Routes | None = None,
        only: Sequence[Question] | None = None,
    ) -> None:
        self._plan = plan
        keys = None if only is None else {question.key for question in only}
        self._panels = Panels(plan, store, routes, keys)
        merges = None if only is None else set(self._merge_keys(only))
        self._merged = store.read(plan.merger.spec, merges) if plan.merger else None
        self.usage = {agent.name: Usage() for agent in plan.workers}
        """Tokens of the rows that were read, whenever they were generated."""
        self.used = {agent.name: 0 for agent in plan.workers}
        """Rows that were read."""
        self.missing = {agent.name: 0 for agent in plan.workers}
        """Rows that were wanted and are not in the store."""

    @property
    def rows(self) -> dict[str, Rows]:
        """The rows by agent, the merge agent last."""
        merged = (self._merged,) if self._merged is not None else ()
        return dict(zip((a.name for a in self._plan.workers), (*self._panels.rows, *merged), strict=True))

    @property
    def damaged(self) -> list[Path]:
        """Chunks whose bytes are not those of their name."""
        return [chunk for rows in self.rows.values() for chunk in rows.damaged]

    @property
    def violations(self) -> list[Violation]:
        """Rows with two different answers under one key."""
        return [violation for rows in self.rows.values() for violation in rows.violations]

    def panel(self, question: Question) -> Panel:
        """The analyses of one question."""
        return self._panels.of(question)

    def decide(self, question: Question, panel: Panel) -> Decision:
        """The final answer to one question, from its panel."""
        return self.decide_with(question, panel, self.merged(question, panel))

    def decide_with(self, question: Question, panel: Panel, merged: Analysis | None) -> Decision:
        """As :meth:`decide`, where what the merge agent wrote is at hand."""
        for name, row in zip(panel.names, panel.analyses, strict=True):
            self._count(name, row)
        # Without the whole panel nobody can tell which row that would be.
        whole = all(row is not None for row in panel.analyses)
        asked = merged is not None or needs_merge(panel, self._plan.config.merge)
        if self._plan.merger and whole and asked:
            self._count(self._plan.merger.name, merged)
        return decide(question, panel, self._plan.config.merge, merged, self._cluster(question))

    def merged(self, question: Question, panel: Panel) -> Analysis | None:
        """What the merge agent wrote about this panel, where it was asked."""
        if self._merged is None:
            return None
        request = merge_of(question, panel, self._plan.config.merge)
        return self._merged.get(request.key) if request else None

    def _cluster(self, question: Question) -> str:
        column = self._plan.config.benchmark.cluster
        value = question.meta.get(column, "") if column else ""
        return str(value)

    def _merge_keys(self, questions: Iterable[Question]) -> Iterator[str]:
        yield from (request.key for one in questions if (request := self._panels.merge_of(one)))

    def _count(self, name: str, row: Analysis | None) -> None:
        if row is None:
            self.missing[name] += 1
            return
        self.usage[name] += row.usage
        self.used[name] += 1


class RunDigest:
    """SHA-256 over the canonical decisions in question order: the proof that two runs came to the same.

    It covers each question's id, every agent's answer and confidence, the final answer and how it was
    reached, and the places of the agents that were asked where a router chose them; not the gold labels, the
    agents' names, or anything measured.
    """

    def __init__(self, agents: Sequence[str]) -> None:
        self._places = {name: place for place, name in enumerate(agents)}
        self._total = hashlib.sha256()

    def add(self, decision: Decision) -> None:
        """Take in the next decision."""
        answers, confidences = list(decision.answers.values()), list(decision.confidences.values())
        row: list[Any] = [decision.question_id, answers, confidences, decision.answer, str(decision.how)]
        if len(answers) < len(self._places):
            row.append([self._places[name] for name in decision.answers])
        self._total.update(canonical_json(row).encode() + b"\n")

    @property
    def value(self) -> str:
        """64 hex digits."""
        return self._total.hexdigest()
