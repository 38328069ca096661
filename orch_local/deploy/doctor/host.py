"""The processor and its memory, from /proc and the control groups."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from orch_local.deploy.doctor.checks import Finding, green, red, unchecked, yellow
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.tools import read, size

LEAST_BYTES = 3 * 2**30
"""A worker with torch and vLLM takes 1.5 GiB before any weights."""
_UNLIMITED = 2**60
"""Control groups of version 1 write a number near 2**63 for no limit."""


class Memory(NamedTuple):
    """Bytes; ``None`` where it is not known."""

    total: int | None
    available: int | None
    group: int | None = None
    """What the control groups (version 2) grant; the placement heeds it."""
    old_group: int | None = None
    """What a control group of version 1 grants; the placement does not know it."""


def examine(inspection: Inspection) -> Iterator[Finding]:
    """Look at the processor and the memory of this process."""
    device, at_once = _wanted(inspection)
    yield judge_instructions(platform.machine(), read(Path("/proc/cpuinfo")), device)
    yield judge_cores(len(os.sched_getaffinity(0)), os.cpu_count() or 1, at_once)
    yield judge_memory(_memory())


def _wanted(inspection: Inspection) -> tuple[str, int | None]:
    if inspection.subject is None:
        return "auto", None
    engine = inspection.subject.config.engine
    return engine.device, engine.models_at_once


def _memory() -> Memory:
    text = read(Path("/proc/meminfo"))
    total, available = (
        int(found[1]) * 1024 if (found := re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)) else None
        for name in ("MemTotal", "MemAvailable")
    )
    groups, root = read(Path("/proc/self/cgroup")), Path("/sys/fs/cgroup")
    return Memory(
        total, available, _limit(groups, r"^0::(/.*)$", root, "memory.max"), _old_limit(groups, root)
    )


def _old_limit(groups: str, root: Path) -> int | None:
    pattern = r"^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(/.*)$"
    found = _limit(groups, pattern, root / "memory", "memory.limit_in_bytes")
    return found if found is not None and found < _UNLIMITED else None


def _limit(groups: str, pattern: str, root: Path, name: str) -> int | None:
    """The smallest limit of this process's group and those above it."""
    own = re.search(pattern, groups, re.MULTILINE)
    if own is None:
        return None
    folder = root / own[1].lstrip("/")
    texts = (read(one / name).strip() for one in (folder, *folder.parents) if one.is_relative_to(root))
    return min((int(text) for text in texts if text.isdecimal()), default=None)


def judge_instructions(machine: str, cpuinfo: str, device: str) -> Finding:
    """Whether vLLM has kernels for this processor."""
    check = "cpu-instructions"
    if device == "cuda":
        return unchecked(check, "the run computes on GPUs")
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    if found is None:
        return unchecked(check, f"/proc/cpuinfo tells nothing; the machine is {machine}")
    flags = set(found[1].split())
    if machine in ("x86_64", "AMD64"):
        return _judge_x86(flags)
    if machine in ("aarch64", "arm64") and "asimd" in flags:
        return green(check, f"{machine} with ASIMD{', bf16' if 'bf16' in flags else ''}")
    return yellow(check, f"{machine}: nothing here was tried on it", "try `orch-local demo --limit 6` first")


def _judge_x86(flags: set[str]) -> Finding:
    check = "cpu-instructions"
    if "avx2" not in flags:
        advice = "use another machine, or a GPU; in a virtual machine, have the host's CPU passed through"
        return red(check, "no AVX2, which vLLM's kernels for CPUs need", advice)
    sets = ["AVX2", *(["AVX-512"] if "avx512f" in flags else []), *(["AMX"] if "amx_tile" in flags else [])]
    return green(
        check, f"{', '.join(sets)}; the kind of CPU is part of each spec, as bits differ between kinds"
    )


def judge_cores(usable: int, there: int, at_once: int | None) -> Finding:
    """How many workers may compute side by side."""
    text = f"{usable} of {there} cores may be used"
    if at_once and at_once > usable:
        advice = f"lower `engine.models_at_once` to {usable}, or ask for more cores"
        return yellow("cpu-cores", f"{text}, but `models_at_once` is {at_once}", advice)
    return green("cpu-cores", text)


def judge_memory(memory: Memory) -> Finding:
    """Whether there is memory for a worker at all; whether the models fit is for `placement`."""
    check = "memory-limit"
    if memory.total is None or memory.available is None:
        return unchecked(check, "/proc/meminfo tells nothing")
    limits = [one for one in (memory.available, memory.group, memory.old_group) if one is not None]
    text = f"{size(memory.available)} of {size(memory.total)} are free"
    granted = [one for one in (memory.group, memory.old_group) if one is not None]
    text += f"; the control group grants {size(min(granted))}" if granted else ""
    if min(limits) < LEAST_BYTES:
        advice = "end other programs, or ask the batch system or the container for more memory"
        return red(check, f"{text}; one worker takes 1.5 GiB before any weights", advice)
    if memory.old_group is not None and memory.old_group < memory.available:
        advice = "set `engine.models_at_once` so that the models fit together"
        return yellow(
            check, f"{text}, by version 1 of control groups, which the placement does not know", advice
        )
    return green(check, text)
