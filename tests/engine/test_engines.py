"""The same behaviour of both real engines, on a tiny random model.

Each engine lives in a process of its own, as in a run: its environment must be set before torch is imported,
and no two engines share a process.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_models import END, make_tiny_model

from orch_local.config.answers import AnswerSchema
from orch_local.config.blocks import AnswerConfig
from orch_local.engines.admission import Admission, Cache, Layers
from orch_local.engines.base import Attention, Completion, EngineSettings, Finish, Request, RequestError
from orch_local.engines.registry import (
    determinism,
    engine_version,
    environment,
    open_engine,
)
from orch_local.engines.vllm.arguments import engine_arguments
from orch_local.engines.vllm.engine import VllmEngine, _Flight
from orch_local.engines.vllm.translation import layers_of
from orch_local.errors import EngineError, OrchError
from orch_local.util.gpus import gpus

pytest.importorskip("transformers")

CONTEXT = 512
PATTERN = AnswerSchema("ABCD", AnswerConfig(reasoning_chars=40)).pattern
START_SECONDS = 240
STEP_SECONDS = 120


@dataclass
class Outcome:
    """What an engine did with some requests."""

    refused: dict[str, str]
    steps: list[list[Completion]]

    @property
    def completions(self) -> dict[str, Completion]:
        return {completion.id: completion for step in self.steps for completion in step}


def serve(pipe: Connection) -> None:
    """Answer calls of :class:`Host` in the process of the engine."""
    engine = None
    while (call := pipe.recv()) is not None:
        try:
            if isinstance(call, EngineSettings):
                engine = open_engine(call)
                pipe.send(engine.capacity)
            elif isinstance(call, str):
                pipe.send(getattr(engine, call))
            elif callable(call):
                pipe.send(call())
            else:
                assert engine is not None
                pipe.send(run(engine, call))
        except OrchError as error:
            pipe.send(error)


def run(engine: Any, requests: list[Request]) -> Outcome:
    outcome = Outcome({}, [])
    for request in requests:
        try:
            engine.submit(request)
        except RequestError as error:
            outcome.refused[request.id] = str(error)
    while len(outcome.completions) + len(outcome.refused) < len(requests):
        outcome.steps.append(engine.step())
    return outcome


class Host:
    """The process of one engine, and the tokenizer of its model."""

    def __init__(self, settings: EngineSettings) -> None:
        from tokenizers import Tokenizer

        self.settings = settings
        self.tokenizer = Tokenizer.from_file(str(settings.model_path / "tokenizer.json"))
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other,), daemon=True)
        before = dict(os.environ)
        os.environ.update(environment(settings))
        try:
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def load(self, settings: EngineSettings) -> Any:
        return self._call(settings, START_SECONDS)

    def run(self, *requests: Request) -> Outcome:
        outcome = self._call(list(requests), STEP_SECONDS)
        assert isinstance(outcome, Outcome), outcome
        return outcome

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function of this module there."""
        return self._call(function, STEP_SECONDS)

    def attention(self) -> Attention:
        found = self.ask("attention")
        assert isinstance(found, Attention), found
        return found

    def ask(self, name: str) -> Any:
        """An attribute of the engine."""
        return self._call(name, STEP_SECONDS)

    def stop(self) -> None:
        self._process.kill()
        self._process.join()

    def prompt(self, text: str = "Which of the choices is the capital?") -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text).ids)

    def text(self, completion: Completion) -> str:
        return str(self.tokenizer.decode(completion.token_ids, skip_special_tokens=False))

    @cached_property
    def end(self) -> int:
        end = self.tokenizer.token_to_id(END)
        assert end is not None
        return int(end)

    def _call(self, call: Any, timeout: float) -> Any:
        self._pipe.send(call)
        if not self._pipe.poll(timeout):
            pytest.fail(f"the engine was silent for {timeout} s")
        return self._pipe.recv()


def engine_settings(
    name: str, device: str, model: Path, *, fast: bool = False, **args: Any
) -> EngineSettings:
    dtype = "float32" if device == "cpu" else "bfloat16"
    sizes = {"max_num_seqs": 16, "cpu_kv_cache_gib": 0.05, "gpu_memory_utilization": 0.3}
    return EngineSettings(name, model, device, "guidance", dtype, CONTEXT, 16, {**sizes, **args}, fast=fast)


GPU = (pytest.mark.gpu, pytest.mark.skipif(not gpus(), reason="needs an NVIDIA GPU"))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("vllm", "cpu", False), id="vllm-cpu", marks=pytest.mark.vllm),
        pytest.param(("transformers", "cpu", False), id="transformers-cpu"),
        pytest.param(("transformers", "cpu", True), id="transformers-cpu-fast"),
        pytest.param(("vllm", "cuda", False), id="vllm-cuda", marks=(*GPU, pytest.mark.vllm)),
        pytest.param(("transformers", "cuda", False), id="transformers-cuda", marks=GPU),
    ],
)
def started(request: pytest.FixtureRequest, tiny_model: Path) -> Iterator[Host]:
    """A process without a model as yet."""
    name, device, fast = request.param
    if name == "vllm" and find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    host = Host(engine_settings(name, device, tiny_model, fast=fast))
    yield host
    host.stop()


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), max_positions=CONTEXT)


@pytest.fixture(scope="module")
def failures(started: Host, tmp_path_factory: pytest.TempPathFactory) -> dict[str, EngineError]:
    """What loads say that must fail; all in the process that loads the good model next."""
    folder = tmp_path_factory.mktemp("broken")
    good = started.settings
    model = good.model_path
    broken = {
        "empty": replace(good, model_path=_copy(model, folder / "empty", without="model.safetensors")),
        "cut": replace(good, model_path=_cut(model, folder / "cut")),
        "damaged": replace(good, model_path=_with_damage(model, folder / "damaged")),
        "argument": replace(good, args={"quantization": "no_such_method"}),
    }
    if good.name == "vllm":
        broken["typo"] = replace(good, args={"vllm_args": {"enable_prefix_cachin": True}})
        broken["twice"] = replace(good, args={"vllm_args": {"max_model_len": 99}})
    return {name: started.load(settings) for name, settings in broken.items()}


def _copy(model: Path, folder: Path, without: str) -> Path:
    folder.mkdir()
    for file in model.iterdir():
        if file.name != without:
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def _cut(model: Path, folder: Path) -> Path:
    """A copy whose weights end too early."""
    file = _copy(model, folder, without="") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    return folder


def _with_damage(model: Path, folder: Path) -> Path:
    """A copy whose last weights are not numbers."""
    file = _copy(model, folder, without="") / "model.safetensors"
    content = file.read_bytes()
    count = 4096
    file.write_bytes(content[:-count] + b"\xff" * count)
    return folder


@pytest.fixture(scope="module")
def host(started: Host, failures: dict[str, EngineError]) -> Host:
    """A process with the tiny model loaded, after some failed loads."""
    capacity = started.load(started.settings)
    alone = started.settings.name == "transformers" and not started.settings.fast
    assert capacity == (1 if alone else 16), capacity
    return started


@pytest.mark.parametrize("name", ["empty", "cut", "damaged", "argument"])
def test_a_failed_load_says_what_to_do(failures: dict[str, EngineError], name: str) -> None:
    error = failures[name]
    assert isinstance(error, EngineError)
    assert error.hint
    assert "\n" not in error.message
    assert len(error.message) < 600


def test_unknown_and_contradicting_arguments_are_refused(failures: dict[str, EngineError]) -> None:
    if "typo" in failures:
        assert "`enable_prefix_caching`" in failures["typo"].hint
        assert "max_model_len" in failures["twice"].message


def test_a_loaded_model_tells_how_it_attends(host: Host) -> None:
    head_size, backend = host.attention()
    assert head_size == 32
    assert backend
    assert host.settings.name != "vllm" or backend.isupper(), backend


def test_constrained_text_matches_its_pattern(host: Host) -> None:
    requests = [Request(str(n), host.prompt(f"Question {n}"), 200, PATTERN) for n in range(6)]
    completions = host.run(*requests).completions
    for completion in completions.values():
        assert completion.finish is Finish.STOP
        assert re.fullmatch(PATTERN, host.text(completion))
        assert host.end not in completion.token_ids


def test_too_small_a_budget_ends_with_length(host: Host) -> None:
    completion = host.run(Request("cut", host.prompt(), 5, PATTERN, logprobs=3)).completions["cut"]
    assert completion.finish is Finish.LENGTH
    assert len(completion.token_ids) == len(completion.logprobs) == 5


def test_logprobs_come_after_the_mask(host: Host) -> None:
    completion = host.run(Request("choice", host.prompt(), 4, "[ABCD]", logprobs=10)).completions["choice"]
    labels = {host.tokenizer.token_to_id(label) for label in "ABCD"}
    assert completion.finish is Finish.STOP
    (position,) = completion.logprobs
    assert set(position) == labels
    assert sum(map(math.exp, position.values())) == pytest.approx(1.0, abs=1e-4)
    assert completion.token_ids[0] == max(position, key=position.__getitem__)


def test_each_chosen_token_is_among_its_logprobs(host: Host) -> None:
    completion = host.run(Request("free", host.prompt(), 30, logprobs=4)).completions["free"]
    assert len(completion.logprobs) == len(completion.token_ids) == 30
    assert completion.finish is Finish.LENGTH
    for token, position in zip(completion.token_ids, completion.logprobs, strict=True):
        assert position[token] == max(position.values())
        assert 4 <= len(position) <= 5


def test_no_logprobs_unless_asked(host: Host) -> None:
    assert host.run(Request("plain", host.prompt(), 3)).completions["plain"].logprobs == ()


def test_stop_ids_end_a_free_generation(host: Host) -> None:
    free = host.run(Request("free", host.prompt(), 20)).completions["free"].token_ids
    stop = next(token for token in free[3:] if token not in free[:3])
    request = Request("stopped", host.prompt(), 20, stop_ids=(stop,), logprobs=1)
    stopped = host.run(request).completions["stopped"]
    assert stopped.finish is Finish.STOP
    assert stopped.token_ids == free[: free.index(stop)]
    assert len(stopped.logprobs) == len(stopped.token_ids)


def test_a_stop_text_ends_a_free_generation_with_the_token_that_completes_it(host: Host) -> None:
    free = host.run(Request("free", host.prompt(), 40)).completions["free"].token_ids
    texts = [host.tokenizer.decode(free[:count]) for count in range(len(free) + 1)]
    # Three characters that end with a token, begin in one before it, and are nowhere else.
    count, stop = next(
        (count, text[-3:])
        for count, text in enumerate(texts[4:], start=4)
        if text[-3:].isascii() and texts[-1].find(text[-3:]) == len(text) - 3 < len(texts[count - 1])
    )
    request = Request("stopped", host.prompt(), 40, stop_text=stop)
    other = Request("not stopped", host.prompt(), 40, stop_text="\N{SNOWMAN} is not written")
    found = host.run(request, other).completions
    assert found["stopped"].finish is Finish.STOP
    assert found["stopped"].token_ids == free[:count]
    assert (found["not stopped"].finish, found["not stopped"].token_ids) == (Finish.LENGTH, free)


def test_different_patterns_in_flight_together(host: Host) -> None:
    patterns = {"letters": "[ABCD]", "digits": "[0-9]{4}", "json": PATTERN, "free": None}
    requests = [Request(name, host.prompt(), 200, pattern) for name, pattern in patterns.items()]
    completions = host.run(*requests).completions
    for name, pattern in patterns.items():
        if pattern is not None:
            assert re.fullmatch(pattern, host.text(completions[name]))
    assert completions["letters"].token_ids == host.run(requests[0]).completions["letters"].token_ids


@pytest.mark.parametrize(
    "bad",
    [
        Request("bad", (5,) * 500, 20),
        Request("bad", (), 5),
        Request("bad", (5, 10**6), 5),
        Request("bad", (5,), 0),
        Request("bad", (5,), 5, pattern="(unclosed"),
        Request("bad", (5,), 5, logprobs=17),
        Request("good", (5,), 5),
    ],
    ids=["too long", "empty", "no such token", "no budget", "no pattern", "too many logprobs", "same id"],
)
def test_a_bad_request_is_refused_alone(host: Host, bad: Request) -> None:
    requests = [Request("good", host.prompt(), 8), bad, Request("also good", host.prompt(), 8)]
    outcome = host.run(*requests)
    assert outcome.refused[bad.id]
    assert outcome.completions["good"].token_ids == outcome.completions["also good"].token_ids


def test_more_requests_than_fit_side_by_side(host: Host) -> None:
    requests = [Request(str(n), host.prompt(f"{n}?"), 3) for n in range(40)]
    assert len(host.run(*requests).completions) == 40


def test_completions_stream(host: Host) -> None:
    if host.settings.name != "vllm":
        pytest.skip("a batch of `generate` comes back as a whole")
    steps = host.run(Request("long", host.prompt(), 60), Request("short", host.prompt(), 3)).steps
    order = [completion.id for step in steps for completion in step]
    assert order == ["short", "long"]


def test_alone_and_in_a_batch_give_the_same_bits(host: Host) -> None:
    if not determinism(host.settings)["batch_invariant"]:
        pytest.skip("this engine does not promise it")
    words = "the sum of two numbers is even while the fox jumps over Paris London Rome and Madrid".split()
    requests = [
        Request(str(n), host.prompt(" ".join(words[n:] * (1 + 3 * n))), 30, PATTERN if n % 2 else None, 4)
        for n in range(6)
    ]
    together = host.run(*requests).completions
    reverse = host.run(*reversed(requests)).completions
    for request in requests:
        alone = host.run(request).completions[request.id]
        assert alone == together[request.id] == reverse[request.id]


def single_rows_are_computed_in_pairs() -> bool:
    """Whether vLLM's product of one row is, bit by bit, that of the same row twice."""
    import torch
    import vllm._custom_ops as ops

    rows, columns = 1408, 24
    handler = ops.create_onednn_mm(torch.rand(rows, columns), 8)
    row = torch.rand(1, 1, rows)
    pair = ops.onednn_mm.__wrapped__(handler, row[0].expand(2, -1).contiguous(), None)
    single = ops.onednn_mm(handler, row, None)
    return bool(single.shape == (1, 1, columns) and torch.equal(single[0], pair[:1]))


def test_a_row_alone_takes_the_path_of_many(host: Host) -> None:
    if (host.settings.name, host.settings.device) != ("vllm", "cpu"):
        pytest.skip("a matter of vLLM's products on a CPU")
    assert host.call(single_rows_are_computed_in_pairs)


def test_what_was_put_off_is_thrown_away_told_and_begun_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether vLLM has finished it meanwhile, as it may where steps are planned ahead, or not."""
    engine = object.__new__(VllmEngine)
    aborted: list[str] = []
    engine.preempted = 0
    engine._guarded = True
    engine._capacity = 4
    engine._admission = Admission(Cache(10, (Layers(16),)), 4)
    engine._scheduler = SimpleNamespace(running=[], waiting=[], max_num_active_reqs=0)
    requests = {name: Request(name, (1, 2), 60) for name in ("well", "waits", "finished")}
    engine._in_flight = {
        name: _Flight(request, SimpleNamespace(num_preemptions=int(name != "well")))
        for name, request in requests.items()
    }
    outputs = [SimpleNamespace(request_id=name) for name in ("well", "finished")]
    engine._engine = SimpleNamespace(step=lambda: outputs, abort_request=aborted.extend)
    added: list[Request] = []
    monkeypatch.setattr(engine, "_add", added.append)
    monkeypatch.setattr(engine, "_completion", lambda output: output.request_id)
    with caplog.at_level("INFO"):
        assert engine.step() == ["well"]
    assert aborted == ["waits", "finished"]
    assert added == [requests["waits"], requests["finished"]]
    assert engine.preempted == 2
    assert engine._admission.margin > 1.25
    assert "did not hold 2 of 2 requests, they are generated again (2 so far" in caplog.text


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """An engine whose KV cache holds three of its longest requests, of the sixteen that may run at once."""
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    model = make_tiny_model(tmp_path_factory.mktemp("model") / "wide", wide=True)
    # Keys and values of a token take 2,048 bytes.
    args = {"cpu_kv_cache_gib": 3400 * 2048 / 2**30, "vllm_args": {"block_size": 32}}
    settings = replace(engine_settings("vllm", "cpu", model, **args), max_model_len=1152)
    host = Host(settings)
    assert host.load(settings) == 16
    yield host
    host.stop()


@pytest.mark.vllm
def test_what_is_put_off_for_want_of_memory_comes_out_as_if_it_had_run_alone(tight: Host) -> None:
    """Short answers first, so that too many of the long ones behind them are let in."""
    draw = random.Random(0)
    ids = tight.prompt(
        "which of the choices is the capital of the country, and which numbers stand on the wall"
    )
    short = [Request(f"short {n}", ids[n:], 300, "[a-d]{2}", 4) for n in range(20)]
    long = [Request(f"long {n}", tuple(draw.choices(ids, k=750)), 300, "[a-z]{1500}", 4) for n in range(8)]
    completions = tight.run(*short, *long).completions
    put_off = tight.ask("preempted")
    assert put_off >= 2
    assert {len(completions[one.id].token_ids) for one in long} == {300}
    assert tight.run(*short[:3]).completions == {one.id: completions[one.id] for one in short[:3]}
    alone = {request.id: tight.run(request).completions[request.id] for request in long}
    assert [name for name, completion in alone.items() if completion != completions[name]] == []
    assert tight.ask("preempted") == put_off, "one alone has all of the cache"


def graph_sizes(model: Path, few: int | None) -> list[int]:
    """What vLLM makes of our arguments for a GPU, as far as a CPU lets it."""
    from vllm.config import CUDAGraphMode
    from vllm.engine.arg_utils import EngineArgs

    settings = engine_settings("vllm", "cuda", model, fast=True, max_num_seqs=256, gpu_memory_utilization=0.9)
    config = EngineArgs(**engine_arguments(replace(settings, graphs=few))).create_engine_config()
    assert config.scheduler_config.max_num_batched_tokens == 8192
    compilation = config.compilation_config
    # Which a configuration for a CPU has turned off.
    config.model_config.enforce_eager = False
    compilation.cudagraph_mode = CUDAGraphMode.FULL_AND_PIECEWISE
    compilation.cudagraph_capture_sizes = None
    compilation.max_cudagraph_capture_size = few
    config._set_cudagraph_sizes()
    return list(compilation.cudagraph_capture_sizes)


def test_vllm_takes_the_steps_and_graphs_for_a_gpu(host: Host) -> None:
    if (host.settings.name, host.settings.device) != ("vllm", "cpu"):
        pytest.skip("a matter of vLLM's configuration")
    model = host.settings.model_path
    assert host.call(partial(graph_sizes, model, 32)) == [1, 2, 4, 8, 16, 24, 32]
    assert len(host.call(partial(graph_sizes, model, None))) == 51


def test_layers_keep_what_vllm_keeps(host: Host) -> None:
    if (host.settings.name, host.settings.device) != ("vllm", "cpu"):
        pytest.skip("a matter of vLLM's KV cache")
    assert host.call(layers_of_each_sort) == [
        Layers(16),
        Layers(16, window=100),
        Layers(16, window=64),
        Layers(16, fixed=1),
        Layers(16, fixed=2),
        Layers(16),
        Layers(16, window=100),
    ]


def layers_of_each_sort() -> list[Layers]:
    """Of vLLM's own descriptions of layers."""
    import torch
    from vllm.v1.kv_cache_interface import (
        ChunkedLocalAttentionSpec,
        FullAttentionSpec,
        MambaSpec,
        SlidingWindowSpec,
        UniformTypeKVCacheSpecs,
    )

    heads: dict[str, Any] = {"block_size": 16, "num_kv_heads": 2, "head_size": 64, "dtype": torch.float32}
    states: dict[str, Any] = {"block_size": 16, "shapes": ((4, 4),), "dtypes": (torch.float32,)}
    sliding = SlidingWindowSpec(**heads, sliding_window=100)
    specs = [
        FullAttentionSpec(**heads, sliding_window=100),  # where vLLM keeps all the same
        sliding,
        ChunkedLocalAttentionSpec(**heads, attention_chunk_size=64),
        MambaSpec(**states),
        MambaSpec(**states, mamba_cache_mode="align"),
        MambaSpec(**states, mamba_cache_mode="all"),
        UniformTypeKVCacheSpecs(block_size=16, kv_cache_specs={"0": sliding, "1": sliding}),
    ]
    return [layers_of(spec) for spec in specs]


@pytest.mark.parametrize("name", ["vllm", "transformers"])
def test_a_worker_is_silent_on_the_network(name: str, tiny_model: Path) -> None:
    variables = environment(engine_settings(name, "cpu", tiny_model))
    assert variables["HF_HUB_OFFLINE"] == variables["DO_NOT_TRACK"] == variables["OMP_NUM_THREADS"] == "1"
    assert re.match(r"\d+\.\d+", engine_version(name))
