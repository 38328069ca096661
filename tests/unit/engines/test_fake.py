"""The fake engine: what its table says comes out, through the protocol of the real engines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fake_tables import write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from orch_local.config.answers import AnswerSchema
from orch_local.config.blocks import AnswerConfig
from orch_local.demo.settings import RUN_FILE
from orch_local.engines.base import Completion, Engine, EngineSettings, Finish, Request, RequestError
from orch_local.engines.fake import FakeEngine
from orch_local.engines.fake_answers import Reply, possible_answers
from orch_local.engines.fake_table import read_table
from orch_local.engines.registry import determinism, engine_version, libraries, obstacles, open_engine
from orch_local.errors import EngineError

MODEL = RUN_FILE.parent / "models" / "quant"
SCHEMA = AnswerSchema("ABCD", AnswerConfig(reasoning_chars=60, eliminated=True))
PLAIN = AnswerSchema("ABCD", AnswerConfig(reasoning_chars=0, eliminated=False, confidence=False))
NUMBER = AnswerSchema("", AnswerConfig(reasoning_chars=0, eliminated=False, confidence=False))
TOKENIZER = Tokenizer.from_file(str(MODEL / "tokenizer.json"))


def engine_for(table: Path, **args: Any) -> Engine:
    """The engine, as a worker opens it."""
    given_args = {"table": str(table), **args}
    return open_engine(EngineSettings("fake", MODEL, "cpu", "outlines", "float32", 1024, args=given_args))


def ask(prompt: str = "What is 1 + 4?", schema: AnswerSchema | None = SCHEMA, **more: Any) -> Request:
    """A request of the agent `quant`."""
    ids = tuple(TOKENIZER.encode(prompt, add_special_tokens=False).ids)
    values: dict[str, Any] = {
        "id": "q1",
        "agent": "quant",
        "pattern": schema and schema.pattern,
        "logprobs": 16,
    }
    return Request(**{"prompt_ids": ids, "max_tokens": 300, **values, **more})


def text(completion: Completion) -> str:
    """What was written."""
    return str(TOKENIZER.decode(list(completion.token_ids)))


def answered(engine: Engine, *requests: Request) -> list[Completion]:
    """All completions, in the order of the requests."""
    for request in requests:
        engine.submit(request)
    found: dict[str, Completion] = {}
    while len(found) < len(requests):
        found |= {one.id: one for one in engine.step()}
    assert engine.step() == []
    return [found[request.id] for request in requests]


def only(engine: Engine, request: Request) -> Completion:
    (one,) = answered(engine, request)
    return one


def test_a_row_is_written_in_the_form_that_the_grammar_asks_for(tmp_path: Path) -> None:
    row = {"answer": "B", "reasoning": "I add.", "eliminated": ["A", "C"], "confidence": 80}
    done = only(engine_for(write_table(tmp_path, row)), ask())
    assert done.finish is Finish.STOP
    answer = SCHEMA.parse(text(done))
    assert (answer.answer, answer.reasoning, answer.eliminated, answer.confidence) == (
        "B",
        "I add.",
        ("A", "C"),
        80,
    )
    assert text(only(engine_for(tmp_path / "table.jsonl"), ask(schema=PLAIN))) == '{"answer":"B"}'


ROWS: list[Mapping[str, Any]] = [
    {"agent": "verbal", "answer": "A"},
    {"question": "What is 1 + 4?", "agent": "merge", "answer": "A"},
    {"question": "What is 1  +\n4?", "answer": "B"},
    {"question": "0123456789abcdef", "answer": "C"},
    {"prompt": "is 7", "answer": "D"},
    {"answer": "A"},
]


@pytest.mark.parametrize(
    ("prompt", "more", "label"),
    [
        ("Question: What is 1 + 4? A) 3", {}, "B"),
        ("Question: What is 1 + 4?", {"agent": "verbal"}, "A"),
        ("Question: What is 11 + 4?", {}, "A"),
        ("This is 7.", {"id": "0123456789abcdef"}, "C"),
        ("This is 7.", {}, "D"),
        ("This is 8.", {}, "A"),
    ],
)
def test_the_first_row_that_fits_counts(
    tmp_path: Path, prompt: str, more: dict[str, Any], label: str
) -> None:
    done = only(engine_for(write_table(tmp_path, *ROWS)), ask(prompt, PLAIN, **more))
    assert PLAIN.parse(text(done)).answer == label


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([SCHEMA, PLAIN, NUMBER]), st.text("is 0123", max_size=30), st.sampled_from(["a", "b"]))
def test_without_a_row_a_hash_chooses_and_is_the_same_each_time(
    tmp_path_factory: pytest.TempPathFactory, schema: AnswerSchema, prompt: str, agent: str
) -> None:
    engine = engine_for(write_table(tmp_path_factory.mktemp("table")))
    first, second = answered(
        engine, ask(prompt, schema, agent=agent), ask(prompt, schema, agent=agent, id="q2")
    )
    schema.parse(text(first))
    assert first.token_ids == second.token_ids


def test_agents_prompts_and_labels_share_the_hash(tmp_path: Path) -> None:
    engine = engine_for(write_table(tmp_path))
    requests = [ask(f"What is {n}?", PLAIN, id=f"q{n}") for n in range(60)]
    found = [PLAIN.parse(text(one)).answer for one in answered(engine, *requests)]
    assert set(found) == set("ABCD")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"answer": "Z"}, "line 1 of table.jsonl: the answer 'Z' is not one of A, B, C, D"),
        ({"answer": "B", "reasoning": "x" * 61}, "its reasoning is too long"),
        ({"answer": "B", "eliminated": ["B"]}, "without the answer"),
        ({"text": "so<|im_end|>"}, "cannot write"),
        ({"fail": "failed", "message": "no memory"}, "no memory"),
    ],
)
def test_a_request_that_cannot_be_answered_fails_with_the_reason(
    tmp_path: Path, row: Mapping[str, Any], said: str
) -> None:
    done = only(engine_for(write_table(tmp_path, row)), ask())
    assert done.finish is Finish.ERROR
    assert said in done.error


def test_a_text_is_written_whatever_the_grammar_says_and_cut_at_the_bound(tmp_path: Path) -> None:
    engine = engine_for(write_table(tmp_path, {"text": "no answer"}))
    whole, cut = answered(engine, ask(), ask(id="q2", max_tokens=3))
    assert (whole.finish, text(whole)) == (Finish.STOP, "no answer")
    assert (cut.finish, len(cut.token_ids)) == (Finish.LENGTH, 3)
    assert len(cut.logprobs) == len(cut.token_ids) or not cut.logprobs


def test_a_thought_comes_where_there_is_no_pattern(tmp_path: Path) -> None:
    engine = engine_for(write_table(tmp_path, {"answer": "B", "thought": "so it is"}))
    assert text(only(engine, ask(schema=None))) == "so it is"


def test_probabilities_of_labels_are_those_of_the_row(tmp_path: Path) -> None:
    engine = engine_for(
        write_table(tmp_path, {"answer": "B", "probabilities": {"B": 0.75, "C": 0.25, "A": 0}})
    )
    done = only(engine, ask())
    assert len(done.logprobs) == len(done.token_ids)
    (split,) = [at for at in done.logprobs if len(at) > 1]
    assert sorted(math.exp(share) for share in split.values()) == pytest.approx([0.25, 0.75])
    assert only(engine, ask(logprobs=0)).logprobs == ()


def test_numbers_and_candidates(tmp_path: Path) -> None:
    assert (
        NUMBER.parse(
            text(only(engine_for(write_table(tmp_path, {"answer": 3600})), ask(schema=NUMBER)))
        ).answer
        == "3600"
    )
    listed = AnswerSchema("", NUMBER.config, candidates=("12", "3600"))
    assert set(possible_answers(listed.pattern)) >= {"12", "3600"}
    assert possible_answers(AnswerSchema("ABCD", PLAIN.config, candidates=("B", "D")).pattern) == ("B", "D")
    assert possible_answers(SCHEMA.pattern) == tuple("ABCD")


# --- failures on request ---------------------------------------------------------------------------


def test_a_request_is_refused_and_the_engine_goes_on(tmp_path: Path) -> None:
    engine = engine_for(write_table(tmp_path, {"prompt": "odd", "fail": "refused", "message": "too odd"}))
    with pytest.raises(RequestError, match="too odd"):
        engine.submit(ask("an odd prompt"))
    assert only(engine, ask("another")).finish is Finish.STOP


def test_the_engine_fails_once(tmp_path: Path) -> None:
    table = write_table(
        tmp_path, {"fail": "engine", "message": "out of memory", "once": "failed"}, {"answer": "A"}
    )
    engine = engine_for(table)
    engine.submit(ask())
    with pytest.raises(EngineError, match="out of memory"):
        engine.step()
    assert (tmp_path / "failed").exists()
    assert PLAIN.parse(text(only(engine_for(table), ask(schema=PLAIN)))).answer == "A"


def test_a_failure_that_happened_meanwhile_happens_to_no_other_request(tmp_path: Path) -> None:
    rows = [{"fail": "failed", "once": "failed"}, {"answer": "A"}]
    first, second = answered(engine_for(write_table(tmp_path, *rows)), ask(), ask(id="q2", schema=PLAIN))
    assert (first.finish, text(second)) == (Finish.ERROR, '{"answer":"A"}')


def test_what_nobody_foresaw_is_raised_as_it_is(tmp_path: Path) -> None:
    engine = engine_for(write_table(tmp_path, {"fail": "raised", "message": "oh"}))
    engine.submit(ask())
    with pytest.raises(RuntimeError, match="oh"):
        engine.step()


def test_it_waits_while_a_file_is_there_and_for_a_delay(tmp_path: Path) -> None:
    engine = engine_for(write_table(tmp_path, {"answer": "A", "hold": "gate", "delay_s": 0.01}))
    (tmp_path / "gate").touch()
    engine.submit(ask())
    assert engine.step() == engine.step() == []
    (tmp_path / "gate").unlink()
    found: list[Completion] = []
    while not found:
        found = engine.step()


def test_loading_fails_for_the_model_that_the_table_names(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such dtype"):
        engine_for(write_table(tmp_path, {"load": "failed", "model": "quant", "message": "no such dtype"}))
    engine_for(write_table(tmp_path, {"load": "failed", "model": "verbal"}, {"load": "ok", "delay_s": 0.001}))


def test_a_table_that_changed_since_the_plan_is_refused(tmp_path: Path) -> None:
    table = write_table(tmp_path, {"answer": "A"})
    digest = read_table(table).sha256
    engine_for(table, table_sha256=digest)
    write_table(tmp_path, {"answer": "B"})
    with pytest.raises(EngineError, match="not the one that was planned with"):
        engine_for(table, table_sha256=digest)


def test_a_prompt_beyond_the_context_and_an_id_in_use_are_refused(tmp_path: Path) -> None:
    engine = engine_for(write_table(tmp_path))
    with pytest.raises(RequestError, match="do not fit the context of 1024"):
        engine.submit(ask(max_tokens=1024))
    engine.submit(ask())
    with pytest.raises(RequestError, match="already in flight"):
        engine.submit(ask())


def test_a_folder_without_a_tokenizer_is_an_engine_error(tmp_path: Path) -> None:
    args = {"table": str(write_table(tmp_path))}
    with pytest.raises(EngineError, match="the tokenizer cannot be read"):
        open_engine(EngineSettings("fake", tmp_path, "cpu", "outlines", "float32", 64, args=args))


def test_what_is_told_without_opening_it(tmp_path: Path) -> None:
    told = EngineSettings("fake", tmp_path, "cpu", "outlines", "float32", 64)
    assert libraries(told) == {"fake": engine_version("fake")}
    assert determinism(told)["batch_invariant"] is True
    assert obstacles(told) == ()
    assert (told.side_by_side, told.tensor_parallel) == (256, 1)


def test_more_than_its_capacity_waits() -> None:
    engine = FakeEngine(lambda _: Reply((1,)), capacity=2)
    for number in range(5):
        engine.submit(Request(str(number), (1,), 9))
    assert [[one.id for one in engine.step()] for _ in range(3)] == [["1", "0"], ["3", "2"], ["4"]]
    engine.submit(Request("last", (1,), 9))
    engine.close()
    assert engine.step() == []
