"""Recomputes every decision of a finished run from its stored rows, with no engine at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from orch_local.config.answers import AnswerError, AnswerSchema
from orch_local.merge.deciding import Deciding, RunDigest
from orch_local.merge.merging import Panel, merge_schema
from orch_local.plan.differences import changes
from orch_local.plan.files import load_plan
from orch_local.plan.plans import MERGE, Plan
from orch_local.prompts.tasks import analysis_schema
from orch_local.records import Analysis, Decision, Outcome, Question
from orch_local.results.diagnostics import DiagnosticsCounter
from orch_local.results.files import DecisionTable
from orch_local.results.finished import read_decisions, recorded_digest
from orch_local.results.scoring import Scorer
from orch_local.router.routes import differing, read_routes
from orch_local.store.questions import questions_digest, read_questions
from orch_local.store.rows import Violation
from orch_local.store.store import RunFolder, Store, read_json

_SHOWN = 5


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
    rerouted: list[str] = field(default_factory=list)
    """Questions whose route does not follow from the stored rows."""
    violations: list[Violation] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)
    """Chunks of the store whose bytes are not those of their name."""
    forged: list[Path] = field(default_factory=list)
    """Result files that hold something else than what follows from the rows."""

    @property
    def same(self) -> bool:
        """Whether everything is as it was written down."""
        return not self.findings() and self.digest == self.recorded

    def findings(self) -> list[str]:
        """What is not as it was written down, in words."""
        if self.damaged or self.missing:  # nothing else can be judged before these are back
            lost = (f"{name}: {count:,} rows are not in the store" for name, count in self.missing.items())
            again = "run the same command again to generate them anew"
            return [*(f"{chunk} is damaged" for chunk in self.damaged), *(f"{one}: {again}" for one in lost)]
        found = [] if self.same_questions else ["questions.jsonl holds other questions than the plan says"]
        found += [f"{one.agent}, question {one.question_id}: {one.reason}" for one in self.misread[:_SHOWN]]
        found += [f"{one}: its route is not the recorded one" for one in self.rerouted[:_SHOWN]]
        found += [f"two answers under one key of the store: {one.key}" for one in self.violations[:_SHOWN]]
        if self.different:
            count = len(self.different)
            found.append(
                f"{count:,} {'decision differs' if count == 1 else 'decisions differ'} from those of"
            )
            found[-1] += " decisions.jsonl, the first:"
            found += [f"  {describe(before, after)}" for before, after in self.different[:_SHOWN]]
        elif self.digest != self.recorded:
            found.append("the decisions are what they were, but metrics.json has another digest")
        return found + [f"{file} holds something else than follows from the rows" for file in self.forged]


def describe(before: Decision | None, after: Decision | None) -> str:
    """In which field two decisions differ."""
    if before is None or after is None:
        known = before or after
        return f"{known.question_id if known else ''}: {'not there' if before is None else 'one too many'}"
    found = changes(before.to_row(), after.to_row())
    return f"{after.question_id}: {'; '.join(map(str, found))}"


def replay(folder: RunFolder) -> Replay:
    """Decide all questions of a run again.

    Every stored text is also parsed again: its fields must be those of the row.

    Raises
    ------
    StoreError
        If the folder is not that of a finished run, or one of its files is damaged.
    """
    plan, questions = load_plan(folder), read_questions(folder.questions)
    deciding = Deciding(plan, Store(plan.store), read_routes(folder, plan))
    digest, scorer, diagnosing = RunDigest(plan.names), Scorer(plan.names), DiagnosticsCounter(plan)
    table = DecisionTable(folder.root, plan.names)
    found = Replay(plan, recorded_digest(folder))
    found.same_questions = questions_digest(questions) == plan.questions.digest

    def now() -> Iterator[Decision]:
        for question in questions:
            panel = deciding.panel(question)
            merged = deciding.merged(question, panel)
            found.misread += _misread(plan, question, panel, merged)
            decision = deciding.decide_with(question, panel, merged)
            digest.add(decision)
            scorer.add(decision)
            diagnosing.add(question, panel, merged, decision.answer)
            table.compare(decision)
            yield decision

    for before, after in zip_longest(read_decisions(folder.decisions), now()):
        found.decisions += 1
        if before != after:
            found.different.append((before, after))
    found.digest = digest.value
    found.missing = {name: count for name, count in deciding.missing.items() if count}
    found.violations, found.damaged = deciding.violations, deciding.damaged
    if plan.config.router and not found.missing:
        found.rerouted = differing(folder, plan, questions)
    if not found.missing:
        values = {**scorer.metrics().to_dict(), "diagnostics": asdict(diagnosing.diagnostics())}
        found.forged = _forged(folder, table, values)
    return found


def _forged(folder: RunFolder, table: DecisionTable, values: Mapping[str, Any]) -> list[Path]:
    """Files of numbers that do not follow from the rows; what was only measured cannot be checked."""
    written = read_json(folder.metrics)
    expected = json.loads(json.dumps(values))
    wrong = [] if {name: written.get(name) for name in expected} == expected else [folder.metrics]
    return wrong if table.same() else [*wrong, table.path]


def _misread(plan: Plan, question: Question, panel: Panel, merged: Analysis | None) -> Iterator[Misread]:
    agents = {agent.name: agent for agent in plan.agents}
    for name, row in zip(panel.names, panel.analyses, strict=True):
        agent = agents[name]
        yield from _parsed_otherwise(agent.name, question, row, analysis_schema(question, agent.answer))
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
    for name in ("answer", "confidence", "reasoning", "cut", "eliminated"):
        if getattr(read, name) != getattr(row, name):
            yield Misread(agent, question.id, f"its text has another {name} than the row")
