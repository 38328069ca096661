"""When each worker of a run really loaded and generated, kept beside what was planned.

Each execution of a run (or of a shard) writes one file; no result depends on them.
"""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, TypeAdapter

from orch_local.errors import StoreError
from orch_local.placement.replicas import Placement, Replica
from orch_local.store.store import RunFolder, read_json, write_json


@dataclass(frozen=True, slots=True)
class Span:
    """What one replica really did; seconds since the execution began."""

    agent: str
    number: int
    """Of the replica in the plan, from 1 to ``of``."""
    of: int
    devices: tuple[int, ...]
    lane: int
    start_s: float
    loaded_s: float | None
    """``None`` where its model was never loaded, or it wrote nothing."""
    end_s: float
    rows: int
    recheck_s: float = 0.0
    """Seconds before its end in which it generated rows again."""
    rechecked: int = 0
    """Rows that it generated again."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """One execution."""

    began: str
    """ISO 8601, with the time zone."""
    host: str
    shard: str
    """Such as ``3/8``; empty where the execution was of the whole run."""
    planned: Placement
    spans: Annotated[tuple[Span, ...], Field(alias="stints")]
    """In the file they are called ``stints``."""

    @property
    def seconds(self) -> float:
        """When the last worker ended."""
        return max((span.end_s for span in self.spans), default=0.0)

    def idle(self) -> dict[int, float]:
        """Share of the time, 0 to 1, in which no worker held a device that was planned with.

        A device on which a worker loads, or waits for others, is not idle in this sense.
        """
        planned = {device for replica in self.planned.replicas for device in replica.devices}
        real = {device for span in self.spans for device in span.devices}
        whole = self.seconds or 1.0
        # Sums of floats: what was never idle may come to -1e-16.
        return {device: max(0.0, 1 - _covered(self._on(device)) / whole) for device in sorted(planned | real)}

    def _on(self, device: int) -> list[tuple[float, float]]:
        return sorted((span.start_s, span.end_s) for span in self.spans if device in span.devices)


class Timelines(NamedTuple):
    """The timelines of a run."""

    read: list[Timeline]
    """In the order in which the executions began."""
    damaged: list[Path]
    """Files that could not be read."""


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
    write_json(file, _FORMAT.dump_python(timeline, mode="json", by_alias=True))
    return file


def read_all(folder: RunFolder) -> Timelines:
    """All timelines of a run; a damaged file costs no more than what stood in it."""
    found: list[tuple[str, str, Timeline]] = []
    damaged: list[Path] = []
    for file in sorted(folder.timelines.glob("*.json")):
        try:
            timeline = _FORMAT.validate_python(read_json(file))
            _check_times(timeline)
        except (StoreError, ValueError):
            damaged.append(file)
            continue
        found.append((timeline.began, file.name, timeline))
    return Timelines([timeline for *_, timeline in sorted(found, key=lambda one: one[:2])], damaged)


def _check_times(timeline: Timeline) -> None:
    """Refuse times that no worker can have; they could not be drawn."""
    for one in (*_times(timeline.planned.replicas), *_times(timeline.spans)):
        if not all(earlier <= later for earlier, later in pairwise((0.0, *one, sys.float_info.max))):
            raise ValueError("times out of order")


def _times(parts: Sequence[Replica] | Sequence[Span]) -> list[list[float]]:
    return [[at for at in (one.start_s, one.loaded_s, one.end_s) if at is not None] for one in parts]


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of spans, which are in order of their beginning."""
    total, reached = 0.0, 0.0
    for begin, end in spans:
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
