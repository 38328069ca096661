"""Child processes that answer in lines: whatever they do, the parent gets an end and a reason."""

from __future__ import annotations

import gc
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orch_local.util.children import ChildProcess, ending

pytestmark = pytest.mark.child

LONG = 60.0
"""Seconds that nothing here takes, however busy the machine."""

Start = Callable[..., ChildProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[ChildProcess] = []

    def start(script: str, **options: Any) -> ChildProcess:
        started.append(ChildProcess([sys.executable, "-I", "-S", "-c", script], **options))
        return started[-1]

    yield start
    for child in started:
        child.kill()


def remaining(child: ChildProcess) -> list[str]:
    """All lines until the end of the output."""
    return list(iter(lambda: child.next_line(LONG) or "", ""))


ECHO = "import sys\nfor line in sys.stdin: print('got', line, end='', flush=True)"
READY = "import signal, sys, time\n{}\nprint('ready', flush=True)\ntime.sleep(600)"


def test_a_line_for_a_line(start: Start) -> None:
    child = start(ECHO)
    for word in ("one", "two", "ä\u2028b"):
        child.send(word)
        assert child.next_line(LONG) == f"got {word}\n"
    child.close_input()
    assert child.next_line(LONG) is None
    assert child.wait(LONG) == 0
    assert not child.alive


def test_a_payload_follows_its_line(start: Start) -> None:
    child = start("import sys; n = int(sys.stdin.buffer.readline()); print(len(sys.stdin.buffer.read(n)))")
    child.send("1000000", bytes(1_000_000))
    assert remaining(child) == ["1000000\n"]


def test_others_may_put_lines_for_the_reader(start: Start) -> None:
    child = start(READY.format(""))
    assert child.next_line(LONG) == "ready\n"
    child.lines.put("finish\n")
    assert child.next_line(LONG) == "finish\n"


@pytest.mark.parametrize("rest", ['{"half', ""])
def test_half_a_line_is_none(start: Start, rest: str) -> None:
    child = start(f"import os; os.write(1, b'whole\\n' + {rest.encode()!r}); os.kill(os.getpid(), 9)")
    assert remaining(child) == ["whole\n"]
    assert child.wait(LONG) == -signal.SIGKILL


def test_noise_is_no_end(start: Start) -> None:
    child = start("import os; os.write(1, b'\\xff\\x00\\r\\n\\n{}\\n')")
    lines = [child.next_line(LONG) for _ in range(4)]
    assert lines == ["\ufffd\x00\r\n", "\n", "{}\n", None]


def test_a_line_that_is_too_long_ends_its_writer(start: Start) -> None:
    child = start(
        "import os, time; os.write(1, b'short\\n' + b'x' * 5000); time.sleep(600)", longest_line=1000
    )
    assert remaining(child) == ["short\n"]
    assert child.wait(LONG) == -signal.SIGKILL


def test_silence_is_told_and_harms_nobody(start: Start) -> None:
    child = start(ECHO)
    with pytest.raises(TimeoutError):
        child.next_line(-1.0)
    child.send("still here")
    assert child.next_line(LONG) == "got still here\n"


def test_a_dead_child_takes_no_line(start: Start) -> None:
    child = start("pass")
    child.wait(LONG)
    with pytest.raises(BrokenPipeError):
        child.send("hello")
    child.close_input()
    child.terminate()
    child.kill()
    assert child.stop() == 0


def test_a_child_that_does_not_read_is_killed(start: Start) -> None:
    child = start(READY.format(""))
    with pytest.raises(TimeoutError):
        child.send("", bytes(10_000_000), within_s=0.1)
    assert child.wait(LONG) == -signal.SIGKILL


def test_stop_lets_it_finish(start: Start) -> None:
    handler = "import os; signal.signal(15, lambda *_: (os.write(1, b'saved\\n'), sys.exit(4)))"
    child = start(READY.format(handler))
    assert child.next_line(LONG) == "ready\n"
    assert child.stop(LONG) == 4
    assert remaining(child) == ["saved\n"]
    assert child.stop(LONG) == 4


def test_stop_kills_who_stays(start: Start) -> None:
    child = start(READY.format("signal.signal(15, signal.SIG_IGN)"))
    assert child.next_line(LONG) == "ready\n"
    assert child.stop(0.1) == -signal.SIGKILL


def test_stop_from_two_threads(start: Start) -> None:
    child = start(READY.format("signal.signal(15, lambda *_: sys.exit(3))"))
    assert child.next_line(LONG) == "ready\n"
    codes: queue.SimpleQueue[int] = queue.SimpleQueue()
    threads = [threading.Thread(target=lambda: codes.put(child.stop())) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert [codes.get(timeout=LONG) for _ in threads] == [3, 3]


@pytest.mark.parametrize("end", ["kill", "die"])
def test_nothing_of_its_group_outlives_it(start: Start, end: str) -> None:
    """The grandchild also holds our pipe, which must not keep the reader waiting."""
    spawned = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    )
    child = start(READY.format(f"{spawned}; print(p.pid, flush=True)"))
    grandchild = int(child.next_line(LONG) or 0)
    assert child.next_line(LONG) == "ready\n"
    if end == "kill":
        child.kill()
    else:
        os.kill(child.pid, signal.SIGKILL)
    assert remaining(child) == []
    wait_for_death(grandchild)


def wait_for_death(pid: int) -> None:
    stop = time.monotonic() + LONG
    while time.monotonic() < stop:
        stat = Path(f"/proc/{pid}/stat")
        with suppress(OSError):
            if stat.read_text().rsplit(")", 1)[1].split()[0] != "Z":
                time.sleep(0.01)
                continue
        return
    pytest.fail(f"process {pid} lives on")


def test_ctrl_c_is_not_for_it(start: Start) -> None:
    child = start("import os; print(os.getsid(0) == os.getpid())")
    assert remaining(child) == ["True\n"]


def test_its_last_words(start: Start) -> None:
    script = "import sys; [print(n, file=sys.stderr) for n in range(100)]; print(' \\n', file=sys.stderr)"
    child = start(script)
    child.wait(LONG)
    stop = time.monotonic() + LONG
    while child.last_words() != "99" and time.monotonic() < stop:
        time.sleep(0.01)
    assert child.last_words() == "99"


def test_standard_error_to_a_file(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        child = start("import sys; print('bad', file=sys.stderr)", stderr=log)
    child.wait(LONG)
    assert (tmp_path / "log").read_text() == "bad\n"
    assert child.last_words() == ""


def test_environment_and_folder(start: Start, tmp_path: Path) -> None:
    script = "import os; print(os.environ['COLOUR'], os.getcwd())"
    child = start(script, env={"COLOUR": "blue"}, folder=tmp_path, stderr=subprocess.DEVNULL)
    assert remaining(child) == [f"blue {tmp_path.resolve()}\n"]


def test_a_command_that_is_none() -> None:
    with pytest.raises(FileNotFoundError):
        ChildProcess(["/no/such/program"])


def test_its_threads_do_not_keep_it(start: Start) -> None:
    """So that a finaliser can kill the child of an object that nobody holds any longer."""
    child = ChildProcess([sys.executable, "-I", "-S", "-c", READY.format("")])
    kill, seen = child.kill, weakref.ref(child)
    del child
    gc.collect()
    assert seen() is not None  # the bound method holds it
    kill()
    del kill
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize(
    ("code", "words"), [(0, "code 0"), (3, "code 3"), (-9, "SIGKILL"), (-11, "SIGSEGV"), (-100, "signal 100")]
)
def test_an_ending_in_words(code: int, words: str) -> None:
    assert ending(code) == words
