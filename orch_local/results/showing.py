"""Finds what a run knows about one question, in its files and in the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from orch_local.errors import InputError, StoreError
from orch_local.merge.deciding import Deciding
from orch_local.plan.files import load_plan
from orch_local.records import Analysis, Decision, Question
from orch_local.results.finished import read_decisions
from orch_local.results.timeline import Timelines, read_all
from orch_local.router.routes import read_routes, recorded
from orch_local.store.questions import read_questions
from orch_local.store.store import RunFolder, Store


class Story(NamedTuple):
    """Everything about one question."""

    question: Question
    analyses: dict[str, Analysis]
    merge: Analysis | None
    decision: Decision
    route: Mapping[str, Any] | None
    """Its row of ``routes.jsonl``; ``None`` where the run has no router."""


def story(folder: RunFolder, question_id: str) -> Story:
    """The story of the question whose id begins with ``question_id``.

    Raises
    ------
    InputError
        If no question, or more than one, has such an id.
    StoreError
        If the folder is not that of a finished run.
    """
    plan = load_plan(folder)
    question = _find(folder, question_id)
    decision = _decision(folder, question.id)
    deciding = Deciding(plan, Store(plan.store), read_routes(folder, plan))
    panel = deciding.panel(question)
    analyses = {name: row for name, row in zip(panel.names, panel.analyses, strict=True) if row is not None}
    lost = [name for name in panel.names if name not in analyses]
    if lost:
        raise StoreError(
            f"the analyses of {', '.join(lost)} are not there any more",
            where=str(plan.store),
            hint="run the same command again to generate them anew",
        )
    recorded_routes = recorded(folder) if plan.config.router else ()
    route = next((row for row in recorded_routes if row.get("key") == question.key), None)
    return Story(question, analyses, deciding.merged(question, panel), decision, route)


def executions(folder: RunFolder) -> Timelines:
    """The timelines of all executions of a run.

    Raises
    ------
    InputError
        If it has none.
    """
    found = read_all(folder)
    if not found.read and not found.damaged:
        raise InputError(
            "has no timeline: nothing was generated for this run yet",
            where=str(folder.root),
            hint="a run whose rows all came from the store has none",
        )
    return found


def _find(folder: RunFolder, question_id: str) -> Question:
    questions = read_questions(folder.questions)
    found = [question for question in questions if question.id.startswith(question_id)]
    if len(found) != 1:
        what = f"{len(found)} questions begin" if found else "no question begins"
        raise InputError(
            f"{what} with {question_id!r}",
            where=str(folder.questions),
            hint=f"ids stand in {folder.decisions.name} and {folder.questions.name}",
        )
    return found[0]


def _decision(folder: RunFolder, question_id: str) -> Decision:
    for decision in read_decisions(folder.decisions):
        if decision.question_id == question_id:
            return decision
    raise StoreError(
        "the question has no decision yet",
        where=str(folder.root),
        hint="finish the run first: same command again",
    )
