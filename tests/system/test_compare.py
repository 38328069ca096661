"""Several runs against each other: brute-force counts, what is refused, and what is said of them."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from two_runs import AGENTS, agent, decision, finished, plan, usual_plan

from orch_local.errors import InputError, StoreError
from orch_local.plan.files import write_plan
from orch_local.records import Decision
from orch_local.report.comparison import markdown, print_comparison, write_comparison
from orch_local.results.compare.aligning import distinct_names
from orch_local.results.compare.comparing import Comparison, compare_runs
from orch_local.results.scoring import is_correct
from orch_local.stats import Pairs, mcnemar_exact, mcnemar_mid_p, paired_interval, wilson
from orch_local.store.store import RunFolder

LETTERS = st.sampled_from("ABC-")
GOLD: Mapping[int, str | None] = {0: "A", 1: "B", 2: "A", 3: None, 4: "C", 5: "A", 6: "B", 7: "A"}
CATEGORIES = ("calendar", "sums")


def made(number: int, letters: str, **changes: Any) -> Decision:
    """A decision on a question whose gold and category follow from its number."""
    values = {"gold": GOLD[number % 8], "category": CATEGORIES[number % 2]} | changes
    return decision(number, letters, **values)


def three(letters: str, first: int = 0) -> list[Decision]:
    """Decisions whose agents and final answer all say the same, a letter a question."""
    return [made(first + number, 3 * letter) for number, letter in enumerate(letters)]


@st.composite
def runs(draw: st.DrawFn) -> list[Decision]:
    """Decisions on question 0 and some of seven more, in any order."""
    numbers = draw(st.permutations([0, *draw(st.lists(st.integers(1, 7), unique=True, max_size=7))]))
    return [made(number, "".join(draw(st.tuples(LETTERS, LETTERS, LETTERS)))) for number in numbers]


def folders(root: Path, several: Mapping[str, Sequence[Decision]]) -> list[RunFolder]:
    """Finished runs of the usual plan."""
    return [
        finished(root / name, usual_plan(len(decisions)), decisions, digest=f"{number}" * 64)
        for number, (name, decisions) in enumerate(several.items())
    ]


def compared(several: Mapping[str, Sequence[Decision]]) -> Comparison:
    with tempfile.TemporaryDirectory() as root:
        return compare_runs(folders(Path(root), several))


def verdict(one: Decision, name: str | None = None) -> bool | None:
    return is_correct(one.answers[name] if name else one.answer, one.gold)


def known(several: Sequence[Sequence[Decision]]) -> list[tuple[Decision, ...]]:
    """The common questions with gold, as each run decided them."""
    by_id = [{one.question_id: one for one in decisions} for decisions in several]
    common = [question for question in by_id[0] if all(question in other for other in by_id)]
    rows = [tuple(one[question] for one in by_id) for question in common]
    return [row for row in rows if all(one.gold for one in row)]


@settings(max_examples=8, deadline=None)
@given(st.lists(runs(), min_size=2, max_size=3))
def test_every_count_equals_a_brute_force_count(several: list[list[Decision]]) -> None:
    found = compared({f"run{number}": decisions for number, decisions in enumerate(several)})
    rows = known(several)
    ids = [{one.question_id for one in decisions} for decisions in several]
    assert found.common == len(set.intersection(*ids))
    assert found.gold == len(rows)
    for place, entry in enumerate(found.entries):
        mine = [row[place] for row in rows]
        check_system(entry.orch, [verdict(one) for one in mine])
        for name in AGENTS:
            check_system(entry.system(name), [verdict(one, name) for one in mine])
        check_system(entry.own, [verdict(one) for one in several[place] if one.gold])
        vote = [(verdict(one), is_correct(one.majority, one.gold)) for one in mine]
        assert entry.saves == vote.count((True, False))
        assert entry.breaks == vote.count((False, True))
    check_pairs(found, rows)
    check_categories(found, rows)


def check_system(system: Any, verdicts: list[bool | None]) -> None:
    scored = [one for one in verdicts if one is not None]
    assert (system.scored, system.correct) == (len(scored), sum(scored))
    assert sum(system.unscored.values()) == len(verdicts) - len(scored)
    interval = wilson(sum(scored), len(scored))
    if interval is None:
        assert system.accuracy is None
    else:
        assert dataclasses.astuple(system.accuracy) == (sum(scored) / len(scored), *interval)


def check_pairs(found: Comparison, rows: list[tuple[Decision, ...]]) -> None:
    places = {entry.name: place for place, entry in enumerate(found.entries)}
    assert [(one.first, one.second) for one in found.pairs] == list(combinations(found.ranking, 2))
    for pair in found.pairs:
        both = [(verdict(row[places[pair.first]]), verdict(row[places[pair.second]])) for row in rows]
        cases = [(True, True), (True, False), (False, True), (False, False)]
        counts = Pairs(*(both.count(case) for case in cases))
        assert (pair.both, pair.gained, pair.lost, pair.neither) == counts
        assert pair.n == sum(counts)
        if not pair.n:
            assert (pair.p, pair.difference) == (None, None)
            continue
        assert pair.p == mcnemar_exact(counts.gained, counts.lost).p
        assert pair.p_mid == mcnemar_mid_p(counts.gained, counts.lost)
        assert pair.difference is not None
        interval = paired_interval(counts)
        assert (pair.difference.value, pair.difference.low, pair.difference.high) == (
            counts.difference,
            *(interval or ()),
        )


def check_categories(found: Comparison, rows: list[tuple[Decision, ...]]) -> None:
    first, second = (next(e for e in found.entries if e.name == name) for name in found.ranking[:2])
    places = [found.entries.index(first), found.entries.index(second)]
    expected = sorted({row[0].category for row in rows})
    assert [one.name for one in found.categories] == expected
    for one in found.categories:
        mine = [row for row in rows if row[0].category == one.name]
        assert one.gold == len(mine)
        for place, entry in enumerate(found.entries):
            scored = [v for row in mine if (v := verdict(row[place])) is not None]
            assert one.scored[entry.name] == len(scored)
            share = one.systems[entry.name]
            assert (share.value if share else None) == (sum(scored) / len(scored) if scored else None)
        gained = sum(verdict(row[places[0]]) is True and verdict(row[places[1]]) is False for row in mine)
        assert one.versus_best is not None
        assert (one.versus_best.first, one.versus_best.second) == (first.name, second.name)
        assert one.versus_best.gained == gained


@settings(max_examples=5, deadline=None)
@given(runs(), runs(), st.randoms(use_true_random=False))
def test_the_order_of_questions_changes_nothing(
    a: list[Decision], b: list[Decision], dice: random.Random
) -> None:
    shuffled = list(b)
    dice.shuffle(shuffled)
    found, again = (
        dataclasses.replace(one, entries=tuple(dataclasses.replace(e, folder="") for e in one.entries))
        for one in (compared({"a": a, "b": b}), compared({"a": a, "b": shuffled}))
    )
    assert found == again


def test_tests_over_all_runs_are_those_of_statsmodels() -> None:
    from statsmodels.stats.contingency_tables import cochrans_q
    from statsmodels.stats.multitest import multipletests

    dice = random.Random(5)
    several = {
        name: [made(8 * n, 3 * dice.choice(letters), gold="A") for n in range(60)]
        for name, letters in (("good", "AAAAB"), ("fair", "AAB"), ("poor", "AB"))
    }
    found = compared(several)
    matrix = [[verdict(one) for one in decisions] for decisions in several.values()]
    expected = cochrans_q([list(row) for row in zip(*matrix, strict=True)])
    assert found.cochran is not None
    assert (found.cochran.statistic, found.cochran.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert (found.cochran.n, found.cochran.systems, found.cochran.df) == (60, 3, 2)
    adjusted = multipletests([pair.p for pair in found.pairs], method="holm")[1]
    assert [pair.p_holm for pair in found.pairs] == pytest.approx(list(adjusted))
    assert found.ranking == ("good", "fair", "poor")


def test_of_runs_with_as_many_right_the_more_accurate_is_ranked_first_then_the_first_given() -> None:
    # Gold of questions 0, 1 and 2: A, B, A.
    found = compared({"wrong": three("ABB"), "unscored": three("AB-"), "same": three("BBA")})
    assert found.ranking == ("unscored", "wrong", "same")


def test_a_question_asked_twice_counts_once_with_its_first_decision() -> None:
    found = compared({"twice": [*three("A"), *three("B"), *three("B", first=1)], "once": three("AB")})
    assert (found.common, found.gold) == (2, 2)
    assert [entry.orch.correct for entry in found.entries] == [2, 2]
    assert found.entry("twice").questions == 3


def test_a_question_without_gold_in_one_run_counts_in_none() -> None:
    bare = [made(0, "AAA", gold=None), *three("B", first=1)]
    found = compared({"bare": bare, "full": three("AB")})
    assert (found.common, found.gold) == (2, 1)
    assert [(entry.orch.scored, entry.orch.correct) for entry in found.entries] == [(1, 1), (1, 1)]
    assert found.entry("full").own.scored == 2


def test_runs_with_other_agents_are_compared_and_equal_agents_stand_once(tmp_path: Path) -> None:
    ours = folders(tmp_path, {"one": three("ABB"), "two": [made(n, "AB" + x) for n, x in enumerate("ABA")]})
    names = ("agent0", "agent1", "agent2")
    letters = ("AABA", "BBAB", "ABAA")
    other = finished(
        tmp_path / "other",
        plan([agent(name, {}) for name in names]),
        [made(number, said) for number, said in enumerate(letters)],
        digest="f" * 64,
    )
    found = compare_runs([*ours, other])
    assert found.entry("other").agents == names
    told = {one.name: one.runs for one in found.agents}
    assert told == {
        "one / quant": ("one",),
        "one / chrono": ("one",),
        "two / quant": ("two",),
        "two / chrono": ("two",),
        "other / agent0": ("other",),
        "other / agent1": ("other",),
        "other / agent2": ("other",),
    }
    assert {one.versus.first for one in found.agents} == {found.ranking[0]}

    again = compare_runs(folders(tmp_path / "more", {"one": three("ABB"), "two": three("ABB")}))
    assert {one.name: one.runs for one in again.agents} == {
        "one / quant": ("one", "two"),
        "one / chrono": ("one", "two"),
    }


class TestRefused:
    def test_fewer_than_two_runs(self, tmp_path: Path) -> None:
        for given_ in ([], folders(tmp_path, {"one": three("A")})):
            with pytest.raises(InputError, match="needs two runs or more"):
                compare_runs(given_)

    def test_the_same_run_twice(self, tmp_path: Path) -> None:
        (one,) = folders(tmp_path, {"one": three("A")})
        (tmp_path / "link").symlink_to(one.root)
        with pytest.raises(InputError, match="is given twice"):
            compare_runs([one, RunFolder(tmp_path / "link")])

    def test_runs_without_a_common_question(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no question is in all") as raised:
            compare_runs(folders(tmp_path, {"one": three("A"), "two": three("AA", first=4)}))
        assert "one: 1, two: 2" in raised.value.where

    def test_another_gold_answer(self, tmp_path: Path) -> None:
        other = [made(0, "AAA", gold="B"), made(1, "AAA", gold=None), made(2, "AAA", gold="C")]
        with pytest.raises(InputError, match=r"'A' in one, 'B' in two, and 1 more") as raised:
            compare_runs(folders(tmp_path, {"one": three("AAA"), "two": other}))
        assert raised.value.where == f"question {0:016x}"

    def test_another_gold_answer_in_a_later_pair_of_runs(self, tmp_path: Path) -> None:
        bare = [made(0, "AAA", gold=None)]
        several = {"bare": bare, "one": three("A"), "two": [made(0, "AAA", gold="B")]}
        with pytest.raises(InputError, match="'A' in one, 'B' in two"):
            compare_runs(folders(tmp_path, several))

    def test_a_run_that_is_not_finished(self, tmp_path: Path) -> None:
        one, two = folders(tmp_path, {"one": three("A"), "two": three("A")})
        two.metrics.unlink()
        with pytest.raises(StoreError, match="not finished"):
            compare_runs([one, two])


class TestNames:
    def test_folders_of_one_name_get_as_much_of_their_path_as_is_needed(self, tmp_path: Path) -> None:
        paths = [tmp_path / one for one in ("a/x/run", "b/x/run", "b/y/run", "c/other")]
        assert distinct_names(paths) == ("a/x/run", "b/x/run", "y/run", "other")

    def test_a_name_that_ends_another_path(self, tmp_path: Path) -> None:
        paths = [tmp_path / one for one in ("run", "run/run")]
        names = distinct_names(paths)
        assert len(set(names)) == 2
        assert names[1].endswith("run/run")


def printed(found: Comparison, width: int = 110, *, agents: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_comparison(console, found, agents)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def flat(text: str) -> str:
    return " ".join(text.split())


def many(right: int, of: int, letter: str = "B") -> list[Decision]:
    """The first so many right."""
    return [made(8 * n, 3 * ("A" if n < right else letter)) for n in range(of)]


class TestSaid:
    def test_the_best_run_and_how_sure_that_is(self) -> None:
        text = flat(printed(compared({"good": many(90, 100), "poor": many(60, 110)})))
        assert "On the 100 questions common to 2 runs, good has the most right: 90.0 %" in text
        assert "30.0 points above poor (p = 1.9e-09, with Holm's correction p = 1.9e-09)." in text
        assert "100 questions are in all runs; left out: poor 10." in text
        assert "are not all equally good" in text
        assert "within chance" not in text

    def test_what_may_be_chance_is_said_to_be(self) -> None:
        text = flat(printed(compared({"a": many(90, 100), "b": many(89, 100)})))
        assert "1.0 points above b (p = 1.000, with Holm's correction p = 1.000, within chance)." in text
        assert "could all be equally good" in text

    def test_runs_with_the_same_decisions(self, tmp_path: Path) -> None:
        runs_ = [
            finished(tmp_path / name, usual_plan(3), three("ABA"), digest="d" * 64) for name in ("a", "b")
        ]
        text = flat(printed(compare_runs(runs_)))
        assert text.startswith("All 2 runs came to the same decisions, byte for byte, on 3 questions.")
        assert "Cochran" not in text

    def test_no_gold(self) -> None:
        found = compared({"a": [made(3, "AAA")], "b": [made(3, "BBB")]})
        assert "No run can be called better" in flat(printed(found))
        assert found.cochran is None

    def test_nothing_answered(self) -> None:
        assert "none was answered by any run" in flat(printed(compared({"a": three("-"), "b": three("-B")})))

    def test_agents_are_shown_on_request(self) -> None:
        found = compared({"a": three("ABA"), "b": three("ABC")})
        assert "a / quant" not in printed(found)
        assert "a / quant" in printed(found, agents=True)
        assert "`a / quant`" in markdown(found)

    def test_a_routed_run_is_said_to_be_one(self, tmp_path: Path) -> None:
        one, two = folders(tmp_path, {"one": three("ABA"), "two": three("AAA")})
        assert "router" not in printed(compare_runs([one, two]))
        made_ = usual_plan(3)
        config = made_.config.model_dump() | {"router": {"mode": "online", "k": 1}}
        write_plan(one, made_.model_copy(update={"config": made_.config.model_validate(config)}))
        found = compare_runs([one, two])
        assert [entry.router for entry in found.entries] == ["online", None]
        text = flat(printed(found, 200))
        assert "agent, router online" in text
        assert "its oracle is of the agents that were asked" in text
        assert "its oracle is of the agents that were asked" in markdown(found)

    def test_cost_is_counted_over_all_rows(self, tmp_path: Path) -> None:
        one, two = folders(tmp_path, {"one": three("ABA"), "two": three("AAA")})
        values = json.loads(one.metrics.read_text())
        usage = {"prompt": 1000, "cached": 5, "generated": 200}
        cost = {"rows": 3, "generated_now": 1, "usage": usage, "load_s": 1.0, "generate_s": 2.5}
        values["cost"] = {"quant": cost, "merge": cost}
        one.metrics.write_text(json.dumps(values))
        found = compare_runs([one, two]).entry("one").cost
        assert (found.rows, found.generated_now, found.generate_s) == (6, 2, 5.0)
        assert found.tokens_per_question == 2400 / 3
        assert found.tokens_per_right == 2400 / 3
        row = next(
            line
            for line in printed(compare_runs([one, two])).splitlines()
            if " 2,400 " in f"{line} " or "800.0" in line
        )
        assert row.split() == "one agent 2 6 4 2,000 400 800.0 5.0".split()


HOSTILE = "[red]<script>alert(1)</script>\x1b[31m|`x`\u202e"


class TestHostileNames:
    def comparison(self, tmp_path: Path) -> Comparison:
        several = [
            [made(n, letters, category=f"{HOSTILE}{n % 2}") for n, letters in enumerate(said)]
            for said in (("AAA", "BBB", "AAA"), ("AAA", "AAA", "BBB"))
        ]
        name = HOSTILE.replace("/", "")
        return compare_runs(
            [
                finished(tmp_path / f"{number}{name}", usual_plan(3), decisions, digest=f"{number}" * 64)
                for number, decisions in enumerate(several)
            ]
        )

    def test_move_no_cursor_and_style_nothing(self, tmp_path: Path) -> None:
        text = printed(self.comparison(tmp_path), 300, agents=True)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "[red]<script>" in text

    def test_stay_text_in_markdown(self, tmp_path: Path) -> None:
        text = markdown(self.comparison(tmp_path))
        assert "\x1b" not in text
        outside = "".join(text.split("`")[::2])
        assert "<script>" not in outside
        assert "[red]" not in outside

    def test_files_hold_them_safely(self, tmp_path: Path) -> None:
        files = write_comparison(tmp_path / "out", self.comparison(tmp_path))
        assert [file.name for file in files] == ["compare.md", "compare.html", "compare.json"]
        page = files[1].read_text()
        assert "<script>alert" not in page
        assert "&lt;script&gt;" in page
        assert "\x1b" not in page
        assert "\u202e" not in page
        assert json.loads(files[2].read_text())["common"] == 3


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_the_json_has_no_infinity_and_holds_everything(tmp_path: Path) -> None:
    found = compare_runs(folders(tmp_path, {"good": many(5, 5), "poor": many(0, 5)}))  # odds ratio: infinite
    write_comparison(tmp_path, found)
    values = json.loads((tmp_path / "compare.json").read_text(), parse_constant=no_constant)
    assert values["ranking"] == ["good", "poor"]
    assert values["pairs"][0]["odds_ratio"]["value"] == "inf"
    assert [one["name"] for one in values["entries"]] == ["good", "poor"]
    assert set(values) == {field.name for field in dataclasses.fields(found)}
