"""The table of `orch-local power`: its cells answer each other, and a pilot run tells its columns."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from two_runs import decision, finished, usual_plan

from orch_local.errors import InputError, StoreError
from orch_local.report.power import print_power
from orch_local.results.sizing import SHARES, SIZES, Pilot, PowerTable, Wish, pilot, power_table
from orch_local.stats import mcnemar_power, wilson
from orch_local.store.store import RunFolder


def test_nothing_wished_for_is_a_table_of_usual_sizes() -> None:
    found = power_table(Wish())
    assert tuple(row.questions for row in found.sizes) == SIZES
    assert found.discordant == SHARES
    assert found.needed == ()
    assert all(row.chance == () for row in found.sizes)


@settings(max_examples=6, deadline=None)
@given(st.integers(50, 3000), st.floats(0.05, 0.9), st.sampled_from([0.5, 0.8, 0.95]))
def test_what_is_said_to_show_shows(questions: int, share: float, power: float) -> None:
    found = power_table(Wish(questions, None, (share,), power=power))
    for row in found.sizes:
        (smallest,) = row.detectable
        if smallest is None:
            assert mcnemar_power(row.questions, share, 0) < power
            continue
        halves = (share + smallest) / 2, (share - smallest) / 2
        assert mcnemar_power(row.questions, *halves) == pytest.approx(power, abs=1e-6)


@settings(max_examples=6, deadline=None)
@given(st.floats(0.02, 0.3))
def test_as_many_questions_as_are_needed_are_enough(difference: float) -> None:
    found = power_table(Wish(difference=difference))
    assert found.sizes == ()
    assert list(found.discordant) == [share for share in SHARES if share >= difference]
    for share, needed in zip(found.discordant, found.needed, strict=True):
        assert needed is not None
        enough = power_table(Wish(needed, difference, (share,)))
        row = next(row for row in enough.sizes if row.questions == needed)
        assert row.chance[0] >= 0.8
        assert row.detectable[0] is not None
        assert row.detectable[0] <= difference + 1e-9


def test_more_questions_show_smaller_differences() -> None:
    for column in range(len(SHARES)):
        found = [row.detectable[column] for row in power_table(Wish()).sizes]
        shown = [one for one in found if one is not None]
        assert shown == sorted(shown, reverse=True)
        assert found[-len(shown) :] == shown


def test_a_difference_larger_than_all_usual_shares_has_columns_too() -> None:
    assert power_table(Wish(difference=0.7)).discordant == (0.7, 1.0)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(questions=0), "0 questions cannot be planned for"),
        (Wish(questions=10**9), "cannot be planned for"),
        (Wish(difference=2.0), "a difference of 2 cannot"),
        (Wish(difference=0.0), "a difference of 0 cannot"),
        (Wish(difference=float("nan")), "a difference of nan cannot"),
        (Wish(discordant=(0.0,)), "0 is no share"),
        (Wish(discordant=(20.0,)), "20 is no share"),
        (Wish(difference=0.2, discordant=(0.1, 0.15)), "cannot differ by 0.2 where .* 0.15"),
        (Wish(alpha=0.0), "alpha"),
        (Wish(power=1.0), "power"),
        (Wish(power=0.01), "reached by chance alone"),
    ],
)
def test_wishes_without_sense_are_refused(wish: Wish, message: str) -> None:
    with pytest.raises(InputError, match=message):
        power_table(wish)


class TestPilot:
    LETTERS = ("ABA", "ABB", "BAA", "BBA", "BAB", "-AA", "AA-", "AAA")
    """The agents' answers and the final one; gold is A. The second agent is right on five of eight."""

    def run(self, folder: Path) -> RunFolder:
        made = [decision(number, letters) for number, letters in enumerate(self.LETTERS)]
        return finished(folder / "pilot", usual_plan(len(made)), made)

    def test_it_tells_on_how_many_questions_one_is_right(self, tmp_path: Path) -> None:
        found = pilot(self.run(tmp_path))
        interval = wilson(3, 7)
        assert interval is not None
        assert (found.run, found.agent, found.n) == ("pilot", "chrono", 7)
        assert found.difference == pytest.approx(1 / 7)  # gained 2 (ABA, BBA), lost 1 (BAB)
        assert found.discordant.value == pytest.approx(3 / 7)
        assert (found.discordant.low, found.discordant.high) == pytest.approx(interval)
        assert found.shares == (found.discordant.low, found.discordant.value, found.discordant.high)

    def test_systems_that_never_differ_leave_the_upper_end(self, tmp_path: Path) -> None:
        run = finished(tmp_path / "run", usual_plan(3), [decision(n, "AAA") for n in range(3)])
        found = pilot(run)
        assert found.shares == (found.discordant.high,)
        power_table(Wish(discordant=found.shares))

    def test_a_run_without_gold_is_refused(self, tmp_path: Path) -> None:
        run = finished(tmp_path / "run", usual_plan(2), [decision(n, "AAA", None) for n in range(2)])
        with pytest.raises(InputError, match="no question is scored"):
            pilot(run)

    def test_an_unfinished_run_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError):
            pilot(RunFolder(tmp_path))


def printed(found: PowerTable, of: Pilot | None = None) -> str:
    console = Console(file=io.StringIO(), width=110)
    print_power(console, found, of)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def flat(text: str) -> str:
    return " ".join(text.split())


class TestPrinted:
    def test_what_was_asked_stands_in_a_sentence(self) -> None:
        text = printed(power_table(Wish(1000, 0.02, (0.2,))))
        said = flat(text)
        assert "With 1,000 questions, where exactly one of two systems is right on 20.0 % of" in said
        assert (
            "a difference of 4.0 points shows in 80 % of such runs. One of 2 points shows in 26.9 %" in said
        )
        assert "alpha 0.05, power 0.8" in said
        rows = [line.split() for line in text.splitlines()]
        assert ["questions", "4,016"] in rows
        assert ["1,000", "26.9"] in rows
        assert ["1,000", "4.0"] in rows

    def test_questions_needed(self) -> None:
        said = flat(printed(power_table(Wish(difference=0.02))))
        assert "To see a difference of 2 points in 80 % of such runs" in said
        assert "4,016 questions are needed." in said

    def test_too_few_questions_show_nothing(self) -> None:
        text = printed(power_table(Wish(questions=3)))
        assert "no difference shows" in flat(text)
        assert ["3", "-", "-", "-", "-", "-"] in [line.split() for line in text.splitlines()]

    def test_a_hostile_run_name_is_escaped(self, tmp_path: Path) -> None:
        made = [decision(number, letters) for number, letters in enumerate(TestPilot.LETTERS)]
        run = finished(tmp_path / "[red]\x1b[31m", usual_plan(len(made)), made)
        found = pilot(run)
        text = printed(power_table(Wish(questions=100, discordant=found.shares)), found)
        assert r"In [red]\x1b[31m exactly one" in flat(text)
        assert "\x1b" not in text
