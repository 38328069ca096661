"""When a worker may start beside those that run: what the placement planned meets the machine as it is.

On a CPU other programs may have taken memory since the plan was made; a worker then waits until another one
of the run has ended, and one alone is always tried. On a GPU that several models share, they load one after
another: vLLM measures the free memory while it loads, and two at once would count each other's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from orch_local.placement.replicas import Replica
from orch_local.util.host import free_memory_gib


class Runner(Protocol):
    """What is asked of a worker; :class:`orch_local.run.supervisor.Supervisor` is one."""

    loaded: bool
    """Whether its model is loaded."""

    @property
    def resident_gib(self) -> float:
        """Memory of the host that it holds now."""


class Started(Protocol):
    """A worker that runs; :class:`orch_local.run.worker_jobs.WorkerJob` is one."""

    @property
    def replica(self) -> Replica:
        """What it generates, and where."""

    @property
    def supervisor(self) -> Runner:
        """Its process."""


class Gate:
    """Whether a worker may start now.

    Parameters
    ----------
    needs_gib:
        By agent, memory of the host that a worker takes; empty on GPUs.
    free_gib:
        Tells the free memory of the host.
    takes_over:
        Whether a replica goes on with a model that is loaded.
    """

    def __init__(
        self,
        needs_gib: Mapping[str, float],
        free_gib: Callable[[], float] = free_memory_gib,
        takes_over: Callable[[Replica], bool] = lambda _: False,
    ) -> None:
        self._needs_gib = needs_gib
        self._free_gib = free_gib
        self._takes_over = takes_over

    def may_start(self, replica: Replica, running: Sequence[Started]) -> bool:
        """Whether a replica may start beside ``running``; alone it always may."""
        if not running or self._takes_over(replica):
            return True
        if not self._needs_gib:
            return not any(_meet(replica, one.replica) and not one.supervisor.loaded for one in running)
        # One that follows ends when all others have ended, so waiting for its memory would be in vain.
        if all(one.replica.follows for one in running):
            return True
        # What those that still load have not taken yet is not free, though it looks so.
        coming = sum(max(0.0, self._need(one.replica) - one.supervisor.resident_gib) for one in running)
        return self._need(replica) <= self._free_gib() - coming

    def _need(self, replica: Replica) -> float:
        return self._needs_gib.get(replica.agent, 0.0)


def _meet(one: Replica, other: Replica) -> bool:
    """Whether two replicas have a GPU in common."""
    return bool(set(one.devices) & set(other.devices))
