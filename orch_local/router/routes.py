"""The routes of a run: walked from the rows of its store, recorded in ``routes.jsonl``, looked up from there.

A route follows from the plan and the rows alone. The record is for people, for the workers of the merge
agent, and to be compared with a second walk: that is how a run's routing is replayed.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from orch_local.errors import StoreError
from orch_local.plan.plans import Plan
from orch_local.records import Question
from orch_local.router.averages import RouterState, Signal
from orch_local.router.feedback import FeedbackReader
from orch_local.router.routing import Route, Router, horizon
from orch_local.store.questions import as_number
from orch_local.store.store import RunFolder, Store, atomic_write

_DIGITS = 9
"""Significant ones of an estimate in the record: for people; routes are compared by state and agents."""


class Routes:
    """Which agents are asked about a question, by its key."""

    def __init__(self, agents: int, known: Mapping[str, tuple[int, ...]] | None = None) -> None:
        self._everybody = tuple(range(agents))
        self._asks_everybody = known is None
        self._known: dict[int, tuple[int, ...]] = {}
        self._shared: dict[tuple[int, ...], tuple[int, ...]] = {}
        for key, asked in (known or {}).items():
            self.add(key, asked)

    def add(self, key: str, agents: tuple[int, ...]) -> None:
        """A question was routed."""
        self._asks_everybody = False
        self._known[as_number(key)] = self._shared.setdefault(agents, agents)

    def of(self, key: str) -> tuple[int, ...]:
        """Places of the agents that are asked, ascending; empty where the question is not routed yet."""
        return self._everybody if self._asks_everybody else self._known.get(as_number(key), ())

    def is_routed(self, key: str) -> bool:
        """Whether it is known which agents are asked."""
        return self._asks_everybody or as_number(key) in self._known


class Lookup(NamedTuple):
    """A routed question."""

    question: Question
    route: Route


class MissingRowError(StoreError):
    """The next route cannot be computed: what it learns from is not in the store."""


class Walk:
    """Routes the questions of a run in order, each from the rows of those before it.

    It stops with :class:`MissingRowError` where a row is missing; when that has been written and taken in by
    :meth:`update`, iterating goes on from there.
    """

    def __init__(self, plan: Plan, questions: Iterable[Question], store: Store) -> None:
        if plan.config.router is None or plan.router is None:
            raise ValueError("the plan has no router")
        self._config = plan.config.router
        start = RouterState.from_dict(dict(plan.router.start)) if plan.router.start else None
        self._router = Router(self._config, len(plan.agents), start)
        self._feedback = FeedbackReader(plan)
        self._questions = iter(questions)
        self._rows = [store.read(agent.spec) for agent in plan.agents]
        self._names = plan.names
        self._place = self._came_back = 0
        self._open: deque[Lookup] = deque()
        """Routed, and not come back."""

    def __iter__(self) -> Iterator[Lookup]:
        return self

    def __next__(self) -> Lookup:
        while self._came_back < horizon(self._config, self._place):
            self._learn(self._open[0])
            self._open.popleft()
            self._came_back += 1
        question = next(self._questions)
        found = Lookup(question, self._router.route(question.key, question.category))
        self._place += 1
        if self._config.mode != "calibrated":
            self._open.append(found)
        return found

    def update(self) -> None:
        """Take in the rows that were written since, also those made again in the place of failed ones."""
        for rows in self._rows:
            rows.update()

    def _learn(self, lookup: Lookup) -> None:
        question, asked = lookup.question, lookup.route.agents
        signals: list[Signal | None] = [None] * len(self._rows)
        for place in asked:
            row = self._rows[place].get(question.key)
            if row is None:
                raise MissingRowError(
                    f"{self._names[place]} has no row for question {question.id}, and the router needs it",
                    hint="run the same command again: just what is missing is generated",
                )
            signals[place] = self._feedback.signal(place, row, question.gold)
        self._router.observe(question.category, signals)


def write_routes(folder: RunFolder, plan: Plan, questions: Iterable[Question]) -> None:
    """Record the routes of all questions.

    Raises
    ------
    StoreError
        If rows that they follow from are missing, or the file cannot be written.
    """
    with atomic_write(folder.routes) as temporary, temporary.open("w", encoding="utf-8") as file:
        for lookup in Walk(plan, questions, Store(plan.store)):
            row = _row(plan.names, lookup)
            file.write(json.dumps(row, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n")


def read_routes(folder: RunFolder, plan: Plan) -> Routes:
    """The recorded routes of a run; all agents for each question where it has no router.

    Raises
    ------
    StoreError
        If there is no record, or it is damaged.
    """
    routes = Routes(len(plan.agents))
    if plan.config.router is None:
        return routes
    routes = Routes(len(plan.agents), {})
    places = {name: place for place, name in enumerate(plan.names)}
    for number, row in enumerate(recorded(folder), 1):
        try:
            routes.add(row["key"], tuple(places[name] for name in row["asked"]))
        except (KeyError, TypeError, ValueError):
            raise _damaged(folder.routes, number) from None
    return routes


def begun_routes(folder: RunFolder, plan: Plan) -> Routes:
    """The routes that an execution begins with: none yet where the router learns while it goes on.

    Raises
    ------
    StoreError
        As :func:`read_routes`.
    """
    learns = plan.config.router is not None and plan.config.router.mode != "calibrated"
    return Routes(len(plan.agents), {}) if learns else read_routes(folder, plan)


def recorded(folder: RunFolder) -> Iterator[dict[str, Any]]:
    """The rows of ``routes.jsonl``.

    Raises
    ------
    StoreError
        If there is no such file, or a line is damaged.
    """
    try:
        file = folder.routes.open("rb")
    except OSError as error:
        hint = "finish the run first: the command that began it continues it"
        raise StoreError(f"cannot be read: {error.strerror}", where=str(folder.routes), hint=hint) from None
    with file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError:
                raise _damaged(folder.routes, number) from None
            if not isinstance(row, dict):
                raise _damaged(folder.routes, number)
            yield row


def differing(folder: RunFolder, plan: Plan, questions: Iterable[Question]) -> list[str]:
    """Ids of the questions whose route, walked again from the rows, is not the recorded one.

    The walk ends where it asks for a row that the recorded routes never wanted.

    Raises
    ------
    StoreError
        If there is no record.
    """
    now = _rows_now(plan, questions)
    return [
        str((before or after or {}).get("question", ""))
        for before, after in zip_longest(recorded(folder), now)
        if before != after
    ]


def _rows_now(plan: Plan, questions: Iterable[Question]) -> Iterator[dict[str, Any]]:
    with suppress(MissingRowError):
        for lookup in Walk(plan, questions, Store(plan.store)):
            yield _row(plan.names, lookup)


def _row(names: tuple[str, ...], lookup: Lookup) -> dict[str, Any]:
    question, route = lookup
    return {
        "question": question.id,
        "key": question.key,
        "category": question.category,
        "asked": [names[place] for place in route.agents],
        "phase": str(route.phase),
        "observed": route.observed,
        "state": route.state,
        "estimates": {
            name: {field: float(f"{value:.{_DIGITS}g}") for field, value in one._asdict().items()}
            for name, one in zip(names, route.estimates, strict=True)
        },
    }


def _damaged(path: Path, number: int) -> StoreError:
    hint = "`orch-local run`, as the run was begun, makes it anew from the stored rows"
    return StoreError(f"line {number} is no route", where=str(path), hint=hint)
