"""The clock, and how text is encoded. A wrong clock spoils logs and time limits, never an answer."""

from __future__ import annotations

import locale
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from orch_local.deploy.doctor.checks import Finding, green, red, unchecked, yellow
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.tools import ProgramOutput, ask

_SET = "set it (timedatectl set-time, or a time server of the site); no answer depends on it"
_DAY_S = 86_400
_LAST_YEAR = 2100


class Ticks(NamedTuple):
    """The monotonic clock beside the other one."""

    monotonic: bool
    seconds: tuple[float, ...]
    """Readings, one after another."""


def examine(inspection: Inspection) -> Iterator[Finding]:
    """Read the clocks and the locale."""
    yield judge_clock(datetime.now(UTC), _newest(), time.strftime("%z"))
    yield judge_monotonic(_ticks())
    inspection.step("clock-synchronised", "asking timedatectl", 15)
    yield judge_synchronised(ask(["timedatectl", "show"], 5))
    yield judge_encoding(
        locale.getencoding(), sys.getfilesystemencoding(), utf8_mode=bool(sys.flags.utf8_mode)
    )


def _newest() -> float:
    """When the newest file of the package was made: now cannot be before that."""
    package = Path(__file__).resolve().parents[2]
    try:
        return max(file.stat().st_mtime for file in package.glob("*.py"))
    except (OSError, ValueError):
        return 0.0


def _ticks() -> Ticks:
    seconds = []
    for _ in range(5):
        seconds.append(time.monotonic())
        time.sleep(0.002)
    return Ticks(time.get_clock_info("monotonic").monotonic, tuple(seconds))


def judge_clock(now: datetime, newest: float, offset: str) -> Finding:
    """Whether the time of day can be true."""
    text = f"{now:%Y-%m-%d %H:%M} UTC, local time is UTC{offset}"
    if now.year > _LAST_YEAR:
        return yellow("clock-sane", f"{text}: the year cannot be right", _SET)
    if now.timestamp() < newest - _DAY_S:
        made = f"{datetime.fromtimestamp(newest, UTC):%Y-%m-%d}"
        return yellow("clock-sane", f"{text}: before this package was installed or made ({made})", _SET)
    return green("clock-sane", text)


def judge_monotonic(ticks: Ticks) -> Finding:
    """Time-outs and flushes go by this one."""
    pairs = zip(ticks.seconds, ticks.seconds[1:], strict=False)
    if ticks.monotonic and all(one < other for one, other in pairs):
        return green("clock-monotonic", "runs forward")
    return red(
        "clock-monotonic", "stands still or runs back: a hanging worker would not be noticed", "restart it"
    )


def judge_synchronised(answer: ProgramOutput) -> Finding:
    """Whether a time server is followed; on a cluster nodes must agree for logs to make sense."""
    check = "clock-synchronised"
    found = re.search(r"^NTPSynchronized=(yes|no)", answer.out, re.MULTILINE)
    if answer.problem or found is None:
        return unchecked(check, "timedatectl does not tell")
    if found[1] == "yes":
        return green(check, "yes")
    return yellow(check, "the clock follows no time server: times in logs may be off", _SET)


def judge_encoding(text: str, files: str, *, utf8_mode: bool = False) -> Finding:
    """Whether files and the terminal take UTF-8."""
    names = {"utf-8" if utf8_mode else text.lower().replace("utf8", "utf-8"), files.lower()}
    if names == {"utf-8"}:
        return green("text-encoding", "UTF-8")
    message = f"text is {text}, file names are {files}: characters that they lack are shown as numbers"
    return yellow("text-encoding", message, "export LC_ALL=C.UTF-8, or PYTHONUTF8=1")
