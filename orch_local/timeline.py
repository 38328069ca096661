"""When each worker of a run really loaded and generated, kept beside what was planned.

Each execution of a run (or of a shard) writes one file; no result depends on them.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from orch_local.errors import StoreError
from orch_local.placement import Placement
from orch_local.store import RunFolder, read_json, write_json


@dataclass(frozen=True, slots=True)
class Stint:
    """What one replica really did; seconds since the execution began."""

    agent: str
    number: int
    """Of the replica in the plan, from 1 to ``of``."""
    of: int
    devices: tuple[int, ...]
    lane: int
    start_s: float
    loaded_s: float | None
    """``None`` where its model was never loaded."""
    end_s: float
    rows: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """One execution."""

    began: str
    """ISO 8601, with the time zone."""
    host: str
    planned: Placement
    stints: tuple[Stint, ...]

    @property
    def seconds(self) -> float:
        """When the last worker ended."""
        return max((stint.end_s for stint in self.stints), default=0.0)

    def idle(self) -> dict[int, float]:
        """Share of the time, 0 to 1, in which no worker sat on a device that was planned with.

        A device on which a worker loads, or waits for others, is not idle in this sense.
        """
        planned = {device for replica in self.planned.replicas for device in replica.devices}
        real = {device for stint in self.stints for device in stint.devices}
        whole = self.seconds or 1.0
        return {device: 1 - _covered(self._on(device)) / whole for device in sorted(planned | real)}

    def _on(self, device: int) -> list[tuple[float, float]]:
        return sorted((stint.start_s, stint.end_s) for stint in self.stints if device in stint.devices)


class Timelines(NamedTuple):
    """The timelines of a run."""

    read: list[Timeline]
    """In the order in which the executions began."""
    damaged: list[Path]
    """Files that are none."""


_FORMAT = TypeAdapter(Timeline)


def keep(folder: RunFolder, timeline: Timeline) -> Path:
    """Write a timeline to a file of its own.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    stamp = re.sub(r"[^0-9TZ]+", "", timeline.began)[:20]
    file = folder.timelines / f"{stamp}-{secrets.token_hex(4)}.json"
    write_json(file, _FORMAT.dump_python(timeline, mode="json"))
    return file


def read_all(folder: RunFolder) -> Timelines:
    """All timelines of a run; a damaged file costs no more than what stood in it."""
    found: list[tuple[str, str, Timeline]] = []
    damaged: list[Path] = []
    for file in sorted(folder.timelines.glob("*.json")):
        try:
            timeline = _FORMAT.validate_python(read_json(file))
        except (StoreError, ValidationError):
            damaged.append(file)
            continue
        found.append((timeline.began, file.name, timeline))
    return Timelines([timeline for *_, timeline in sorted(found, key=lambda one: one[:2])], damaged)


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of spans, which are in order of their beginning."""
    total, reached = 0.0, 0.0
    for begin, end in spans:
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
