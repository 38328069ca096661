"""What an export reads: all that a run knows about a question, one question at a time.

Text of data sets and models may hold halves of surrogate pairs, which are neither valid UTF-8 nor valid in
any of the formats: everything that leaves this module went through :func:`clean`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeVar

from orch_local.errors import StoreError
from orch_local.merge.merging import Panel, merge_of
from orch_local.plan.files import load_plan
from orch_local.plan.plans import MERGE, AgentPlan, Plan
from orch_local.prompts.data import question_data
from orch_local.prompts.tasks import Task, analysis_task
from orch_local.prompts.template import Message, fill
from orch_local.records import Analysis, Decision, How, Question, Usage
from orch_local.results.finished import read_decisions, recorded_digest
from orch_local.results.scoring import NO_ANSWER, NO_MAJORITY, is_correct
from orch_local.results.timeline import read_all
from orch_local.store.questions import read_questions
from orch_local.store.store import RunFolder, Store

NO_GOLD = "no_gold"
_GONE = "run the same command again to generate them anew"

_Value = TypeVar("_Value")


def clean(value: _Value) -> _Value:
    """The value with U+FFFD in place of every half of a surrogate pair, in all the text within it."""
    return _cleaned(value)  # type: ignore[no-any-return]


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {_cleaned(name): _cleaned(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_cleaned, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {name: _cleaned(getattr(value, name)) for name in value.__dataclass_fields__}
        return type(value)(**fields)
    return value


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        # Two halves that belong together become their character.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


@dataclass(frozen=True, slots=True)
class Turn:
    """One chat turn of a prompt, before the model's chat template."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Call:
    """One generation: the prompt and the analysis."""

    prompt: tuple[Turn, ...]
    analysis: Analysis


@dataclass(frozen=True, slots=True)
class SystemAnswer:
    """The answer of one system, an agent or ORCH, to one question."""

    answer: str | None
    correct: bool | None
    """``None`` where unscored."""
    unscored: str
    """Why; empty where scored."""
    call: Call | None
    """``None`` where a vote decided, or the panel was unanimous."""
    usage: Usage
    """Tokens of all that this answer rests on."""

    @property
    def text(self) -> str:
        """The raw output, or the bare answer where nothing was generated for it."""
        return self.call.analysis.text if self.call else self.answer or ""


@dataclass(frozen=True, slots=True)
class ExportedQuestion:
    """Everything about one question."""

    number: int
    """Place in the run, from 0."""
    question: Question
    decision: Decision
    panel: Mapping[str, Call]
    """By agent, in agent order; without those that the router did not ask."""
    merge: Call | None
    """``None`` where the merge agent was not asked."""

    @property
    def calls(self) -> dict[str, Call]:
        """All generations, the merge agent's last."""
        return {**self.panel} | ({MERGE: self.merge} if self.merge else {})

    @property
    def question_text(self) -> str:
        """The question with its labelled choices, as prompts show them."""
        data = question_data(self.question)
        return "\n".join(str(data[name]) for name in ("question", "choices") if name in data)

    def agent(self, name: str) -> SystemAnswer | None:
        """The answer of an agent; ``None`` where it was not asked."""
        if name not in self.panel:
            return None
        call, answer = self.panel[name], self.decision.answers[name]
        correct = is_correct(answer, self.decision.gold)
        unscored = self._unscored(correct, self.decision.outcomes.get(name, NO_ANSWER))
        return SystemAnswer(answer, correct, unscored, call, call.analysis.usage)

    def orch(self) -> SystemAnswer:
        """The final answer."""
        decision = self.decision
        correct = is_correct(decision.answer, decision.gold)
        unscored = self._unscored(correct, decision.reason or NO_ANSWER)
        usage = sum((call.analysis.usage for call in self.calls.values()), Usage())
        return SystemAnswer(decision.answer, correct, unscored, self.merge, usage)

    def majority(self) -> SystemAnswer:
        """The answer of the plain majority vote over the panel."""
        correct = is_correct(self.decision.majority, self.decision.gold)
        usage = sum((call.analysis.usage for call in self.panel.values()), Usage())
        return SystemAnswer(
            self.decision.majority, correct, self._unscored(correct, NO_MAJORITY), None, usage
        )

    def _unscored(self, correct: bool | None, why: str) -> str:
        if correct is not None:
            return ""
        return NO_GOLD if self.decision.gold is None else why


class FinishedRun:
    """A finished run.

    Raises
    ------
    StoreError
        If it is not finished, or its rows cannot be read.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.digest = recorded_digest(folder)
        self.plan: Plan = load_plan(folder)
        store = Store(self.plan.store)
        self._agents = {agent.name: agent for agent in self.plan.agents}
        self._rows = {agent.name: store.read(agent.spec) for agent in self.plan.workers}
        self._prompts = _Prompts()

    @property
    def task(self) -> str:
        """What the benchmark is called."""
        benchmark = self.plan.config.benchmark
        return benchmark.path.stem if benchmark.name == "jsonl" else benchmark.name

    @cached_property
    def times(self) -> tuple[datetime, datetime]:
        """When the run began and ended; all of it came from the store where both are the same."""
        ended = datetime.fromtimestamp(self.folder.metrics.stat().st_mtime, UTC)
        began = [datetime.fromisoformat(one.began).astimezone(UTC) for one in read_all(self.folder).read]
        return min([*began, ended]), ended

    def cases(self) -> Iterator[ExportedQuestion]:
        """All questions in order; memory does not grow with their number.

        Raises
        ------
        StoreError
            If questions and decisions are not of one run, or a row is gone.
        """
        decisions = read_decisions(self.folder.decisions)
        number = -1
        for number, question in enumerate(read_questions(self.folder.questions)):
            decision = next(decisions, None)
            if decision is None or decision.question_id != question.id:
                raise self._torn(number + 1)
            yield clean(self._case(number, question, decision))
        if next(decisions, None) is not None:
            raise self._torn(number + 2)

    def _torn(self, line: int) -> StoreError:
        return StoreError(
            f"line {line} is not of the same question as line {line} of {self.folder.questions.name}",
            where=str(self.folder.decisions),
            hint="run the same command again: it is made anew from the stored rows",
        )

    def _case(self, number: int, question: Question, decision: Decision) -> ExportedQuestion:
        # The decision tells who was asked, in the order in which the merge agent read them.
        agents = [self._agents[name] for name in decision.answers if name in self._agents]
        if len(agents) < len(decision.answers):
            raise self._torn(number + 1)
        panel: dict[str, Call] = {}
        for agent in agents:
            prompt = self._prompts.of(agent, analysis_task(question, agent.answer))
            panel[agent.name] = Call(prompt, self._row(agent.name, question.key))
        return ExportedQuestion(number, question, decision, panel, self._merge(question, panel, decision))

    def _merge(self, question: Question, calls: Mapping[str, Call], decision: Decision) -> Call | None:
        merger, rules = self.plan.merger, self.plan.config.merge
        panel = Panel(tuple(calls), tuple(call.analysis for call in calls.values()))
        task = merge_of(question, panel, rules) if merger else None
        if merger is None or task is None:
            return None
        if decision.how is not How.MERGE and task.key not in self._rows[MERGE]:
            return None
        return Call(self._prompts.of(merger, task), self._row(MERGE, task.key))

    def _row(self, name: str, key: str) -> Analysis:
        row = self._rows[name].get(key)
        if row is None:
            message = f"analyses of {name} are not there any more"
            raise StoreError(message, where=str(self.plan.store), hint=_GONE)
        return row


class _Prompts:
    """Renders prompts; what comes from the template alone is made once."""

    def __init__(self) -> None:
        self._messages: dict[tuple[object, ...], list[Message]] = {}

    def of(self, agent: AgentPlan, task: Task) -> tuple[Turn, ...]:
        """The turns of one request."""
        present, schema = frozenset(task.data), task.schema
        key = (agent.name, schema.labels, schema.candidates, present)
        if key not in self._messages:
            self._messages[key] = agent.parsed_template.messages(schema, present)
        return tuple(Turn(one.role, "".join(fill(one.content, task.data))) for one in self._messages[key])
