"""Recomputes every decision of a finished run from its stored rows, with no engine at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

from orch_local.answers import AnswerError, AnswerSchema, schema_for
from orch_local.deciding import Deciding, RunDigest
from orch_local.merging import Panel, merge_schema
from orch_local.plans import MERGE, Plan, load_plan
from orch_local.questions import Questions, read_questions
from orch_local.records import Analysis, Decision, Outcome, Question, canonical_json
from orch_local.results import read_decisions, recorded_digest
from orch_local.rows import Violation
from orch_local.store import RunFolder, Store


class Misread(NamedTuple):
    """A row whose text does not say what its parsed fields say."""

    agent: str
    question_id: str
    reason: str


@dataclass(slots=True)
class Replay:
    """What the stored rows of a run come to now, against what the run wrote down."""

    plan: Plan
    recorded: str
    """The digest in ``metrics.json``."""
    digest: str = ""
    """The digest of the decisions made now."""
    decisions: int = 0
    same_questions: bool = True
    """Whether ``questions.jsonl`` is what the plan says."""
    missing: dict[str, int] = field(default_factory=dict)
    """Rows that are not in the store, by agent."""
    different: list[tuple[Decision | None, Decision | None]] = field(default_factory=list)
    """Decisions of ``decisions.jsonl`` and of now, where they are not the same."""
    misread: list[Misread] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether everything came out as it was written down."""
        wrong = self.missing or self.different or self.misread or self.violations
        return self.same_questions and self.digest == self.recorded and not wrong


def replay(folder: RunFolder) -> Replay:
    """Decide all questions of a run again.

    Every stored text is also parsed again: its fields must be those of the row.

    Raises
    ------
    StoreError
        If the folder is not that of a finished run, or one of its files is damaged.
    """
    plan, questions = load_plan(folder), read_questions(folder.questions)
    deciding, digest = Deciding(plan, Store(plan.store)), RunDigest()
    found = Replay(plan, recorded_digest(folder))
    found.same_questions = questions_digest(questions) == plan.questions.digest

    def now() -> Iterator[Decision]:
        for question in questions:
            panel = deciding.panel(question)
            found.misread += _misread(plan, deciding, question, panel)
            decision = deciding.decide(question, panel)
            digest.add(decision)
            yield decision

    for before, after in zip_longest(read_decisions(folder.decisions), now()):
        found.decisions += 1
        if before != after:
            found.different.append((before, after))
    found.digest = digest.value
    found.missing = {name: count for name, count in deciding.missing.items() if count}
    found.violations = deciding.violations
    return found


def questions_digest(questions: Questions) -> str:
    """SHA-256 over the questions in order, as it stands in the plan."""
    total = hashlib.sha256()
    for question in questions:
        total.update(canonical_json(question.to_row()).encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def _misread(plan: Plan, deciding: Deciding, question: Question, panel: Panel) -> Iterator[Misread]:
    for agent, row in zip(plan.agents, panel.analyses, strict=True):
        yield from _parsed_otherwise(agent.name, question, row, schema_for(question.labels, agent.answer))
    merged = deciding.merged(question, panel)
    yield from _parsed_otherwise(MERGE, question, merged, merge_schema(question, panel, plan.config.merge))


def _parsed_otherwise(
    agent: str, question: Question, row: Analysis | None, schema: AnswerSchema
) -> Iterator[Misread]:
    if row is None or row.outcome not in (Outcome.OK, Outcome.INVALID):
        return
    try:
        read = schema.parse(row.text)
    except AnswerError as error:
        if row.usable:
            yield Misread(agent, question.id, f"its text is no answer: {error}")
        return
    if not row.usable:
        yield Misread(agent, question.id, "its text is an answer, which the row calls invalid")
        return
    for name in ("answer", "confidence", "reasoning", "eliminated"):
        if getattr(read, name) != getattr(row, name):
            yield Misread(agent, question.id, f"its text has another {name} than the row")
