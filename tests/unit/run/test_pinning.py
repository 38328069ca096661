"""Cores of their own for workers: no core twice, real cores first, and never at another worker's cost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orch_local.run import pinning
from orch_local.run.pinning import core_sets, usable_cores

CORES = st.lists(st.integers(0, 511), unique=True, max_size=64)


@given(CORES, st.integers(1, 16), st.integers(1, 16))
def test_sets_are_disjoint_and_of_the_size_asked_for(cores: list[int], workers: int, threads: int) -> None:
    sets = core_sets(cores, workers, threads)
    assert len(sets) == (workers if workers * threads <= len(cores) else 0)
    assert {len(one) for one in sets} <= {threads}
    given_out = [core for one in sets for core in one]
    assert given_out == cores[: len(given_out)]  # in order, so disjoint and neighbours together


def machine(folder: Path, siblings: dict[int, str], nodes: dict[int, int]) -> Path:
    """A /sys/devices/system/cpu of our own."""
    for core, text in siblings.items():
        (folder / f"cpu{core}" / "topology").mkdir(parents=True)
        (folder / f"cpu{core}" / "topology" / "thread_siblings_list").write_text(f"{text}\n")
        (folder / f"cpu{core}" / f"node{nodes[core]}").mkdir()
    return folder


def test_physical_cores_come_first_and_those_of_a_node_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    # Numbered across the nodes, as some servers do: 0, 2 (and their second threads 4, 6) lie on node 0.
    pairs = {core: f"{core % 4},{core % 4 + 4}" for core in range(8)}
    folder = machine(tmp_path, pairs, {core: core % 2 for core in range(8)})
    assert usable_cores(folder) == [0, 2, 1, 3, 4, 6, 5, 7]


def test_ranges_of_siblings_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    folder = machine(tmp_path, {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}, dict.fromkeys(range(4), 0))
    assert usable_cores(folder) == [0, 2, 1, 3]


def test_without_a_topology_cores_come_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 3, 4})
    assert usable_cores(tmp_path) == [3, 4, 5]
    assert set(usable_cores()) == {3, 4, 5}


def test_no_cores_are_nothing_to_do() -> None:
    assert not pinning.pin(())
