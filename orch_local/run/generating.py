"""Tasks to rows: prompts go to an engine as it has room, rows come out as they finish.

Runs inside a worker process. There is no chunk barrier: as long as tasks are left, the engine has more
requests than it can compute at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from orch_local.config.answers import AnswerError, AnswerSchema, label_probabilities
from orch_local.engines.base import Completion, Engine, Finish, Request, RequestError
from orch_local.errors import PromptError
from orch_local.plan.plans import AgentPlan
from orch_local.prompts.arrival import own_tags, thought_left_open
from orch_local.prompts.tasks import Task
from orch_local.prompts.template import Message, check_kept, fill
from orch_local.prompts.thoughts import lead, open_thought, tag_of
from orch_local.prompts.tokenizer import PromptTokenizer
from orch_local.records import LABELS, Analysis, Outcome, Usage

LOGPROBS = len(LABELS) + 6
"""Alternatives asked for at each token: all labels, and room for tokens that run on behind a label."""


_IDLE_S = 0.1
"""Between two looks for units where the engine has nothing to do."""


class Unit(NamedTuple):
    """One task under the name by which the parent knows it (the key of its question)."""

    name: str
    task: Task


@dataclass(slots=True)
class _Flight:
    """A task on its way: thinking first (where the agent does), then answering."""

    unit: Unit
    prompt: list[int]
    thinking: bool
    started: float
    usage: Usage = field(default_factory=Usage)
    thought: list[int] = field(default_factory=list)
    thought_cut: bool = False


class PromptWriter:
    """Knows how one agent is asked and how its output is read; holds no engine."""

    def __init__(self, plan: AgentPlan, tokenizer: PromptTokenizer) -> None:
        self._plan = plan
        self._tokenizer = tokenizer
        self._template = plan.parsed_template
        self._skeletons: dict[tuple[str, tuple[str, ...] | None, frozenset[str]], str] = {}
        self._stop_ids: tuple[int, ...] = ()
        self._stop_text = ""
        self._close_ids: list[int] = []
        if plan.thinking:
            self._close_ids = tokenizer.trusted_ids(plan.thinking.close)
            self._stop_ids, self._stop_text = _ending(plan.thinking.close, self._close_ids, tokenizer)

    @property
    def thinks(self) -> bool:
        """Whether a thought comes before each answer."""
        return self._plan.thinking is not None

    def text(self, task: Task) -> str:
        """The prompt as text, for people."""
        return "".join(fill(self._skeleton(task), task.data))

    def prompt(self, task: Task) -> list[int]:
        """The prompt as token ids."""
        return self._tokenizer.encode(fill(self._skeleton(task), task.data))

    def needed(self, task: Task, prompt: list[int]) -> int:
        """Tokens of context that must be there for the task: prompt, thought and answer."""
        thought = self._plan.thinking.tokens + len(self._close_ids) if self._plan.thinking else 0
        return len(prompt) + thought + min(self.budget(task), task.schema.enough_tokens)

    def budget(self, task: Task) -> int:
        """Token budget of the answer, however long the prompt is."""
        computed = task.schema.max_tokens
        return min(self._plan.max_tokens or computed, computed)

    def request(self, flight: _Flight) -> Request:
        """The next request of a flight."""
        name, task = flight.unit
        ids, who = tuple(self._ids(flight)), self._plan.name
        if flight.thinking and self._plan.thinking:
            tokens = self._plan.thinking.tokens
            return Request(name, ids, tokens, stop_ids=self._stop_ids, stop_text=self._stop_text, agent=who)
        logprobs = LOGPROBS if task.schema.labels else 0
        budget = min(self.budget(task), self._plan.settings.max_model_len - len(ids))
        return Request(name, ids, budget, task.schema.pattern, logprobs, agent=who)

    def _ids(self, flight: _Flight) -> list[int]:
        """What the engine reads: the prompt and, where a thought is finished, that thought, closed."""
        if flight.thinking or not self._plan.thinking:
            return flight.prompt
        return flight.prompt + flight.thought + self._close_ids

    def read_thought(self, flight: _Flight, completion: Completion) -> None:
        """Take a finished thought into its flight; the answer comes next."""
        flight.thought = list(completion.token_ids)
        if self._stop_text:
            flight.thought = self._tokenizer.before(flight.thought, self._stop_text)
        flight.thought_cut = completion.finish is Finish.LENGTH
        flight.usage += _usage(flight.prompt, completion)
        flight.thinking = False

    def read(self, flight: _Flight, completion: Completion) -> Analysis:
        """The row of a finished answer; whatever the engine promised, the text is parsed and checked."""
        text = self._tokenizer.decode(completion.token_ids)
        usage = flight.usage + _usage(self._ids(flight), completion)
        row = replace(self._row(flight), text=text, usage=usage)
        if completion.finish is Finish.ERROR:
            error = completion.error or "the engine gave no reason"
            return replace(row, outcome=Outcome.FAILED, error=error)
        if completion.finish is Finish.LENGTH:
            reason = f"cut at {len(completion.token_ids)} tokens"
            return replace(row, outcome=Outcome.TRUNCATED, error=reason)
        return self._parsed(row, flight.unit.task, completion)

    def refused(self, flight: _Flight, error: RequestError) -> Analysis:
        """The row of a request that the engine did not take."""
        reason = f"the engine refused the prompt: {error}"
        return replace(self._row(flight), outcome=Outcome.FAILED, error=reason)

    def _row(self, flight: _Flight) -> Analysis:
        """What is known of a row without its answer."""
        return Analysis(
            key=flight.unit.task.key,
            outcome=Outcome.OK,
            thought=self._tokenizer.decode(flight.thought),
            thought_cut=flight.thought_cut,
            usage=flight.usage,
            seconds=round(time.monotonic() - flight.started, 4),
        )

    def _parsed(self, row: Analysis, task: Task, completion: Completion) -> Analysis:
        try:
            answer = task.schema.parse(row.text)
        except AnswerError as error:
            return replace(row, outcome=Outcome.INVALID, error=str(error))
        return replace(
            row,
            answer=answer.answer,
            reasoning=answer.reasoning,
            cut=answer.cut,
            eliminated=answer.eliminated,
            confidence=answer.confidence,
            probabilities=self._probabilities(row.text, task, completion),
        )

    def _probabilities(self, text: str, task: Task, completion: Completion) -> dict[str, float] | None:
        if not task.schema.labels or not completion.logprobs:
            return None
        distance = len(text) - task.schema.answer_offset(text)
        spell = self._tokenizer.token_text
        # Only the alternatives of the answer's token are spelled, since this runs for every row.
        for token, alternatives in zip(
            reversed(completion.token_ids), reversed(completion.logprobs), strict=True
        ):
            written = spell(token)
            if distance <= len(written):
                spelled = {spell(other): value for other, value in alternatives.items()}
                labels = task.schema.candidates or task.schema.labels
                return label_probabilities([(written, spelled)], distance, labels)
            distance -= len(written)
        return None

    def _skeleton(self, task: Task) -> str:
        """Chat text with markers for the data; the same for all tasks of one shape."""
        shape = (task.schema.labels, task.schema.candidates, frozenset(task.data))
        if shape not in self._skeletons:
            try:
                chat, last = self._chat(task.schema, shape[2], turns=True)
            except PromptError:
                # Some chat templates take one user turn and no more; then examples stand in that.
                chat, last = self._chat(task.schema, shape[2], turns=False)
            self._skeletons[shape] = self._opened(chat, last)
        return self._skeletons[shape]

    def _chat(self, schema: AnswerSchema, present: frozenset[str], *, turns: bool) -> tuple[str, str]:
        """What the chat template makes of the messages, and the text of the last turn."""
        messages = self._template.messages(schema, present, turns=turns)
        if self._plan.model.system_role is False:
            messages = _without_system(messages)
        chat = self._tokenizer.chat(messages, self._plan.model.template_options(thinking=self.thinks))
        check_kept(chat, present, f"agent {self._plan.name!r}, model {self._plan.model.name!r}")
        return chat, messages[-1].content

    def _opened(self, chat: str, last: str) -> str:
        """Open the thought, unless the chat template has done so, or lead to the answer.

        ``last`` is the text of the last turn.
        """
        model, thinking = self._plan.model, self._plan.thinking
        whole = chat if thinking else chat + model.answer_prefix
        tags = open_thought(lead(whole, last), own_tags(model))
        if thinking is not None:
            line_break = "" if thinking.open.endswith("\n") else "\n"
            return whole if tags else f"{whole}{thinking.open}{line_break}"
        if tags is not None:
            raise thought_left_open(tags, model, f"agent {self._plan.name!r}")
        return whole


def _ending(close: str, close_ids: list[int], tokenizer: PromptTokenizer) -> tuple[tuple[int, ...], str]:
    """What ends a thought: the control token with which its closing tag begins, or the text of the tag."""
    first = next((index for index in close_ids if index in tokenizer.controls), None)
    before, _, _ = (
        close.partition(tokenizer.controls[first].content) if first is not None else (close, "", "")
    )
    return ((first,), "") if first is not None and not before.strip() else ((), tag_of(before))


def _without_system(messages: list[Message]) -> list[Message]:
    """The messages with the system text at the beginning of the first user turn."""
    if messages[0].role != "system":
        return messages
    system, first, *others = messages
    return [Message("user", f"{system.content}\n\n{first.content}"), *others]


def _usage(prompt: list[int], completion: Completion) -> Usage:
    return Usage(len(prompt), completion.cached_tokens, len(completion.token_ids))


class Hooks(NamedTuple):
    """What a worker does with the progress of :func:`generate`."""

    admitted: Callable[[list[str]], None]
    """Called with unit names before the engine sees them."""
    finished: Callable[[Analysis], None]
    beat: Callable[[], None]
    """Called after each step of the engine."""


class _Source:
    """Units as they can be had; ``None`` among them means that there is none now, and more may come."""

    def __init__(self, units: Iterable[Unit | None]) -> None:
        self._units = iter(units)
        self.more = True

    def take(self, count: int) -> list[Unit]:
        """At most ``count`` units; fewer where there are no more now."""
        taken: list[Unit] = []
        while len(taken) < count:
            try:
                unit = next(self._units)
            except StopIteration:
                self.more = False
                break
            if unit is None:
                break
            taken.append(unit)
        return taken


def generate(
    engine: Engine, prompts: PromptWriter, units: Iterable[Unit | None], context: int, hooks: Hooks
) -> None:
    """Generate a row for each unit.

    Parameters
    ----------
    units:
        Asked for as the engine has room; a ``None`` among them means "none now", and is asked again.
    context:
        ``max_model_len`` of the engine, in tokens; a longer task becomes a ``too_long`` row.

    Raises
    ------
    EngineError
        If the engine as a whole fails; rows finished before have been handed out.
    """
    source = _Source(units)
    flights: dict[str, _Flight] = {}
    while source.more or flights:
        taken = _admit(engine, prompts, source, flights, context, hooks)
        if source.more and not taken and not flights:
            time.sleep(_IDLE_S)
        for completion in engine.step():
            flight = flights.pop(completion.id)
            if flight.thinking and completion.finish is not Finish.ERROR:
                prompts.read_thought(flight, completion)
                _submit(engine, prompts, flight, flights, hooks)
            else:
                hooks.finished(prompts.read(flight, completion))
        hooks.beat()


def _admit(
    engine: Engine,
    prompts: PromptWriter,
    source: _Source,
    flights: dict[str, _Flight],
    context: int,
    hooks: Hooks,
) -> bool:
    """Fill the engine's queue to twice what it computes at once; returns whether anything was taken."""
    units = source.take(2 * engine.capacity - len(flights))
    if units:
        hooks.admitted([unit.name for unit in units])
    for unit in units:
        try:
            prompt = prompts.prompt(unit.task)
        except PromptError as error:
            hooks.finished(Analysis(unit.task.key, Outcome.FAILED, error=f"no prompt could be made: {error}"))
            continue
        needed = prompts.needed(unit.task, prompt)
        if needed > context:
            reason = f"needs {needed} tokens ({len(prompt)} of prompt), the context has {context}"
            usage = Usage(prompt=len(prompt))
            hooks.finished(Analysis(unit.task.key, Outcome.TOO_LONG, error=reason, usage=usage))
            continue
        flight = _Flight(unit, prompt, prompts.thinks, time.monotonic())
        _submit(engine, prompts, flight, flights, hooks)
    return bool(units)


def _submit(
    engine: Engine, prompts: PromptWriter, flight: _Flight, flights: dict[str, _Flight], hooks: Hooks
) -> None:
    try:
        engine.submit(prompts.request(flight))
    except RequestError as error:
        hooks.finished(prompts.refused(flight, error))
    else:
        flights[flight.unit.name] = flight
