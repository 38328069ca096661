"""`benchmarks/determinism.py --model`: what it makes of answers, what it keeps, and who reads that."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from paths import ROOT
from tiny_models import make_tiny_model

from orch_local.config.blocks import EngineConfig
from orch_local.config.model_configs import load_model_config
from orch_local.engines.base import Attention, EngineSettings, Request
from orch_local.errors import ConfigError, EngineError
from orch_local.plan.execution import execution_facts, execution_spec
from orch_local.plan.prefix_cache import LEAST_MET, choose_cache
from orch_local.store.evidence import Check, read_checks
from orch_local.store.store import Store

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def checking() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import determinism_model

        yield determinism_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@dataclass
class Table:
    """Stands for the engine of a case: answers are a function of the request, but for what breaks."""

    checking: ModuleType
    breaks: set[str]
    """Cases in which the last log-probability of every long prompt has another last bit."""
    opened: list[tuple[str, Mapping[str, Any], bool]] = field(default_factory=list)

    def __call__(
        self, settings: EngineSettings, changed: Mapping[str, Any] | None = None, guarded: bool = True
    ) -> Table:
        kinds = {"enable_chunked_prefill": "chunks", "num_gpu_blocks_override": "preemption"}
        self.case = next((kinds[key] for key in changed or {} if key in kinds), "batches")
        self.case = "warm cache" if settings.prefix_cache else self.case
        self.opened.append((self.case, changed or {}, guarded))
        if f"no {self.case}" in self.breaks:
            raise EngineError("vLLM refuses it")
        self.passes = 0
        self.loaded = self.checking.Loaded(Attention(64, "TABLE"), (16, 16))
        return self

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def answer(self, requests: Sequence[Request], width: int = 10**6) -> Any:
        self.passes += 1
        broken = self.case in self.breaks and not (self.case == "batches" and self.passes == 1)
        rows = {one.id: self._row(one, broken) for one in requests}
        warm = self.case == "warm cache"
        return self.checking.Pass(rows, len(rows) * warm, 5 * (self.case == "preemption"))

    def _row(self, request: Request, broken: bool) -> Any:
        value = -1.0 / len(request.prompt_ids)
        if broken and request.id.startswith("long"):
            value = math.nextafter(value, 0.0)
        return self.checking.Row((len(request.prompt_ids), 7), ({3: -0.5}, {7: value}))


def checked(
    checking: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    model: Path,
    root: Path,
    *breaks: str,
    quick: bool = False,
) -> tuple[Check, Table]:
    table = Table(checking, set(breaks))
    monkeypatch.setattr(checking, "Engine", table)
    checking.check_model(str(model), {"device": "cpu"}, root / "store", root / "table.md", quick=quick)
    (check,) = read_checks(Store(root / "store"), digest_of(model)).checks
    return check, table


def digest_of(model: Path) -> str:
    engine = EngineConfig(device="cpu", prefix_cache="on")
    return execution_spec(execution_facts(load_model_config(str(model)), engine)[1]).digest


def test_a_model_whose_bytes_stay_turns_auto_on(
    checking: ModuleType, monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    check, table = checked(checking, monkeypatch, model, tmp_path)
    assert [case.name for case in check.cases] == ["batches", "chunks", "warm cache", "preemption"]
    assert all(case.rows == case.same == case.same_text > 0 < case.met for case in check.cases)
    assert (check.head_size, check.attention) == (64, "TABLE")
    assert check.longest >= 600
    store = Store(tmp_path / "store")
    assert choose_cache(read_checks(store, digest_of(model))).on
    assert (store.folder(digest_of(model)) / "spec.json").exists()
    text = (tmp_path / "table.md").read_text()
    assert text.count("\n| warm cache |") == 4
    assert "`engine.prefix_cache: auto` is now on for this model" in text
    assert str(tmp_path) not in text
    changed = {case: (arguments, guarded) for case, arguments, guarded in table.opened}
    assert changed["batches"] == changed["warm cache"] == ({}, True)
    assert changed["chunks"][0]["max_num_batched_tokens"] == 512
    # A cache for two of the longest rows in each of two groups of layers, and our guard off.
    longest = changed["preemption"][0]["num_gpu_blocks_override"]
    assert 2 * 2 * check.longest / 16 < longest < 2 * 2 * 1152 / 16 + 2
    assert changed["preemption"][1] is False


@pytest.mark.parametrize("case", ["batches", "chunks", "warm cache", "preemption"])
def test_the_last_bit_of_a_long_row_is_seen(
    checking: ModuleType, monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path, case: str
) -> None:
    check, _ = checked(checking, monkeypatch, model, tmp_path, case)
    differing = [one.name for one in check.cases if one.same < one.rows]
    assert differing == [case]
    assert all(one.same_text == one.rows for one in check.cases)
    assert choose_cache(read_checks(Store(tmp_path / "store"), digest_of(model))).on is (case != "warm cache")


def test_a_case_that_cannot_be_run_is_told_and_left_out(
    checking: ModuleType, monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    check, _ = checked(checking, monkeypatch, model, tmp_path, "no chunks")
    assert [case.name for case in check.cases] == ["batches", "warm cache", "preemption"]
    assert "| chunks | could not be run: vLLM refuses it |" in (tmp_path / "table.md").read_text()


def test_a_quick_check_shows_too_little(
    checking: ModuleType, monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    check, _ = checked(checking, monkeypatch, model, tmp_path, quick=True)
    case = check.named("warm cache")
    assert case is not None and 0 < case.met < LEAST_MET
    assert not choose_cache(read_checks(Store(tmp_path / "store"), digest_of(model))).on


def test_a_short_context_is_refused(checking: ModuleType, tmp_path: Path) -> None:
    short = make_tiny_model(tmp_path / "short", max_positions=512)
    with pytest.raises(ConfigError, match="a context of 512 tokens holds no prompt of 600"):
        checking.check_model(str(short), {"device": "cpu"}, tmp_path / "store", None, quick=True)


def test_a_model_without_the_recipe_is_refused(
    checking: ModuleType, monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "0")
    with pytest.raises(ConfigError, match="no recipe to compare with: VLLM_BATCH_INVARIANT is 0"):
        checking.check_model(str(model), {"device": "cuda"}, tmp_path / "store", None, quick=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "no-such-model", "--store", "s"], "error: no model config and no model folder"),
        (["--model", "x"], "--model and --store go together"),
        (["--store", "x"], "--model and --store go together"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, options: list[str], message: str) -> None:
    command = [sys.executable, str(BENCHMARKS / "determinism.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_cache_of_a_real_engine_is_read(checking: ModuleType, model: Path) -> None:
    """Long prompts differ on some CPUs and not on others; those shorter than a block have nothing to read."""
    sizes = {"max_num_seqs": 64, "cpu_kv_cache_gib": 0.25}
    settings = EngineSettings("vllm", model, "cpu", "guidance", "float32", 1152, 16, sizes, prefix_cache=True)
    asked = checking.asked_of(settings, checking.Effort(short=8, long=4))
    with checking.Engine(settings) as engine:
        (block,) = engine.loaded.blocks
        cold, warm = engine.answer(asked), engine.answer(asked)
    reaching = [one.id for one in asked if len(one.prompt_ids) > block]
    assert warm.cached == len(reaching) >= 4
    assert cold.cached < warm.cached
    assert (cold.preempted, warm.preempted) == (0, 0)
    within = [one.id for one in asked if len(one.prompt_ids) <= block]
    assert within
    assert [cold.rows[key].packed() for key in within] == [warm.rows[key].packed() for key in within]
    assert all(cold.rows[key].ids == warm.rows[key].ids for key in reaching)
