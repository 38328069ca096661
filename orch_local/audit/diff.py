"""What differs between two runs: in their plans field by field, in their answers question by question.

One run is called A and the other B. Their agents are matched by name, and those left by position; their
questions by id. Two agents with the same spec must give the same answers: where they do not, determinism
was broken, which is reported apart from all other differences. Only an engine that is not batch-invariant
has promised nothing.

Decisions are never held: A is read line by line, and its counterpart in B is found by its position in the
file. The positions take some 150 bytes of memory a question.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from orch_local.audit.answer_diff import AnswerDiff
from orch_local.audit.difference import Difference, RunIdentity
from orch_local.audit.plan_diff import compare_plans
from orch_local.errors import StoreError
from orch_local.plan.files import load_plan
from orch_local.plan.plans import Plan
from orch_local.records import Decision
from orch_local.results.finished import recorded_digest
from orch_local.store.store import RunFolder

EXAMPLES = 5
_AGAIN = "run the run's command again: it writes this file anew from the store and generates nothing twice"


def compare(a: RunFolder, b: RunFolder, examples: int = EXAMPLES) -> Difference:
    """Compare two finished runs.

    Parameters
    ----------
    examples:
        How many differing questions to keep at most.

    Raises
    ------
    StoreError
        If a folder is not that of a finished run, or one of its files is damaged.
    """
    plan_a, plan_b = load_plan(a), load_plan(b)
    runs = _run(a, plan_a), _run(b, plan_b)
    plans = compare_plans(plan_a, plan_b)
    with _by_id(b, plan_b) as others:
        counts = AnswerDiff(plans, examples)
        for _, decision in _decisions(a, plan_a):
            counts.add(decision, others.pop(decision.question_id))
        return counts.difference(runs, only_b=len(others))


def _run(folder: RunFolder, plan: Plan) -> RunIdentity:
    return RunIdentity(folder.root, recorded_digest(folder), plan.questions.count)


def _decisions(folder: RunFolder, plan: Plan) -> Iterator[tuple[int, Decision]]:
    """Position in the file, and decision, of every question in order."""
    position = count = 0
    with _open(folder.decisions) as lines:
        for count, line in enumerate(lines, 1):
            yield position, _decision(line, f"{folder.decisions}, line {count}")
            position += len(line)
    if count != plan.questions.count:
        message = f"holds {count:,} decisions of {plan.questions.count:,} questions"
        raise StoreError(message, where=str(folder.decisions), hint=_AGAIN)


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise StoreError(f"cannot be read: {error.strerror}", where=str(path)) from None
    with file:
        yield file


def _decision(line: bytes, where: str) -> Decision:
    try:
        decision = Decision.from_row(json.loads(line))
        parts = decision.answers, decision.confidences, decision.outcomes
        if not all(isinstance(part, dict) for part in parts):
            raise TypeError("answers, confidences and outcomes must be objects")
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"is not a decision: {error}", where=where, hint=_AGAIN) from None
    return decision


@dataclass(slots=True)
class _ById:
    """The decisions of a run, read from their file when asked for."""

    file: IO[bytes]
    positions: dict[str, int]

    def __len__(self) -> int:
        """How many were never asked for."""
        return len(self.positions)

    def pop(self, question_id: str) -> tuple[int, Decision] | None:
        """Position and decision of a question; ``None`` where the run did not ask it."""
        position = self.positions.pop(question_id, None)
        if position is None:
            return None
        self.file.seek(position)
        return position, _decision(self.file.readline(), self.file.name)


@contextmanager
def _by_id(folder: RunFolder, plan: Plan) -> Iterator[_ById]:
    positions = {decision.question_id: position for position, decision in _decisions(folder, plan)}
    with _open(folder.decisions) as file:
        yield _ById(file, positions)
