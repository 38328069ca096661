"""The work of an agent, the replicas that do it, and where and when they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from orch_local.placement.machine import Machine

_GOLDEN = (5**0.5 - 1) / 2
T = TypeVar("T")
Slot = tuple[int, int]
"""A device and a lane of it."""
Loaded = Mapping[Slot, str]
"""The engine that is loaded in a slot."""


@dataclass(frozen=True, slots=True)
class AgentJob:
    """The rows of one agent, or of the merge agent."""

    name: str
    width: int
    """Devices that one replica spans (tensor x pipeline parallel); 1 on a CPU."""
    memory_gib: float
    """The least on each of them: weights, KV cache of one longest sequence, overhead."""
    load_s: float
    generate_s: float
    """Of all rows, by one replica that has its devices for itself."""
    overlap: float = 0.0
    """Share of ``generate_s`` in which the device idles, 0 to 1."""
    share: float = 0.9
    """The most of a GPU's memory that a replica may take."""
    ample_gib: float = 0.0
    """Memory on each device with which no batch is cut short; a lane offers it, or there are no lanes."""
    fixed_gib: float = 0.0
    """What of ``memory_gib`` every device needs, however many share the model."""
    fitting: int = 0
    """The longest sequence that there is room for, in tokens."""
    engine: str = ""
    """Equal for jobs that one loaded model can serve; empty for one that shares with no other."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One worker of an agent, with its model loaded, and the rows that it generates."""

    agent: str
    number: int
    """From 1 to ``of``."""
    of: int
    begin: float
    """It takes the agent's rows from here (0 to 1) ..."""
    end: float
    """... to here; see :meth:`part`."""
    devices: tuple[int, ...]
    lane: int
    """Which of the co-residents of its device; one that spans several devices has them alone."""
    memory_share: float
    """Of each GPU's memory; 0 on a CPU."""
    start_s: float
    loaded_s: float
    end_s: float
    follows: bool = False
    """A merge replica that works while analyses still run."""

    def part(self, rows: Sequence[T]) -> Sequence[T]:
        """Its rows of all rows of the agent, in order; the replicas of an agent take each row exactly once.

        Multiples of the golden ratio modulo 1 fill the unit interval evenly from the first on (Knuth, The Art
        of Computer Programming 3, 6.4). So rows that lie together, as the long ones of one category, are
        shared as the parts are, and all replicas come through the rows side by side.
        """
        if self.of == 1:
            return rows
        places = (number * _GOLDEN % 1.0 for number in range(len(rows)))
        return [row for row, place in zip(rows, places, strict=True) if self.begin <= place < self.end]


@dataclass(frozen=True, slots=True)
class Placement:
    """Replicas in order of their start; ties by device, then lane."""

    machine: Machine
    replicas: tuple[Replica, ...]
    merge: str | None = None
    """Name of the merge agent, where it has rows."""

    @property
    def seconds(self) -> float:
        """When the last replica ends."""
        return max((one.end_s for one in self.replicas), default=0.0)

    @property
    def lanes(self) -> int:
        """The most models that share a device."""
        return 1 + max((one.lane for one in self.replicas), default=0)

    def slots(self, replica: Replica) -> tuple[Slot, ...]:
        """The devices and lanes that no other replica may have while ``replica`` runs."""
        lanes = range(self.lanes) if len(replica.devices) > 1 else (replica.lane,)
        return tuple((device, lane) for device in replica.devices for lane in lanes)


def predecessors(placement: Placement) -> Mapping[Replica, set[Replica]]:
    """The replicas that must have ended before one may start, whatever time they really take.

    They are the last ones before it on its devices and lanes; for a merge replica that does not follow, all
    analyses as well.
    """
    last: dict[Slot, Replica] = {}
    found: dict[Replica, set[Replica]] = {}
    analyses = {one for one in placement.replicas if one.agent != placement.merge}
    for replica in placement.replicas:
        slots = placement.slots(replica)
        found[replica] = {last[slot] for slot in slots if slot in last}
        if replica.agent == placement.merge and not replica.follows:
            found[replica] |= analyses
        last |= dict.fromkeys(slots, replica)
    return found
