"""Profiles: the fit finds what it was made of, and a real engine in a real worker can be measured."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from running import AGENTS, Silent, write_run_file

from orch_local.config.run_files import RunConfig, load_run
from orch_local.errors import ConfigError, EngineError, InputError
from orch_local.plan.profiles import AgentProfile, Profile, load_profile
from orch_local.records import Usage
from orch_local.report.profile import print_profile
from orch_local.run import profiling
from orch_local.run.context import StopRequest
from orch_local.run.profiling import (
    LEAST_ROWS,
    MOST_ALONE,
    WARM_UP,
    Latency,
    Sample,
    device_seconds,
    fit_latency,
    parted,
    profile,
    write_profile,
)

SECONDS = st.floats(0, 10)
TOKENS = st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 1000)), min_size=4, max_size=16, unique=True)


def samples(latency: Latency, tokens: list[tuple[int, int]]) -> list[Sample]:
    """What requests with these tokens take where the model holds exactly."""
    usages = [Usage(prompt=prompt, generated=generated) for prompt, generated in tokens]
    return [Sample(usage, seconds_of(latency, usage)) for usage in usages]


def seconds_of(latency: Latency, usage: Usage) -> float:
    return latency.base_s + latency.prompt_s * usage.prompt + latency.generated_s * usage.generated


class TestFit:
    def test_the_coefficients_are_found_again(self) -> None:
        made = Latency(0.05, 0.0002, 0.01)
        spread = [(100, 10), (900, 40), (300, 200), (2000, 90), (50, 300)]
        assert fit_latency(samples(made, spread)) == pytest.approx(made, rel=1e-9)

    @settings(max_examples=200, deadline=None)
    @given(st.tuples(SECONDS, SECONDS, SECONDS), TOKENS)
    def test_it_explains_whatever_the_model_can_make(
        self, made: tuple[float, float, float], tokens: list[tuple[int, int]]
    ) -> None:
        rows = samples(Latency(*made), tokens)
        found = fit_latency(rows)
        assert min(found) >= 0
        scale = max(row.seconds for row in rows)
        for row in rows:
            assert seconds_of(found, row.usage) == pytest.approx(
                row.seconds, rel=1e-6, abs=1e-6 * scale + 1e-9
            )

    def test_what_is_the_same_in_all_rows_stands_in_the_base(self) -> None:
        found = fit_latency(samples(Latency(0.1, 0.001, 0.02), [(500, 10), (500, 20), (500, 50)]))
        assert found == pytest.approx((0.6, 0.0, 0.02))

    def test_one_row_is_all_base(self) -> None:
        assert fit_latency([Sample(Usage(prompt=30, generated=5), 0.7)]) == pytest.approx((0.7, 0, 0))

    def test_rows_without_tokens_are_all_base(self) -> None:
        assert fit_latency([Sample(Usage(), 0.2), Sample(Usage(), 0.4)]) == pytest.approx((0.3, 0, 0))

    def test_more_tokens_never_seem_to_take_less(self) -> None:
        rows = [Sample(Usage(prompt=p, generated=10), 1 - p / 1000) for p in (100, 200, 300)]
        assert fit_latency(rows) == pytest.approx((0.8, 0.0, 0.0))


def test_device_seconds_are_shared_by_all_tokens() -> None:
    usages = [Usage(prompt=300, generated=50), Usage(prompt=100, cached=90, generated=50)]
    assert device_seconds(10.0, 2, usages) == pytest.approx(2 * 10 / 500)
    assert device_seconds(10.0, 2, [Usage()]) == 0


@given(st.dictionaries(st.text("0123456789abcdef", min_size=4), st.integers(0, 99), min_size=LEAST_ROWS))
def test_every_row_is_in_one_part_and_those_alone_span_all_lengths(lengths: dict[str, int]) -> None:
    parts = parted(lengths)
    keys = [*parts.warm_up, *parts.alone, *parts.together]
    assert sorted(keys) == sorted(lengths)
    assert len(parts.warm_up) == WARM_UP
    assert 2 <= len(parts.alone) <= MOST_ALONE
    assert len(parts.together) >= len(parts.alone) or len(parts.alone) == MOST_ALONE
    alone = [lengths[key] for key in parts.alone]
    assert (min(alone), max(alone)) == (min(lengths.values()), max(lengths.values()))
    assert parts.batches()[-1] == parts.together
    assert [len(batch) for batch in parts.batches()[:-1]] == [1] * (WARM_UP + len(parts.alone))


def config_of(folder: Path, values: dict[str, Any]) -> RunConfig:
    return load_run(write_run_file(folder, values))


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


class TestRefused:
    @pytest.mark.parametrize("rows", [-1, 0, 1, LEAST_ROWS - 1])
    def test_too_few_rows(self, tmp_path: Path, run_values: dict[str, Any], rows: int) -> None:
        with pytest.raises(InputError, match="too few to measure") as raised:
            profile(config_of(tmp_path, run_values), rows, Silent(), StopRequest())
        assert raised.value.hint == f"take {LEAST_ROWS} or more"

    def test_too_few_questions(self, tmp_path: Path, run_values: dict[str, Any], scratch: Path) -> None:
        run_values["engine"] = {"name": "transformers"}
        run_values["benchmark"]["limit"] = LEAST_ROWS - 1
        with pytest.raises(InputError, match="too few questions to measure: 5, and 6") as raised:
            profile(config_of(tmp_path, run_values), 64, Silent(), StopRequest())
        assert "questions.jsonl" in raised.value.where
        assert not list(scratch.iterdir())

    def test_a_missing_model(self, tmp_path: Path, run_values: dict[str, Any], scratch: Path) -> None:
        run_values["agents"][0]["model"] = str(tmp_path / "nowhere")
        with pytest.raises(InputError, match="nowhere"):
            profile(config_of(tmp_path, run_values), 64, Silent(), StopRequest())
        assert not list(scratch.iterdir())

    def test_rows_that_no_engine_takes(
        self, tmp_path: Path, table_values: dict[str, Any], scratch: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(profiling, "_finished", lambda rows, keys: [])
        with pytest.raises(EngineError, match="'first' cannot be measured: too few of its rows") as raised:
            profile(config_of(tmp_path, table_values), LEAST_ROWS, Silent(), StopRequest())
        (kept,) = scratch.iterdir()  # for its log
        assert (kept / "run" / "workers" / "first.log").is_file()
        assert str(kept) in raised.value.hint

    def test_an_engine_that_cannot_be_loaded(
        self, tmp_path: Path, table_values: dict[str, Any], scratch: Path
    ) -> None:
        (tmp_path / "table.jsonl").write_text('{"load": "failed", "message": "this node has no GPU"}')
        with pytest.raises(EngineError, match="this node has no GPU"):
            profile(config_of(tmp_path, table_values), LEAST_ROWS, Silent(), StopRequest())
        assert list(scratch.iterdir())


@pytest.fixture
def table_values(tmp_path: Path, run_values: dict[str, Any]) -> dict[str, Any]:
    """A run file for the fake engine."""
    (tmp_path / "table.jsonl").touch()
    run_values["engine"] = {"name": "fake", "table": "table.jsonl"}
    short = {"reasoning_chars": 0, "eliminated": False}
    return run_values | {"answer": short, "merge": run_values["merge"] | {"answer": short}}


def test_agents_and_merge_agent_are_measured_without_a_trace(
    tmp_path: Path, table_values: dict[str, Any], scratch: Path
) -> None:
    # Measured before there is a profile, and all agents are, whatever the router would ask.
    table_values["router"] = {"mode": "online", "k": 1, "profile": str(tmp_path / "profile.json")}
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    stop = StopRequest()
    made = profile(config_of(tmp_path, table_values), 10, Silent(), stop)
    assert list(made.agents) == [*AGENTS, "merge"]
    for one in made.agents.values():
        assert one.rows == 10 - WARM_UP
        assert one.device == "cpu, 1 thread"
        assert one.device_s > 0
    assert not stop.covers_work
    assert not list(scratch.iterdir())
    assert {path for path in tmp_path.rglob("*") if path.is_file()} - before == {tmp_path / "run.yaml"}

    write_profile(tmp_path / "profile.json", made)
    assert load_profile(tmp_path / "profile.json") == made


def test_a_request_to_stop_ends_it(tmp_path: Path, table_values: dict[str, Any], scratch: Path) -> None:
    stop = StopRequest()
    stop.finish()
    with pytest.raises(KeyboardInterrupt):
        profile(config_of(tmp_path, table_values), LEAST_ROWS, Silent(), stop)
    assert not list(scratch.iterdir())


def agent_profile(**changes: Any) -> AgentProfile:
    values = {"spec": "0" * 32, "device": "NVIDIA H100", "devices": 2, "rows": 62, "load_s": 41.26}
    values |= {"base_s": 0.0215, "prompt_s": 0.00001234, "generated_s": 0.00987, "device_s": 0.0000321}
    return AgentProfile(**(values | changes))


def test_a_profile_is_printed_in_readable_units() -> None:
    console = Console(file=io.StringIO(), width=120)
    made = Profile(measured="2026-01-01 on [red]a box\x1b", agents={"[b]quant": agent_profile()})
    print_profile(console, made)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    row = next(line for line in text.splitlines() if line.startswith("[b]quant"))
    assert row.split() == "[b]quant 62 41.3 21.50 12.34 9.87 32.1 2 x NVIDIA H100".split()
    assert r"Measured 2026-01-01 on [red]a box\x1b." in text


def test_signals_follow_the_model() -> None:
    usage = Usage(prompt=1000, cached=500, generated=100)
    one = agent_profile()
    assert one.latency(usage) == pytest.approx(0.0215 + 0.01234 + 0.987)
    assert one.cost(usage) == pytest.approx(0.0000321 * 1100)


def test_what_is_no_profile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text('{"format": 1, "measured": "", "agents": {"quant": {"rows": 0}}}')
    with pytest.raises(ConfigError, match=r"is no profile: .*agents\.quant"):
        load_profile(path)
