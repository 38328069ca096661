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
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from orch_local.placement.filling import WORTH, Board, Piece, by_start, end_of, least_part_s, spread
from orch_local.placement.machine import Machine
from orch_local.placement.misfit import refuse_misfit
from orch_local.placement.replicas import AgentJob, Loaded, Placement, Replica, Slot

MOST_LANES = 4
"""Co-resident models on one GPU; more than that only wait for each other."""
WORTH_OF_LANES = 0.1
"""... and sharing GPUs so much, since how models disturb each other was never measured."""
_FOLLOW_TRIALS = 16
_ROWS_LOOKED_AT = 64


def place(
    machine: Machine,
    analyses: Sequence[AgentJob],
    merge: AgentJob | None,
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
        The jobs that have rows to generate, in order.
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
        refuse_misfit(machine, job)
    there = loaded or {}
    ordered = _grouped(analyses, merge, there)
    boards = list(_boards(machine, jobs, at_once, per_gpu))
    pieces = _best(spread(ordered, board, 0.0, there) for board in boards)
    if merge:
        after = end_of(pieces)
        there = {**there, **_left_loaded(pieces)}
        waiting = pieces + _best((spread([merge], board, after, there) for board in boards), after)
        pieces = _best([waiting, *_following(analyses, merge, boards, end_of(waiting))])
    name = merge.name if merge else None
    return Placement(machine, _replicas(pieces, name), name)


def _grouped(jobs: Sequence[AgentJob], merge: AgentJob | None, loaded: Loaded) -> list[AgentJob]:
    """Jobs of one engine next to each other: first those that are loaded, last those of the merge agent."""
    firsts: dict[str, int] = {}
    for place, job in enumerate(jobs):
        firsts.setdefault(job.engine or job.name, place)
    there = set(loaded.values()) - {""}

    def rank(job: AgentJob) -> tuple[bool, bool, int]:
        shares = bool(merge and job.engine and job.engine == merge.engine)
        return shares, job.engine not in there, firsts[job.engine or job.name]

    return sorted(jobs, key=rank)


def _left_loaded(pieces: Sequence[Piece]) -> Loaded:
    """The engine that is loaded in each slot at the end."""
    return {slot: piece.job.engine for piece in by_start(pieces) for slot in piece.slots}


def _best(plans: Iterable[list[Piece]], begin: float = 0.0) -> list[Piece]:
    """What ends first after ``begin``, by a margin where it is more intricate; ties go to the earlier one."""
    return min(plans, key=lambda pieces: round((end_of(pieces) - begin) * _caution(pieces), 6))


def _caution(pieces: Sequence[Piece]) -> float:
    lanes = any(lane for piece in pieces if len(piece.slots) == 1 for _, lane in piece.slots)
    return 1 + WORTH_OF_LANES * lanes + WORTH * any(piece.follows for piece in pieces)


def _boards(machine: Machine, jobs: Sequence[AgentJob], at_once: int | None, per_gpu: int) -> Iterator[Board]:
    """One board for each number of lanes that every model can live with."""
    most = min(per_gpu, MOST_LANES) if machine.kind == "cuda" and any(job.width == 1 for job in jobs) else 1
    host = machine.memory_gib if machine.kind == "cpu" and machine.memory_gib else math.inf
    for lanes in range(1, most + 1):
        slots = tuple((device, lane) for device in range(machine.devices) for lane in range(lanes))
        firsts = frozenset(sorted(slots, key=lambda slot: _alignment(slot, jobs))[:at_once])
        board = Board(machine, slots, firsts, lanes, host)
        if lanes == 1 or ((at_once is None or at_once >= lanes) and _lanes_suffice(board, jobs)):
            yield board


def _alignment(slot: Slot, jobs: Sequence[AgentJob]) -> tuple[int, int, int]:
    """Where few replicas may run, they begin where the widest can begin: so each of them finds its place."""
    device, lane = slot
    return -max((job.width for job in jobs if device % job.width == 0), default=1), device, lane


def _lanes_suffice(board: Board, jobs: Sequence[AgentJob]) -> bool:
    memory = board.machine.memory_gib
    narrow = (job for job in jobs if job.width == 1)
    return bool(memory) and all(
        max(job.memory_gib, job.ample_gib) <= board.memory_share(job) * memory for job in narrow
    )


def _following(
    analyses: Sequence[AgentJob], merge: AgentJob, boards: Sequence[Board], bound: float
) -> Iterator[list[Piece]]:
    """Plans in which the merge agent follows; those that can end before ``bound``."""
    for board in boards if analyses else ():
        yield from _followed(analyses, merge, board, bound)


def _followed(
    analyses: Sequence[AgentJob], merge: AgentJob, board: Board, bound: float
) -> Iterator[list[Piece]]:
    """Plans in which the last places of a board are the merge agent's from the beginning."""
    spots = list({spot[0][0]: spot for spot in board.spots(merge.width)}.values())  # a copy on each device
    work = board.work_s(merge)
    for count in range(1, len(spots) + 1, math.ceil(len(spots) / _FOLLOW_TRIALS)):
        part = work / count
        if merge.load_s + part >= bound or (count > 1 and part < least_part_s(work, merge)):
            continue
        rest = board.without(spots[-count:], count * merge.memory_gib)
        if not _has_room(rest, analyses, bound):
            continue
        pieces = spread(_grouped(analyses, None, {}), rest, 0.0, {})
        end = _follow(pieces, merge, part)
        share, memory_share = 1 / count, board.memory_share(merge)
        yield pieces + [
            Piece(merge, spot, 0.0, merge.load_s, end, share, memory_share, follows=True)
            for spot in spots[-count:]
        ]


def _has_room(board: Board, jobs: Sequence[AgentJob], bound: float) -> bool:
    """Whether every job has a place, and all of them could end before ``bound`` if loads were free."""
    if any(not board.spots(job.width) or job.memory_gib > board.host_gib for job in jobs):
        return False
    slots = {job.width: len(board.spots(job.width)[0]) for job in jobs}
    area = sum((job.load_s + board.work_s(job)) * slots[job.width] for job in jobs)
    return area < bound * len(board.slots)


def _follow(pieces: Sequence[Piece], merge: AgentJob, part: float) -> float:
    """When merge replicas that take turns are done, if each works for ``part`` seconds on what has come.

    A panel is complete when the last agent has written its analysis; rows are taken to come one by one, from
    the first to the last of a replica.
    """
    agents: dict[str, list[Piece]] = {}
    for piece in by_start(pieces):
        agents.setdefault(piece.job.name, []).append(piece)
    complete = sorted(
        max(_written(own, (row + 0.5) / _ROWS_LOOKED_AT) for own in agents.values())
        for row in range(_ROWS_LOOKED_AT)
    )
    now = merge.load_s
    for moment in complete:
        now = max(now, moment) + part / _ROWS_LOOKED_AT
    return max(now, end_of(pieces))


def _written(pieces: Sequence[Piece], row: float) -> float:
    """When the row at ``row`` (0 to 1) of an agent is written."""
    begin = 0.0
    for piece in pieces:
        if row < begin + piece.share or piece is pieces[-1]:
            done = min(1.0, (row - begin) / piece.share)
            return piece.loaded + done * (piece.end - piece.loaded)
        begin += piece.share
    return 0.0


def _replicas(pieces: Sequence[Piece], merge: str | None) -> tuple[Replica, ...]:
    """Numbered, with times in milliseconds; the first rows go to the replica that starts first."""
    parts: dict[str, list[Piece]] = {}
    for piece in by_start(pieces):
        parts.setdefault(piece.job.name, []).append(piece)
    found = [
        _replica(piece, number, bounds, len(own))
        for own in parts.values()
        for number, (piece, bounds) in enumerate(zip(own, pairwise(_bounds(own)), strict=True), 1)
    ]
    return tuple(sorted(found, key=lambda one: (one.start_s, one.devices, one.lane, one.agent == merge)))


def _bounds(pieces: Sequence[Piece]) -> list[float]:
    total, bounds = 0.0, [0.0]
    for piece in pieces[:-1]:
        total += piece.share
        bounds.append(round(total, 6))
    return [*bounds, 1.0]


def _replica(piece: Piece, number: int, bounds: tuple[float, float], of: int) -> Replica:
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
