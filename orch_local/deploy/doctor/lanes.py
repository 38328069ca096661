"""Runs the parts of the page in child processes, lanes side by side; a crash or hang in one is a finding."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from orch_local.deploy.doctor.checks import DoctorReport, Finding, Severity, red, unchecked
from orch_local.deploy.doctor.parts import LANES, PARTS
from orch_local.deploy.doctor.request import REINSTALL, STEP_S, DoctorRequest, Step, run_name
from orch_local.deploy.doctor.tools import one_line, reduced
from orch_local.util.children import ChildProcess, ending

CHILD = (sys.executable, "-m", "orch_local.deploy.doctor.child")
_START_S = 60.0
MOST_S = 24 * 3600.0
"""The longest that any step may take."""
_GRACE_S = 5.0

Sink = Callable[[Finding], None]


def examine(
    request: DoctorRequest,
    doing: Callable[[str], None] | None = None,
    parts: Sequence[Sequence[str]] = LANES,
) -> DoctorReport:
    """Look at everything that the request is about.

    Parameters
    ----------
    doing:
        Called with what is being done, from any thread.
    parts:
        Names of parts, those that run one after another together.
    """
    found: list[Finding] = []
    with _scratch() as folder:
        asked = replace(request, scratch=folder)
        lanes = [_Lane(list(lane), asked, found.append, doing or _nobody) for lane in parts]
        threads = [threading.Thread(target=lane.run, daemon=True) for lane in lanes]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():  # a join without an end would hold back Ctrl-C
                    thread.join(0.2)
        finally:
            for lane in lanes:
                lane.stop()
    seen = {one.id for one in found}
    asked_for = [check for lane in parts for part in lane for check in PARTS[part].checks]
    rest = [
        unchecked(check, "not reached: another check ended first") for check in asked_for if check not in seen
    ]
    return DoctorReport.of(run_name(request), map(_private, [*found, *rest]))


def _nobody(text: str) -> None:
    """Report to nobody."""


def _private(found: Finding) -> Finding:
    return replace(found, fact=reduced(found.fact), advice=reduced(found.advice), about=reduced(found.about))


@contextmanager
def _scratch() -> Iterator[str | None]:
    """A temporary folder; ``None`` where there is no place for one, which `disks` then says."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="orch-local-doctor-", ignore_cleanup_errors=True)
    except OSError:
        yield None
        return
    with folder as path:
        yield path


class _Loss(NamedTuple):
    """How a child was lost."""

    check: str
    how: str
    advice: str


@dataclass
class _Lane:
    """Parts that run one after another, in as many children as it takes."""

    parts: list[str]
    request: DoctorRequest
    sink: Sink
    doing: Callable[[str], None]

    def __post_init__(self) -> None:
        self._child: ChildProcess | None = None
        self._stopped = False

    def run(self) -> None:
        """Run all parts; a part that loses its child is not begun again."""
        while self.parts and not self._stopped:
            try:
                self._child = _child(self.parts, self.request)
            except OSError as error:
                text = f"no process can be started: {error.strerror or error}"
                advice = "raise `ulimit -u` and the memory of the job, or end other processes of yours"
                self.sink(red("processes", text, advice))
                return
            loss = self._watch(self._child)
            if loss is None:
                return
            if not self._stopped:
                self.sink(red(loss.check, loss.how, loss.advice))
            self.request = replace(self.request, lost=(*self.request.lost, loss.check))
            self.parts.pop(0)

    def stop(self) -> None:
        """End the child, if there is one; from any thread."""
        self._stopped = True
        if self._child:
            self._child.kill()

    def _watch(self, child: ChildProcess) -> _Loss | None:
        step = Step(PARTS[self.parts[0]].checks[0], "starting Python", _START_S)
        deadline = _deadline(step)
        while True:
            try:
                line = child.next_line(deadline - time.monotonic())
            except TimeoutError:
                child.kill()
                text = f"nothing came back within {min(step.seconds, MOST_S):.0f} s while {step.doing}"
                return _Loss(step.check, text, step.advice)
            if line is None:
                if not self.parts:
                    child.kill()  # it is at its end already, and waited for here
                    return None
                return _Loss(step.check, f"{_how_ended(child)} while {step.doing}", REINSTALL)
            message = _parsed(line)
            if "step" in message:
                step = Step(**message["step"])
                self.doing(step.doing)
            elif "finding" in message:
                self.sink(_found(message["finding"]))
            elif "done" in message:
                self.parts.remove(message["done"])
                if self.parts:
                    step = Step(PARTS[self.parts[0]].checks[0], "looking", STEP_S)
            deadline = _deadline(step)


def _deadline(step: Step) -> float:
    return time.monotonic() + min(step.seconds, MOST_S)


def _parsed(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _found(values: dict[str, Any]) -> Finding:
    return Finding(**{**values, "level": Severity(values["level"])})


def _child(parts: Sequence[str], request: DoctorRequest) -> ChildProcess:
    """A process that runs parts."""
    child = ChildProcess(CHILD)
    with suppress(OSError):  # it may have died at once
        child.send(json.dumps({"parts": list(parts), "request": asdict(request)}))
    child.close_input()
    return child


def _how_ended(child: ChildProcess) -> str:
    code = child.wait(_GRACE_S)
    if code is None:
        child.kill()
        return "the process closed its output"
    last = child.last_words()
    text = f" ({one_line(last, 160)})" if last else ""
    return f"the process died by {ending(code)}{text}"
