"""Where the workers of a placement run: devices, cores and memory of each, and what comes behind it there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from orch_local.placement.replicas import Placement, Replica, Slot
from orch_local.plan.plans import AgentPlan
from orch_local.run.loaded import Place
from orch_local.run.pinning import core_sets, usable_cores
from orch_local.util.gpus import gpu_names


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """Where a worker runs, and what of the machine it may use."""

    label: str = ""
    """Tells the workers of one agent apart in messages and names of logs."""
    gpus: str | None = None
    """Value of CUDA_VISIBLE_DEVICES; ``None`` leaves it as it is here."""
    cores: tuple[int, ...] = ()
    """CPU cores; empty for all."""
    memory_share: float | None = None
    """Share of each GPU's memory; ``None`` for that of the model config."""
    stage_to: Path | None = None
    """Folder on a local disk that the model is copied to first."""


class WorkerSlots:
    """The slots of a placement's replicas, with the order of the replicas in them."""

    def __init__(
        self, placement: Placement, agents: Mapping[str, AgentPlan], stage_to: Path | None = None
    ) -> None:
        self._placement = placement
        self._agents = agents
        self._stage_to = stage_to

    def of(self, replica: Replica) -> WorkerSlot:
        """Where the worker of a replica runs."""
        label = f"@{replica.number}" if replica.of > 1 else ""
        if self._placement.machine.kind == "cpu":
            return WorkerSlot(label, cores=self._cores(replica), stage_to=self._stage_to)
        names = gpu_names()
        gpus = ",".join(names[device] for device in replica.devices) if names else None
        return WorkerSlot(label, gpus, memory_share=replica.memory_share, stage_to=self._stage_to)

    def place(self, replica: Replica) -> Place:
        """Where a replica has its model loaded, to tell who can take it over."""
        means = replace(self.of(replica), label="", stage_to=None)
        return Place(self._placement.slots(replica), self._agents[replica.agent].engine, means)

    def first_places(self) -> Iterator[Place]:
        """The place of the first replica in each slot."""
        found: dict[Slot, Replica] = {}
        for one in self._placement.replicas:
            for slot in self._placement.slots(one):
                found.setdefault(slot, one)
        return map(self.place, found.values())

    def later(self, replica: Replica) -> Iterator[Replica]:
        """The replicas that come behind one on its devices, in order."""
        slots = set(self._placement.slots(replica))
        later = (one for one in self._placement.replicas if one.start_s >= replica.end_s and one != replica)
        return (one for one in later if slots & set(self._placement.slots(one)))

    def hands_over(self, replica: Replica) -> bool | None:
        """Whether the next replica in its place goes on with its model; ``None`` where there is none."""
        following = next(self.later(replica), None)
        if following is None:
            return None
        return not following.follows and self.place(following) == self.place(replica)

    def _cores(self, replica: Replica) -> tuple[int, ...]:
        """Cores of its own, where all sets of cores are at work; else the kernel knows best."""
        used = {device for one in self._placement.replicas for device in one.devices}
        here, threads = self._placement.machine, self._agents[replica.agent].settings.threads
        sets = core_sets(usable_cores(), here.devices, threads)
        return sets[replica.devices[0]] if sets and len(used) == here.devices > 1 else ()
