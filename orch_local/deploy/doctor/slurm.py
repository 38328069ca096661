"""SLURM, where the run file has a block for it or the machine has its clients."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orch_local.deploy.doctor.checks import Finding, green, red, unchecked, yellow
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.tools import ask, one_line

if TYPE_CHECKING:
    from orch_local.config.slurm_options import SlurmConfig

CHECKS = ("controller", "partition", "time", "node", "gres", "array", "accounting")
_CHECK_BLOCK = "correct the `slurm` block of the run file; `sinfo` lists what there is"
_FORMAT = "%R|%P|%a|%l|%c|%m|%G"
_LATER = "the controller may be down: try again later, or ask the administrator"
_VARIABLES = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JOB_ID")
_FILES = ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/run/slurm/conf/slurm.conf")
_UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


class Nodes(NamedTuple):
    """Alike nodes of a partition, a line of sinfo."""

    partition: str
    default: bool
    up: bool
    seconds: int | None
    """Time limit; ``None`` is none."""
    cpus: int
    memory_mib: int
    gres: str


class RequestedResources(NamedTuple):
    """What the run file asks of a task."""

    partition: str | None = None
    score_partition: str | None = None
    seconds: int | None = None
    cpus: int | None = None
    memory_mib: float | None = None
    gres: str | None = None
    shards: int = 1


def examine(inspection: Inspection) -> Iterator[Finding]:
    """Ask the controller what it has, if SLURM is of any concern."""
    config = inspection.subject.config.slurm if inspection.subject else None
    has_block = config is not None and bool(config.model_dump(exclude_defaults=True))
    clients = [name for name in ("sbatch", "squeue", "scontrol", "sinfo") if shutil.which(name) is None]
    if not has_block and len(clients) == 4:
        yield from _nothing("slurm-clients", "no `slurm` block in the run file, and no SLURM here")
        return
    if not has_block and not _is_configured():
        # Without a file the clients look for a cluster in the DNS: not unless a run is to go there.
        yield from _nothing("slurm-clients", "no `slurm` block in the run file, and no cluster is configured")
        return
    inspection.step("slurm-clients", "asking sinfo for its version", 30, _LATER)
    yield judge_clients(clients, ask(["sinfo", "--version"]).out.strip(), has_block=has_block)
    inspection.step("slurm-controller", "asking the controller of SLURM", 60, _LATER)
    answer = ask(["sinfo", "-h", "-e", "-o", _FORMAT])
    if answer.problem:
        text = one_line(answer.problem)
        yield judge_silence(text, has_block=has_block, missing=answer.missing, configured=_is_configured())
        yield from _nothing("", "the controller does not answer", begin=1)
        return
    yield green("slurm-controller", "answers")
    asked = _asked(config, _shards(inspection)) if config and has_block else None
    settings = ask(["scontrol", "show", "config"]).out
    yield from judge_cluster(parse_nodes(answer.out), asked)
    yield judge_array(_setting(settings, "MaxArraySize"), asked)
    yield judge_accounting(_setting(settings, "AccountingStorageType"))


def _is_configured() -> bool:
    return any(os.environ.get(name) for name in _VARIABLES) or any(Path(file).exists() for file in _FILES)


def _nothing(first: str, why: str, begin: int = 0) -> Iterator[Finding]:
    if first:
        yield unchecked(first, why)
    for check in CHECKS[begin:]:
        yield unchecked(f"slurm-{check}", why)


def _shards(inspection: Inspection) -> int:
    """As asked for, or as the run was submitted before."""
    if inspection.request.shards or inspection.subject is None:
        return inspection.request.shards or 1
    try:
        from orch_local.slurm.submitting import shards_before

        return shards_before(inspection.subject.folder)
    except Exception:  # noqa: BLE001 - `submit` reports a damaged list of submissions
        return 1


def _asked(config: SlurmConfig, shards: int) -> RequestedResources:
    return RequestedResources(
        config.partition,
        config.score_partition,
        config.time_s,
        config.cpus_per_task,
        memory_mib(config.mem) if config.mem else None,
        config.gres,
        shards,
    )


def memory_mib(text: str) -> float:
    """Memory as the run file writes it, such as 64G; SLURM takes a bare number for MiB."""
    unit = text[-1] if text[-1] in _UNITS else "M"
    return float(text.rstrip("KMGT")) * _UNITS[unit]


def _setting(text: str, name: str) -> str:
    found = re.search(rf"^{name}\s*=\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else ""


def parse_nodes(text: str) -> list[Nodes]:
    """What sinfo printed."""
    found = []
    for line in text.splitlines():
        values = line.strip().split("|")
        if len(values) != 7:
            continue
        name, starred, state, limit, cpus, memory, gres = values
        cores, mib = (int(digits[0]) if (digits := re.match(r"\d+", one)) else 0 for one in (cpus, memory))
        found.append(Nodes(name, starred.endswith("*"), state == "up", _seconds(limit), cores, mib, gres))
    return found


def _seconds(limit: str) -> int | None:
    """A time limit as sinfo writes it: [days-][[hours:]minutes:]seconds, or infinite."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(?:(\d+):)?(\d+):)?(\d+)", limit)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def judge_clients(missing: Sequence[str], version: str, *, has_block: bool) -> Finding:
    """Whether jobs can be submitted from here."""
    check = "slurm-clients"
    if not missing:
        return green(check, version or "found")
    text = f"not found: {', '.join(missing)}"
    if has_block and "sbatch" in missing:
        return yellow(
            check, f"{text}; `orch-local submit` needs them", "submit on a login node of the cluster"
        )
    return unchecked(check, text)


def judge_silence(text: str, *, has_block: bool, missing: bool, configured: bool) -> Finding:
    """What to make of a controller that does not answer."""
    check = "slurm-controller"
    if not has_block or missing:
        return unchecked(check, text)
    if not configured:
        text = "the run file has a `slurm` block, but no cluster is configured here (no slurm.conf)"
        return yellow(check, text, "nothing, if the run is to be done here; else submit it on a login node")
    return red(check, text, _LATER)


def judge_cluster(nodes: Sequence[Nodes], asked: RequestedResources | None) -> Iterator[Finding]:
    """Whether the cluster has what the run file asks for."""
    if asked is None:
        for check in CHECKS[1:5]:
            yield unchecked(f"slurm-{check}", "the run file has no `slurm` block")
        return
    yield judge_partitions(nodes, asked)
    names = set(asked.partition.split(",")) if asked.partition else None
    mine = [one for one in nodes if (one.partition in names if names else one.default)]
    if not mine:
        for check in CHECKS[2:5]:
            yield unchecked(f"slurm-{check}", "the partition is not known")
        return
    yield judge_time(mine, asked.seconds)
    yield judge_node(mine, asked)
    yield judge_gres(mine, asked.gres)


def judge_partitions(nodes: Sequence[Nodes], asked: RequestedResources) -> Finding:
    """Whether the partitions exist and take jobs."""
    check, there = "slurm-partition", dict.fromkeys(one.partition for one in nodes)
    wanted = [name for text in (asked.partition, asked.score_partition) if text for name in text.split(",")]
    unknown = [name for name in wanted if name not in there]
    if unknown:
        message = f"there is no partition {', '.join(unknown)}; there are {', '.join(there) or 'none'}"
        return red(check, message, _CHECK_BLOCK)
    if not asked.partition and not any(one.default for one in nodes):
        return red(
            check, "the cluster has no default partition", "name one: `partition` in the `slurm` block"
        )
    used = [one for one in nodes if (one.partition in wanted if wanted else one.default)]
    closed = [one.partition for one in used if not one.up]
    if closed:
        message = f"{', '.join(dict.fromkeys(closed))} takes no jobs now"
        return yellow(check, message, "jobs wait until it is up again; `sinfo` says")
    return green(check, ", ".join(dict.fromkeys(one.partition for one in used)))


def judge_time(nodes: Sequence[Nodes], seconds: int | None) -> Finding:
    """Whether the partition lets a job run that long: else it waits for ever."""
    check = "slurm-time"
    limits = [one.seconds for one in nodes]
    longest = None if None in limits else max(filter(None, limits), default=0)
    message = "no limit" if longest is None else f"at most {longest // 60:,} min"
    if seconds is None:
        text = f"the run file has no `time`: the partition's default is taken ({message})"
        return yellow(check, text, "set `time` in the `slurm` block; a task that is cut off is requeued")
    text = f"{seconds // 60:,} min asked for; the partition gives {message}"
    if longest is not None and seconds > longest:
        return red(check, text, "lower `time`, or choose another partition: the job would wait for ever")
    return green(check, text)


def judge_node(nodes: Sequence[Nodes], asked: RequestedResources) -> Finding:
    """Whether a single node has the cores and the memory of a task."""
    check = "slurm-node"
    cpus, memory = asked.cpus or 1, asked.memory_mib or 0
    if any(one.cpus >= cpus and one.memory_mib >= memory for one in nodes):
        return green(
            check, f"a node has {cpus} cores and {memory / 1024:.0f} GiB" if memory else f"{cpus} cores"
        )
    most = max(nodes, key=lambda one: (one.memory_mib, one.cpus))
    text = (
        f"no node has {cpus} cores and {memory / 1024:.0f} GiB; the largest has {most.cpus} cores and "
        f"{most.memory_mib / 1024:.0f} GiB"
    )
    return red(check, text, "lower `cpus_per_task` or `mem`, or choose another partition")


def judge_gres(nodes: Sequence[Nodes], asked: str | None) -> Finding:
    """Whether a node has the GPUs that are asked for."""
    check = "slurm-gres"
    if not asked:
        there = ", ".join(dict.fromkeys(one.gres for one in nodes if one.gres not in ("", "(null)")))
        return green(check, f"none asked for; the partition has {one_line(there, 80) or 'none'}")
    wanted = [_gres(one) for one in asked.removeprefix("gres:").split(",")]
    if any(all(_count(node.gres, kind, model) >= count for kind, model, count in wanted) for node in nodes):
        return green(check, f"a node has {asked}")
    there = ", ".join(dict.fromkeys(one.gres for one in nodes))
    return red(check, f"no node has {asked}; the partition has {one_line(there, 120)}", _CHECK_BLOCK)


def _gres(text: str) -> tuple[str, str, int]:
    """Kind, model (or nothing) and count of gpu:h100:2, gpu:2, gpu."""
    parts = re.sub(r"\(.*?\)", "", text).split(":")
    count = int(parts[-1]) if len(parts) > 1 and parts[-1].isdecimal() else 1
    names = parts[:-1] if len(parts) > 1 and parts[-1].isdecimal() else parts
    return names[0], names[1] if len(names) > 1 else "", count


def _count(there: str, kind: str, model: str) -> int:
    """How many of a kind a node has, of its list of generic resources."""
    listed = (_gres(one) for one in re.sub(r"\([^)]*\)", "", there).split(","))
    return sum(count for name, its, count in listed if name == kind and model in ("", its))


def judge_array(most: str, asked: RequestedResources | None) -> Finding:
    """Whether so many shards go into one array: numbers must be smaller than MaxArraySize."""
    check = "slurm-array"
    if not most.isdecimal():
        return unchecked(check, "scontrol does not tell MaxArraySize")
    if asked is None:
        return green(check, f"up to {int(most) - 1:,} shards")
    text = f"{asked.shards:,} shard{'' if asked.shards == 1 else 's'}, up to {int(most) - 1:,} are possible"
    return red(check, text, "take fewer --shards") if asked.shards >= int(most) else green(check, text)


def judge_accounting(kind: str) -> Finding:
    """A database is not needed: the store tells what is done."""
    if not kind or kind.endswith("none") or kind == "(null)":
        return green("slurm-accounting", "absent; it is not needed")
    return green("slurm-accounting", f"{one_line(kind, 40)}; it is not needed")
