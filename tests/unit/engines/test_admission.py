"""How many requests may run at once in a KV cache."""

from __future__ import annotations

import math
import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orch_local.engines.admission import Admission, Cache, Layers, RequestSize

LAYERS = st.builds(
    Layers,
    st.sampled_from([16, 32, 128]),
    window=st.none() | st.integers(1, 2000),
    fixed=st.none() | st.integers(1, 3),
)
CACHES = st.builds(Cache, st.integers(1, 3000), st.lists(LAYERS, min_size=1, max_size=3).map(tuple))


@st.composite
def asked(draw: st.DrawFn, *, running: bool) -> RequestSize:
    most = draw(st.sampled_from([4, 300, 500]))
    return RequestSize(draw(st.integers(1, 3000)), most, draw(st.integers(0, most)) if running else 0)


RUNNING = st.lists(asked(running=True), max_size=15)
WAITING = st.lists(asked(running=False), max_size=30)
FINISHED = st.lists(asked(running=True), max_size=60)


def admission(cache: Cache, finished: list[RequestSize], margin: float = 1.25) -> Admission:
    found = Admission(cache, 16, margin=margin)
    for one in finished:
        found.finished(one)
    return found


@given(CACHES, FINISHED, RUNNING, WAITING, st.randoms(use_true_random=False))
def test_those_that_may_run_have_room_whichever_come_first(
    cache: Cache,
    finished: list[RequestSize],
    running: list[RequestSize],
    waiting: list[RequestSize],
    order: random.Random,
) -> None:
    found = admission(cache, finished)
    many = found.may_run(running, waiting)
    assert 1 <= many <= 16
    order.shuffle(waiting)
    begin = waiting[: max(0, many - len(running))]
    if begin and running:
        assert sum(found.reserve(one, running) for one in [*running, *begin]) <= cache.blocks


@given(CACHES, FINISHED, RUNNING, WAITING, st.floats(1, 50), st.floats(1, 50))
def test_a_larger_margin_lets_no_more_run(
    cache: Cache,
    finished: list[RequestSize],
    running: list[RequestSize],
    waiting: list[RequestSize],
    one: float,
    other: float,
) -> None:
    low, high = (admission(cache, finished, margin) for margin in sorted((one, other)))
    assert high.may_run(running, waiting) <= low.may_run(running, waiting)
    before = high.may_run(running, waiting)
    high.ran_out(3)
    assert high.may_run(running, waiting) <= before


@given(CACHES, FINISHED, asked(running=True), RUNNING)
def test_what_is_kept_is_never_more_than_the_whole_bound_nor_less_than_is_taken(
    cache: Cache, finished: list[RequestSize], one: RequestSize, running: list[RequestSize]
) -> None:
    kept = admission(cache, finished).reserve(one, running)
    assert cache.blocks_of(one, one.written) <= kept <= cache.blocks_of(one, one.most)


def test_until_enough_have_finished_the_whole_bound_is_kept() -> None:
    cache = Cache(1000, (Layers(16),))
    waiting = [RequestSize(98, 1500)] * 300
    found = Admission(cache, 256)
    for _ in range(15):
        found.finished(RequestSize(98, 1400, 100))
    assert found.may_run([], waiting) == 10
    found.finished(RequestSize(98, 1400, 100))
    assert found.may_run([], waiting) == 1000 // 15  # 98 + 125 + 2 tokens
    assert found.may_run([], [RequestSize(98, 700)]) == 1000 // 50, "of another kind none has finished"


def test_those_that_still_write_count_as_well_since_the_short_ones_finish_first() -> None:
    found = admission(Cache(1000, (Layers(1),)), [RequestSize(1, 400, 50)] * 20, margin=1)
    assert found.reserve(RequestSize(1, 400), []) == 1 + 50 + 2
    assert found.reserve(RequestSize(1, 400), [RequestSize(1, 400, 80)] * 20) == 1 + (50 + 80) + 2


def test_one_that_wrote_more_than_the_mean_keeps_what_it_takes_and_a_margin() -> None:
    found = admission(Cache(1000, (Layers(1),)), [RequestSize(1, 400, 50)] * 20)
    assert found.reserve(RequestSize(1, 400, 200), []) == 1 + 250 + 2
    assert found.reserve(RequestSize(1, 400, 390), []) == 1 + 400 + 2


def test_each_time_that_memory_ran_out_more_is_kept_in_the_end_the_whole_bound() -> None:
    cache = Cache(1000, (Layers(1),))
    found = admission(cache, [RequestSize(1, 400, 10)] * 20)
    kept = []
    for _ in range(40):
        kept.append(found.reserve(RequestSize(1, 400), []))
        found.ran_out(running=3)
        found.ran_out(running=2)
        assert found.margin == pytest.approx(1.25 ** (len(kept) + 1)), "once for those that ran together"
        for _ in range(3):
            found.finished(RequestSize(1, 400, 10))
    assert kept == sorted(kept)
    assert kept[0] < 20
    assert kept[-1] == cache.blocks_of(RequestSize(1, 400), 400)


@pytest.mark.parametrize(
    ("layers", "prompt", "answer", "written", "blocks"),
    [
        (Layers(16), 100, 58, 0, 10),
        (Layers(16, window=64), 100, 1000, 0, 7),  # the prompt, until it is read
        (Layers(16, window=64), 100, 1000, 1, 6),  # 64 + 2 tokens, from within a block
        (Layers(16, window=64), 10, 20, 1, 2),
        (Layers(16, fixed=1), 100, 1000, 0, 1),
    ],
)
def test_what_a_request_takes_in_layers_of_each_sort(
    layers: Layers, prompt: int, answer: int, written: int, blocks: int
) -> None:
    one = RequestSize(prompt, 1000, written)
    assert Cache(0, (layers,)).blocks_of(one, answer) == blocks
    assert Cache(0, (layers, Layers(16))).blocks_of(one, answer) == blocks + Layers(16).blocks(one, answer)


@pytest.mark.parametrize("spread", [0.1, 0.5, 1.0])
def test_where_ten_fit_at_full_length_twice_as_much_is_done_and_memory_seldom_runs_out(
    spread: float,
) -> None:
    """A simulation: answers of 15 % of their bound on average, all of a batch started at once."""
    shape = 1 / spread**2
    draw = random.Random(0)
    cache = Cache(10 * 113, (Layers(16),))
    lengths = [min(1500, math.ceil(225 * draw.gammavariate(shape, 1 / shape))) for _ in range(1000)]
    found, waiting = Admission(cache, 256), deque(lengths)
    running: list[list[int]] = []
    steps = put_off = 0
    while waiting or running:
        now = [RequestSize(300, 1500, written) for written, _ in running]
        room = found.may_run(now, [RequestSize(300, 1500)])
        while waiting and len(running) < room:
            running.append([0, waiting.popleft()])
        for one in running:
            one[0] += 1
        ran = len(running)
        while running and taken(cache, running) > cache.blocks:
            waiting.append(running.pop()[1])
            put_off += 1
            found.ran_out(ran)
        for written, length in running:
            if written == length:
                found.finished(RequestSize(300, 1500, written))
        running = [one for one in running if one[0] < one[1]]
        steps += 1
    assert steps < sum(lengths) / 10 / 2
    assert put_off <= 10


def taken(cache: Cache, running: list[list[int]]) -> int:
    return sum(cache.blocks_of(RequestSize(300, 1500, written), written) for written, _ in running)
