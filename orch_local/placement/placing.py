"""Which model sits on which GPU and when. Pure: jobs and a machine in, a plan of replicas out.

The work of an agent can be divided at any question, but each part costs a load of the model. For such jobs
McNaughton's wrap-around rule (1959, Management Science 6:1-12) fills one device after another up to a time
T and continues a job on the next; it is optimal without set-up times. Here it is used with them: a part must
be worth its load, and T is found by bisection. A longer T may be infeasible where a shorter one is not, so
every plan is built and measured, and the best one is kept.

*Follow or wait.* The merge agent either waits for all analyses and then has all devices, or it has devices
of its own from the beginning and merges each panel as soon as it is complete; what ends first is taken.

*Lanes.* Small models may share a GPU. Per-step overhead leaves a device idle for a share `overlap` of the
time that a job takes alone; k jobs side by side use each other's idle time, but not more than the device
has. With all k lanes busy, a job that takes g seconds alone takes g x ((1 - overlap) x k + overlap): its
busy part is stretched k-fold, its idle part is not. Loading is taken as undisturbed.

*Shared loads.* Jobs with one `engine` have the same model in the same settings. Where one of them comes right
behind another in the same place, the worker goes on with the model that it has loaded, and nothing is loaded.
So such jobs are placed one after another, and those of the merge agent's engine last.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeVar

from orch_local.errors import InputError

MOST_LANES = 4
"""Co-resident models on one GPU; more than that only wait for each other."""
TOGETHER = 0.92
"""Share of a GPU that co-resident models have together; the rest is for CUDA contexts and fragments."""
LEAST_PART = 0.1
"""One of several replicas takes at least a tenth of its agent's rows ..."""
LEAST_OF_LOAD = 0.5
"""... and works at least half as long as it loads."""
WORTH = 0.03
"""Estimates are rough: a merge agent that follows must save as much of the time to be taken ..."""
WORTH_OF_LANES = 0.1
"""... and sharing GPUs so much, since how models disturb each other was never measured."""
LEAST_CONTEXT = 1024
"""Tokens; a model with room for fewer is not offered."""
_HALVINGS = 24
_FOLLOW_TRIALS = 16
_ROWS_LOOKED_AT = 64
_EPSILON = 1e-9

_GOLDEN = (5**0.5 - 1) / 2

T = TypeVar("T")
Slot = tuple[int, int]
"""A device and a lane of it."""
Loaded = Mapping[Slot, str]
"""The engine that is loaded in a slot."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What may be used; see :func:`orch_local.util.devices.machine`."""

    kind: str
    """``cpu`` or ``cuda``."""
    devices: int
    """GPUs of one kind; on a CPU sets of cores, one for each worker."""
    memory_gib: float
    """Of each GPU, 0 where it is not told (and then not checked); on a CPU of the host, shared by all."""
    name: str = ""
    """What the GPU calls itself."""
    nvlink: bool | None = None
    """Whether all GPUs reach each other by NVLink; ``None`` where that is not known."""


@dataclass(frozen=True, slots=True)
class Job:
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
        """The devices and lanes that nobody else may have while ``replica`` runs."""
        lanes = range(self.lanes) if len(replica.devices) > 1 else (replica.lane,)
        return tuple((device, lane) for device in replica.devices for lane in lanes)


def place(
    machine: Machine,
    analyses: Sequence[Job],
    merge: Job | None,
    at_once: int | None = None,
    per_gpu: int = MOST_LANES,
    loaded: Loaded | None = None,
) -> Placement:
    """Plan which model sits where and when, so that all end early.

    The same arguments give the same plan. One device gets each model once, one after another. Ties go to
    waiting before following, to fewer lanes, and to the order of the agents.

    Parameters
    ----------
    analyses, merge:
        Those who have rows to generate, in order.
    at_once:
        The most replicas side by side; none sets no bound.
    per_gpu:
        The most models that may share a GPU.
    loaded:
        Engines that workers of an earlier part of the run have loaded.

    Raises
    ------
    InputError
        If a model fits on no device; it says what it needs, what there is, and what would do.
    """
    jobs = [*analyses, *([merge] if merge else [])]
    for job in jobs:
        _refuse_misfit(machine, job)
    there = loaded or {}
    ordered = _grouped(analyses, merge, there)
    boards = list(_boards(machine, jobs, at_once, per_gpu))
    pieces = _best(_spread(ordered, board, 0.0, there) for board in boards)
    if merge:
        after = _end(pieces)
        there = {**there, **_left_loaded(pieces)}
        waiting = pieces + _best((_spread([merge], board, after, there) for board in boards), after)
        pieces = _best([waiting, *_following(analyses, merge, boards, _end(waiting))])
    name = merge.name if merge else None
    return Placement(machine, _replicas(pieces, name), name)


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


def _grouped(jobs: Sequence[Job], merge: Job | None, loaded: Loaded) -> list[Job]:
    """Jobs of one engine next to each other: first those that are loaded, last those of the merge agent."""
    firsts: dict[str, int] = {}
    for place, job in enumerate(jobs):
        firsts.setdefault(job.engine or job.name, place)
    there = set(loaded.values()) - {""}

    def rank(job: Job) -> tuple[bool, bool, int]:
        shares = bool(merge and job.engine and job.engine == merge.engine)
        return shares, job.engine not in there, firsts[job.engine or job.name]

    return sorted(jobs, key=rank)


def _left_loaded(pieces: Sequence[_Piece]) -> Loaded:
    """The engine that is loaded in each slot at the end."""
    return {slot: piece.job.engine for piece in _in_order(pieces) for slot in piece.slots}


@dataclass(frozen=True, slots=True)
class _Piece:
    """A replica in the making."""

    job: Job
    slots: tuple[Slot, ...]
    start: float
    loaded: float
    end: float
    share: float
    """Of the job's rows."""
    memory_share: float
    follows: bool = False


def _end(pieces: Sequence[_Piece]) -> float:
    return max((piece.end for piece in pieces), default=0.0)


@dataclass(frozen=True, slots=True)
class _Board:
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

    def without(self, spots: Sequence[tuple[Slot, ...]], host_gib: float) -> _Board:
        """The board without some places and some of the host's memory."""
        taken = {slot for spot in spots for slot in spot}
        slots = tuple(slot for slot in self.slots if slot not in taken)
        return replace(self, slots=slots, firsts=self.firsts - taken, host_gib=self.host_gib - host_gib)

    def work_s(self, job: Job) -> float:
        """Seconds that generating takes with all lanes busy; see the module."""
        if job.width > 1:
            return job.generate_s
        return job.generate_s * ((1 - job.overlap) * self.lanes + job.overlap)

    def memory_share(self, job: Job) -> float:
        """Share of a GPU that one replica gets."""
        if self.machine.kind == "cpu":
            return 0.0
        if self.lanes == 1 or job.width > 1:
            return job.share
        return min(job.share, math.floor(1000 * TOGETHER / self.lanes) / 1000)


def _best(plans: Iterable[list[_Piece]], begin: float = 0.0) -> list[_Piece]:
    """What ends first after ``begin``, by a margin where it is more intricate; ties go to the earlier one."""
    return min(plans, key=lambda pieces: round((_end(pieces) - begin) * _caution(pieces), 6))


def _caution(pieces: Sequence[_Piece]) -> float:
    lanes = any(lane for piece in pieces if len(piece.slots) == 1 for _, lane in piece.slots)
    return 1 + WORTH_OF_LANES * lanes + WORTH * any(piece.follows for piece in pieces)


def _boards(machine: Machine, jobs: Sequence[Job], at_once: int | None, per_gpu: int) -> Iterator[_Board]:
    """One board for each number of lanes that every model can live with."""
    most = min(per_gpu, MOST_LANES) if machine.kind == "cuda" and any(job.width == 1 for job in jobs) else 1
    host = machine.memory_gib if machine.kind == "cpu" and machine.memory_gib else math.inf
    for lanes in range(1, most + 1):
        slots = tuple((device, lane) for device in range(machine.devices) for lane in range(lanes))
        firsts = frozenset(sorted(slots, key=lambda slot: _alignment(slot, jobs))[:at_once])
        board = _Board(machine, slots, firsts, lanes, host)
        if lanes == 1 or ((at_once is None or at_once >= lanes) and _lanes_suffice(board, jobs)):
            yield board


def _alignment(slot: Slot, jobs: Sequence[Job]) -> tuple[int, int, int]:
    """Where few replicas may run, they begin where the widest can begin: so each of them finds its place."""
    device, lane = slot
    return -max((job.width for job in jobs if device % job.width == 0), default=1), device, lane


def _lanes_suffice(board: _Board, jobs: Sequence[Job]) -> bool:
    memory = board.machine.memory_gib
    narrow = (job for job in jobs if job.width == 1)
    return bool(memory) and all(
        max(job.memory_gib, job.ample_gib) <= board.memory_share(job) * memory for job in narrow
    )


def _spread(jobs: Sequence[Job], board: _Board, begin: float, loaded: Loaded) -> list[_Piece]:
    """Jobs over the places of a board, from ``begin`` on: wrap-around, with the shortest time that works."""
    orders = [sorted(order, key=lambda job: -job.width) for order in (jobs, _longest_first(jobs, board))]
    in_order, sorted_ = (_bisect(order, board, begin, loaded) for order in orders)
    return sorted_ if _end(sorted_) < _end(in_order) * (1 - WORTH / 3) else in_order


def _longest_first(jobs: Sequence[Job], board: _Board) -> list[Job]:
    """Jobs by the time that all jobs of their engine take; those of one engine in their order."""
    total: dict[str, float] = {}
    for job in jobs:
        total[job.engine or job.name] = total.get(job.engine or job.name, 0.0) + board.work_s(job)
    return sorted(jobs, key=lambda job: -total[job.engine or job.name])


def _bisect(jobs: Sequence[Job], board: _Board, begin: float, loaded: Loaded) -> list[_Piece]:
    spots = {job.width: board.spots(job.width) for job in jobs}

    def filled(limit: float) -> list[_Piece] | None:
        return _fill(jobs, _Filling(board, spots, begin, limit, dict(loaded)))

    low, high = begin, begin + sum(job.load_s + board.work_s(job) for job in jobs)
    best = filled(high) or []  # one after another: always possible
    high = _end(best)
    for _ in range(_HALVINGS if len(board.firsts) > 1 else 0):
        limit = (low + high) / 2
        found = filled(limit)
        if found is None:
            low = limit
            continue
        best, high = (found if _end(found) < _end(best) else best), min(limit, _end(found))
    return best


@dataclass(slots=True)
class _Filling:
    """A board that is being filled up to a limit."""

    board: _Board
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

    def load_s(self, job: Job, spot: tuple[Slot, ...]) -> float:
        """Seconds of loading: none where its engine is there."""
        there = {self.loaded.get(slot, "") for slot in spot}
        return 0.0 if job.engine and there == {job.engine} else job.load_s

    def places(self, job: Job) -> list[tuple[Slot, ...]]:
        """Where it may go: first where its engine is loaded."""
        return sorted(self.spots[job.width], key=lambda spot: self.load_s(job, spot) > 0)

    def fits(self, job: Job, spot: tuple[Slot, ...]) -> bool:
        """Whether the device has no copy yet, and the host has memory beside the largest of other slots."""
        if self.board.host_gib == math.inf:
            return (job.name, spot[0][0]) not in self.housed
        others = sum(held for slot, held in self.held.items() if slot != spot[0])
        return others + max(job.memory_gib, self.held.get(spot[0], 0.0)) <= self.board.host_gib + _EPSILON

    def take(self, job: Job, spot: tuple[Slot, ...], seconds: float) -> _Piece:
        start, work = self.start(spot), self.board.work_s(job)
        loaded = start + self.load_s(job, spot)
        end = loaded + seconds
        self.free |= dict.fromkeys(spot, end)
        self.loaded |= dict.fromkeys(spot, job.engine)
        self.housed.add((job.name, spot[0][0]))
        self.held[spot[0]] = max(job.memory_gib, self.held.get(spot[0], 0.0))
        share = seconds / work if work else 1.0
        return _Piece(job, spot, start, loaded, end, share, self.board.memory_share(job))


def _fill(jobs: Sequence[Job], filling: _Filling) -> list[_Piece] | None:
    """Place all jobs so that they end by the limit; ``None`` where this rule does not get there."""
    pieces: list[_Piece] = []
    for job in jobs:
        found = _whole(job, filling) or _in_parts(job, filling)
        if not found:
            return None
        pieces += found
    return pieces


def _whole(job: Job, filling: _Filling) -> list[_Piece]:
    """On the first place with time for all of it."""
    work = filling.board.work_s(job)
    for spot in filling.places(job):
        needed = filling.load_s(job, spot) + work
        if filling.start(spot) + needed <= filling.limit + _EPSILON and filling.fits(job, spot):
            return [filling.take(job, spot, work)]
    return []


def _in_parts(job: Job, filling: _Filling) -> list[_Piece]:
    """On as many places as it takes, each filled up to the limit; empty where they do not suffice."""
    left = filling.board.work_s(job)
    least = _least(left, job)
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


def _least(work: float, job: Job) -> float:
    """Seconds that one of several replicas must generate to be worth its load."""
    return max(LEAST_PART * work, LEAST_OF_LOAD * job.load_s)


def _following(
    analyses: Sequence[Job], merge: Job, boards: Sequence[_Board], bound: float
) -> Iterator[list[_Piece]]:
    """Plans in which the merge agent follows; those that can end before ``bound``."""
    for board in boards if analyses else ():
        yield from _followed(analyses, merge, board, bound)


def _followed(analyses: Sequence[Job], merge: Job, board: _Board, bound: float) -> Iterator[list[_Piece]]:
    """Plans in which the last places of a board are the merge agent's from the beginning."""
    spots = list({spot[0][0]: spot for spot in board.spots(merge.width)}.values())  # a copy on each device
    work = board.work_s(merge)
    for count in range(1, len(spots) + 1, math.ceil(len(spots) / _FOLLOW_TRIALS)):
        part = work / count
        if merge.load_s + part >= bound or (count > 1 and part < _least(work, merge)):
            continue
        rest = board.without(spots[-count:], count * merge.memory_gib)
        if not _has_room(rest, analyses, bound):
            continue
        pieces = _spread(_grouped(analyses, None, {}), rest, 0.0, {})
        end = _follow(pieces, merge, part)
        share, memory_share = 1 / count, board.memory_share(merge)
        yield pieces + [
            _Piece(merge, spot, 0.0, merge.load_s, end, share, memory_share, follows=True)
            for spot in spots[-count:]
        ]


def _has_room(board: _Board, jobs: Sequence[Job], bound: float) -> bool:
    """Whether every job has a place, and all of them could end before ``bound`` if loads were free."""
    if any(not board.spots(job.width) or job.memory_gib > board.host_gib for job in jobs):
        return False
    slots = {job.width: len(board.spots(job.width)[0]) for job in jobs}
    area = sum((job.load_s + board.work_s(job)) * slots[job.width] for job in jobs)
    return area < bound * len(board.slots)


def _follow(pieces: Sequence[_Piece], merge: Job, part: float) -> float:
    """When merge replicas that take turns are done, if each works for ``part`` seconds on what has come.

    A panel is complete when the last agent has written its analysis; rows are taken to come one by one, from
    the first to the last of a replica.
    """
    agents: dict[str, list[_Piece]] = {}
    for piece in _in_order(pieces):
        agents.setdefault(piece.job.name, []).append(piece)
    complete = sorted(
        max(_written(own, (row + 0.5) / _ROWS_LOOKED_AT) for own in agents.values())
        for row in range(_ROWS_LOOKED_AT)
    )
    now = merge.load_s
    for moment in complete:
        now = max(now, moment) + part / _ROWS_LOOKED_AT
    return max(now, _end(pieces))


def _written(pieces: Sequence[_Piece], row: float) -> float:
    """When the row at ``row`` (0 to 1) of an agent is written."""
    begin = 0.0
    for piece in pieces:
        if row < begin + piece.share or piece is pieces[-1]:
            done = min(1.0, (row - begin) / piece.share)
            return piece.loaded + done * (piece.end - piece.loaded)
        begin += piece.share
    return 0.0


def _in_order(pieces: Sequence[_Piece]) -> list[_Piece]:
    return sorted(pieces, key=lambda piece: (round(piece.start, 3), piece.slots))


def _replicas(pieces: Sequence[_Piece], merge: str | None) -> tuple[Replica, ...]:
    """Numbered, with times in milliseconds; the first rows go to the replica that starts first."""
    parts: dict[str, list[_Piece]] = {}
    for piece in _in_order(pieces):
        parts.setdefault(piece.job.name, []).append(piece)
    found = [
        _replica(piece, number, bounds, len(own))
        for own in parts.values()
        for number, (piece, bounds) in enumerate(zip(own, pairwise(_bounds(own)), strict=True), 1)
    ]
    return tuple(sorted(found, key=lambda one: (one.start_s, one.devices, one.lane, one.agent == merge)))


def _bounds(pieces: Sequence[_Piece]) -> list[float]:
    total, bounds = 0.0, [0.0]
    for piece in pieces[:-1]:
        total += piece.share
        bounds.append(round(total, 6))
    return [*bounds, 1.0]


def _replica(piece: _Piece, number: int, bounds: tuple[float, float], of: int) -> Replica:
    return Replica(
        agent=piece.job.name,
        number=number,
        of=of,
        begin=bounds[0],
        end=bounds[1],
        devices=tuple(sorted({device for device, _ in piece.slots})),
        lane=piece.slots[0][1],
        memory_share=piece.memory_share,
        start_s=round(piece.start, 3),
        loaded_s=round(piece.loaded, 3),
        end_s=round(piece.end, 3),
        follows=piece.follows,
    )


def _refuse_misfit(machine: Machine, job: Job) -> None:
    """A model that fits on no device of the machine."""
    if job.width > machine.devices:
        there = f"are {machine.devices}" if machine.devices > 1 else "is one"
        raise InputError(
            f"its model is spread over {job.width} GPUs, there {there}",
            where=f"agent {job.name!r}",
            hint=_what_would_do(machine, job, most=machine.devices),
        )
    share = 1.0 if machine.kind == "cpu" else job.share
    available = share * machine.memory_gib
    if not machine.memory_gib or job.memory_gib <= available:
        return
    each = f" on each of {job.width} GPUs" if job.width > 1 else ""
    place = f"a GPU share of {share:.0%}" if machine.kind == "cuda" else "this machine (or job)"
    raise InputError(
        f"not enough memory for its model: it needs about {job.memory_gib:.1f} GiB{each}, "
        f"{place} has {available:.1f} GiB",
        where=f"agent {job.name!r}",
        hint=_what_would_do(machine, job, most=math.inf),
    )


def _what_would_do(machine: Machine, job: Job, most: float) -> str:
    """How many GPUs of this kind hold the model, and what else helps."""
    if machine.kind == "cpu":
        return "lower its `cpu_kv_cache_gib`, set a narrower `dtype`, or take a quantized or smaller model"
    others = "take a quantized or smaller model"
    if job.fitting >= LEAST_CONTEXT:
        others = f"set its `max_model_len: {job.fitting}`, which fits (longer prompts are then left out)"
    divided = (job.memory_gib - job.fixed_gib) * job.width
    widths = [2**power for power in range(7)]
    room = job.share * machine.memory_gib - job.fixed_gib
    enough = next((width for width in widths if divided <= room * width), None)
    if not machine.memory_gib or enough is None or enough > most:
        return others
    return f"`tensor_parallel_size: {enough}` on as many GPUs of this kind would do; or {others}"
