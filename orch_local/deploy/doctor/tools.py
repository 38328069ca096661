"""Output of other programs and content of small files; nothing here raises or hangs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from orch_local.util.children import ending, kill_group

SECONDS = 10.0
"""What a program has to answer."""
_GRACE_S = 2.0


class ProgramOutput(NamedTuple):
    """What a program printed, or why it printed nothing."""

    out: str = ""
    problem: str = ""
    """Why there is no answer, in words; empty where the program ended well."""
    missing: bool = False
    """The program is not installed."""


def ask(
    command: Sequence[str], seconds: float = SECONDS, env: Mapping[str, str] | None = None
) -> ProgramOutput:
    """Run a program and return what it printed."""
    path = shutil.which(command[0])
    if path is None:
        return ProgramOutput(problem=f"{command[0]} is not installed", missing=True)
    try:
        process = subprocess.Popen(
            [path, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=dict(os.environ) | {"LC_ALL": "C"} if env is None else dict(env),
            start_new_session=True,
        )
    except OSError as error:
        return ProgramOutput(problem=f"{command[0]} cannot be started: {error.strerror or error}")
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill_group(process)
        with suppress(subprocess.TimeoutExpired, ValueError, OSError):
            process.communicate(timeout=_GRACE_S)
        return ProgramOutput(problem=f"{command[0]} did not answer within {seconds:.0f} s")
    if process.returncode:
        text = one_line(err) or one_line(out) or f"it left with {ending(process.returncode)}"
        return ProgramOutput(out, f"{command[0]} failed: {text}")
    return ProgramOutput(out)


def one_line(text: str, most: int = 300) -> str:
    """A foreign text on one line, and not without end."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 4] + " ..."


def read(file: Path) -> str:
    """The text of a small file; empty where it cannot be read."""
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(2**20)
    except OSError:
        return ""


def size(count: float) -> str:
    """Bytes in words."""
    for unit, one in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """Seconds in words, roughly."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def reduced(text: str, home: str | None = None, here: str | None = None) -> str:
    """The text with the home folder as ``~`` and without the working folder: neither is for others to see."""
    places = ((here or _here(), "."), (home or os.path.expanduser("~"), "~"))  # noqa: PTH111 - never raises
    for place, short in places:
        if len(place.strip("/")) == 0:
            continue
        text = re.sub(rf"(?<![\w/.~-]){re.escape(place.rstrip('/'))}(?=/|[^\w.-]|\.?$)", short, text)
    return re.sub(r"(?<![\w/.~-])\./(?=\w)", "", text)


def _here() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - as a text
    except OSError:
        return ""
