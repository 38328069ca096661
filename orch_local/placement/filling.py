"""Jobs over the places of a machine: the wrap-around rule of `placing`, with loads, lanes and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orch_local.placement.machine import Machine
from orch_local.placement.replicas import AgentJob, Loaded, Slot

TOGETHER = 0.92
"""Share of a GPU that co-resident models have together; the rest is for CUDA contexts and fragments."""
LEAST_PART = 0.1
"""One of several replicas takes at least a tenth of its agent's rows ..."""
LEAST_OF_LOAD = 0.5
"""... and works at least half as long as it loads."""
WORTH = 0.03
"""Estimates are rough: a merge agent that follows must save as much of the time to be taken ..."""
_HALVINGS = 24
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Piece:
    """A replica in the making."""

    job: AgentJob
    slots: tuple[Slot, ...]
    start: float
    loaded: float
    end: float
    share: float
    """Of the job's rows."""
    memory_share: float
    follows: bool = False


def end_of(pieces: Sequence[Piece]) -> float:
    return max((piece.end for piece in pieces), default=0.0)


@dataclass(frozen=True, slots=True)
class Board:
    """Where replicas may go."""

    machine: Machine
    slots: tuple[Slot, ...]
    firsts: frozenset[Slot]
    """Those that may be the first of a replica; replicas side by side differ in it, so it bounds them."""
    lanes: int
    host_gib: float
    """Memory that all share; no bound where each device has its own."""

    def spots(self, width: int) -> list[tuple[Slot, ...]]:
        """The places of a replica: groups of neighbours, aligned to their width, with all their lanes."""
        if width == 1:
            return [(slot,) for slot in self.slots if slot in self.firsts]
        there = set(self.slots)
        found = []
        for first in range(0, self.machine.devices - width + 1, width):
            group = [(device, lane) for device in range(first, first + width) for lane in range(self.lanes)]
            if there.issuperset(group) and (first, 0) in self.firsts:
                found.append(tuple(group))
        return found

    def without(self, spots: Sequence[tuple[Slot, ...]], host_gib: float) -> Board:
        """The board without some places and some of the host's memory."""
        taken = {slot for spot in spots for slot in spot}
        slots = tuple(slot for slot in self.slots if slot not in taken)
        return replace(self, slots=slots, firsts=self.firsts - taken, host_gib=self.host_gib - host_gib)

    def work_s(self, job: AgentJob) -> float:
        """Seconds that generating takes with all lanes busy; see the module."""
        if job.width > 1:
            return job.generate_s
        return job.generate_s * ((1 - job.overlap) * self.lanes + job.overlap)

    def memory_share(self, job: AgentJob) -> float:
        """Share of a GPU that one replica gets."""
        if self.machine.kind == "cpu":
            return 0.0
        if self.lanes == 1 or job.width > 1:
            return job.share
        return min(job.share, math.floor(1000 * TOGETHER / self.lanes) / 1000)


def spread(jobs: Sequence[AgentJob], board: Board, begin: float, loaded: Loaded) -> list[Piece]:
    """Jobs over the places of a board, from ``begin`` on: wrap-around, with the shortest time that works."""
    orders = [sorted(order, key=lambda job: -job.width) for order in (jobs, _longest_first(jobs, board))]
    in_order, sorted_ = (_bisect(order, board, begin, loaded) for order in orders)
    return sorted_ if end_of(sorted_) < end_of(in_order) * (1 - WORTH / 3) else in_order


def _longest_first(jobs: Sequence[AgentJob], board: Board) -> list[AgentJob]:
    """Jobs by the time that all jobs of their engine take; those of one engine in their order."""
    total: dict[str, float] = {}
    for job in jobs:
        total[job.engine or job.name] = total.get(job.engine or job.name, 0.0) + board.work_s(job)
    return sorted(jobs, key=lambda job: -total[job.engine or job.name])


def _bisect(jobs: Sequence[AgentJob], board: Board, begin: float, loaded: Loaded) -> list[Piece]:
    spots = {job.width: board.spots(job.width) for job in jobs}

    def filled(limit: float) -> list[Piece] | None:
        return _fill(jobs, _Filling(board, spots, begin, limit, dict(loaded)))

    low, high = begin, begin + sum(job.load_s + board.work_s(job) for job in jobs)
    best = filled(high) or []  # one after another: always possible
    high = end_of(best)
    for _ in range(_HALVINGS if len(board.firsts) > 1 else 0):
        limit = (low + high) / 2
        found = filled(limit)
        if found is None:
            low = limit
            continue
        best, high = (found if end_of(found) < end_of(best) else best), min(limit, end_of(found))
    return best


@dataclass(slots=True)
class _Filling:
    """A board that is being filled up to a limit."""

    board: Board
    spots: Mapping[int, Sequence[tuple[Slot, ...]]]
    """By width."""
    begin: float
    limit: float
    loaded: dict[Slot, str]
    """The engine in each slot."""
    free: dict[Slot, float] = field(default_factory=dict)
    """When a slot is free again."""
    held: dict[Slot, float] = field(default_factory=dict)
    """The largest memory that any of its replicas takes: it may meet those of other slots at any time."""
    housed: set[tuple[str, int]] = field(default_factory=set)
    """Job and device; a second copy of a model on a GPU would do no more than a larger batch."""

    def start(self, spot: tuple[Slot, ...]) -> float:
        return max(self.free.get(slot, self.begin) for slot in spot)

    def load_s(self, job: AgentJob, spot: tuple[Slot, ...]) -> float:
        """Seconds of loading: 0 where its engine is loaded."""
        there = {self.loaded.get(slot, "") for slot in spot}
        return 0.0 if job.engine and there == {job.engine} else job.load_s

    def places(self, job: AgentJob) -> list[tuple[Slot, ...]]:
        """Where it may go: first where its engine is loaded."""
        return sorted(self.spots[job.width], key=lambda spot: self.load_s(job, spot) > 0)

    def fits(self, job: AgentJob, spot: tuple[Slot, ...]) -> bool:
        """Whether the device has no copy yet, and the host has memory beside the largest of other slots."""
        if self.board.host_gib == math.inf:
            return (job.name, spot[0][0]) not in self.housed
        others = sum(held for slot, held in self.held.items() if slot != spot[0])
        return others + max(job.memory_gib, self.held.get(spot[0], 0.0)) <= self.board.host_gib + _EPSILON

    def take(self, job: AgentJob, spot: tuple[Slot, ...], seconds: float) -> Piece:
        start, work = self.start(spot), self.board.work_s(job)
        loaded = start + self.load_s(job, spot)
        end = loaded + seconds
        self.free |= dict.fromkeys(spot, end)
        self.loaded |= dict.fromkeys(spot, job.engine)
        self.housed.add((job.name, spot[0][0]))
        self.held[spot[0]] = max(job.memory_gib, self.held.get(spot[0], 0.0))
        share = seconds / work if work else 1.0
        return Piece(job, spot, start, loaded, end, share, self.board.memory_share(job))


def _fill(jobs: Sequence[AgentJob], filling: _Filling) -> list[Piece] | None:
    """Place all jobs so that they end by the limit; ``None`` where this rule does not get there."""
    pieces: list[Piece] = []
    for job in jobs:
        found = _whole(job, filling) or _in_parts(job, filling)
        if not found:
            return None
        pieces += found
    return pieces


def _whole(job: AgentJob, filling: _Filling) -> list[Piece]:
    """On the first place with time for all of it."""
    work = filling.board.work_s(job)
    for spot in filling.places(job):
        needed = filling.load_s(job, spot) + work
        if filling.start(spot) + needed <= filling.limit + _EPSILON and filling.fits(job, spot):
            return [filling.take(job, spot, work)]
    return []


def _in_parts(job: AgentJob, filling: _Filling) -> list[Piece]:
    """On as many places as it takes, each filled up to the limit; empty where they do not suffice."""
    left = filling.board.work_s(job)
    least = least_part_s(left, job)
    pieces = []
    for spot in filling.places(job):
        part = min(left, filling.limit - filling.start(spot) - filling.load_s(job, spot))
        if 0 < left - part < least:
            part = left - least  # or the rest would not be worth a load
        if part < max(least, _EPSILON) - _EPSILON or not filling.fits(job, spot):
            continue
        pieces.append(filling.take(job, spot, part))
        left -= part
        if left <= _EPSILON:
            return pieces
    return []


def least_part_s(work: float, job: AgentJob) -> float:
    """Seconds that one of several replicas must generate to be worth its load."""
    return max(LEAST_PART * work, LEAST_OF_LOAD * job.load_s)


def by_start(pieces: Sequence[Piece]) -> list[Piece]:
    return sorted(pieces, key=lambda piece: (round(piece.start, 3), piece.slots))
