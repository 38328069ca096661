"""A merge agent that follows takes each question once, as soon as its panel is complete and never before."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import NAMES, Run, analysis

from orch_local.merge.merging import needs_merge
from orch_local.merge.panels import Panels
from orch_local.run import following
from orch_local.run.following import Following


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY_S", 0.0)


def follower(run: Run) -> Following:
    assert run.plan.merger is not None
    return Following(run.plan, run.plan.merger, run.store, {one.key: one for one in run.questions})


def test_a_question_is_taken_when_its_panel_is_complete(tmp_path: Path) -> None:
    run = Run.begin(tmp_path)
    keys = [one.key for one in run.questions]
    whole = [False]
    units = follower(run).units(keys, lambda: whole[0])
    # Only a generator that is asked looks; each look ends with what was found.
    run.add("quant", *(analysis(key, "B") for key in keys))
    run.add("chrono", analysis(keys[2], "A"))
    assert next(unit for unit in units if unit).name == keys[2]
    run.add("chrono", analysis(keys[0], "A"), analysis(keys[1], "A"))
    assert [unit.name for unit in islice(filter(None, units), 2)] == keys[:2]
    whole[0] = True
    assert list(units) == []  # the last panel never came


def test_what_is_stored_or_needs_no_merge_is_left_out(tmp_path: Path) -> None:
    run = Run.begin(tmp_path, when="disagreement")
    run.analyse({"quant": "BBBB", "chrono": "BABA"})
    rows = run.merged()
    assert len(rows) == 2
    run.add("merge", next(iter(rows.values())))
    units = list(follower(run).units([one.key for one in run.questions], lambda: True))
    assert [unit.name for unit in units if unit] == list(rows)[1:]


def test_it_says_not_yet_between_two_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY_S", 3600.0)
    run = Run.begin(tmp_path)
    units = follower(run).units([run.questions[0].key], lambda: False)
    assert list(islice(units, 3)) == [None, None, None]


def test_complete_panels_far_behind_incomplete_ones_are_taken_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "INCOMPLETE_IN_A_ROW", 2)
    run = Run.begin(tmp_path, count=8)
    keys = [one.key for one in run.questions]
    for name in NAMES:
        run.add(name, analysis(keys[7], "A"))
    whole = iter([False, False, True])
    units = list(islice(follower(run).units(keys, lambda: next(whole)), 9))
    assert [unit.name for unit in units if unit] == [keys[7]]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 5)), max_size=12, unique=True), st.booleans()
)
def test_each_complete_panel_gives_one_unit_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, written: list[tuple[str, int]], disagree: bool
) -> None:
    run = Run.begin(tmp_path_factory.mktemp("run"), count=6, when="disagreement" if disagree else "always")
    keys = [one.key for one in run.questions]
    steps = iter(written)

    def complete() -> bool:
        """One more row before each look, until all are written."""
        step = next(steps, None)
        if step is not None:
            name, number = step
            run.add(name, analysis(keys[number], "B" if name == "quant" and number % 2 else "A"))
        return step is None

    taken = [unit.name for unit in follower(run).units(keys, complete) if unit is not None]
    panels = Panels(run.plan, run.store)
    whole = [one for one in run.questions if panels.complete(one.key)]
    assert sorted(taken) == sorted(
        one.key for one in whole if needs_merge(panels.of(one), run.plan.config.merge)
    )
