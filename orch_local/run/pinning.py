"""Cores of their own for workers on a CPU.

vLLM binds threads in processes that it starts itself, not in ours: left alone, a worker runs wherever the
kernel puts it, while its memory is taken from the NUMA node of the first core that it may use, the same for
all workers (``vllm/v1/worker/cpu_worker.py``). With cores of its own, memory and threads are on one node.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

_TOPOLOGY = Path("/sys/devices/system/cpu")
_claimed: list[socket.socket] = []
"""Held as long as this process lives."""


def core_sets(cores: Sequence[int], workers: int, threads: int) -> list[tuple[int, ...]]:
    """A set of ``threads`` cores for each worker, no core in two of them, neighbours in ``cores`` together.

    Empty where the cores are too few: workers that share cores are best placed by the kernel.
    """
    if workers * threads > len(cores):
        return []
    return [tuple(cores[first : first + threads]) for first in range(0, workers * threads, threads)]


def usable_cores(topology: Path = _TOPOLOGY) -> list[int]:
    """The cores that this process may use, in the order in which workers should get them.

    One thread of each physical core first, then the second ones; within that, NUMA node by node.
    """
    cores = os.sched_getaffinity(0)
    return sorted(cores, key=lambda core: (_rank(core, topology), _node(core, topology), core))


def pin(cores: Iterable[int]) -> bool:
    """Bind this process, and threads that it starts from now on, to ``cores``; returns whether that was done.

    It is not done where a worker of another run has one of them already: the two would share a core while
    others idle, which the kernel by itself avoids.
    """
    cores = sorted(cores)
    if not cores or not _claim(cores):
        return False
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:  # the set of this process's cores was changed meanwhile
        log.info("cores %s cannot be had: %s", cores, error)
        return False
    return True


def _claim(cores: Sequence[int]) -> bool:
    """Take the names of cores; the kernel gives them back when this process ends, however it does.

    A name without a file: sockets in Linux's abstract name space, which never leave the machine.
    """
    names = []
    for core in cores:
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        names.append(name)
        try:
            name.bind(f"\0orch-local.core.{core}")
        except OSError:
            for one in names:
                one.close()
            return False
    _claimed.extend(names)
    return True


def _rank(core: int, topology: Path) -> int:
    """Which thread of its physical core this is; 0 where that is not told."""
    siblings = _numbers(topology / f"cpu{core}" / "topology" / "thread_siblings_list")
    return siblings.index(core) if core in siblings else 0


def _node(core: int, topology: Path) -> int:
    nodes = (topology / f"cpu{core}").glob("node[0-9]*")
    return min((int(node.name.removeprefix("node")) for node in nodes), default=0)


def _numbers(file: Path) -> list[int]:
    """A list as Linux writes it, e.g. ``0,32`` or ``0-1``; empty where there is no such file."""
    try:
        parts = file.read_text(encoding="ascii").strip().split(",")
        spans = [part.partition("-") for part in parts]
        return [number for first, _, last in spans for number in range(int(first), int(last or first) + 1)]
    except (OSError, ValueError):
        return []
