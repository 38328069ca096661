"""Placement: every row is placed once, nothing is overfull, and nothing is slower than one after another."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.errors import InputError
from orch_local.placement.filling import LEAST_PART
from orch_local.placement.machine import Machine
from orch_local.placement.placing import place
from orch_local.placement.replicas import AgentJob, Placement, Replica, predecessors

GPU_80 = Machine("cuda", 1, 80.0)
MS = 0.01


def job(name: str, generate_s: float = 600.0, **more: object) -> AgentJob:
    values: dict[str, object] = {"width": 1, "memory_gib": 20.0, "load_s": 60.0}
    return AgentJob(name=name, generate_s=generate_s, **(values | more))  # type: ignore[arg-type]


@st.composite
def jobs_on(draw: st.DrawFn, machine: Machine) -> tuple[list[AgentJob], AgentJob | None]:
    """Jobs that fit the machine one by one."""
    gpu = machine.kind == "cuda"
    widths = [width for width in (1, 2, 3, 4, 8) if width <= machine.devices] if gpu else [1]

    def one(name: str) -> AgentJob:
        share = draw(st.sampled_from([0.3, 0.5, 0.9, 0.95])) if gpu else 1.0
        memory = share * machine.memory_gib * draw(st.sampled_from([0.01, 0.1, 0.2, 0.5, 1.0]))
        return AgentJob(
            name=name,
            width=draw(st.sampled_from(widths)),
            memory_gib=memory,
            load_s=draw(st.floats(0.5, 600)),
            generate_s=draw(st.floats(0, 20_000) | st.floats(0, 1)),
            overlap=draw(st.floats(0, 1)),
            share=share,
            ample_gib=memory * draw(st.sampled_from([0.0, 1.0, 3.0])),
        )

    agents = [one(f"a{number}") for number in range(draw(st.integers(0, 5)))]
    return agents, one("merge") if draw(st.booleans()) or not agents else None


@st.composite
def asked(draw: st.DrawFn) -> tuple[Machine, list[AgentJob], AgentJob | None, int | None]:
    kind = draw(st.sampled_from(["cpu", "cuda"]))
    machine = Machine(kind, draw(st.integers(1, 9)), draw(st.sampled_from([8.0, 24.0, 80.0])))
    agents, merge = draw(jobs_on(machine))
    return machine, agents, merge, draw(st.none() | st.integers(1, 6))


def overlapping(plan: Placement) -> list[tuple[Replica, Replica]]:
    return [
        (one, other)
        for one, other in combinations(plan.replicas, 2)
        if one.start_s < other.end_s and other.start_s < one.end_s
    ]


def most_at_once(plan: Placement) -> int:
    moments = [one.start_s for one in plan.replicas]
    return max((sum(one.start_s <= now < one.end_s for one in plan.replicas) for now in moments), default=0)


every_plan = given(asked())
thorough = settings(max_examples=150, deadline=None)


@thorough
@every_plan
def test_every_row_is_placed_once(given: tuple[Machine, list[AgentJob], AgentJob | None, int | None]) -> None:
    machine, agents, merge, at_once = given
    plan = place(machine, agents, merge, at_once)
    rows = list(range(97))
    for one in [*agents, *([merge] if merge else [])]:
        own = sorted((r for r in plan.replicas if r.agent == one.name), key=lambda r: r.number)
        assert [r.number for r in own] == list(range(1, len(own) + 1))
        assert {r.of for r in own} == {len(own)}
        assert (own[0].begin, own[-1].end) == (0.0, 1.0)
        assert all(earlier.end == later.begin for earlier, later in pairwise(own))
        assert sorted(row for r in own for row in r.part(rows)) == rows
        assert {len(r.devices) for r in own} == {one.width}
        assert [r.start_s for r in own] == sorted(r.start_s for r in own)
        assert all(r.end - r.begin > LEAST_PART - 1e-3 for r in own)
    assert {r.agent for r in plan.replicas} == {one.name for one in (*agents, *([merge] if merge else []))}


@thorough
@every_plan
def test_no_device_and_no_memory_is_overfull(
    given: tuple[Machine, list[AgentJob], AgentJob | None, int | None],
) -> None:
    machine, agents, merge, at_once = given
    plan = place(machine, agents, merge, at_once)
    needs = {one.name: one.memory_gib for one in (*agents, *([merge] if merge else []))}
    for one, other in overlapping(plan):
        assert not set(plan.slots(one)) & set(plan.slots(other)), "two replicas on one lane"
    for replica in plan.replicas:
        assert replica.start_s <= replica.loaded_s <= replica.end_s
        assert set(replica.devices) <= set(range(machine.devices))
        first, width = replica.devices[0], len(replica.devices)
        assert replica.devices == tuple(range(first, first + width)) and first % width == 0
        beside = [r for r in plan.replicas if r.start_s <= replica.start_s < r.end_s] or [replica]
        if machine.kind == "cpu":
            assert sum(needs[r.agent] for r in beside) <= machine.memory_gib + MS
            continue
        assert needs[replica.agent] <= replica.memory_share * machine.memory_gib + MS
        for device in replica.devices:
            assert sum(r.memory_share for r in beside if device in r.devices) <= 1
    assert at_once is None or most_at_once(plan) <= at_once


@thorough
@every_plan
def test_predecessors_keep_the_promises_whatever_time_things_take(
    given: tuple[Machine, list[AgentJob], AgentJob | None, int | None],
) -> None:
    machine, agents, merge, at_once = given
    plan = place(machine, agents, merge, at_once)
    before = predecessors(plan)
    assert list(before) == list(plan.replicas)
    ancestors: dict[Replica, set[Replica]] = {}
    for replica in plan.replicas:
        assert all(one.end_s <= replica.start_s + MS for one in before[replica])
        ancestors[replica] = before[replica].union(*(ancestors[one] for one in before[replica]))
    loose = [
        (one, other)
        for one, other in combinations(plan.replicas, 2)
        if one not in ancestors[other] and other not in ancestors[one]
    ]
    assert not [pair for pair in loose if set(plan.slots(pair[0])) & set(plan.slots(pair[1]))]
    for replica in plan.replicas:
        if replica.agent == "merge" and not replica.follows:
            assert {one for one in plan.replicas if one.agent != "merge"} <= ancestors[replica]
    if machine.kind == "cpu":  # the largest sets of replicas that may meet: one for each worker
        largest: dict[int, float] = {}
        needs = {one.name: one.memory_gib for one in (*agents, *([merge] if merge else []))}
        for one in plan.replicas:
            if one.agent != "merge" or one.follows:
                largest[one.devices[0]] = max(largest.get(one.devices[0], 0.0), needs[one.agent])
        assert sum(largest.values()) <= machine.memory_gib + MS


@thorough
@every_plan
def test_the_merge_agent_waits_unless_it_follows(
    given: tuple[Machine, list[AgentJob], AgentJob | None, int | None],
) -> None:
    plan = place(*given)
    analyses = [one for one in plan.replicas if one.agent != "merge"]
    end = max((one.end_s for one in analyses), default=0.0)
    for one in plan.replicas:
        if one.agent == "merge":
            assert (one.start_s == 0 and one.end_s >= end) if one.follows else one.start_s >= end - MS
        else:
            assert not one.follows


@thorough
@every_plan
def test_no_plan_is_slower_than_one_after_another(
    given: tuple[Machine, list[AgentJob], AgentJob | None, int | None],
) -> None:
    machine, agents, merge, at_once = given
    serial = sum(one.load_s + one.generate_s for one in (*agents, *([merge] if merge else [])))
    assert place(machine, agents, merge, at_once).seconds <= serial + MS


@thorough
@every_plan
def test_the_same_arguments_give_the_same_plan(
    given: tuple[Machine, list[AgentJob], AgentJob | None, int | None],
) -> None:
    assert place(*given) == place(*given)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1, 10_000), min_size=1, max_size=6), st.floats(1, 10_000))
def test_one_gpu_loads_each_model_once(seconds: list[float], merging: float) -> None:
    agents = [job(f"a{number}", s, memory_gib=60) for number, s in enumerate(seconds)]
    plan = place(GPU_80, agents, job("merge", merging, memory_gib=60))
    assert [one.agent for one in plan.replicas] == [*(one.name for one in agents), "merge"]
    assert {one.of for one in plan.replicas} == {1}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1, 10_000), min_size=1, max_size=4))
def test_one_gpu_loads_each_model_once_even_if_they_share_it(seconds: list[float]) -> None:
    agents = [job(f"a{number}", s, memory_gib=5, overlap=0.8) for number, s in enumerate(seconds)]
    plan = place(GPU_80, agents, job("merge", 100, memory_gib=5, overlap=0.8))
    assert len(plan.replicas) == len(agents) + 1


def test_work_is_shared_out_so_that_all_end_together() -> None:
    plan = place(Machine("cuda", 4, 80.0), [job("a", 3600.0, memory_gib=60)], None)
    assert [(one.devices, one.of) for one in plan.replicas] == [((n,), 4) for n in range(4)]
    assert {one.end_s for one in plan.replicas} == {960.0}


def test_work_not_worth_a_load_is_not_divided() -> None:
    plan = place(Machine("cuda", 4, 80.0), [job("a", 30.0, load_s=100.0)], None)
    assert len(plan.replicas) == 1


def test_a_large_model_takes_a_group_and_others_fill_the_rest() -> None:
    large = job("large", 3000.0, width=2, memory_gib=70)
    plan = place(Machine("cuda", 4, 80.0), [job("small", 3000.0, memory_gib=60), large], None)
    groups = {one.devices for one in plan.replicas if one.agent == "large"}
    assert groups <= {(0, 1), (2, 3)}
    assert plan.seconds < 3000 + 600


def test_small_models_share_a_gpu_where_it_idles() -> None:
    idle = [job(name, 600.0, memory_gib=15, overlap=0.9) for name in ("a", "b", "c")]
    plan = place(GPU_80, idle, None)
    assert {one.lane for one in plan.replicas} == {0, 1, 2}
    assert sum(one.memory_share for one in plan.replicas) <= 0.92
    busy = [replace(one, overlap=0.0, load_s=1.0) for one in idle]
    assert place(GPU_80, busy, None).lanes == 1
    assert place(GPU_80, idle, None, at_once=1).lanes == 1
    assert place(GPU_80, idle, None, per_gpu=1).lanes == 1


def test_models_that_would_starve_do_not_share_a_gpu() -> None:
    greedy = [job(name, 600.0, memory_gib=15, ample_gib=60, overlap=0.9) for name in ("a", "b", "c")]
    assert place(GPU_80, greedy, None).lanes == 1


def test_unknown_gpu_memory_is_not_checked_and_never_shared() -> None:
    plan = place(Machine("cuda", 1, 0.0), [job("a", overlap=0.9), job("b", overlap=0.9)], None)
    assert plan.lanes == 1 and len(plan.replicas) == 2


def test_the_merge_agent_follows_where_that_ends_first() -> None:
    four = Machine("cuda", 4, 80.0)
    agents = [job(name, 3600.0, load_s=300.0, memory_gib=60) for name in ("a", "b", "c")]
    merge = job("merge", 3000.0, load_s=300.0, memory_gib=60)
    plan = place(four, agents, merge)
    (last,) = [one for one in plan.replicas if one.agent == "merge"]
    assert last.follows and last.devices == (3,)
    assert 3900 < plan.seconds < 4000  # it ends soon after the last analysis
    assert list(last.part("abc")) == list("abc")
    assert not place(four, agents, replace(merge, generate_s=10.0)).replicas[-1].follows


def test_parts_are_spread_over_all_rows() -> None:
    first = Replica("merge", 1, 2, 0.0, 0.3, (0,), 0, 0.9, 0.0, 1.0, 2.0)
    second = replace(first, number=2, begin=0.3, end=1.0)
    rows = range(1000)
    assert sorted([*first.part(rows), *second.part(rows)]) == list(rows)
    # Of any hundred rows in a row the first replica has 30, and no stretch is the other's alone.
    for start in range(0, 1000, 100):
        assert abs(sum(start <= row < start + 100 for row in first.part(rows)) - 30) <= 2


def test_large_models_on_a_cpu_wait_for_memory() -> None:
    agents = [job(name, 600.0, memory_gib=need) for name, need in (("a", 6.0), ("b", 6.0), ("c", 1.0))]
    plan = place(Machine("cpu", 3, 8.0), agents, None)
    by_device = {one.agent: one.devices for one in plan.replicas if one.agent in "ab"}
    assert by_device["a"] == by_device["b"] and most_at_once(plan) == 2


def test_nothing_to_do_is_a_plan() -> None:
    assert place(GPU_80, [], None) == Placement(GPU_80, ())
    assert place(GPU_80, [], None).seconds == 0


@pytest.mark.parametrize(
    ("machine", "misfit", "said", "hint"),
    [
        (
            Machine("cpu", 2, 8.0),
            job("x", memory_gib=14.0),
            "14.0 GiB, this machine (or job) has 8.0",
            "cpu_kv_cache_gib",
        ),
        (GPU_80, job("x", memory_gib=140.0, fixed_gib=2), "140.0 GiB, a GPU share of 90% has 72", "size: 2`"),
        (GPU_80, job("x", memory_gib=700.0, fixed_gib=2), "700.0 GiB, a GPU share", "size: 16`"),
        (Machine("cuda", 2, 80.0), job("x", width=4), "over 4 GPUs, there are 2", "size: 2`"),
        (GPU_80, job("x", width=4, memory_gib=60), "over 4 GPUs, there is one", "quantized"),
        (Machine("cuda", 2, 80.0), job("x", width=2, memory_gib=90), "GiB on each of 2 GPUs", "size: 4`"),
        (GPU_80, job("x", memory_gib=1e9), "a GPU share", "quantized"),
    ],
)
def test_a_model_that_fits_nowhere_is_refused_with_what_would_do(
    machine: Machine, misfit: AgentJob, said: str, hint: str
) -> None:
    with pytest.raises(InputError) as caught:
        place(machine, [job("fits", memory_gib=1.0)], misfit)
    assert caught.value.where == "agent 'x'"
    assert said in caught.value.message
    assert hint in caught.value.hint


# Shared loads


def loads(plan: Placement) -> list[str]:
    """Agents for whose work a model is loaded, in order."""
    return [one.agent for one in plan.replicas if one.loaded_s > one.start_s]


def test_agents_of_one_model_load_it_once() -> None:
    agents = [job(name, engine="x") for name in ("solve", "eliminate", "verify")]
    plan = place(GPU_80, agents, job("merge", engine="x"))
    assert loads(plan) == ["solve"]
    assert plan.seconds == pytest.approx(60 + 4 * 600, abs=MS)


def test_agents_of_one_model_come_one_after_another_and_those_of_the_merge_agents_last() -> None:
    agents = [job("a", engine="x"), job("b", engine="y"), job("c", engine="x")]
    plan = place(GPU_80, agents, job("merge", engine="x"))
    assert [one.agent for one in plan.replicas] == ["b", "a", "c", "merge"]
    assert loads(plan) == ["b", "a"]


def test_what_an_earlier_part_of_the_run_has_loaded_comes_first() -> None:
    agents = [job("a", engine="x"), job("b", engine="y")]
    plan = place(GPU_80, agents, None, loaded={(0, 0): "y"})
    assert [one.agent for one in plan.replicas] == ["b", "a"]
    assert loads(plan) == ["a"]
    elsewhere = place(Machine("cuda", 2, 80.0), agents, None, loaded={(1, 0): "x"})
    assert {one.agent: one.devices for one in elsewhere.replicas} == {"a": (1,), "b": (0,)}
    assert loads(elsewhere) == ["b"]


@given(st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=8), st.sampled_from(["", "x", "w"]))
def test_on_one_device_each_model_is_loaded_once(engines: list[str], merging: str) -> None:
    agents = [job(f"a{number}", engine=engine) for number, engine in enumerate(engines)]
    plan = place(GPU_80, agents, job("merge", engine=merging))
    assert len(loads(plan)) == len(set(engines) | {merging or "merge"})


@settings(max_examples=200, deadline=None)
@given(asked(), st.data())
def test_shared_loads_break_no_rule(
    given_: tuple[Machine, list[AgentJob], AgentJob | None, int | None], data: st.DataObject
) -> None:
    machine, agents, merge, at_once = given_
    kinds = st.sampled_from([replace(one, engine=one.name) for one in agents] or [job("none")])
    drawn = [(one, data.draw(kinds)) for one in agents]
    named = [replace(kind, name=one.name, generate_s=one.generate_s + 1) for one, kind in drawn]
    everyone = (*named, *([merge] if merge else []))
    plan = place(machine, named, merge, at_once)
    engines = {one.name: one.engine or one.name for one in everyone}
    assert {one.agent for one in plan.replicas} == set(engines)
    for slot in {slot for one in plan.replicas for slot in plan.slots(one)}:
        there = [one for one in plan.replicas if slot in plan.slots(one)]
        for before, behind in pairwise(there):
            assert before.end_s <= behind.start_s + MS
            if engines[before.agent] != engines[behind.agent]:
                assert behind.loaded_s > behind.start_s
