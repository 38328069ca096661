"""Child processes that answer in lines of JSON: how they are started, read, stopped and killed.

Only the standard library is imported: the doctor runs where other packages are broken.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

LEAVE_S = 20.0
"""Seconds that a child gets to write what is finished, by default."""
_KILLED_S = 2.0
"""Seconds until a killed process is given up: the kernel may hold it in a call to a dead file system."""
_STDERR_LINES = 8


class ChildProcess:
    """A child process in a session of its own. All methods may be called from any thread.

    Ctrl-C does not reach it: the parent decides what is still finished. What it leaves behind at its end is
    killed, since that may hold GPU memory, or our pipe open.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
        stderr: int | IO[Any] = subprocess.PIPE,
        longest_line: int = -1,
    ) -> None:
        """Start it.

        Parameters
        ----------
        stderr:
            File for its standard error, or ``subprocess.DEVNULL``; a pipe keeps the last lines for
            :meth:`last_words`.
        longest_line:
            Bytes; whoever writes a longer line is killed. Negative for no limit.

        Raises
        ------
        OSError
            If no process can be started.
        """
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=env,
            cwd=folder,
            start_new_session=True,
        )
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        """Whole lines of its standard output, then ``None``. Others may put lines for the reader here."""
        self._lock = threading.Lock()
        self._asked = False
        self._stderr: deque[bytes] = deque(maxlen=_STDERR_LINES)
        # The threads hold no reference to this object, so that it can be finalised while they run.
        _in_thread(_read_lines, self._process, self.lines, longest_line)
        _in_thread(_kill_orphans, self._process.pid)
        if self._process.stderr is not None:
            _in_thread(_keep_last, self._process.stderr, self._stderr)

    @property
    def pid(self) -> int:
        """Its number, which is also that of its group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def send(self, line: str, payload: bytes = b"", within_s: float | None = None) -> None:
        """Send one line, and bytes behind it.

        Raises
        ------
        BrokenPipeError
            If the child is dead.
        TimeoutError
            If it did not take them within ``within_s`` seconds; it is killed then.
        """
        stream = self._stdin
        with self._killed_after(within_s) as late:
            try:
                stream.write(line.encode() + b"\n" + payload)
                stream.flush()
            except BrokenPipeError:
                if late.is_set():
                    raise TimeoutError from None
                raise

    def close_input(self) -> None:
        """Tell it that nothing more comes."""
        with suppress(OSError):  # what a dead child did not take is still in the buffer
            self._stdin.close()

    def next_line(self, within_s: float) -> str | None:
        """Its next line; ``None`` at the end of its output.

        Raises
        ------
        TimeoutError
            If nothing came within so many seconds. The child runs on.
        """
        try:
            return self.lines.get(timeout=max(0.0, within_s))
        except queue.Empty:
            raise TimeoutError from None

    def terminate(self) -> None:
        """Ask it to leave, once, and do not wait."""
        with self._lock:
            asked, self._asked = self._asked, True
        if not asked:  # a second signal would kill a Python that is on its way out
            self._process.terminate()

    def stop(self, within_s: float = LEAVE_S) -> int:
        """Ask it to leave, kill it if it has not after so many seconds; returns its exit code."""
        if self.alive:
            self.terminate()
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(timeout=within_s)
            self._process.kill()
        return self._process.wait()

    def kill(self) -> None:
        """Kill it with all that it started."""
        kill_group(self._process)

    def wait(self, within_s: float) -> int | None:
        """Its exit code; ``None`` where it still runs after so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout=within_s)
        return None

    def last_words(self) -> str:
        """The last line of its standard error that is not empty."""
        lines = (line.decode("utf-8", "replace").strip() for line in reversed(tuple(self._stderr)))
        return next(filter(None, lines), "")

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None  # it is a pipe
        return self._process.stdin

    @contextmanager
    def _killed_after(self, seconds: float | None) -> Iterator[threading.Event]:
        """Kill the child if the block takes longer, and say so by the event."""
        late = threading.Event()
        if seconds is None:
            yield late
            return

        def kill() -> None:
            late.set()
            self.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()


def kill_group(process: subprocess.Popen[Any]) -> None:
    """Kill the leader of a session and all that it started; one that hangs in the kernel is left behind."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_KILLED_S)


def ending(code: int) -> str:
    """An exit code in words: ``code 3``, or the name of the signal."""
    if code >= 0:
        return f"code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _in_thread(work: Any, *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


def _read_lines(process: subprocess.Popen[bytes], lines: queue.SimpleQueue[str | None], longest: int) -> None:
    assert process.stdout is not None
    with suppress(OSError, ValueError), process.stdout as stream:
        while line := stream.readline(longest):
            if not line.endswith(b"\n"):  # too long, or its writer was killed in the midst of it
                if len(line) == longest:
                    kill_group(process)
                break
            lines.put(line.decode("utf-8", "replace"))
    lines.put(None)


def _keep_last(stream: IO[bytes], kept: deque[bytes]) -> None:
    with suppress(OSError, ValueError), stream:
        kept.extend(stream)


def _kill_orphans(pid: int) -> None:
    """Wait for the end of a process, then kill the rest of its group."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
