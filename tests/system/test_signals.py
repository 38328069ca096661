"""Signals: the first Ctrl-C lets a run finish what is in flight, all else stops it at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from orch_local.run.context import StopRequest
from orch_local.run.interrupts import Stopped, stopping_by_signals

HEEDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Runner:
    """Stands for a `Supervisor`."""

    def __init__(self) -> None:
        self.finished = 0

    def finish(self) -> None:
        """See the real one."""
        self.finished += 1


@pytest.fixture(autouse=True)
def _plain_handlers() -> Iterator[None]:
    """Whoever runs the tests may have told us to ignore some signals."""
    before = {one: signal.signal(one, signal.default_int_handler) for one in HEEDED}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


def running(stop: StopRequest, count: int = 2) -> list[Runner]:
    """Let some runners be at work."""
    made: list[Any] = [Runner() for _ in range(count)]
    stop._running = made
    return made


def test_the_first_interrupt_asks_to_finish_and_says_so() -> None:
    said: list[str] = []
    with stopping_by_signals(said.append) as stop:
        runners = running(stop)
        assert not stop.asked
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        assert [one.finished for one in runners] == [1, 1]
    assert said == ["Finishing the questions that are in flight; press Ctrl-C again to stop at once."]


@pytest.mark.parametrize("still_running", [True, False])
def test_the_second_interrupt_stops_at_once(still_running: bool) -> None:
    said: list[str] = []
    with stopping_by_signals(said.append) as stop:
        runners = running(stop)
        signal.raise_signal(signal.SIGINT)
        stop._running = stop._running if still_running else ()
        with pytest.raises(Stopped) as caught:
            signal.raise_signal(signal.SIGINT)
    assert caught.value.signum == signal.SIGINT
    assert [one.finished for one in runners] == [1, 1]
    assert len(said) == 1


def test_an_interrupt_with_nothing_running_stops_at_once() -> None:
    said: list[str] = []
    with stopping_by_signals(said.append) as stop, pytest.raises(Stopped) as caught:
        signal.raise_signal(signal.SIGINT)
    assert caught.value.signum == signal.SIGINT
    assert not stop.asked and said == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
@pytest.mark.parametrize("asked", [True, False])
def test_other_signals_stop_at_once(signum: signal.Signals, asked: bool) -> None:
    with stopping_by_signals(lambda text: None) as stop:
        runners = running(stop, 1)
        if asked:
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stopped) as caught:
            signal.raise_signal(signum)
    assert caught.value.signum == signum
    assert runners[0].finished == asked
    # So whoever catches Ctrl-C, and nobody who catches errors, catches this.
    assert isinstance(caught.value, KeyboardInterrupt)


@pytest.mark.parametrize("leaves_by", [None, ValueError, Stopped])
def test_handlers_are_restored(leaves_by: type[BaseException] | None) -> None:
    def mine(signum: int, frame: object) -> None:
        raise AssertionError("not called")

    signal.signal(signal.SIGHUP, mine)
    before = [signal.getsignal(one) for one in HEEDED]
    ends = pytest.raises(leaves_by) if leaves_by else nullcontext()
    with ends, stopping_by_signals(print):
        assert all(signal.getsignal(one) not in before for one in HEEDED)
        if leaves_by is Stopped:
            signal.raise_signal(signal.SIGTERM)
        if leaves_by is ValueError:
            raise ValueError
    assert [signal.getsignal(one) for one in HEEDED] == before


@pytest.mark.parametrize("ignored", HEEDED)
def test_a_signal_that_was_ignored_stays_ignored(ignored: signal.Signals) -> None:
    signal.signal(ignored, signal.SIG_IGN)
    with stopping_by_signals(print) as stop:
        runners = running(stop)
        signal.raise_signal(ignored)
        assert not stop.asked and runners[0].finished == 0
        assert signal.getsignal(ignored) is signal.SIG_IGN
        others = [one for one in HEEDED if one is not ignored]
        assert all(callable(signal.getsignal(one)) for one in others)
    assert signal.getsignal(ignored) is signal.SIG_IGN


def test_blocks_do_not_share_what_was_asked() -> None:
    for _ in range(2):
        with stopping_by_signals(lambda text: None) as stop:
            (runner,) = running(stop, 1)
            signal.raise_signal(signal.SIGINT)
            assert runner.finished == 1


def test_a_real_signal_wakes_a_process_that_waits() -> None:
    """Delivered from outside, to a main thread that waits for others, as a run does."""
    script = (
        "import sys, threading\n"
        "from orch_local.run.interrupts import Stopped, stopping_by_signals\n"
        "done = threading.Event()\n"
        "class Runner:\n"
        "    def finish(self): done.set()\n"
        "with stopping_by_signals(print) as stop:\n"
        "    with stop.covering([Runner()]):\n"
        "        print('ready', flush=True)\n"
        "        assert done.wait(200)\n"
        "    try:\n"
        "        print('asked', stop.asked, flush=True)\n"
        "        threading.Event().wait(60)\n"
        "    except Stopped as stopped: print('stopped by', stopped.signum, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline().startswith("Finishing the questions")
            assert process.stdout.readline() == "asked True\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == f"stopped by {int(signal.SIGTERM)}\n"
            assert process.wait(200) == 0
        finally:
            process.kill()
