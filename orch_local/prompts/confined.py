"""Foreign templates and tokenizers run in a child process with limits on time, memory and output.

See `child.py` for what runs there and for the limits that it sets itself.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from orch_local.errors import PromptError
from orch_local.util.children import ChildProcess

_SCRIPT = Path(__file__).with_name("child.py")
_NEEDED_VARIABLES = ("LD_LIBRARY_PATH",)
"""All of our environment that a child gets: Pythons of module systems find their own library by it."""
_WALL_SECONDS = 600.0
"""For one job, however busy the machine and slow the file system; what counts is the time of computing."""
_GRACE_SECONDS = 5.0
_LONGEST_ANSWER = 64 * 2**20


class ChildKind(NamedTuple):
    """What a child is for."""

    name: Literal["template", "tokenizer"]
    modules: Sequence[str]
    """What it imports that is not of Python itself."""
    memory: int
    """Bytes of address space."""
    seconds: float
    """Of computing, for each job."""


class LimitError(Exception):
    """A job went beyond a limit; the message says which, as in "takes longer than 5 s"."""


class KilledError(LimitError):
    """Another program ended the process; the job may succeed another time."""


class RefusedError(PromptError):
    """What a job itself raised, in its own words."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind
        """Name of the exception's class."""


class Child:
    """One child process, which answers jobs one after the other."""

    def __init__(self, kind: ChildKind) -> None:
        self._kind = kind
        self._lock = threading.Lock()
        environment = {name: os.environ[name] for name in _NEEDED_VARIABLES if name in os.environ}
        self._process = ChildProcess(
            [sys.executable, "-I", "-S", "-X", "utf8", str(_SCRIPT)],
            env={**environment, "TZ": "UTC", "TOKENIZERS_PARALLELISM": "false"},
            folder=Path("/"),
            stderr=subprocess.DEVNULL,
            longest_line=_LONGEST_ANSWER,
        )
        self.close = weakref.finalize(self, _end, self._process)
        self._opening = {"folders": _folders_of(kind.modules), "kind": kind.name, "memory": kind.memory}

    def ask(self, job: dict[str, Any], payload: bytes = b"") -> str:
        """The text that a job comes to.

        Raises
        ------
        LimitError
            If the job went beyond a limit, or took the process down; it can be asked nothing more then.
        RefusedError
            With the words of whatever the job itself raised.
        """
        with self._lock:
            line = self._answer_line({"seconds": self._kind.seconds, **job}, payload)
        answer = json.loads(line)
        if "refused" in answer:
            raise RefusedError(str(answer["refused"]), str(answer["kind"]))
        if "limit" in answer:
            raise LimitError(self._limits(job)[answer["limit"]])
        return str(answer["text"])

    def _answer_line(self, job: dict[str, Any], payload: bytes) -> str:
        deadline = time.monotonic() + _WALL_SECONDS
        opening, self._opening = self._opening, {}
        try:
            if opening:
                self._process.send(json.dumps(opening), within_s=_WALL_SECONDS)
            self._process.send(json.dumps(job), payload, within_s=deadline - time.monotonic())
            line = self._process.next_line(deadline - time.monotonic())
        except TimeoutError:
            self._process.kill()
            raise LimitError(f"takes longer than {_WALL_SECONDS:.0f} s") from None
        except OSError:  # it is gone, and its exit code says why
            line = None
        if line is None:
            raise self._end_of_process()
        return line

    def _end_of_process(self) -> LimitError:
        code = self._process.wait(_GRACE_SECONDS)
        if code is None:  # it has closed its output and does not leave
            self._process.kill()
            code = -signal.SIGKILL
        if code == -signal.SIGXCPU:
            return LimitError(f"takes longer than {self._kind.seconds:g} s")
        if code == -signal.SIGABRT:  # Rust and C leave so when they get no more memory
            return LimitError(self._limits({})["memory"])
        if code == -signal.SIGKILL:
            return KilledError("could not be tried: the process was killed, perhaps for want of memory")
        return LimitError(f"takes the process that tries it down (exit code {code})")

    def _limits(self, job: dict[str, Any]) -> dict[str, str]:
        return {
            "memory": f"needs more memory than {self._kind.memory // 2**20} MiB",
            "characters": f"writes more than {job.get('characters', 0):,} characters",
        }


def _end(process: ChildProcess) -> None:
    process.kill()
    process.close_input()


def _folders_of(modules: Sequence[str]) -> list[str]:
    """Where the child finds its modules: it starts without our search path."""
    found = [importlib.util.find_spec(name) for name in modules]
    return sorted({str(Path(spec.origin).parents[1]) for spec in found if spec and spec.origin})
