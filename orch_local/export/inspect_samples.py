"""A question of a run as an Inspect sample: messages, transcript, scores, usage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from inspect_ai.event import Event, ModelEvent, SpanBeginEvent, SpanEndEvent
from inspect_ai.log import EvalSample
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    Content,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.scorer import CORRECT, INCORRECT, Score

from orch_local.export.cases import Call, ExportedQuestion, SystemAnswer
from orch_local.records import Outcome, Usage

_STOPPED: Mapping[Outcome, StopReason] = {
    Outcome.OK: "stop",
    Outcome.TRUNCATED: "max_tokens",
    Outcome.TOO_LONG: "model_length",
}
_GREEDY = GenerateConfig(temperature=0.0)
"""One for all calls: it has some forty fields."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Who takes part in a run."""

    models: Mapping[str, str]
    """By role (the agents, and the merge agent): the name of its model."""
    began: datetime
    """Of the run; when a single call began is not kept."""


def model_usage(usage: Usage) -> ModelUsage:
    """Tokens, with those from the prefix cache apart, as Inspect counts them."""
    return ModelUsage(
        input_tokens=usage.prompt - usage.cached,
        input_tokens_cache_read=usage.cached,
        output_tokens=usage.generated,
        total_tokens=usage.prompt + usage.generated,
    )


def make_sample(case: ExportedQuestion, answers: Mapping[str, SystemAnswer], cast: Cast) -> EvalSample:
    """The sample of a question; ``answers`` by the names of the scorers, ORCH first."""
    question, calls = case.question, case.calls
    of_orch = next(iter(answers.values()))
    messages, output = _conversation(case, of_orch, cast)
    by_role = {role: call.analysis.usage for role, call in calls.items()}
    return EvalSample(
        id=question.id,
        epoch=1,
        input=case.question_text,
        choices=list(question.choices) or None,
        target=case.decision.gold or "",
        messages=messages,
        output=output,
        scores={name: _score(one) for name, one in answers.items()},
        metadata=_metadata(case),
        events=list(_transcript(case, cast)),
        model_usage=usage_by_model(by_role, cast),
        role_usage={role: model_usage(usage) for role, usage in by_role.items()},
        total_time=sum(call.analysis.seconds for call in calls.values()),
        uuid=question.id,
    )


def usage_by_model(by_role: Mapping[str, Usage], cast: Cast) -> dict[str, ModelUsage]:
    """The tokens of each model, over all roles it has."""
    total: dict[str, Usage] = {}
    for role, usage in by_role.items():
        model = cast.models[role]
        total[model] = total.get(model, Usage()) + usage
    return {model: model_usage(usage) for model, usage in total.items()}


def _metadata(case: ExportedQuestion) -> dict[str, Any]:
    decision = case.decision
    return {
        "number": case.number,  # inspect_ai sorts samples by id
        "category": decision.category,
        "cluster": decision.cluster,
        "answer": decision.answer,
        "how": str(decision.how),
        "reason": decision.reason,
        "majority": decision.majority,
        "answers": dict(decision.answers),
        "outcomes": dict(decision.outcomes),
        "confidences": dict(decision.confidences),
        "probabilities": dict(decision.probabilities),
        "meta": dict(case.question.meta),
    }


def _score(answer: SystemAnswer) -> Score:
    analysis = answer.call.analysis if answer.call else None
    explanation = (analysis.reasoning or analysis.error) if analysis else None
    if answer.correct is None:
        return Score.unscored(reason=answer.unscored, answer=answer.answer, explanation=explanation)
    value = CORRECT if answer.correct else INCORRECT
    return Score(value=value, answer=answer.answer, explanation=explanation)


def _conversation(
    case: ExportedQuestion, of_orch: SystemAnswer, cast: Cast
) -> tuple[list[ChatMessage], ModelOutput]:
    """What led to the final answer: the merge agent's call, or the question and the answer of the votes."""
    if case.merge:
        output = _output(case, "merge", case.merge, cast)
        return [*_prompt(case, "merge", case.merge), *_replies(output)], output
    key = case.question.id
    message = ChatMessageAssistant(id=f"{key}-answer", content=of_orch.text)
    asked = ChatMessageUser(id=f"{key}-question", content=case.question_text, source="input")
    output = ModelOutput(model=str(case.decision.how), choices=[ChatCompletionChoice(message=message)])
    return [asked, message], output


def _replies(output: ModelOutput) -> list[ChatMessage]:
    return [choice.message for choice in output.choices]


def _prompt(case: ExportedQuestion, role: str, call: Call) -> list[ChatMessage]:
    messages: list[ChatMessage] = []
    for turn in call.prompt:
        kind = ChatMessageSystem if turn.role == "system" else ChatMessageUser
        key = f"{case.question.id}-{role}-{turn.role}"
        messages.append(kind(id=key, content=turn.content, source="input"))
    return messages


def _output(case: ExportedQuestion, role: str, call: Call, cast: Cast) -> ModelOutput:
    row, model = call.analysis, cast.models[role]
    content: list[Content] = [ContentReasoning(reasoning=row.thought)] if row.thought else []
    message = ChatMessageAssistant(
        id=f"{case.question.id}-{role}",
        content=[*content, ContentText(text=row.text)] if content else row.text,
        model=model,
        source="generate",
    )
    choice = ChatCompletionChoice(message=message, stop_reason=_STOPPED.get(row.outcome, "unknown"))
    return ModelOutput(model=model, choices=[choice], usage=model_usage(row.usage), time=row.seconds)


def _transcript(case: ExportedQuestion, cast: Cast) -> Iterator[Event]:
    for role, call in case.calls.items():
        key, row = f"{case.question.id}-{role}", call.analysis
        at: dict[str, Any] = {"timestamp": cast.began, "working_start": 0.0, "span_id": f"{key}-span"}
        begin = SpanBeginEvent(id=f"{key}-span", name=role, type="agent", uuid=f"{key}-begin", **at)
        yield begin
        yield ModelEvent(
            uuid=f"{key}-call",
            model=cast.models[role],
            role=role,
            input=_prompt(case, role, call),
            tools=[],
            tool_choice="none",
            config=_GREEDY,
            output=_output(case, role, call, cast),
            error=None if row.usable else f"{row.outcome}: {row.error}",
            completed=cast.began + timedelta(seconds=row.seconds),
            working_time=row.seconds,
            metadata=_parsed(call),
            **at,
        )
        yield SpanEndEvent(id=f"{key}-span", uuid=f"{key}-end", **at)


def _parsed(call: Call) -> dict[str, Any]:
    row = call.analysis
    return {
        "outcome": str(row.outcome),
        "answer": row.answer,
        "confidence": row.confidence,
        "eliminated": list(row.eliminated),
        "probabilities": dict(row.probabilities) if row.probabilities else None,
        "reasoning": row.reasoning,
    }
