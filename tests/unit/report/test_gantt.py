"""The chart of a placement: it fits the screen, says who is where, and needs neither colour nor Unicode."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from orch_local.placement.machine import Machine
from orch_local.placement.placing import place
from orch_local.placement.replicas import AgentJob, Placement, Replica
from orch_local.report.gantt import Scale, duration, machine_in_words, print_placement

ONE_GPU = Machine("cuda", 1, 80.0, "NVIDIA H100 80GB HBM3")


def job(name: str, generate_s: float, **more: float) -> AgentJob:
    values: dict[str, float] = {"width": 1, "memory_gib": 60.0, "load_s": 60.0}
    return AgentJob(name=name, generate_s=generate_s, **(values | more))  # type: ignore[arg-type]


def drawn(plan: Placement, width: int = 80, *, terminal: bool = True, colour: bool = False) -> list[str]:
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=terminal,
        color_system="standard" if colour else None,
        highlight=False,
    )
    print_placement(console, plan)
    return file.getvalue().splitlines()


THREE = [job("qwen3-8b", 3600.0), job("llama-8b", 1800.0), job("gemma-12b", 2700.0)]
MERGE = job("merge", 1200.0)


def test_a_model_that_is_there_is_not_drawn_as_loaded() -> None:
    agents = [job(name, 3600.0, engine="x") for name in ("solve", "verify")]
    lines = drawn(place(Machine("cuda", 1, 80.0), agents, job("merge", 3600.0, engine="x")))
    assert lines[0].count("░") == 1
    assert any(line.startswith("1 load on 1 GPU") for line in lines)


def test_one_gpu_loads_one_model_after_another() -> None:
    lines = drawn(place(ONE_GPU, THREE, MERGE))
    assert lines == [
        "GPU 0  ░████████ qwen3-8b █████████░█ llama-8b ██░████ gemma-12b ████░█ merge █",
        "       ┴─────────────┴────────────┴─────────────┴────────────┴─────────────┴────",
        "       0 h           0.5          1             1.5          2             2.5",
        "░░ loads   ██ generates   a qwen3-8b   b llama-8b   c gemma-12b   d merge",
        "",
        "4 loads on 1 GPU of 80 GiB (NVIDIA H100 80GB HBM3); about 2.6 h in all.",
        "",
    ]


def test_a_log_file_gets_ascii() -> None:
    lines = drawn(place(ONE_GPU, THREE, MERGE), terminal=False)
    assert all(line.isascii() for line in lines)
    assert lines[0].startswith("GPU 0  .======== qwen3-8b ====")


def test_colour_changes_no_character() -> None:
    plan = place(Machine("cuda", 4, 80.0), THREE, MERGE)
    coloured = drawn(plan, colour=True)
    assert any("\x1b[" in line for line in coloured)
    assert [Text.from_ansi(line).plain for line in coloured] == drawn(plan)


def test_a_model_over_several_gpus_is_drawn_on_each() -> None:
    large = job("llama-70b", 3600.0, width=2)
    lines = drawn(place(Machine("cuda", 2, 80.0), [large], None))
    assert lines[0].removeprefix("GPU 0") == lines[1].removeprefix("GPU 1")
    assert "llama-70b" in lines[0]


def test_lanes_have_rows_of_their_own() -> None:
    small = [job(name, 600.0, memory_gib=10.0, overlap=0.9) for name in ("a", "b", "c")]
    lines = drawn(place(ONE_GPU, small, None))
    assert [line.split()[1] for line in lines[:3]] == ["0a", "0b", "0c"]
    assert "Up to 3 models share a GPU." in " ".join(lines)


def test_a_merge_agent_that_follows_is_told() -> None:
    agents = [job(name, 3600.0, load_s=300.0) for name in ("a", "b", "c")]
    lines = drawn(place(Machine("cuda", 4, 80.0), agents, job("merge", 3000.0, load_s=300.0)))
    assert "merges each panel as soon as it is complete" in " ".join(lines)


def test_replicas_are_numbered_and_long_names_become_letters() -> None:
    plan = place(
        Machine("cuda", 4, 80.0), [job("a-model-with-a-name-too-long-for-its-bar" * 2, 9000.0)], None
    )
    assert [f"a {part}/4" in line for part, line in enumerate(drawn(plan)[:4], 1)] == [True] * 4


def test_many_devices_are_not_all_drawn() -> None:
    plan = place(Machine("cpu", 64, 500.0), [job(f"a{n}", 4000.0, memory_gib=2.0) for n in range(9)], None)
    lines = drawn(plan)
    assert sum(line.startswith("worker") for line in lines) == 40
    assert any("further rows are left out" in line for line in lines)


def test_an_empty_plan_can_be_drawn() -> None:
    assert "about 0 s in all" in " ".join(drawn(place(ONE_GPU, [], None)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0, 1e5)), min_size=1, max_size=12),
    st.integers(40, 200),
    st.booleans(),
)
def test_every_line_fits_the_screen(times: list[tuple[float, float, float]], width: int, wide: bool) -> None:
    devices = (0, 1) if wide else (0,)
    replicas = []
    now = 0.0
    for number, (wait, load, work) in enumerate(times):
        start = now + wait
        now = start + load + work
        agent = f"agent-{number}" * (1 + number % 2)
        replicas.append(Replica(agent, 1, 1, 0.0, 1.0, devices, 0, 0.9, start, start + load, now))
    lines = drawn(Placement(Machine("cuda", 2, 80.0), tuple(replicas)), width)
    assert max(map(len, lines)) <= width
    assert len(lines) > 3


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5400, "1.5 h"), (360000, "100.0 h")]
)
def test_durations_are_rough(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_scale_of_no_time_is_a_point() -> None:
    assert Scale(0.0, 60).column(0.0) == 0


def test_machines_in_words() -> None:
    assert machine_in_words(Machine("cuda", 2, 0.0)) == "2 GPUs"
    assert machine_in_words(Machine("cpu", 1, 7.6)) == "a CPU with cores for 1 worker and 8 GiB free"
