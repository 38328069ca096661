"""Limits of a process: what the system, a login or a container lets a run have."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from orch_local.deploy.doctor.checks import Finding, green, red, yellow
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.tools import size

SHM = Path("/dev/shm")
_CONTAINER_SHM = 64 * 2**20
"""What Docker gives a container by default."""
_AMPLE_SHM = 2**30


class Limit(NamedTuple):
    """Soft and hard limit; ``None`` is unlimited."""

    soft: int | None
    hard: int | None


def examine(inspection: Inspection) -> Iterator[Finding]:
    """Read the limits of this process, which workers inherit."""
    device = inspection.subject.config.engine.device if inspection.subject else "auto"
    on_gpu = device == "cuda" or (device == "auto" and any(Path("/dev").glob("nvidia[0-9]*")))
    yield judge_files(_limit(resource.RLIMIT_NOFILE), inspection.request.shards)
    yield judge_processes(_limit(resource.RLIMIT_NPROC), is_root=os.geteuid() == 0)
    yield judge_address_space(_limit(resource.RLIMIT_AS), on_gpu=on_gpu)
    yield judge_locked(_limit(resource.RLIMIT_MEMLOCK))
    yield judge_core(_limit(resource.RLIMIT_CORE))
    yield judge_shared(_shared(), on_gpu=on_gpu)


def _limit(kind: int) -> Limit:
    soft, hard = (None if one == resource.RLIM_INFINITY else one for one in resource.getrlimit(kind))
    return Limit(soft, hard)


def _shared() -> int | None:
    try:
        found = os.statvfs(SHM)
    except OSError:
        return None
    return found.f_blocks * found.f_frsize


def _said(limit: int | None) -> str:
    return "no limit" if limit is None else f"{limit:,}"


def judge_files(limit: Limit, shards: int | None) -> Finding:
    """The hard limit counts: the command raises its own."""
    text = f"{_said(limit.hard)} (hard limit)"
    wanted = max(1024, 32 * (shards or 1))  # scoring keeps a sixteenth of it open for each agent
    if limit.hard is None or limit.hard >= wanted:
        return green("open-files", text)
    advice = f"raise it to {wanted:,}: `ulimit -Hn`, /etc/security/limits.conf, or LimitNOFILE of the service"
    if limit.hard < 256:
        return red("open-files", f"{text}; an engine alone opens more", advice)
    return yellow("open-files", f"{text}; scoring opens files again and again below {wanted:,}", advice)


def judge_processes(limit: Limit, *, is_root: bool) -> Finding:
    """An engine starts threads by the hundred, and each counts."""
    text = "no limit for root" if is_root else _said(limit.soft)
    if is_root or limit.soft is None or limit.soft >= 2048:
        return green("processes", text)
    advice = "raise `ulimit -u`, or in a container --pids-limit"
    if limit.soft < 256:
        return red("processes", f"{text}; the threads of an engine are more", advice)
    return yellow("processes", f"{text}; a few engines with their threads may come to it", advice)


def judge_address_space(limit: Limit, *, on_gpu: bool) -> Finding:
    """CUDA reserves addresses for all memory there is, and weights are mapped."""
    if limit.soft is None:
        return green("address-space", "no limit")
    text = f"{size(limit.soft)} (ulimit -v)"
    advice = "take the limit off: `ulimit -v unlimited`; SLURM: ask for more with `mem`, not by ulimit"
    if on_gpu or limit.soft < 16 * 2**30:
        return red("address-space", f"{text}: an engine asks for more addresses than memory", advice)
    return yellow("address-space", f"{text}: weights are mapped, and count in it", advice)


def judge_locked(limit: Limit) -> Finding:
    """Of use to InfiniBand alone."""
    text = "no limit" if limit.soft is None else size(limit.soft)
    return green("locked-memory", f"{text}; it matters for models over several machines alone")


def judge_core(limit: Limit) -> Finding:
    """A core file holds prompts and weights, and fills disks."""
    if limit.soft == 0:
        return green("core-files", "none are written")
    text = "no limit" if limit.soft is None else size(limit.soft)
    return yellow(
        "core-files",
        f"{text}: a worker that crashes may write all of its memory, prompts and weights, to the disk",
        "`ulimit -c 0` before the run",
    )


def judge_shared(there: int | None, *, on_gpu: bool) -> Finding:
    """torch and NCCL pass data through it where a model is spread over several GPUs."""
    check = "shared-memory"
    advice = "start the container with `--shm-size 8g` (or `--ipc host`); else mount a tmpfs at /dev/shm"
    if there is None:
        text = "there is no /dev/shm"
        return red(check, text, advice) if on_gpu else yellow(check, text, advice)
    text = f"/dev/shm has {size(there)}"
    if there <= _CONTAINER_SHM:
        text = f"{text}, what a container has by default: a model over several GPUs will not start"
        return yellow(check, text, advice)
    if there < _AMPLE_SHM and on_gpu:
        return yellow(check, f"{text}, which is little for a model over several GPUs", advice)
    return green(check, text)
