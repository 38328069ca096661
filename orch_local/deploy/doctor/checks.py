"""The list of checks, and what a check finds. Ids are stable: scripts may rely on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

FORMAT = 1
"""Of the JSON; raised when a key is taken away or means something else."""


class Severity(StrEnum):
    """What a finding means for the run. In order of weight."""

    RED = "red"
    """The run would fail, or its result could not be trusted."""
    YELLOW = "yellow"
    """The run works, with a risk or a cost that one should know."""
    GREEN = "green"
    UNCHECKED = "not checked"
    """The fact says why."""


THEMES = {
    "run": "The run",
    "python": "Python and packages",
    "engine": "Engine",
    "gpu": "GPUs",
    "host": "Processor and memory",
    "models": "Models",
    "disks": "Disks",
    "limits": "Limits of a process",
    "offline": "Network and privacy",
    "slurm": "SLURM",
    "clock": "Clock and text",
}
"""In the order of the page."""


class DoctorCheck(NamedTuple):
    """One thing that is looked at."""

    theme: str
    title: str


CHECKS: Mapping[str, DoctorCheck] = {
    "run-file": DoctorCheck("run", "Run file"),
    "questions": DoctorCheck("run", "Questions"),
    "plan": DoctorCheck("run", "Plan"),
    "python-version": DoctorCheck("python", "Python version"),
    "python-64-bit": DoctorCheck("python", "64-bit Python"),
    "virtual-environment": DoctorCheck("python", "Virtual environment"),
    "packages-installed": DoctorCheck("python", "Packages installed"),
    "packages-import": DoctorCheck("python", "Packages import"),
    "torch-companions": DoctorCheck("python", "Companions of torch"),
    "vllm-build": DoctorCheck("engine", "Build of vLLM"),
    "torch-pin": DoctorCheck("engine", "torch for vLLM"),
    "torch-import": DoctorCheck("engine", "torch imports"),
    "engine-import": DoctorCheck("engine", "Engine imports"),
    "device": DoctorCheck("engine", "Device"),
    "batch-invariance": DoctorCheck("engine", "Batch invariance"),
    "gpu-driver": DoctorCheck("gpu", "NVIDIA driver"),
    "driver-for-cuda": DoctorCheck("gpu", "Driver for CUDA"),
    "kernel-compiler": DoctorCheck("gpu", "Compiler of kernels"),
    "gpu-slices": DoctorCheck("gpu", "GPU slices (MIG)"),
    "gpu-in-use": DoctorCheck("gpu", "GPU memory in use"),
    "gpu-computes": DoctorCheck("gpu", "GPUs compute"),
    "placement": DoctorCheck("host", "Models fit"),
    "cpu-instructions": DoctorCheck("host", "Instruction sets"),
    "cpu-cores": DoctorCheck("host", "Cores"),
    "memory-limit": DoctorCheck("host", "Memory"),
    "model-folder": DoctorCheck("models", "Model folder"),
    "model-tokenizer": DoctorCheck("models", "Tokenizer, template"),
    "model-digests": DoctorCheck("models", "Digests"),
    "disk-space": DoctorCheck("disks", "Free space"),
    "file-system": DoctorCheck("disks", "File system"),
    "file-writing": DoctorCheck("disks", "Writing"),
    "open-files": DoctorCheck("limits", "Open files"),
    "processes": DoctorCheck("limits", "Processes"),
    "address-space": DoctorCheck("limits", "Address space"),
    "locked-memory": DoctorCheck("limits", "Locked memory"),
    "core-files": DoctorCheck("limits", "Core files"),
    "shared-memory": DoctorCheck("limits", "Shared memory"),
    "offline-variables": DoctorCheck("offline", "Offline variables"),
    "proxies": DoctorCheck("offline", "Proxies"),
    "hub-token": DoctorCheck("offline", "Hub token"),
    "hub-folders": DoctorCheck("offline", "Hub folders"),
    "slurm-clients": DoctorCheck("slurm", "Clients"),
    "slurm-controller": DoctorCheck("slurm", "Controller"),
    "slurm-partition": DoctorCheck("slurm", "Partitions"),
    "slurm-time": DoctorCheck("slurm", "Time limit"),
    "slurm-node": DoctorCheck("slurm", "Size of a node"),
    "slurm-gres": DoctorCheck("slurm", "Generic resources"),
    "slurm-array": DoctorCheck("slurm", "Size of an array"),
    "slurm-accounting": DoctorCheck("slurm", "Accounting"),
    "clock-sane": DoctorCheck("clock", "Clock"),
    "clock-monotonic": DoctorCheck("clock", "Monotonic clock"),
    "clock-synchronised": DoctorCheck("clock", "Synchronised"),
    "text-encoding": DoctorCheck("clock", "Text encoding"),
}
"""By id, in the order of the page."""


ESSENTIAL = frozenset({"questions", "engine-import", "placement", "model-folder", "model-digests"})
"""The verdict names those of them that were not checked."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    id: str
    """Of :data:`CHECKS`."""
    level: Severity
    fact: str
    """What was found; where it was not checked, why."""
    advice: str = ""
    """What to do next; empty where there is nothing to do."""
    about: str = ""
    """Which model, folder or agent, where a check is made for several."""

    @property
    def theme(self) -> str:
        """Id of the theme."""
        return CHECKS[self.id].theme

    @property
    def title(self) -> str:
        """What the check is called, with what it is about."""
        title = CHECKS[self.id].title
        return f"{title}: {self.about}" if self.about else title


def red(check: str, fact: str, advice: str, about: str = "") -> Finding:
    """A finding that stops the run."""
    return Finding(check, Severity.RED, fact, advice, about)


def yellow(check: str, fact: str, advice: str, about: str = "") -> Finding:
    """A finding that one should know of."""
    return Finding(check, Severity.YELLOW, fact, advice, about)


def green(check: str, fact: str, about: str = "") -> Finding:
    """All is well."""
    return Finding(check, Severity.GREEN, fact, "", about)


def unchecked(check: str, why: str, advice: str = "", about: str = "") -> Finding:
    """Nothing was looked at, and why."""
    return Finding(check, Severity.UNCHECKED, why, advice, about)


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All findings, in the order of the page."""

    run: str
    """The run file as it was given; ``demo`` without one."""
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, run: str, findings: Iterable[Finding]) -> DoctorReport:
        """The page of findings that came in any order; findings of one check stay in theirs."""
        place = {check: number for number, check in enumerate(CHECKS)}
        theme = {name: number for number, name in enumerate(THEMES)}
        return cls(run, tuple(sorted(findings, key=lambda one: (theme[one.theme], place[one.id]))))

    def of_level(self, level: Severity) -> Sequence[Finding]:
        """The findings of one level."""
        return [one for one in self.findings if one.level is level]

    @property
    def exit_code(self) -> int:
        """0, or 1 where anything is red."""
        return 1 if self.of_level(Severity.RED) else 0

    @property
    def verdict(self) -> str:
        """The page in one sentence."""
        reds, yellows = (len(self.of_level(level)) for level in (Severity.RED, Severity.YELLOW))
        what = "this run" if self.run != "demo" else "the demo"
        if reds:
            return f"This machine cannot do {what}: {reds} red."
        warned = f", with {yellows} warning{'' if yellows == 1 else 's'}" if yellows else ""
        open_ = [one.id for one in self.of_level(Severity.UNCHECKED) if one.id in ESSENTIAL]
        left = ", ".join(CHECKS[check].title for check in dict.fromkeys(open_))
        return f"This machine can do {what}{warned}{f'; not checked: {left}' if left else ''}."

    def to_json(self) -> dict[str, Any]:
        """The page for programs; docs/doctor.md describes it."""
        return {
            "format": FORMAT,
            "run": self.run,
            "can_run": not self.exit_code,
            "verdict": self.verdict,
            "counts": {level.value: len(self.of_level(level)) for level in Severity},
            "findings": [
                {**asdict(one), "theme": one.theme, "title": CHECKS[one.id].title} for one in self.findings
            ],
        }
