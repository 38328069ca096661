"""What a theme is given when it runs: the request, where to report steps, and the run that is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from orch_local.deploy.doctor.request import REINSTALL, STEP_S, DoctorRequest, Step

if TYPE_CHECKING:
    from orch_local.deploy.doctor.subject import Subject


def _nobody(step: Step) -> None:
    """Report to nobody."""


@dataclass
class Inspection:
    """What a theme works on."""

    request: DoctorRequest
    tell: Callable[[Step], None] = field(default=_nobody)
    questions: int = 0
    """How many there are, once they were read."""

    def step(self, check: str, doing: str, seconds: float = STEP_S, advice: str = REINSTALL) -> None:
        """Say what comes now, so that it can be named if nothing else comes."""
        self.tell(Step(check, doing, seconds, advice))

    def is_lost(self, check: str) -> bool:
        """Whether a child died at this check already."""
        return check in self.request.lost

    @cached_property
    def subject(self) -> Subject | None:
        """The run, or ``None`` where it cannot be read; the check `run-file` says why."""
        if self.is_lost("run-file"):
            return None
        try:
            from orch_local.deploy.doctor.subject import read_subject

            return read_subject(self.request)
        except Exception:  # noqa: BLE001 - the check `run-file` reports it
            return None
