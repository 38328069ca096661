"""Timelines: written whole, read in order, drawn below the plan; damage costs one file."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orch_local.errors import InputError, StoreError
from orch_local.placement.machine import Machine
from orch_local.placement.placing import place
from orch_local.placement.replicas import AgentJob, Placement
from orch_local.report.timeline import print_timelines
from orch_local.results.showing import executions
from orch_local.results.timeline import Span, Timeline, Timelines, keep, read_all
from orch_local.store.store import RunFolder

TWO_CORES = Machine("cpu", 2, 8.0)
PLANNED = place(
    TWO_CORES,
    [AgentJob(name, 1, 2.0, 15.0, 60.0) for name in ("quant", "chrono")],
    AgentJob("merge", 1, 2.0, 15.0, 30.0),
)


def span(agent: str, device: int, start: float, loaded: float | None, end: float) -> Span:
    return Span(agent, 1, 1, (device,), 0, start, loaded, end, 120)


SPANS = (
    replace(span("quant", 0, 0.0, 20.0, 100.0), recheck_s=1.5, rechecked=8),
    span("chrono", 1, 0.0, 20.0, 50.0),
    span("merge", 0, 100.0, 120.0, 200.0),
)
ONE = Timeline("2026-11-23T10:00:00.000+00:00", "node-7", "", PLANNED, SPANS)


def printed(found: Timelines, width: int = 80, *, terminal: bool = True) -> str:
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=terminal, color_system=None, no_color=True, highlight=False
    )
    print_timelines(console, found)
    return file.getvalue()


# --- files ----------------------------------------------------------------------------------------


def test_what_is_kept_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    file = keep(folder, ONE)
    assert file.parent == folder.timelines
    assert read_all(folder) == ([ONE], [])


moments = st.floats(0, 1e6)


@given(
    st.lists(
        st.builds(
            lambda agent, devices, times, rows: Span(
                agent, 1, 1, tuple(devices), 0, times[0], times[1], times[2], rows
            ),
            st.text(max_size=10),
            st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
            st.tuples(moments, moments, moments).map(sorted),
            st.integers(0, 10**9),
        ),
        max_size=6,
    ),
    st.text(max_size=10),
)
def test_any_spans_are_kept_and_drawn(
    tmp_path_factory: pytest.TempPathFactory, some: list[Span], host: str
) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    timeline = Timeline("2026-11-23T10:00:00+00:00", host, "3/8", PLANNED, tuple(some))
    keep(folder, timeline)
    assert read_all(folder).read == [timeline]
    text = printed(Timelines([timeline], []), terminal=False)
    assert "planned" in text and "\x1b" not in text
    assert all(0 <= share <= 1 + 1e-9 for share in timeline.idle().values())


def test_executions_are_read_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    times = [f"2026-11-23T1{hour}:00:00+00:00" for hour in (2, 0, 1, 0)]
    for number, began in enumerate(times):
        keep(folder, replace(ONE, began=began, host=f"host {number}"))
    assert [timeline.began for timeline in read_all(folder).read] == sorted(times)


def test_writers_never_share_a_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    threads = [threading.Thread(target=keep, args=(folder, ONE)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_all(folder).read) == 20


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"began": "x"}',
        b"\xff\xfe",
        json.dumps({"began": 1, "host": [], "planned": {}, "stints": {}}).encode(),
    ],
)
def test_a_damaged_file_is_told_and_the_others_are_read(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path)
    keep(folder, ONE)
    bad = folder.timelines / "bad.json"
    bad.write_bytes(content)
    found = read_all(folder)
    assert found == ([ONE], [bad])
    assert "1 file cannot be read: bad.json" in printed(found)


@pytest.mark.parametrize("time", ["NaN", "Infinity", "-1", "1e999", "5"])
@pytest.mark.parametrize("field", ['"end_s": 50.0', '"loaded_s": 120.0'])
def test_times_that_cannot_be_are_damage(tmp_path: Path, field: str, time: str) -> None:
    folder = RunFolder(tmp_path)
    file = keep(folder, ONE)
    text = file.read_text(encoding="utf-8")
    assert text.count(field) == 1
    damaged = text.replace(field, f"{field.split(': ')[0]}: {time}")
    file.write_text(damaged, encoding="utf-8")
    assert read_all(folder) == ([], [file])


def test_a_run_without_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no timeline"):
        executions(RunFolder(tmp_path))


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "timelines").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be written"):
        keep(RunFolder(tmp_path), ONE)


# --- figures and drawing --------------------------------------------------------------------------


def test_idle_is_the_time_without_a_worker() -> None:
    assert ONE.idle() == {0: 0.0, 1: 0.75}
    overlapping = (span("a", 0, 0.0, 1.0, 10.0), span("b", 0, 5.0, 6.0, 20.0), span("c", 1, 0, 1, 40))
    assert replace(ONE, spans=overlapping).idle() == {0: 0.5, 1: 0.0}
    assert Timeline("", "", "", Placement(TWO_CORES, ()), ()).idle() == {}


def test_planned_stands_above_real_on_one_scale() -> None:
    assert printed(Timelines([ONE], [])).splitlines()[:11] == [
        "Execution 1 of 1: 2026-11-23T10:00:00.000+00:00 on node-7",
        "",
        "planned, 2 min",
        "worker 0  ░░░░░███████ quant ███████░░░░░██c██",
        "worker 1  ░░░░░██████ chrono ███████░░░░░██c██",
        "real, 3 min",
        "worker 0  ░░░░░░░██████████ quant ██████████░░░░░░░██████████ merge ███████████",
        "worker 1  ░░░░░░░█ chrono █",
        "          ┴────────────────┴────────────────┴─────────────────┴────────────────┴",
        "          0 s              50               100               150",
        "░░ loads   ██ generates   a quant   b chrono   c merge",
    ]


def test_the_table_compares_seconds() -> None:
    text = printed(Timelines([ONE], []))
    rows = {line.split()[0]: line.split() for line in text.splitlines() if "/1 " in line and "120" in line}
    assert rows["quant"] == ["quant", "1/1", "120", "15.0", "20.0", "60.0", "80.0", "1.33", "1.5"]
    assert rows["chrono"][-2:] == ["0.50", "0.0"]
    assert "rows were generated again (8 rows)" in text
    assert "worker 1 75.0 % of the time" in text


def test_a_model_that_was_never_loaded_has_no_figures() -> None:
    died = replace(ONE, spans=(span("quant", 0, 0.0, None, 9.0), span("other", 1, 0.0, 2.0, 9.0)))
    rows = {
        line.split()[0]: line.split()
        for line in printed(Timelines([died], [])).splitlines()
        if "/1 " in line and "120" in line
    }
    assert rows["quant"][3:] == ["15.0", "-", "60.0", "-", "-", "0.0"]
    assert rows["other"][3:] == ["-", "2.0", "-", "7.0", "-", "0.0"]


def test_a_timeline_of_before_rechecks_were_timed_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    file = keep(folder, ONE)
    values = json.loads(file.read_text(encoding="utf-8"))
    for one in values["stints"]:
        del one["recheck_s"], one["rechecked"]
    file.write_text(json.dumps(values), encoding="utf-8")
    spans = tuple(replace(one, recheck_s=0.0, rechecked=0) for one in SPANS)
    assert read_all(folder) == ([replace(ONE, spans=spans)], [])


def test_foreign_text_does_nothing_to_the_terminal() -> None:
    evil = replace(ONE, host="\x1b[2J[bold]x", spans=(replace(SPANS[0], agent="\x1b]0;x\x07" * 3),))
    text = printed(Timelines([evil], [Path("\x1b[31m.json")]))
    assert "\x1b]" not in text and "\x1b[2J" not in text and "\x07" not in text and "\x1b[31m" not in text
    assert "[bold]x" in text
