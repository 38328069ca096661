"""The list of checks, and what a check finds. Ids are stable: scripts may rely on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

FORMAT = 1
"""Of the JSON; raised when a key is taken away or means something else."""


class Level(StrEnum):
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


class Check(NamedTuple):
    """One thing that is looked at."""

    theme: str
    title: str


CHECKS: Mapping[str, Check] = {
    "run-file": Check("run", "Run file"),
    "questions": Check("run", "Questions"),
    "plan": Check("run", "Plan"),
    "python-version": Check("python", "Python version"),
    "python-64-bit": Check("python", "64-bit Python"),
    "virtual-environment": Check("python", "Virtual environment"),
    "packages-installed": Check("python", "Packages installed"),
    "packages-import": Check("python", "Packages import"),
    "torch-companions": Check("python", "Companions of torch"),
    "vllm-build": Check("engine", "Build of vLLM"),
    "torch-pin": Check("engine", "torch for vLLM"),
    "torch-import": Check("engine", "torch imports"),
    "engine-import": Check("engine", "Engine imports"),
    "device": Check("engine", "Device"),
    "batch-invariance": Check("engine", "Batch invariance"),
    "gpu-driver": Check("gpu", "NVIDIA driver"),
    "driver-for-cuda": Check("gpu", "Driver for CUDA"),
    "kernel-compiler": Check("gpu", "Compiler of kernels"),
    "gpu-slices": Check("gpu", "GPU slices (MIG)"),
    "gpu-in-use": Check("gpu", "GPU memory in use"),
    "gpu-computes": Check("gpu", "GPUs compute"),
    "placement": Check("host", "Models fit"),
    "cpu-instructions": Check("host", "Instruction sets"),
    "cpu-cores": Check("host", "Cores"),
    "memory-limit": Check("host", "Memory"),
    "model-folder": Check("models", "Model folder"),
    "model-tokenizer": Check("models", "Tokenizer, template"),
    "model-digests": Check("models", "Digests"),
    "disk-space": Check("disks", "Free space"),
    "file-system": Check("disks", "File system"),
    "file-writing": Check("disks", "Writing"),
    "open-files": Check("limits", "Open files"),
    "processes": Check("limits", "Processes"),
    "address-space": Check("limits", "Address space"),
    "locked-memory": Check("limits", "Locked memory"),
    "core-files": Check("limits", "Core files"),
    "shared-memory": Check("limits", "Shared memory"),
    "offline-variables": Check("offline", "Offline variables"),
    "proxies": Check("offline", "Proxies"),
    "hub-token": Check("offline", "Hub token"),
    "hub-folders": Check("offline", "Hub folders"),
    "slurm-clients": Check("slurm", "Clients"),
    "slurm-controller": Check("slurm", "Controller"),
    "slurm-partition": Check("slurm", "Partitions"),
    "slurm-time": Check("slurm", "Time limit"),
    "slurm-node": Check("slurm", "Size of a node"),
    "slurm-gres": Check("slurm", "Generic resources"),
    "slurm-array": Check("slurm", "Size of an array"),
    "slurm-accounting": Check("slurm", "Accounting"),
    "clock-sane": Check("clock", "Clock"),
    "clock-monotonic": Check("clock", "Monotonic clock"),
    "clock-synchronised": Check("clock", "Synchronised"),
    "text-encoding": Check("clock", "Text encoding"),
}
"""By id, in the order of the page."""


ESSENTIAL = frozenset({"questions", "engine-import", "placement", "model-folder", "model-digests"})
"""The verdict names those of them that were not checked."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    id: str
    """Of :data:`CHECKS`."""
    level: Level
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
    return Finding(check, Level.RED, fact, advice, about)


def yellow(check: str, fact: str, advice: str, about: str = "") -> Finding:
    """A finding that one should know of."""
    return Finding(check, Level.YELLOW, fact, advice, about)


def green(check: str, fact: str, about: str = "") -> Finding:
    """All is well."""
    return Finding(check, Level.GREEN, fact, "", about)


def unchecked(check: str, why: str, advice: str = "", about: str = "") -> Finding:
    """Nothing was looked at, and why."""
    return Finding(check, Level.UNCHECKED, why, advice, about)


@dataclass(frozen=True, slots=True)
class Page:
    """All findings, in the order of the page."""

    run: str
    """The run file as it was given; ``demo`` without one."""
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, run: str, findings: Iterable[Finding]) -> Page:
        """The page of findings that came in any order; findings of one check stay in theirs."""
        place = {check: number for number, check in enumerate(CHECKS)}
        theme = {name: number for number, name in enumerate(THEMES)}
        return cls(run, tuple(sorted(findings, key=lambda one: (theme[one.theme], place[one.id]))))

    def of_level(self, level: Level) -> Sequence[Finding]:
        """The findings of one level."""
        return [one for one in self.findings if one.level is level]

    @property
    def exit_code(self) -> int:
        """0, or 1 where anything is red."""
        return 1 if self.of_level(Level.RED) else 0

    @property
    def verdict(self) -> str:
        """The page in one sentence."""
        reds, yellows = (len(self.of_level(level)) for level in (Level.RED, Level.YELLOW))
        what = "this run" if self.run != "demo" else "the demo"
        if reds:
            return f"This machine cannot do {what}: {reds} red."
        warned = f", with {yellows} warning{'' if yellows == 1 else 's'}" if yellows else ""
        open_ = [one.id for one in self.of_level(Level.UNCHECKED) if one.id in ESSENTIAL]
        left = ", ".join(CHECKS[check].title for check in dict.fromkeys(open_))
        return f"This machine can do {what}{warned}{f'; not checked: {left}' if left else ''}."

    def to_json(self) -> dict[str, Any]:
        """The page for programs; docs/doctor.md describes it."""
        return {
            "format": FORMAT,
            "run": self.run,
            "can_run": not self.exit_code,
            "verdict": self.verdict,
            "counts": {level.value: len(self.of_level(level)) for level in Level},
            "findings": [
                {**asdict(one), "theme": one.theme, "title": CHECKS[one.id].title} for one in self.findings
            ],
        }
