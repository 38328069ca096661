"""Answers token by token, in tokenizers of the common families: where one ends, where its label stands."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import tokenizer_families
from fake_engine import CONTEXT, agent_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_families import FAMILIES, make_family

from orch_local.config.answers import AnswerError, AnswerSchema
from orch_local.config.blocks import AnswerConfig
from orch_local.config.numerals import canonical_number
from orch_local.engines.base import Completion, Finish, Request
from orch_local.prompts.data import Data
from orch_local.prompts.tasks import Task
from orch_local.prompts.tokenizer import PromptTokenizer
from orch_local.records import Analysis
from orch_local.run.generating import Hooks, PromptWriter, Unit, generate

LABELS = "ABCD"
LAYOUTS: list[dict[str, Any]] = [{}, {"separators": (",", ":")}, {"indent": 0}, {"indent": 2}, {"indent": 4}]
SCHEMAS = [
    AnswerSchema(LABELS, AnswerConfig(reasoning_chars=30, eliminated=True)),
    AnswerSchema(LABELS, AnswerConfig(reasoning_chars=0, confidence=False)),
    AnswerSchema("", AnswerConfig(reasoning_chars=30)),
    AnswerSchema("", AnswerConfig(reasoning_chars=0, confidence=False), ("-12", "3600", "1234567.5")),
]
NUMBERS = AnswerSchema("", AnswerConfig(reasoning_chars=0))


def written(label: str, layout: Mapping[str, Any]) -> str:
    out = [other for other in LABELS if other not in (label, "C")]
    fields = {"reasoning": "It is the sum.", "answer": label, "eliminated": out, "confidence": 85}
    return json.dumps(fields, **layout)


ANSWERS = tuple(written(label, layout) for label in LABELS for layout in LAYOUTS)
"""What the vocabularies are trained on: so they have tokens that run on behind the end of a field."""

BREAKS_ARE_BYTES = ("mistral", "phi3")
"""Families whose vocabulary has no entry for a line break but that of its byte."""


@pytest.fixture(scope="module", params=[name for name in FAMILIES if name != "unigram"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PromptTokenizer:
    """Each family that can spell all of ASCII."""
    with pytest.MonkeyPatch.context() as patch:
        corpus = tokenizer_families.CORPUS + ANSWERS * 3
        if request.param in BREAKS_ARE_BYTES:
            corpus = tuple(text.replace("\n", " ") for text in corpus)
        patch.setattr(tokenizer_families, "CORPUS", corpus)
        return PromptTokenizer(make_family(request.param, tmp_path_factory.mktemp("family") / request.param))


def tokens(tokenizer: PromptTokenizer, text: str) -> list[int]:
    """Ids of a text as it is generated: without the blank that some families put before a prompt."""
    ids = tokenizer.trusted_ids(f"\n{text}")
    return next(ids[count:] for count in range(len(ids)) if tokenizer.decode(ids[count:]) == text)


def is_answer(schema: AnswerSchema, text: str) -> bool:
    try:
        schema.parse(text)
    except AnswerError:
        return False
    return True


def test_there_are_tokens_that_hold_more_than_one_part(tokenizer: PromptTokenizer) -> None:
    spelled = {tokenizer.token_text(one) for text in ANSWERS for one in tokens(tokenizer, text)}
    assert any(re.search(r'".|\w"', text) for text in spelled), spelled


@settings(max_examples=40, deadline=None)
@given(data=st.data(), schema=st.sampled_from(SCHEMAS))
def test_no_part_of_an_answer_is_an_answer(
    tokenizer: PromptTokenizer, data: st.DataObject, schema: AnswerSchema
) -> None:
    text = data.draw(st.from_regex(schema.pattern, fullmatch=True))
    ids = tokens(tokenizer, text)
    assert is_answer(schema, text)
    cuts = {tokenizer.decode(ids[:count]) for count in range(len(ids))} | {text[:-1]}
    assert not [cut for cut in cuts if is_answer(schema, cut)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("number", ["3,600", "-$1,234,567.50", "1200.25", "0.5", "999999999999999"])
def test_a_number_ends_at_its_quote_and_nowhere_before(
    tokenizer: PromptTokenizer, number: str, layout: dict[str, Any]
) -> None:
    text = json.dumps({"answer": number, "confidence": 85}, **layout)
    ids, start = tokens(tokenizer, text), NUMBERS.answer_offset(text)
    ends = {len(tokenizer.decode(ids[:count])) for count in range(len(ids))}
    rest = text[start + len(number) :]
    for end in {start + 1, *ends} & set(range(start + 1, start + len(number))):
        assert not is_answer(NUMBERS, text[:end] + rest.removeprefix('"'))
        # Closed with a quote it is the number that stands there, which no digits can follow, or none.
        closed, part = text[:end] + rest, text[start:end]
        if is_answer(NUMBERS, closed):
            assert NUMBERS.parse(closed).answer == canonical_number(part) is not None
        assert not is_answer(NUMBERS, f'{text[:end]}"{text[end:]}')


@dataclass
class OneAnswer:
    """An engine that gives one answer, whatever it is asked."""

    ids: Sequence[int]
    logprobs: Sequence[Mapping[int, float]]
    capacity: int = 1
    asked: str = ""

    def submit(self, request: Request) -> None:
        """See the protocol."""
        self.asked = request.id

    def step(self) -> list[Completion]:
        """See the protocol."""
        return [Completion(self.asked, tuple(self.ids), Finish.STOP, tuple(self.logprobs), 0, "")]

    def close(self) -> None:
        """See the protocol."""


@pytest.fixture(scope="module")
def prompts(tokenizer: PromptTokenizer) -> PromptWriter:
    return PromptWriter(agent_plan(system_role=False), tokenizer)


def row_of(prompts: PromptWriter, ids: Sequence[int], logprobs: Sequence[Mapping[int, float]]) -> Analysis:
    rows: list[Analysis] = []
    unit = Unit("u", Task("row", {"question": Data("Which?")}, SCHEMAS[0]))
    hooks = Hooks(lambda keys: None, rows.append, lambda: None)
    generate(OneAnswer(ids, logprobs), prompts, [unit], CONTEXT, hooks)
    (row,) = rows
    return row


def label_step(tokenizer: PromptTokenizer, ids: Sequence[int], place: int) -> tuple[int, int]:
    """Which token holds a character of the text, and where in its vocabulary entry."""
    lengths = [len(tokenizer.decode(ids[:count])) for count in range(len(ids) + 1)]
    step = next(count for count in range(len(ids)) if lengths[count + 1] > place)
    return step, len(tokenizer.token_text(ids[step])) - (lengths[step + 1] - place)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("label", LABELS)
def test_probabilities_are_those_of_the_label(
    tokenizer: PromptTokenizer, prompts: PromptWriter, label: str, layout: dict[str, Any]
) -> None:
    text = written(label, layout)
    ids = tokens(tokenizer, text)
    step, place = label_step(tokenizer, ids, re.search('"answer": ?"', text).end())  # type: ignore[union-attr]
    entry = tokenizer.token_text(ids[step])
    assert entry[place] == label
    others = {other: f"{entry[:place]}{other}{entry[place + 1 :]}" for other in LABELS}
    found = {other: tokenizer._native.token_to_id(spelled) for other, spelled in others.items()}
    known = {other: index for other, index in found.items() if index is not None}
    weights = {other: LABELS.index(other) + 1 for other in known}
    total = sum(weights.values())
    logprobs: list[Mapping[int, float]] = [{index: 0.0} for index in ids]
    logprobs[step] = {index: math.log(weights[other] / total) for other, index in known.items()}
    row = row_of(prompts, ids, logprobs)
    assert (row.answer, row.text) == (label, text)
    assert row.probabilities == pytest.approx({other: weights.get(other, 0) / total for other in LABELS})

    # Where the model might as well have gone on otherwise, nothing exact is known.
    other_token = tokenizer.trusted_ids("x")[-1]
    logprobs[step] = {ids[step]: math.log(0.5), other_token: math.log(0.5)}
    assert row_of(prompts, ids, logprobs).probabilities is None
