"""What a parent asks of a worker: orders, and the words that may come behind them, a line each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from orch_local.store.shards import Shard

FINISH = "finish"
"""Take no further question; finish those the engine has."""

COMPLETE = "complete"
"""To a worker that follows: all panels that there will be are in the store."""


@dataclass(frozen=True, slots=True)
class Recheck:
    """How many of its rows a worker generates again before it ends; see :mod:`orch_local.run.rechecking`."""

    rows: int = 0
    """At most; 0 for none."""
    share: float = 0.0
    """Of the seconds that the worker generated, for all of them together."""
    least: int = 2
    """Generated again whatever they cost, so that a level rests on some evidence."""


NO_RECHECK = Recheck()


@dataclass(frozen=True, slots=True)
class Order:
    """The work of one worker for one agent, and the means it may use."""

    agent: str
    """Name of the agent whose rows are generated."""
    groups: Sequence[Sequence[str]]
    """Question keys; the groups are gone through in order, each as one batch."""
    store: Path
    """Where its rows go; panels come from the plan's own store."""
    shard: Shard | None = None
    """Part of the store that it reads and writes."""
    recheck: Recheck = NO_RECHECK
    follow: bool = False
    """Take up a question as soon as its panel is complete, and end when no more can become so."""
    cores: tuple[int, ...] = ()
    """The CPU cores it may use; empty for all."""
    memory_share: float | None = None
    """Share of each GPU's memory, instead of the model config's."""
    stage_to: Path | None = None
    """Folder on a local disk that the model is copied to first."""
    stay: bool = False
    """At the end, wait with the loaded model for another order, of an agent that it can serve."""
    log: Path | None = None
    """Where the words of the worker go from now on; ``None`` leaves that as it is."""

    def to_line(self) -> str:
        """The order on one line of JSON."""
        return json.dumps(
            {
                "agent": self.agent,
                "groups": [list(group) for group in self.groups],
                "store": str(self.store),
                "shard": str(self.shard) if self.shard else None,
                "recheck": asdict(self.recheck),
                "follow": self.follow,
                "cores": list(self.cores),
                "memory_share": self.memory_share,
                "stage_to": str(self.stage_to) if self.stage_to else None,
                "stay": self.stay,
                "log": str(self.log) if self.log else None,
            }
        )

    @classmethod
    def from_line(cls, line: str) -> Order:
        """Inverse of :meth:`to_line`."""
        values = json.loads(line)
        return cls(
            agent=values["agent"],
            groups=values["groups"],
            store=Path(values["store"]),
            shard=Shard.parse(values["shard"]) if values["shard"] else None,
            recheck=Recheck(**values["recheck"]),
            follow=values["follow"],
            cores=tuple(values["cores"]),
            memory_share=values["memory_share"],
            stage_to=Path(values["stage_to"]) if values["stage_to"] else None,
            stay=values["stay"],
            log=Path(values["log"]) if values["log"] else None,
        )
