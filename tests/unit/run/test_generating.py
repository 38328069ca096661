"""From tasks to rows on a scripted engine: every unit once, every failure a row with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
from fake_engine import ANSWER, CLOSE, CONTEXT, GOOD, CharTokenizer, Script, ScriptedEngine, agent_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.config.answers import AnswerSchema
from orch_local.config.blocks import AnswerConfig
from orch_local.engines.base import Finish
from orch_local.errors import EngineError, PromptError
from orch_local.plan.plans import AgentPlan, Thinking
from orch_local.prompts.data import Data
from orch_local.prompts.tasks import Task
from orch_local.prompts.tokenizer import PromptTokenizer
from orch_local.records import Analysis, Outcome, Usage
from orch_local.run.generating import Hooks, PromptWriter, Unit, generate

SCHEMA = AnswerSchema("ABCD", ANSWER)


def prompts_of(plan: AgentPlan | None = None, opens: str = "") -> PromptWriter:
    return PromptWriter(plan or agent_plan(), cast(PromptTokenizer, CharTokenizer(opens)))


def units(count: int, schema: AnswerSchema = SCHEMA) -> list[Unit]:
    return [Unit(f"u{n}", Task(f"row{n}", {"question": Data(f"Q{n}")}, schema)) for n in range(count)]


def run(
    engine: ScriptedEngine,
    prompts: PromptWriter | None = None,
    wanted: Sequence[Unit] | None = None,
    context: int = CONTEXT,
) -> list[Analysis]:
    rows: list[Analysis] = []
    hooks = Hooks(lambda keys: None, rows.append, lambda: None)
    generate(engine, prompts or prompts_of(), units(1) if wanted is None else wanted, context, hooks)
    return rows


def only(rows: Sequence[Analysis]) -> Analysis:
    assert len(rows) == 1
    return rows[0]


REPLIES = st.builds(
    Script,
    text=st.sampled_from([GOOD, "", "no JSON", GOOD * 10]),
    finish=st.sampled_from(Finish),
    refused=st.sampled_from(["", "", "", "too strange"]),
    steps=st.integers(1, 4),
)


@settings(max_examples=60, deadline=None)
@given(
    replies=st.lists(REPLIES, max_size=25),
    capacity=st.integers(1, 8),
    thinking=st.none() | st.just(5),
    context=st.sampled_from([CONTEXT, 10]),
)
def test_every_unit_becomes_one_row(
    replies: list[Script], capacity: int, thinking: int | None, context: int
) -> None:
    table = {f"u{n}{part}": reply for n, reply in enumerate(replies) for part in ("", "/2")}
    engine = ScriptedEngine(table, capacity)
    rows = run(engine, prompts_of(agent_plan(thinking)), units(len(replies)), context)
    assert sorted(row.key for row in rows) == sorted(f"row{n}" for n in range(len(replies)))
    assert not engine.queue
    assert engine.most <= 2 * capacity
    assert all(row.usable or row.error or row.outcome is Outcome.FAILED for row in rows)


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.integers(1, 5), min_size=1, max_size=60), capacity=st.integers(1, 8))
def test_the_engine_is_never_short_of_work_while_units_are_left(steps: list[int], capacity: int) -> None:
    left = len(steps)

    def wanted() -> Iterator[Unit]:
        nonlocal left
        for unit in units(len(steps)):
            left -= 1
            yield unit

    class Watched(ScriptedEngine):
        def step(self) -> list[Any]:
            # Full to twice what it computes at once, so that nothing waits for Python within a step.
            assert left == 0 or len(self.queue) == 2 * self.capacity
            return super().step()

    engine = Watched({f"u{n}": Script(steps=count) for n, count in enumerate(steps)}, capacity)
    run(engine, wanted=cast(Sequence[Unit], wanted()))
    assert left == 0
    assert engine.most <= 2 * capacity


def test_units_are_announced_before_the_engine_sees_them() -> None:
    announced: list[str] = []

    class Watched(ScriptedEngine):
        def submit(self, request: Any) -> None:
            assert request.id in announced
            super().submit(request)

    finished: list[Analysis] = []
    beats: list[int] = []
    hooks = Hooks(announced.extend, finished.append, lambda: beats.append(len(finished)))
    generate(Watched(capacity=2), prompts_of(), units(9), CONTEXT, hooks)
    assert announced == [f"u{n}" for n in range(9)]
    assert len(beats) >= 9 / 2
    assert beats[-1] == 9


def test_no_units_need_no_engine() -> None:
    engine = ScriptedEngine()
    assert run(engine, wanted=[]) == []
    assert not engine.submitted


def test_an_ok_row_has_all_that_was_said() -> None:
    text = '{"reasoning":"as \\"x\\"","answer":"C","eliminated":["A","D"],"confidence":7}'
    schema = AnswerSchema("ABCD", AnswerConfig(reasoning_chars=20, eliminated=True))
    engine = ScriptedEngine({"u0": Script(text, cached=3)})
    row = only(run(engine, wanted=units(1, schema)))
    assert (row.outcome, row.answer, row.confidence, row.error) == (Outcome.OK, "C", 7, "")
    assert (row.reasoning, row.eliminated, row.text) == ('as "x"', ("A", "D"), text)
    request = engine.submitted[0]
    assert "".join(map(chr, request.prompt_ids)) == "<user>Q0<bot>"
    assert (request.max_tokens, request.pattern) == (schema.max_tokens, schema.pattern)
    assert row.usage == Usage(len(request.prompt_ids), 3, len(text))
    assert row.seconds >= 0


@pytest.mark.parametrize(
    ("reply", "outcome", "error"),
    [
        (Script(GOOD[:9], Finish.LENGTH), Outcome.TRUNCATED, "cut at 9 tokens"),
        (Script("B"), Outcome.INVALID, "the text does not match the answer schema"),
        (Script(""), Outcome.INVALID, "the text does not match the answer schema"),
        (Script(GOOD.replace("B", "E")), Outcome.INVALID, "the text does not match the answer schema"),
        (Script("", Finish.ERROR, "grammar stuck"), Outcome.FAILED, "grammar stuck"),
        (Script(refused="token 7 unknown"), Outcome.FAILED, "the engine refused the prompt: token 7 unknown"),
    ],
)
def test_each_failure_is_a_row_with_its_reason(reply: Script, outcome: Outcome, error: str) -> None:
    rows = run(ScriptedEngine({"u1": reply}), wanted=units(3))
    assert {row.key: row.outcome for row in rows} == {"row0": "ok", "row1": outcome, "row2": "ok"}
    (bad,) = (row for row in rows if row.key == "row1")
    assert bad.error == error
    assert (bad.answer, bad.confidence, bad.probabilities) == (None, None, None)
    assert not bad.usable


def test_a_failed_row_is_never_without_a_reason() -> None:
    assert only(run(ScriptedEngine({"u0": Script("", Finish.ERROR)}))).error


def test_a_prompt_longer_than_the_context_is_not_sent() -> None:
    long = Unit("u1", Task("row1", {"question": Data("x" * 300)}, SCHEMA))
    engine = ScriptedEngine()
    rows = run(engine, wanted=[units(1)[0], long], context=100)
    assert {row.key: row.outcome for row in rows} == {"row0": "ok", "row1": "too_long"}
    (row,) = (row for row in rows if row.key == "row1")
    prompt = len("<user><bot>") + 300
    assert row.error == f"needs {prompt + SCHEMA.max_tokens} tokens ({prompt} of prompt), the context has 100"
    assert row.usage == Usage(prompt=prompt)
    assert [request.id for request in engine.submitted] == ["u0"]


def test_the_context_is_used_to_its_last_token() -> None:
    prompt = len("<user>Q0<bot>")
    assert only(run(ScriptedEngine(), context=prompt + SCHEMA.max_tokens)).usable
    assert only(run(ScriptedEngine(), context=prompt + SCHEMA.max_tokens - 1)).outcome == "too_long"
    # A thought and its closing tag are reserved too: 50 and "</think>" and a line break.
    thinker, opened = prompts_of(agent_plan(thinking=50)), len("<think>\n")
    needed = prompt + opened + 50 + 2 + SCHEMA.max_tokens
    assert only(run(ScriptedEngine(), thinker, context=needed)).usable
    assert only(run(ScriptedEngine(), thinker, context=needed - 1)).outcome == "too_long"


@pytest.mark.parametrize(("asked", "used"), [(None, 0), (5, 5), (10**6, 0)])
def test_a_smaller_budget_is_used_and_a_larger_one_is_not(asked: int | None, used: int) -> None:
    engine = ScriptedEngine()
    row = only(run(engine, prompts_of(agent_plan(max_tokens=asked))))
    assert engine.submitted[0].max_tokens == (used or SCHEMA.max_tokens)
    assert row.outcome == (Outcome.TRUNCATED if used else Outcome.OK)


def test_an_engine_that_fails_as_a_whole_raises_and_loses_nothing_finished() -> None:
    def fail() -> None:
        raise EngineError("out of memory")

    rows: list[Analysis] = []
    engine = ScriptedEngine({"u3": Script(do=fail)}, capacity=1)
    with pytest.raises(EngineError, match="out of memory"):
        generate(engine, prompts_of(), units(5), CONTEXT, Hooks(lambda keys: None, rows.append, lambda: None))
    assert [row.key for row in rows] == ["row0", "row1", "row2"]


# --- probabilities --------------------------------------------------------------------------------


def test_probabilities_are_recorded() -> None:
    shares = {"A": math.log(0.2), "B": math.log(0.7), "C": math.log(0.1)}
    engine = ScriptedEngine({"u0": Script(shares=shares)})
    row = only(run(engine))
    assert engine.submitted[0].logprobs == 16
    assert row.probabilities == pytest.approx({"A": 0.2, "B": 0.7, "C": 0.1, "D": 0})


def test_probabilities_that_are_not_exact_are_left_out() -> None:
    engine = ScriptedEngine({"u0": Script(shares={"B": math.log(0.5), "x": math.log(0.5)})})
    row = only(run(engine))
    assert (row.outcome, row.probabilities) == (Outcome.OK, None)


def test_probabilities_cover_the_candidates_only() -> None:
    schema = AnswerSchema("ABCD", ANSWER, candidates=("B", "D"))
    engine = ScriptedEngine({"u0": Script(shares={"B": math.log(0.25), "D": math.log(0.75)})})
    row = only(run(engine, wanted=units(1, schema)))
    assert row.probabilities == pytest.approx({"B": 0.25, "D": 0.75})


def test_a_numeric_answer_has_no_probabilities() -> None:
    engine = ScriptedEngine({"u0": Script('{"answer":"042"}')})
    schema = AnswerSchema("", AnswerConfig(reasoning_chars=0, confidence=False))
    assert only(run(engine, wanted=units(1, schema))).outcome == "invalid"
    engine = ScriptedEngine({"u0": Script('{"answer":"1,042.50"}')})
    row = only(run(engine, wanted=units(1, schema)))
    assert (row.answer, row.probabilities) == ("1042.5", None)
    assert engine.submitted[0].logprobs == 0


# --- thinking -------------------------------------------------------------------------------------


ANSWERED = Script()


def think(
    first: Script, second: Script = ANSWERED, tokens: int = 20, opens: str = ""
) -> tuple[Analysis, ScriptedEngine]:
    engine = ScriptedEngine({"u0": first, "u0/2": second})
    row = only(run(engine, prompts_of(agent_plan(tokens), opens)))
    return row, engine


def test_thinking_is_one_request_and_answering_another() -> None:
    row, engine = think(Script("hm, B", cached=2), Script(cached=7))
    first, second = engine.submitted
    assert "".join(map(chr, first.prompt_ids)) == "<user>Q0<bot><think>\n"
    assert (first.max_tokens, first.pattern, first.logprobs, first.stop_ids) == (20, None, 0, (ord(CLOSE),))
    assert "".join(map(chr, second.prompt_ids)) == f"<user>Q0<bot><think>\nhm, B{CLOSE}\n"
    assert (second.max_tokens, second.pattern, second.stop_ids) == (SCHEMA.max_tokens, SCHEMA.pattern, ())
    assert (row.outcome, row.answer, row.thought, row.text) == (Outcome.OK, "B", "hm, B", GOOD)
    assert not row.thought_cut
    assert row.usage == Usage(
        prompt=len(first.prompt_ids) + len(second.prompt_ids), cached=9, generated=len("hm, B") + len(GOOD)
    )


def test_a_thought_that_is_cut_is_closed_and_flagged() -> None:
    row, engine = think(Script("on and on and on"), tokens=5)
    assert "".join(map(chr, engine.submitted[1].prompt_ids)).endswith(f"<think>\non an{CLOSE}\n")
    assert (row.outcome, row.thought, row.thought_cut) == (Outcome.OK, "on an", True)


def test_a_thought_that_the_chat_template_opens_is_not_opened_twice() -> None:
    _, engine = think(Script("x"), opens="<think>\n")
    assert "".join(map(chr, engine.submitted[0].prompt_ids)) == "<user>Q0<bot><think>\n"


def test_an_error_while_thinking_is_a_failed_row() -> None:
    row, engine = think(Script("hm", Finish.ERROR, "lost"))
    assert (row.outcome, row.error) == (Outcome.FAILED, "lost")
    assert len(engine.submitted) == 1


def test_what_was_thought_is_kept_when_the_answer_fails() -> None:
    row, _ = think(Script("hm"), Script("x", Finish.LENGTH))
    assert (row.outcome, row.thought) == (Outcome.TRUNCATED, "hm")
    row, _ = think(Script("hm"), Script(refused="no"))
    assert (row.outcome, row.thought, row.usage.generated) == (Outcome.FAILED, "hm", 2)


@pytest.mark.parametrize("written", ["hm, B[/T]", "hm, B"])
def test_a_closing_tag_of_plain_text_ends_a_thought_by_its_text(written: str) -> None:
    thinking = Thinking(tokens=20, open="[T]", close="[/T]\n\n")
    plan = agent_plan(20).model_copy(update={"thinking": thinking})
    engine = ScriptedEngine({"u0": Script(written)})
    row = only(run(engine, prompts_of(plan)))
    first, second = engine.submitted
    assert (first.stop_ids, first.stop_text, second.stop_text) == ((), "[/T]", "")
    assert "".join(map(chr, second.prompt_ids)) == "<user>Q0<bot>[T]\nhm, B[/T]\n\n"
    assert (row.outcome, row.thought, row.thought_cut) == (Outcome.OK, "hm, B", False)
    assert row.usage.generated == len(written) + len(GOOD)


@pytest.mark.parametrize(
    ("close", "stop_ids", "stop_text"),
    [
        ("</think>\n\n", (ord(CLOSE),), ""),
        ("\n</think>", (ord(CLOSE),), ""),
        ("[/T]</think>", (), "[/T]"),
        ("\n[END OF THOUGHT]\nSo: ", (), "[END OF THOUGHT]"),
    ],
)
def test_what_ends_a_thought(close: str, stop_ids: tuple[int, ...], stop_text: str) -> None:
    plan = agent_plan(20).model_copy(update={"thinking": Thinking(tokens=20, open="[T]", close=close)})
    engine = ScriptedEngine()
    run(engine, prompts_of(plan))
    assert (engine.submitted[0].stop_ids, engine.submitted[0].stop_text) == (stop_ids, stop_text)


def test_thoughts_and_answers_share_the_queue() -> None:
    engine = ScriptedEngine({f"u{n}": Script("hm", steps=1 + n % 3) for n in range(20)}, capacity=3)
    rows = run(engine, prompts_of(agent_plan(20)), units(20))
    assert len(rows) == 20
    assert all(row.thought == "hm" for row in rows)
    assert engine.most <= 6


# --- prompts --------------------------------------------------------------------------------------


def test_a_template_that_opens_a_thought_needs_a_thinking_agent() -> None:
    with pytest.raises(PromptError, match="opens a thought") as caught:
        prompts_of(opens="<think>").prompt(units(1)[0].task)
    assert "thinking: true" in caught.value.hint


def test_an_answer_prefix_and_a_missing_system_role_are_minded() -> None:
    plan = agent_plan(system_role=False, answer_prefix="<|final|>").model_copy(
        update={"template": "[system]\nBe good.\n[user]\n{{ question }}"}
    )
    assert prompts_of(plan).text(units(1)[0].task) == "<user>Be good.\n\nQ0<bot><|final|>"
