"""Progress for logs and pipes: few lines, and a rate that leaves loading out."""

from __future__ import annotations

import io

from rich.console import Console

from orch_local.report.progress import LiveDisplay, PlainDisplay


class Clock:
    """Time that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_loading_is_no_part_of_the_rate() -> None:
    clock, file = Clock(), io.StringIO()
    with PlainDisplay(Console(file=file, width=100), quiet=False, clock=clock) as display:
        update = display.stage("quant", total=1000, done=100)
        for second, rows in ((0, 0), (300, 0), (600, 10), (610, 60), (620, 210), (640, 410), (650, 900)):
            clock.now = second
            update(rows)
    lines = file.getvalue().splitlines()
    assert lines[0] == "quant: 100 of 1,000 rows done"
    assert lines[1] == "quant: 310 of 1,000, 10.0/s, 69 s left"
    assert lines[-1].startswith("quant: 1,000 of 1,000")
    assert len(lines) == 4


def test_rows_generated_again_are_told() -> None:
    file = io.StringIO()
    with PlainDisplay(Console(file=file), quiet=False) as display:
        for rows in (1, 7, 0):
            display.again("quant", rows)
    assert file.getvalue() == "quant: generating 1 row again\nquant: generating 7 rows again\n"


def test_a_bar_says_that_rows_are_generated_again_until_that_ends() -> None:
    file = io.StringIO()
    with LiveDisplay(Console(file=file, width=120, force_terminal=True, color_system=None)) as display:
        display.stage("quant", total=9, done=0)
        display.again("quant", 7)
        display.again("unknown", 3)
        display._progress.refresh()
        assert "generating 7 rows again" in file.getvalue().splitlines()[-1]
        display.again("quant", 0)
        display._progress.refresh()
        assert "again" not in file.getvalue().splitlines()[-1].split("9")[-1]
    assert "3 rows" not in file.getvalue()


def test_quiet_prints_nothing() -> None:
    file = io.StringIO()
    with PlainDisplay(Console(file=file), quiet=True) as display:
        display.stage("quant", total=1, done=0)(1)
        display.again("quant", 2)
    assert file.getvalue() == ""
