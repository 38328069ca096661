"""What the user asked the doctor for, and the steps that a child process reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEP_S = 30.0
REINSTALL = (
    "reinstall the package that `Packages import` names, or make the environment anew (README, set-up)"
)


@dataclass(frozen=True, slots=True)
class DoctorRequest:
    """What the user asked for. It goes to the child processes as JSON."""

    run_file: str | None = None
    """``None`` looks at the embedded demo."""
    out: str | None = None
    store: str | None = None
    shards: int | None = None
    fresh: bool = False
    """Hash all weights anew."""
    quick: bool = False
    """Do not import torch and the engine."""
    scratch: str | None = None
    """A folder for files that are needed while looking; the parent removes it."""
    silence: tuple[tuple[str, str], ...] = ()
    """Those variables of :data:`orch_local.util.offline.SILENCE` that the user had set himself."""
    lost: tuple[str, ...] = ()
    """Checks at which an earlier child died or hung."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is done next, reported before it begins."""

    check: str
    doing: str
    """As in `while importing torch`."""
    seconds: float = STEP_S
    """After so long the child is ended."""
    advice: str = REINSTALL
    """What to do if the child hangs here."""


def request_from(values: dict[str, Any]) -> DoctorRequest:
    """A request that came as JSON."""
    pairs = tuple((name, value) for name, value in values.pop("silence", ()))
    return DoctorRequest(**{**values, "silence": pairs, "lost": tuple(values.get("lost", ()))})


def run_folder(request: DoctorRequest) -> Path:
    """Where the run would be, as `orch-local run` and `orch-local demo` have it."""
    name = Path(request.run_file).stem if request.run_file else "demo"
    return Path(request.out or Path("runs") / name).absolute()


def store_folder(request: DoctorRequest) -> Path:
    """Where its rows would be kept."""
    return Path(request.store).absolute() if request.store else run_folder(request).parent / "store"


def run_name(request: DoctorRequest) -> str:
    """How the page calls the run."""
    return Path(request.run_file).name if request.run_file else "demo"
