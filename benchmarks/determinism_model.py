"""Does one model give the same bytes on this machine, whichever way its prompts are read?

    python benchmarks/determinism.py --model CONFIG_OR_FOLDER --store STORE [--device cpu|cuda]
                                     [--grammar guidance|outlines|xgrammar] [--quick] [--out FILE]

The model is loaded as a run loads it: the recipe of its device, which on a GPU is vLLM's batch-invariant
mode, with whole prompts and no prefix cache. All rows of that, asked at once, are the reference. Then four
cases:

* *batches*: the recipe again, 7 at a time, one at a time, in another order;
* *chunks*: the same with prompts read in steps of at most 512 tokens, beside answers being written;
* *warm cache*: the same with the prefix cache on, filled and read by several passes over the same prompts;
* *preemption*: the same with a KV cache for about two of the longest rows, and our guard off, so that vLLM
  puts requests off and reads them again with what they had written.

Compared are token ids, so texts, and every log-probability bit by bit. What was found is kept in the store,
by the SHA-256 of model files, engine and environment, and `engine.prefix_cache: auto` goes by it.

A case that never came about (no block read from the cache, no request put off) shows nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from determinism import (
    COMPARED,
    EVERYTHING,
    Report,
    Row,
    Running,
    _count_preemptions,
    compared,
    completed,
    machine,
    questions,
    rows_of,
    shuffled,
    table,
)

from orch_local.config.blocks import EngineConfig
from orch_local.config.model_configs import load_model_config
from orch_local.engines.base import Attention, EngineSettings, Request
from orch_local.engines.registry import determinism, environment, obstacles, open_engine
from orch_local.errors import ConfigError, EngineError, OrchError
from orch_local.plan.execution import execution_facts, execution_spec
from orch_local.plan.prefix_cache import choose_cache
from orch_local.records import digest
from orch_local.store.evidence import Case, CaseName, Check, keep_check, read_checks
from orch_local.store.store import Store

CHUNK = 512
"""Tokens of a step where prompts are cut."""
LONG = 600
"""Tokens of a prompt that counts as long."""


@dataclass(frozen=True)
class Effort:
    """How many questions."""

    short: int = 24
    long: int = 40
    single: int = 8
    """Of them, those that are asked one at a time."""


QUICK = Effort(short=4, long=8, single=3)


@dataclass(frozen=True)
class Pass:
    """All questions answered once."""

    rows: Mapping[str, Row]
    cached: int
    """Rows that read tokens from the prefix cache."""
    preempted: int
    """Requests that were put off."""


@dataclass(frozen=True)
class Loaded:
    """What an engine told of itself when it was loaded."""

    attention: Attention
    blocks: tuple[int, ...]
    """Tokens of a block of the KV cache, for each group of layers."""


# In the process of an engine.


def serve(pipe: Any, settings: EngineSettings, changed: Mapping[str, Any], guarded: bool) -> None:
    """Load an engine with some arguments changed, the mode kept; answer until told to end."""
    from orch_local.engines.vllm import loading

    plain, preempted = loading.engine_arguments, _count_preemptions()
    loading.engine_arguments = lambda settings: plain(settings) | changed
    try:
        engine = open_engine(settings)
        engine._guarded &= guarded
        cache = engine._engine.engine_core.engine_core.scheduler.kv_cache_config
        sizes = tuple(group.kv_cache_spec.block_size for group in cache.kv_cache_groups)
        pipe.send(Loaded(engine.attention, sizes))
        while (call := pipe.recv()) is not None:
            preempted.clear()
            found = _answer(engine, *call)
            pipe.send(replace(found, preempted=len(preempted)))
    except OrchError as error:
        pipe.send(error)


def _answer(engine: Any, requests: Sequence[Request], width: int) -> Pass:
    done = completed(engine, requests, width)
    return Pass(rows_of(done), sum(one.cached_tokens > 0 for one in done), 0)


# In the process of this script.


@dataclass
class Engine:
    """An engine in a process of its own, as a context."""

    settings: EngineSettings
    changed: Mapping[str, Any] = field(default_factory=dict)
    guarded: bool = True

    def __enter__(self) -> Engine:
        variables = environment(self.settings)
        self._process = Running(serve, variables, self.settings, self.changed, self.guarded)
        try:
            self.loaded: Loaded = self._receive()
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()  # and so free its memory for the next

    def answer(self, requests: Sequence[Request], width: int = EVERYTHING) -> Pass:
        """Let it answer."""
        self._process._pipe.send((list(requests), width))
        found: Pass = self._receive()
        return found

    def _receive(self) -> Any:
        try:
            found = self._process.receive()
        except EOFError:
            raise EngineError("the process of the engine died; its words are above") from None
        if isinstance(found, OrchError):
            raise found
        return found


Ways = Mapping[str, tuple[Pass, int]]
"""By how it was asked: the answers, and how often that came to what the case is about."""


@dataclass
class Measured:
    """All that was found."""

    reference: Pass
    loaded: Loaded
    cases: dict[CaseName, Case] = field(default_factory=dict)
    lines: list[list[str]] = field(default_factory=list)

    def add(self, name: CaseName, ways: Ways) -> None:
        """Compare the answers of a case with the reference."""
        pairs = [
            (row, self.reference.rows[key]) for found, _ in ways.values() for key, row in found.rows.items()
        ]
        self.cases[name] = Case(
            name,
            rows=len(pairs),
            same=sum(row.packed() == other.packed() for row, other in pairs),
            same_text=sum(row.ids == other.ids for row, other in pairs),
            met=sum(met for _, met in ways.values()),
        )
        for way, (found, met) in ways.items():
            self.lines.append([name, way, str(met), *compared(found, self.reference)])
            print(" | ".join(self.lines[-1]), flush=True)

    def refuse(self, name: CaseName, error: OrchError) -> None:
        """Note that a case could not be computed."""
        self.lines.append([name, f"could not be run: {error}", *["-"] * (1 + len(COMPARED))])
        print(" | ".join(self.lines[-1][:2]), flush=True)


def measure(settings: EngineSettings, asked: Sequence[Request], effort: Effort) -> Measured:
    """All four cases; each engine alone on the machine, one after another."""
    few = [*asked[: effort.single - 1], max(asked, key=lambda one: len(one.prompt_ids))]
    with Engine(settings) as recipe:
        measured = Measured(recipe.answer(asked), recipe.loaded)
        ways = {
            "7 at a time, shuffled": recipe.answer(shuffled(asked), 7),
            "one at a time": recipe.answer(few, 1),
            "all at once, in another order": recipe.answer(shuffled(asked, 3)),
        }
    measured.add("batches", {way: (found, len(found.rows)) for way, found in ways.items()})
    others: dict[CaseName, Callable[[], Ways]] = {
        "chunks": lambda: _chunks(settings, asked),
        "warm cache": lambda: _warm(settings, asked, few),
        "preemption": lambda: _preempted(settings, asked, measured.loaded),
    }
    for name, case in others.items():
        try:
            measured.add(name, case())
        except OrchError as error:
            measured.refuse(name, error)
    return measured


def _chunks(settings: EngineSettings, asked: Sequence[Request]) -> Ways:
    sizes = {"max_num_batched_tokens": CHUNK, "max_num_seqs": min(CHUNK, settings.side_by_side)}
    cut = sum(len(request.prompt_ids) > CHUNK for request in asked)  # the others may be, in a full step
    with Engine(settings, {"enable_chunked_prefill": True, **sizes}) as engine:
        return {
            "all at once": (engine.answer(asked), cut),
            "7 at a time, shuffled": (engine.answer(shuffled(asked), 7), cut),
        }


def _warm(settings: EngineSettings, asked: Sequence[Request], few: Sequence[Request]) -> Ways:
    with Engine(replace(settings, prefix_cache=True)) as engine:
        ways = {
            "all at once, the cache empty": engine.answer(asked),
            "all at once, the cache warm": engine.answer(asked),
            "7 at a time, shuffled, warm": engine.answer(shuffled(asked), 7),
            "one at a time, warm": engine.answer(few, 1),
        }
    return {way: (found, found.cached) for way, found in ways.items()}


def _preempted(settings: EngineSettings, asked: Sequence[Request], loaded: Loaded) -> Ways:
    blocks = sum(-(-settings.loaded_len // size) for size in loaded.blocks)
    with Engine(settings, {"num_gpu_blocks_override": 2 * blocks + 2}, guarded=False) as engine:
        ways = {
            "all at once": engine.answer(asked),
            "all at once, shuffled": engine.answer(shuffled(asked)),
        }
    return {way: (found, found.preempted) for way, found in ways.items()}


def asked_of(settings: EngineSettings, effort: Effort) -> list[Request]:
    """Questions in the model's own tokens that fit its context.

    Raises
    ------
    ConfigError
        If no long one fits: on short prompts nothing was ever seen to differ.
    """
    made = questions(settings.model_path, effort.short, effort.long)
    fitting = [one for one in made if len(one.prompt_ids) + one.max_tokens <= settings.max_model_len]
    if not any(len(one.prompt_ids) >= LONG for one in fitting):
        raise ConfigError(
            f"a context of {settings.max_model_len} tokens holds no prompt of {LONG} and its answer",
            hint="raise `max_model_len` in the model config, or take another model",
        )
    return fitting


def check_model(model: str, engine: Mapping[str, str], store: Path, out: Path | None, *, quick: bool) -> None:
    """Check one model, print and write the table, and keep what was found in the store.

    Parameters
    ----------
    model, engine:
        As a run file names them; of the engine block, device and grammar.

    Raises
    ------
    InputError
        If the model cannot be used.
    EngineError
        If the recipe itself cannot be run.
    """
    started, effort = time.monotonic(), QUICK if quick else Effort()
    asked_for = EngineConfig.model_validate({**engine, "prefix_cache": "on"})
    cached, facts = execution_facts(load_model_config(model), asked_for)
    settings = replace(cached, prefix_cache=None)
    if determinism(settings)["prefix_caching"] or not determinism(cached)["prefix_caching"]:
        reasons = "; ".join(obstacles(settings)) or "its model config sets `enable_prefix_caching`"
        raise ConfigError(
            f"there is no recipe to compare with: {reasons}",
            where=f"model {model!r}",
            hint="vLLM has the prefix cache as it sees fit there, and `engine.prefix_cache` sets it",
        )
    asked = asked_of(settings, effort)
    longest = max(len(one.prompt_ids) + one.max_tokens for one in asked)
    measured = measure(replace(settings, longest=longest), asked, effort)
    check = Check(
        cases=tuple(measured.cases.values()),
        sample=digest([[one.id, one.prompt_ids, one.pattern] for one in asked]),
        longest=max(len(one.prompt_ids) for one in asked),
        head_size=measured.loaded.attention.head_size,
        attention=measured.loaded.attention.backend,
    )
    spec, kept = execution_spec(facts), Store(store)
    kept.declare(spec)
    keep_check(kept, spec.digest, check)
    choice = choose_cache(read_checks(kept, spec.digest))
    minutes = (time.monotonic() - started) / 60
    _report(Report(out), settings, model, measured, check, quick=quick).add(
        f"All of it took {minutes:.1f} minutes. With this store, `engine.prefix_cache: auto` is now "
        f"{'on' if choice.on else 'off'} for this model on this machine: {choice.reason}."
    )
    print(f"Kept in {kept.checks(spec.digest)}")


def _report(
    report: Report, settings: EngineSettings, model: str, measured: Measured, check: Check, *, quick: bool
) -> Report:
    """The head and the table."""
    command = f"--model {Path(model).name} --device {settings.device}{' --quick' * quick}"
    gpus = determinism(settings).get("batch_invariant_mode")
    mode = "" if gpus is None else f", vLLM's batch-invariant mode {'on' if gpus else 'off'}"
    report.add(
        f"# One model in four ways: {Path(model).name}",
        f"`python benchmarks/determinism.py {command} --store STORE`, {machine()}",
        f"{settings.device}, {settings.dtype}{mode}; heads of {check.head_size}, {check.attention}, "
        f"KV blocks of {', '.join(map(str, measured.loaded.blocks))} tokens; {len(measured.reference.rows)} "
        f"questions, the longest prompt {check.longest} tokens. Each row is compared with the row of whole "
        "prompts, all at once. *Came about*: rows asked (batches), prompts longer than a step (chunks), rows "
        "that read cached blocks (warm cache), requests put off (preemption). *Same bytes*: token ids and "
        "every log-probability are equal bit by bit.",
        table(["case", "asked", "came about", *COMPARED], measured.lines),
    )
    return report


def run(options: Any) -> int:
    """Check the model of the command line; returns the exit code."""
    try:
        engine = {"device": options.device, "grammar": options.grammar}
        check_model(options.model, engine, options.store, options.out, quick=options.quick)
    except OrchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
