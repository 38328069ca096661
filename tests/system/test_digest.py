"""The digest of a run does not depend on how its rows came into the store."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import Run, analysis

from orch_local.merge.deciding import Deciding, RunDigest
from orch_local.records import Analysis, Usage

QUESTIONS = 6
ANSWERS = {"quant": "ABCABC", "chrono": "ABBACC"}


def digest(run: Run) -> str:
    """What the rows of the store come to."""
    deciding, total = Deciding(run.plan, run.store), RunDigest(run.plan.names)
    for one in run.questions:
        total.add(deciding.decide(one, deciding.panel(one)))
    assert not any(deciding.missing.values())
    assert not deciding.violations
    return total.value


def shards(rows: Sequence[Analysis]) -> st.SearchStrategy[list[list[Analysis]]]:
    """The rows in any order, in any number of chunks, some of them made twice, by workers of any speed."""
    order = st.permutations(range(len(rows)))
    twice = st.lists(st.integers(0, len(rows) - 1), max_size=3)
    speed = st.lists(st.floats(0, 100), min_size=2 * len(rows), max_size=2 * len(rows))
    size = st.integers(1, len(rows))

    def cut(drawn: tuple[list[int], list[int], list[float], int]) -> list[list[Analysis]]:
        first, again, seconds, length = drawn
        numbers = [*first, *again]
        made = [
            replace(rows[number], seconds=seconds[place], usage=Usage(place, 0, number))
            for place, number in enumerate(numbers)
        ]
        return [made[start : start + length] for start in range(0, len(made), length)]

    return st.tuples(order, twice, speed, size).map(cut)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_shards_in_any_order_give_the_same_digest(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain, other = (Run.begin(Path(folder) / name, QUESTIONS) for name in ("plain", "other"))
        plain.analyse(ANSWERS)
        plain.merge()
        for name, letters in ANSWERS.items():
            rows = [analysis(one.key, said) for one, said in zip(other.questions, letters, strict=True)]
            for chunk in data.draw(shards(rows), label=name):
                other.add(name, *chunk)
        for chunk in data.draw(shards(list(other.merged().values())), label="merge"):
            other.add("merge", *chunk)
        assert digest(other) == digest(plain)


@given(st.sampled_from(sorted(ANSWERS)), st.integers(0, QUESTIONS - 1))
@settings(max_examples=12, deadline=None)
def test_one_other_answer_gives_another_digest(name: str, place: int) -> None:
    said = ANSWERS[name]
    changed = said[:place] + ("B" if said[place] != "B" else "C") + said[place + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        plain, other = (Run.begin(Path(folder) / kind, QUESTIONS) for kind in ("plain", "other"))
        plain.analyse(ANSWERS)
        other.analyse(ANSWERS | {name: changed})
        for run in (plain, other):
            run.merge()
        assert digest(other) != digest(plain)
