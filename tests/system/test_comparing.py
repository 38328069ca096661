"""Comparing two runs: against a brute-force count, mirrored, and what may be called broken determinism."""

from __future__ import annotations

import dataclasses
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from two_runs import AGENTS, agent, decision, finished, plan, rewrite, usual_plan

from orch_local.audit.diff import compare
from orch_local.audit.difference import Difference, SystemDifference
from orch_local.audit.plan_diff import compare_plans
from orch_local.errors import StoreError
from orch_local.records import Decision, How
from orch_local.results.scoring import is_correct
from orch_local.stats import Pairs, holm, mcnemar_exact, paired_interval

LETTERS = st.sampled_from("ABC-")
GOLDS = st.sampled_from(["A", "B", None])


@st.composite
def runs(draw: st.DrawFn) -> list[Decision]:
    """Decisions of some of eight questions, in any order."""
    numbers = draw(st.lists(st.integers(0, 7), unique=True, max_size=8))
    return [_decision(draw, number) for number in numbers]


def _decision(draw: st.DrawFn, number: int) -> Decision:
    letters = "".join(draw(st.tuples(LETTERS, LETTERS, LETTERS)))
    confidences = {name: draw(st.sampled_from([None, 50])) for name in AGENTS}
    return decision(number, letters, draw(GOLDS), confidences=confidences)


def compared(
    a: list[Decision], b: list[Decision], content_b: dict[str, Any] | None = None, examples: int = 5
) -> Difference:
    """Compare two runs of the usual plan; ``content_b`` makes the specs of B others."""
    with tempfile.TemporaryDirectory() as folder:
        one = finished(Path(folder) / "a", usual_plan(len(a)), a, digest=str(a))
        other = finished(Path(folder) / "b", usual_plan(len(b), content_b), b, digest=str(b))
        return compare(one, other, examples)


def answers_of(made: Decision) -> list[str | None]:
    return [*(made.answers[name] for name in AGENTS), made.answer]


@settings(max_examples=40, deadline=None)
@given(runs(), runs())
def test_every_count_equals_a_brute_force_count(a: list[Decision], b: list[Decision]) -> None:
    found = compared(a, b)
    by_id = {d.question_id: d for d in b}
    common = [(d, by_id[d.question_id]) for d in a if d.question_id in by_id]
    assert (found.common, found.only_a, found.only_b) == (
        len(common),
        len(a) - len(common),
        len(b) - len(common),
    )
    order = [d.question_id for d in b if d.question_id in {one.question_id for one, _ in common}]
    assert found.same_order == ([one.question_id for one, _ in common] == order)
    assert found.other_gold == sum(one.gold != other.gold for one, other in common)
    for place, system in enumerate(found.systems):
        pairs = [(answers_of(one)[place], answers_of(other)[place]) for one, other in common]
        check_answers(system, pairs)
        golds = [one.gold if one.gold == other.gold else None for one, other in common]
        check_scores(system, pairs, golds)
    for place, name in enumerate(AGENTS):
        same = [(x, y) for x, y in common if x.answers[name] == y.answers[name]]
        expected = sum(x.confidences[name] != y.confidences[name] for x, y in same)
        assert found.agents[place].confidences == expected


def check_answers(system: SystemDifference, pairs: list[tuple[str | None, str | None]]) -> None:
    answered = [(x, y) for x, y in pairs if x and y]
    assert system.same == sum(x == y for x, y in answered)
    assert system.different == sum(x != y for x, y in answered)
    assert system.only_a == sum(bool(x) and not y for x, y in pairs)
    assert system.only_b == sum(bool(y) and not x for x, y in pairs)
    assert system.neither == sum(not x and not y for x, y in pairs)
    assert system.differing == sum(x != y for x, y in pairs)


def check_scores(
    system: SystemDifference, pairs: list[tuple[str | None, str | None]], golds: list[str | None]
) -> None:
    verdicts = [(is_correct(x, gold), is_correct(y, gold)) for (x, y), gold in zip(pairs, golds, strict=True)]
    scored = [pair for pair in verdicts if None not in pair]
    if not scored:
        assert system.scores is None
        return
    assert system.scores is not None
    gained, lost = scored.count((False, True)), scored.count((True, False))
    assert (system.scores.n, system.scores.gained, system.scores.lost) == (len(scored), gained, lost)
    assert system.scores.accuracy_a == sum(bool(x) for x, _ in scored) / len(scored)
    assert system.scores.accuracy_b == sum(bool(y) for _, y in scored) / len(scored)
    assert system.scores.difference == pytest.approx(system.scores.accuracy_b - system.scores.accuracy_a)
    assert system.scores.p == mcnemar_exact(gained, lost).p
    cases = Pairs(scored.count((True, True)), gained, lost, scored.count((False, False)))
    assert system.scores.interval == paired_interval(cases)


@settings(max_examples=40, deadline=None)
@given(runs(), runs(), st.booleans())
def test_the_other_way_round_is_the_mirror_image(a: list[Decision], b: list[Decision], other: bool) -> None:
    content = {"prompt": "other"} if other else None
    there, back = compared(a, b, content, examples=8), compared(b, a, content, examples=8)
    assert (there.common, there.only_a, there.only_b) == (back.common, back.only_b, back.only_a)
    for name in ("same_order", "other_gold", "how", "differing", "same_digest"):
        assert getattr(there, name) == getattr(back, name)
    assert {d.question_id for d, _ in there.examples} == {d.question_id for d, _ in back.examples}
    for one, mirrored in zip(there.systems, map(mirror, back.systems), strict=True):
        assert dataclasses.replace(one, scores=None) == dataclasses.replace(mirrored, scores=None)
        assert (one.scores is None) == (mirrored.scores is None)
        if one.scores and mirrored.scores:
            assert dataclasses.astuple(one.scores)[:5] == dataclasses.astuple(mirrored.scores)[:5]
            assert one.scores.difference == mirrored.scores.difference
            assert one.scores.interval == pytest.approx(mirrored.scores.interval)
            assert (one.scores.p, one.scores.p_holm) == (mirrored.scores.p, mirrored.scores.p_holm)


def mirror(system: SystemDifference) -> SystemDifference:
    scores = system.scores
    if scores is not None:
        scores = dataclasses.replace(
            scores,
            accuracy_a=scores.accuracy_b,
            accuracy_b=scores.accuracy_a,
            gained=scores.lost,
            lost=scores.gained,
            difference=-scores.difference,
            interval=scores.interval._replace(low=-scores.interval.high, high=-scores.interval.low),
        )
    return dataclasses.replace(system, only_a=system.only_b, only_b=system.only_a, scores=scores)


@settings(max_examples=30, deadline=None)
@given(runs())
def test_a_run_does_not_differ_from_itself(a: list[Decision]) -> None:
    found = compared(a, a)
    assert found.plans.same
    assert found.same_digest
    assert (found.common, found.only_a, found.only_b, found.same_order) == (len(a), 0, 0, True)
    assert (found.differing, found.how, found.other_gold, found.examples) == (0, 0, 0, ())
    for system in found.systems:
        assert (system.differing, system.confidences, system.broken) == (0, 0, 0)
        assert system.scores is None or (system.scores.difference, system.scores.p) == (0, 1)


@settings(max_examples=20, deadline=None)
@given(runs(), st.randoms(use_true_random=False))
def test_the_order_of_the_questions_changes_no_answer(a: list[Decision], dice: random.Random) -> None:
    shuffled = list(a)
    dice.shuffle(shuffled)
    found = compared(a, shuffled)
    assert found.same_order == (shuffled == a)
    assert (found.common, found.differing) == (len(a), 0)


class TestDeterminism:
    A = (decision(0, "ABA"), decision(1, "AAA"), decision(2, "BBB"))

    def test_same_specs_with_other_answers_are_broken(self) -> None:
        b = [self.A[0], decision(1, "BAA"), decision(2, "BBC")]
        found = compared(list(self.A), b)
        assert found.plans.same
        assert [system.broken for system in found.systems] == [1, 0, 1]

    def test_another_confidence_alone_is_broken_too(self) -> None:
        b = [decision(0, "ABA", confidences={"quant": 71, "chrono": 70}), *self.A[1:]]
        found = compared(list(self.A), b)
        assert [(s.differing, s.confidences, s.broken) for s in found.systems] == [
            (0, 1, 1),
            (0, 0, 0),
            (0, 0, 0),
        ]
        assert found.differing == 1

    def test_other_specs_may_answer_otherwise(self) -> None:
        found = compared(list(self.A), [decision(n, "CCC") for n in range(3)], {"prompt": "other"})
        assert [system.broken for system in found.systems] == [0, 0, 0]
        assert found.final.different == 3

    def test_an_engine_that_failed_broke_no_determinism(self) -> None:
        failed = decision(0, "-B-", outcomes={"quant": "failed", "chrono": "ok"}, reason="merge failed")
        found = compared(list(self.A), [failed, *self.A[1:]])
        assert [system.broken for system in found.systems] == [0, 0, 0]
        assert (found.differing, found.agents[0].only_a, found.final.only_a) == (1, 1, 1)

    def test_an_answer_that_does_not_parse_in_one_run_is_broken(self) -> None:
        found = compared(list(self.A), [decision(0, "-BA"), *self.A[1:]])
        assert found.agents[0].broken == 1

    @pytest.mark.parametrize(("few_shot", "broken"), [(0, 1), (2, 0)])
    def test_other_examples_before_a_question_excuse_its_answer(
        self, tmp_path: Path, few_shot: int, broken: int
    ) -> None:
        one = finished(tmp_path / "a", usual_plan(3, few_shot=few_shot), self.A)
        other_plan = usual_plan(3, few_shot=few_shot, questions="r" * 64)
        other = finished(tmp_path / "b", other_plan, [decision(0, "BBA"), *self.A[1:]])
        assert compare(one, other).agents[0].broken == broken


class TestPlans:
    def test_a_change_of_all_agents_is_told_once(self) -> None:
        found = compare_plans(
            usual_plan(3, {"environment": {"torch": "2.13", "gpu": "H100"}}),
            usual_plan(3, {"environment": {"torch": "2.14", "gpu": "H100"}}),
        )
        assert [(str(change), agents) for change, agents in found.changed] == [
            ("environment.torch: 2.13 -> 2.14", ("quant", "chrono", "merge"))
        ]
        assert found.workers == 3
        assert not found.same

    def test_agents_are_matched_by_name_then_by_position(self) -> None:
        a = plan([agent(name, {}) for name in ("one", "two", "three", "four")])
        b = plan([agent(name, {}) for name in ("new", "three", "one")])
        found = compare_plans(a, b)
        assert [(match.a, match.b) for match in found.matches] == [
            ("one", "one"),
            ("two", "new"),
            ("three", "three"),
        ]
        assert (found.only_a, found.only_b, found.same_order) == (("four",), (), False)
        assert found.matches[1].name == "two / new"

    def test_a_missing_merge_agent_and_its_rule_are_told(self) -> None:
        agents = [agent("quant", {})]
        found = compare_plans(plan(agents, agent("merge", {}, "merge")), plan(agents, policy="confidence"))
        assert [str(change) for change, _ in found.changed] == ["merge.policy: agent -> confidence"]
        assert (found.only_a, found.only_b, found.workers) == (("merge",), (), 1)

    def test_a_merge_rule_in_the_spec_of_the_merge_agent_is_told_once(self) -> None:
        agents = [agent("quant", {})]
        a, b = (
            plan(agents, agent("merge", {"panel": {"names": names}}, "merge"), names=names)
            for names in ("hidden", "shown")
        )
        assert [(str(c), who) for c, who in compare_plans(a, b).changed] == [
            ("merge.names: hidden -> shown", ())
        ]

    def test_other_questions_are_another_plan(self) -> None:
        found = compare_plans(usual_plan(3), usual_plan(3, questions="r" * 64))
        assert (found.same, found.same_questions, found.changed) == (False, False, ())


def test_the_first_differing_questions_have_those_with_another_final_answer_in_front() -> None:
    a = [decision(n, "AAA") for n in range(6)]
    b = [a[0], *(decision(n, "BAA") for n in (1, 2)), a[3], *(decision(n, "AAB") for n in (4, 5))]
    found = compared(a, b, examples=3)
    assert [int(one.question_id, 16) for one, _ in found.examples] == [4, 5, 1]
    assert found.examples[0].b.answer == "B"
    assert found.differing == 4


def test_another_way_to_the_same_final_answer_is_counted_apart() -> None:
    a = [decision(0, "AAA")]
    found = compared(a, [dataclasses.replace(a[0], how=How.UNANIMOUS)], {"prompt": "other"})
    assert (found.how, found.differing, found.final.differing) == (1, 0, 0)


def test_holm_counts_the_systems_that_can_differ() -> None:
    a = [decision(n, "AAA") for n in range(8)]
    found = compared(a, [decision(n, "BAB") for n in range(8)])
    p = mcnemar_exact(0, 8).p
    assert [s.scores.p_holm if s.scores else None for s in found.systems] == [*holm([p, p])[:1], None, 2 * p]


def test_numbers_and_agents_of_other_names_are_compared(tmp_path: Path) -> None:
    a, b = (plan([agent(name, {})], count=1) for name in ("one", "other"))
    rows = [
        decision(0, "AA", "72", answers={name: answer}, confidences={}, outcomes={name: "ok"}, answer=answer)
        for name, answer in (("one", "72"), ("other", "-3.5"))
    ]
    found = compare(finished(tmp_path / "a", a, rows[:1]), finished(tmp_path / "b", b, rows[1:]))
    assert [(s.name, s.different, s.scores.lost if s.scores else 0) for s in found.systems] == [
        ("one / other", 1, 1),
        ("ORCH", 1, 1),
    ]


class TestBadFolders:
    @pytest.fixture
    def good(self, tmp_path: Path) -> Any:
        return finished(tmp_path / "good", usual_plan(2), [decision(0, "AAA"), decision(1, "AAA")])

    @pytest.mark.parametrize("swapped", [False, True])
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"question_id": "0"', "is not a decision"),
            ("[]", "is not a decision"),
            ('{"question_id": "0"}', "is not a decision"),
            ("\N{BYTE ORDER MARK}{}", "is not a decision"),
        ],
    )
    def test_a_damaged_line_is_named(
        self, tmp_path: Path, good: Any, line: str, message: str, swapped: bool
    ) -> None:
        bad = finished(tmp_path / "bad", usual_plan(2), [decision(0, "AAA"), decision(1, "AAA")])
        rewrite(bad, 1, line)
        with pytest.raises(StoreError, match=message) as error:
            compare(*((bad, good) if swapped else (good, bad)))
        assert error.value.where == f"{bad.decisions}, line 2"

    @pytest.mark.parametrize("name", ["answers", "confidences", "outcomes"])
    def test_a_list_in_place_of_an_object_is_damage(self, tmp_path: Path, good: Any, name: str) -> None:
        row = decision(0, "AAA").to_row() | {name: []}
        bad = finished(tmp_path / "bad", usual_plan(2), [decision(0, "AAA"), decision(1, "AAA")])
        rewrite(bad, 0, json.dumps(row))
        with pytest.raises(StoreError, match="must be objects"):
            compare(good, bad)

    @pytest.mark.parametrize("swapped", [False, True])
    def test_a_cut_file_is_damage(self, tmp_path: Path, good: Any, swapped: bool) -> None:
        bad = finished(tmp_path / "bad", usual_plan(2), [decision(0, "AAA")])
        with pytest.raises(StoreError, match="holds 1 decisions of 2 questions"):
            compare(*((bad, good) if swapped else (good, bad)))

    @pytest.mark.parametrize("missing", ["decisions", "metrics"])
    def test_an_unfinished_run_is_refused(self, tmp_path: Path, good: Any, missing: str) -> None:
        bad = finished(tmp_path / "bad", usual_plan(1), [decision(0, "AAA")])
        getattr(bad, missing).unlink()
        with pytest.raises(StoreError, match="not finished") as error:
            compare(good, bad)
        assert error.value.where == str(bad.root)

    def test_a_folder_that_is_no_run_is_refused(self, tmp_path: Path, good: Any) -> None:
        with pytest.raises(StoreError, match="no such file") as error:
            compare(good, dataclasses.replace(good, root=tmp_path / "nowhere"))
        assert "is this the folder of a run?" in str(error.value)

    @pytest.mark.parametrize("content", ["[]", "{}", '{"digest": null}'])
    def test_metrics_without_a_digest_are_refused(self, good: Any, content: str) -> None:
        good.metrics.write_text(content, encoding="utf-8")
        with pytest.raises(StoreError, match="holds no digest"):
            compare(good, good)
