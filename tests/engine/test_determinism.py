"""The same answer again, to the byte: real vLLM on a CPU, 300 questions, any batch size and order.

Each dtype has an engine in a process of its own; both work side by side, and the tests look at what came out.
`benchmarks/determinism.py` measures more, on wider models.
"""

from __future__ import annotations

import math
import os
import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tiny_models import make_tiny_model

from orch_local.config.answers import schema_for
from orch_local.config.blocks import AnswerConfig
from orch_local.engines.base import Completion, EngineSettings, Finish, Request
from orch_local.engines.registry import determinism, environment, open_engine

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]

DTYPES = ("float32", "bfloat16")
CONTEXT = 1152
QUESTIONS = 300
LONG_ONES = 10
LOGPROBS = 16
SECONDS = 280
WAYS = {"1": (1, False), "7 shuffled": (7, True), "64": (64, False), "all shuffled": (QUESTIONS, True)}
"""How many at a time, and whether in another order."""

# These run in the process of the engine, which lives in `_alive`.
_alive: list[Any] = []


def load(settings: EngineSettings) -> None:
    _alive.append(open_engine(settings))


def answer(requests: Sequence[Request], width: int) -> dict[str, Completion]:
    """Answer with ``width`` requests in flight: the next enters as one leaves."""
    (engine,) = _alive
    waiting, flying = iter(requests), 0
    done: dict[str, Completion] = {}
    while len(done) < len(requests):
        while flying < width and (request := next(waiting, None)) is not None:
            engine.submit(request)
            flying += 1
        finished = engine.step()
        flying -= len(finished)
        done |= {one.id: replace(one, logprobs=tuple(map(dict, one.logprobs))) for one in finished}
    return done


def set_up() -> Mapping[str, Any]:
    """What vLLM itself says of the engine that it built."""
    import torch
    import vllm._custom_ops as ops

    config = _alive[0]._engine.vllm_config
    return {
        "prefix caching": config.cache_config.enable_prefix_caching,
        "chunked prefill": config.scheduler_config.enable_chunked_prefill,
        "whole prompts": config.scheduler_config.max_num_batched_tokens >= config.model_config.max_model_len,
        "eager": config.model_config.enforce_eager,
        "threads": torch.get_num_threads(),
        "single rows padded": hasattr(ops.onednn_mm, "__wrapped__"),
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
    }


@dataclass
class Host:
    """The process of one engine, and what it was asked."""

    settings: EngineSettings
    pool: ProcessPoolExecutor
    requests: list[Request]
    built: Future[Mapping[str, Any]]
    reference: Future[Mapping[str, Completion]]
    """All questions at once."""
    again: Mapping[str, Future[Mapping[str, Completion]]]

    @classmethod
    def start(cls, settings: EngineSettings, requests: list[Request]) -> Host:
        pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        with mock.patch.dict(os.environ, environment(settings)):
            pool.submit(load, settings)  # the first call starts the process
        built, reference = pool.submit(set_up), pool.submit(answer, requests, QUESTIONS)
        mixed = random.Random(1).sample(requests, len(requests))
        again = {
            name: pool.submit(answer, mixed if shuffled else requests, width)
            for name, (width, shuffled) in WAYS.items()
        }
        return cls(settings, pool, requests, built, reference, again)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Host]]:
    """An engine for each dtype."""
    model = make_tiny_model(tmp_path_factory.mktemp("tiny"), max_positions=CONTEXT)
    requests = questions(model)
    sizes = {"max_num_seqs": QUESTIONS, "cpu_kv_cache_gib": 0.25}
    plain = EngineSettings("vllm", model, "cpu", "guidance", "", CONTEXT, LOGPROBS, sizes)
    started = {dtype: Host.start(replace(plain, dtype=dtype), requests) for dtype in DTYPES}
    yield started
    for host in started.values():
        host.pool.shutdown(cancel_futures=True)


@pytest.fixture(params=DTYPES)
def host(request: pytest.FixtureRequest, hosts: dict[str, Host]) -> Host:
    return hosts[request.param]


def questions(model: Path) -> list[Request]:
    """Questions of 10 to 100 and a few of 600 to 900 tokens, which begin alike; answers of several kinds."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    chance = random.Random(0)
    words = "which choice is the capital sum of two numbers even while Paris London 17 42".split()
    instructions = tokenizer.encode(" ".join(chance.choices(words, k=400))).ids
    asked = []
    for number in range(QUESTIONS):
        long = number % (QUESTIONS // LONG_ONES) == 0
        shared, length = (300, chance.randint(600, 900)) if long else (5, chance.randint(10, 100))
        own = tokenizer.encode(" ".join(chance.choices(words, k=length))).ids
        prompt = tuple((instructions[:shared] + own)[:length])
        config = AnswerConfig(
            reasoning_chars=chance.choice((0, 0, 12)), eliminated=number % 3 == 0, confidence=number % 2 == 0
        )
        schema = schema_for("ABCDE"[: chance.randint(2, 5)], config)
        asked.append(Request(str(number), prompt, schema.max_tokens, schema.pattern, LOGPROBS))
    return asked


def content(completion: Completion) -> bytes:
    """Everything of an answer that must come again; the text is a function of the ids."""
    parts = [struct.pack(f"<{len(completion.token_ids)}q", *completion.token_ids)]
    for position in completion.logprobs:
        parts += [struct.pack("<qd", *pair) for pair in sorted(position.items())]
    return completion.finish.encode() + b"".join(parts)


def different(first: Mapping[str, Completion], again: Mapping[str, Completion]) -> list[str]:
    """Questions whose answers are not equal bit by bit."""
    assert again.keys() == first.keys()
    return [key for key, completion in first.items() if content(completion) != content(again[key])]


def test_the_questions_are_of_varied_length(hosts: dict[str, Host]) -> None:
    lengths = [len(request.prompt_ids) for request in hosts["float32"].requests]
    assert len(lengths) == QUESTIONS
    assert sum(length >= 600 for length in lengths) == LONG_ONES
    assert len(set(lengths)) > 80


def test_every_setting_that_breaks_it_is_off(host: Host) -> None:
    assert determinism(host.settings)["batch_invariant"]
    assert host.built.result(SECONDS) == {
        "prefix caching": False,
        "chunked prefill": False,
        "whole prompts": True,
        "eager": True,
        "threads": 1,
        "single rows padded": True,
        "dtype": host.settings.dtype,
    }


@pytest.mark.parametrize("way", WAYS)
def test_the_same_bytes_in_any_batch_and_order(host: Host, way: str) -> None:
    assert different(host.reference.result(SECONDS), host.again[way].result(SECONDS)) == []


def test_the_answers_are_worth_comparing(host: Host) -> None:
    completions = host.reference.result(SECONDS).values()
    assert all(one.finish is Finish.STOP and len(one.logprobs) == len(one.token_ids) for one in completions)
    # A random model writes much the same for every prompt, but not with the same probabilities.
    assert len(set(map(content, completions))) > QUESTIONS - 3


def test_the_comparison_sees_what_differs(hosts: dict[str, Host]) -> None:
    """Another dtype changes the bytes of every answer; so does the last bit of one log-probability."""
    wide, narrow = (hosts[dtype].reference.result(SECONDS) for dtype in DTYPES)
    assert len(different(wide, narrow)) == QUESTIONS
    first = wide["0"]
    token, value = next(iter(first.logprobs[0].items()))
    moved = {**first.logprobs[0], token: math.nextafter(value, -math.inf)}
    again = {**wide, "0": replace(first, logprobs=(moved, *first.logprobs[1:]))}
    assert different(wide, again) == ["0"]
