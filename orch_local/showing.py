"""Finds what a run knows about one question, in its files and in the store."""

from __future__ import annotations

import json
from typing import NamedTuple

from orch_local.errors import InputError, StoreError
from orch_local.merging import Panel, merge_task, needs_merge
from orch_local.plans import Plan, load_plan
from orch_local.records import Analysis, Decision, Question
from orch_local.store import RunFolder, Store


class Story(NamedTuple):
    """Everything about one question."""

    question: Question
    analyses: dict[str, Analysis]
    merge: Analysis | None
    decision: Decision


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
    store = Store(plan.store)
    rows = {agent.name: store.read(agent.spec, {question.key}).get(question.key) for agent in plan.agents}
    merged = _merged(plan, store, question, Panel(plan.names, tuple(rows.values())))
    return Story(question, {name: row for name, row in rows.items() if row is not None}, merged, decision)


def _find(folder: RunFolder, question_id: str) -> Question:
    if not folder.questions.exists():
        raise StoreError("has no questions", where=str(folder.root), hint="is this the folder of a run?")
    found = [question for question in folder.read_questions() if question.id.startswith(question_id)]
    if len(found) != 1:
        what = f"{len(found)} questions begin" if found else "no question begins"
        raise InputError(
            f"{what} with {question_id!r}",
            where=str(folder.questions),
            hint=f"ids stand in {folder.decisions.name} and {folder.questions.name}",
        )
    return found[0]


def _decision(folder: RunFolder, question_id: str) -> Decision:
    try:
        with folder.decisions.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if row["question_id"] == question_id:
                    return Decision.from_row(row)
    except FileNotFoundError:
        pass
    raise StoreError(
        "the question has no decision yet",
        where=str(folder.root),
        hint="finish the run first: same command again",
    )


def _merged(plan: Plan, store: Store, question: Question, panel: Panel) -> Analysis | None:
    if plan.merger is None or not needs_merge(panel, plan.config.merge):
        return None
    key = merge_task(question, panel, plan.config.merge).key
    return store.read(plan.merger.spec, {key}).get(key)
