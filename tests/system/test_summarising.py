"""The summary of a run: the same figures as scoring has, and more; from few files, without NaN."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from any_decisions import NAMES, letters, many_decisions, summary_from
from hypothesis import given, settings
from run_folders import finished_run
from two_runs import agent, plan

from orch_local.errors import StoreError
from orch_local.placement.machine import Machine
from orch_local.placement.replicas import Placement, Replica
from orch_local.records import Decision, Usage
from orch_local.results.scoring import Cost, PairedComparison, System, is_correct, score
from orch_local.results.spending import device_time, spending
from orch_local.results.summarise import summarise, to_json
from orch_local.results.summary import PairSummary, Summary, SystemSummary
from orch_local.results.tables import MAJORITY, ORCH
from orch_local.results.timeline import Span, Timeline, keep
from orch_local.store.store import RunFolder

FEW = settings(max_examples=25, deadline=None)
PAIR = ("quant", "chrono")


def same_system(one: SystemSummary, other: System) -> None:
    assert (one.scored, one.correct, one.unscored) == (other.scored, other.correct, other.unscored)
    assert one.accuracy_all == other.accuracy_all
    share = one.accuracy
    found = (share.value, share.low, share.high) if share else (None, None, None)
    assert found == (other.accuracy, other.low, other.high)


def same_pair(one: PairSummary, other: PairedComparison) -> None:
    difference = one.difference.value if one.difference else None
    assert (one.n, one.gained, one.lost, difference, one.p) == (
        other.n, other.gained, other.lost, other.difference, other.p,
    )  # fmt: skip


def holm(found: Sequence[float]) -> list[float]:
    """Of m p-values the smallest is multiplied by m, the next by m - 1, and none falls below the last."""
    order = sorted(range(len(found)), key=lambda i: found[i])
    adjusted, reached = [0.0] * len(found), 0.0
    for rank, i in enumerate(order):
        reached = max(reached, min(1.0, found[i] * (len(found) - rank)))
        adjusted[i] = reached
    return adjusted


def pair(summary: Summary, first: str, second: str) -> PairSummary:
    return next(one for one in summary.pairs if (one.first, one.second) == (first, second))


# --- the same as scoring ----------------------------------------------------------------------------


@FEW
@given(many_decisions())
def test_all_that_scoring_tells_is_told_alike(made: list[Decision]) -> None:
    metrics, summary = score(made, NAMES), summary_from(made)
    for one, (name, other) in zip(summary.systems, metrics.total.named(), strict=True):
        assert one.name == name
        same_system(one, other)
    assert (summary.questions, summary.gold, summary.no_gold) == (
        metrics.questions, metrics.total.gold, metrics.no_gold,
    )  # fmt: skip
    assert (summary.best_agent, summary.agreement) == (metrics.best_agent, metrics.agreement.share)
    assert list(summary.how.items()) == list(metrics.how.items())
    assert summary.questions - sum(summary.unscored.values()) == metrics.answered
    for name, other in metrics.versus.agents.items():
        same_pair(pair(summary, ORCH, name), other)
    same_pair(pair(summary, ORCH, MAJORITY), metrics.versus.majority)


@FEW
@given(many_decisions())
def test_categories_are_those_of_scoring(made: list[Decision]) -> None:
    metrics, summary = score(made, NAMES), summary_from(made)
    by_name = {
        name.encode("utf-8", "backslashreplace").decode(): one for name, one in metrics.categories.items()
    }
    assert [one.name for one in summary.categories] == sorted(by_name)
    for one in summary.categories:
        named = dict(by_name[one.name].named())
        assert one.gold == by_name[one.name].gold
        assert one.scored == {name: system.scored for name, system in named.items()}
        values = {name: share.value if share else None for name, share in one.systems.items()}
        assert values == {name: system.accuracy for name, system in named.items()}
        assert (one.versus_best is None) == (metrics.best_agent is None)


@FEW
@given(many_decisions())
def test_a_category_is_compared_on_its_own_questions(made: list[Decision]) -> None:
    summary = summary_from(made)
    for one in summary.categories:
        mine = [
            each for each in made if each.category.encode("utf-8", "backslashreplace").decode() == one.name
        ]
        if one.versus_best:
            assert summary.best_agent
            same_pair(one.versus_best, score(mine, NAMES).versus.agents[summary.best_agent])
    compared = [one.versus_best for one in summary.categories if one.versus_best]
    known = [one.p for one in compared if one.p is not None]
    assert [one.p_holm for one in compared if one.p is not None] == pytest.approx(holm(known))


@FEW
@given(many_decisions())
def test_pairs_are_all_of_them_and_adjusted_together(made: list[Decision]) -> None:
    found = summary_from(made).pairs
    assert [(one.first, one.second) for one in found] == list(combinations((ORCH, MAJORITY, *NAMES), 2))
    known = [one for one in found if one.p is not None]
    assert [one.p_holm for one in known] == pytest.approx(holm([one.p for one in known if one.p is not None]))
    for one in found:
        assert (one.p is None) == (one.n == 0) == (one.difference is None)
        assert one.both + one.gained + one.lost + one.neither == one.n


def test_cochran_is_of_all_systems_but_the_oracle() -> None:
    """By the formula of Cochran (1950), over the five questions on which all are scored."""
    made = letters("AAA", "BAA", "ABA", "BAA", "BBA", "-AA", majority="B")
    found = summary_from(made, PAIR).cochran
    assert found
    columns, rows = (2, 3, 0, 5), (3, 2, 2, 2, 1)
    k, total = 4, 10
    expected = (k - 1) * (k * sum(c * c for c in columns) - total**2)
    expected /= k * total - sum(r * r for r in rows)
    assert (found.n, found.systems, found.df) == (5, 4, 3)
    assert found.statistic == pytest.approx(expected)


# --- together ---------------------------------------------------------------------------------------


@FEW
@given(many_decisions())
def test_complementarity_counts_what_the_decisions_say(made: list[Decision]) -> None:
    summary = summary_from(made)
    found, best = summary.complementarity, summary.best_agent
    known = [one for one in made if one.gold is not None]

    def right(one: Decision, name: str) -> bool | None:
        return is_correct(one.answers.get(name), one.gold)

    def count(ours: bool, theirs: Sequence[bool | None]) -> int:
        verdicts = [is_correct(one.answer, one.gold) for one in known]
        return sum((v, t) == (ours, not ours) for v, t in zip(verdicts, theirs, strict=True))

    voted = [is_correct(one.majority, one.gold) for one in known]
    alone = [right(one, best) if best is not None else None for one in known]
    scored = [[v for name in NAMES if (v := right(one, name)) is not None] for one in known]
    any_right = [any(verdicts) if verdicts else None for verdicts in scored]
    assert (found.saves, found.breaks) == (count(True, voted), count(False, voted))
    assert (found.saves_against_best, found.breaks_against_best) == (count(True, alone), count(False, alone))
    assert (found.beyond_panel, found.lost_by_merge) == (count(True, any_right), count(False, any_right))
    counts = [sum(right(one, name) is True for name in NAMES) for one in known]
    assert found.right_counts == tuple(counts.count(k) for k in range(len(NAMES) + 1))


@FEW
@given(many_decisions())
def test_saves_and_breaks_are_those_of_the_pair(made: list[Decision]) -> None:
    summary = summary_from(made)
    found, vote = summary.complementarity, pair(summary, ORCH, MAJORITY)
    assert (found.saves, found.breaks) == (vote.gained, vote.lost)
    if summary.best_agent:
        best = pair(summary, ORCH, summary.best_agent)
        assert (found.saves_against_best, found.breaks_against_best) == (best.gained, best.lost)


def test_nothing_is_saved_from_an_agent_that_was_not_asked_or_did_not_answer() -> None:
    """ORCH is right on all; a question that no agent answered is beyond none of them."""
    made = letters("AAA", "A-A", "--A", "BBA", "BBA", majority=None)
    for number in (1, 4):
        for part in (made[number].answers, made[number].outcomes, made[number].confidences):
            assert isinstance(part, dict)
            del part["chrono"]
    found = summary_from(made, PAIR)
    assert found.best_agent == "quant"
    together = found.complementarity
    assert (together.saves, together.saves_against_best, together.beyond_panel) == (0, 2, 2)
    assert (together.breaks, together.breaks_against_best, together.lost_by_merge) == (0, 0, 0)


def test_the_same_wrong_answer_is_a_share_of_what_both_have_wrong() -> None:
    (one,) = summary_from(letters("BBA", "CCA", "BCA", "AAA", "-BA"), PAIR).complementarity.pairs
    assert (one.n, one.same_wrong, one.disagreement) == (4, 2 / 3, 0.0)


def test_without_a_common_error_no_share_of_them_is_told() -> None:
    (one,) = summary_from(letters("ABA", "BAA"), PAIR).complementarity.pairs
    assert one.same_wrong is None
    assert (one.disagreement, one.error_correlation, one.q_statistic) == (1.0, -1.0, -1.0)


def test_an_agent_competes_within_the_tolerance_and_no_further() -> None:
    """Of 100 questions quant has 40 right, chrono 35: 5 points less, and in floats a little more."""
    rows = ["AAA"] * 30 + ["ABA"] * 10 + ["BAA"] * 5 + ["BBA"] * 55
    narrow, middle, wide = summary_from(letters(*rows), PAIR).multiplicity
    assert [one.tolerance for one in (narrow, middle, wide)] == [0.01, 0.02, 0.05]
    assert narrow.competing == middle.competing == ("quant",)
    assert (narrow.n, narrow.ambiguity, narrow.discrepancy) == (0, None, None)
    assert wide.competing == ("quant", "chrono")
    assert (wide.n, wide.ambiguity, wide.discrepancy) == (100, 0.15, 0.15)


def test_the_baseline_is_the_first_of_equally_good_agents() -> None:
    assert summary_from(letters("ABA", "BAA"), PAIR).multiplicity[0].competing == PAIR


def test_without_gold_there_is_no_best_agent_and_no_rival() -> None:
    summary = summary_from(letters("ABA", gold=None), PAIR)
    assert (summary.best_agent, summary.multiplicity, summary.categories) == (None, (), ())
    assert summary.cochran is None
    assert [one.accuracy for one in summary.systems] == [None] * 5


# --- clusters ---------------------------------------------------------------------------------------


def test_intervals_allow_for_shared_sources_where_they_are_known() -> None:
    """Ten questions of one source count as little as their repetition tells."""
    rows = [row for row in ("AAA", "ABB", "BAA", "BBB", "AAB") for _ in range(10)]
    apart = letters(*rows)
    shared = [replace(one, cluster=f"page {number // 10}") for number, one in enumerate(apart)]
    assert all(one.clustered is None for one in summary_from(apart, PAIR).systems)
    for one in summary_from(shared, PAIR).systems:
        assert one.accuracy and one.clustered
        assert one.clustered.value == one.accuracy.value
        assert one.clustered.high - one.clustered.low > 1.5 * (one.accuracy.high - one.accuracy.low)
    wider = [one for one in summary_from(shared, PAIR).pairs if one.clustered and one.difference]
    assert wider
    for pair in wider:
        assert pair.clustered and pair.difference
        assert pair.clustered.value == pytest.approx(pair.difference.value)
        assert pair.clustered.low < pair.difference.low or pair.clustered.high > pair.difference.high


# --- calibration ------------------------------------------------------------------------------------


def signals(summary: Summary) -> list[tuple[str, str, int]]:
    return [(one.system, one.signal, one.n) for one in summary.calibration]


def test_each_signal_that_there_is_is_measured_on_the_answers_that_have_it() -> None:
    made = letters("AAA", "ABA", "BAA", "BBA")
    shares = ({"quant": 0.9, "chrono": 0.8}, {"quant": 0.7}, {}, {})
    made = [replace(one, probabilities=share) for one, share in zip(made, shares, strict=True)]
    assert signals(summary_from(made, PAIR)) == [
        ("quant", "probability", 2),
        ("chrono", "probability", 1),
        ("quant", "confidence", 4),
        ("chrono", "confidence", 4),
    ]


def test_orch_is_calibrated_where_its_merge_agent_decided() -> None:
    made = letters("AAA", "ABA", "BA-", "BBA", confidences={})
    made[0] = replace(made[0], confidence=90)
    made[1] = replace(made[1], confidence=60, probability=0.7)
    summary = summary_from(made, PAIR)
    assert signals(summary) == [("ORCH", "probability", 1), ("ORCH", "confidence", 2)]
    one = summary.calibration[1]
    assert (one.ece, one.brier) == (pytest.approx(0.25), pytest.approx((0.01 + 0.16) / 2))


def test_questions_without_gold_calibrate_nobody() -> None:
    made = [*letters("AA-", "BA-"), *letters("AA-", gold=None)]
    assert signals(summary_from(made, PAIR)) == [("quant", "confidence", 2), ("chrono", "confidence", 2)]


def test_a_threshold_keeps_the_risk_that_it_is_for() -> None:
    rows, stated = ["AA-", "AA-", "BA-", "AA-"], (90, 80, 70, 60)
    made = [replace(one, confidences={"quant": c}) for one, c in zip(letters(*rows), stated, strict=True)]
    (one,) = summary_from(made, PAIR).calibration
    assert list(one.abstain) == ["0.01", "0.02", "0.05", "0.10"]
    point = one.abstain["0.05"]
    assert point and (point.threshold, point.coverage, point.risk) == (0.8, 0.5, 0.0)
    assert [round(p.risk, 3) for p in one.curve] == [0.0, 0.0, 0.333, 0.25]


def test_bins_hold_all_questions_and_accuracies_with_intervals() -> None:
    made = [replace(one, confidences={"quant": 100 * (i % 2)}) for i, one in enumerate(letters(*["AA-"] * 6))]
    (one,) = summary_from(made, PAIR).calibration
    assert [(each.low, each.high, each.n) for each in one.bins] == [(0.0, 1 / 15, 3), (14 / 15, 1.0, 3)]
    assert all(each.accuracy.value == 1 and each.accuracy.low < 1 for each in one.bins)


# --- files ------------------------------------------------------------------------------------------


def test_a_finished_run_is_summarised_with_its_facts(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    summary = summarise(run.folder)
    assert (summary.title, summary.benchmark, summary.policy) == ("run", "jsonl (questions.jsonl)", "agent")
    assert summary.digest == json.loads(run.folder.metrics.read_text())["digest"]
    assert summary.level == "rules"
    assert list(summary.agents) == ["quant", "chrono", "merge"]
    facts = summary.agents["quant"]
    assert facts == {
        "model": "quant", "architecture": "", "role": "solve", "spec": run.spec("quant")[:16],
        "engine": "vllm", "dtype": "float32",
    }  # fmt: skip
    assert summary.agents["merge"]["role"] == "merge"
    assert summary.router is None


def test_neither_questions_nor_rows_nor_json_lines_are_read(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    before = summarise(run.folder)
    shutil.rmtree(run.store.root)
    run.folder.decisions.unlink()
    run.folder.questions.unlink()
    assert summarise(run.folder) == before


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    run.folder.metrics.unlink()
    with pytest.raises(StoreError, match="not finished") as caught:
        summarise(run.folder)
    assert "finish the run" in str(caught.value.hint)


@pytest.mark.parametrize("content", ["[]", "{}", '{"digest": 1}', "not json"])
def test_damaged_metrics_are_told_without_a_traceback(tmp_path: Path, content: str) -> None:
    run = finished_run(tmp_path)
    run.folder.metrics.write_text(content)
    with pytest.raises(StoreError) as caught:
        summarise(run.folder)
    assert caught.value.where == str(run.folder.metrics)
    assert caught.value.hint


def test_decisions_of_another_number_of_questions_are_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    metrics = json.loads(run.folder.metrics.read_text())
    run.folder.metrics.write_text(json.dumps(metrics | {"questions": 5}))
    with pytest.raises(StoreError, match=r"4 decisions, and metrics\.json is of 5"):
        summarise(run.folder)


# --- JSON -------------------------------------------------------------------------------------------


def leaves(value: Any) -> Iterator[Any]:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if children is None:
        yield value
    else:
        for child in children:
            yield from leaves(child)


@FEW
@given(many_decisions())
def test_the_json_form_is_valid_json_and_comes_back_the_same(made: list[Decision]) -> None:
    plain = to_json(summary_from(made))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_an_infinite_odds_ratio_is_a_text_that_float_reads() -> None:
    plain = to_json(summary_from(letters("ABA", "ABA", "ABA"), PAIR))
    ratio = next(one["odds_ratio"] for one in plain["pairs"] if one["second"] == "chrono")
    assert (ratio["value"], ratio["high"]) == ("inf", "inf")
    assert float(ratio["high"]) == float("inf")
    assert 0 < ratio["low"] < 1
    assert all(not isinstance(one, float) or abs(one) < 1e300 for one in leaves(plain))


# --- device time ------------------------------------------------------------------------------------


def span(
    name: str, *times: float | None, devices: tuple[int, ...] = (0,), lane: int = 0, rows: int = 10
) -> Span:
    start, loaded, end = times
    assert start is not None
    assert end is not None
    return Span(name, 1, 1, devices, lane, start, loaded, end, rows)


def execution(*spans: Span, kind: str = "cuda", devices: Sequence[int] = ()) -> Timeline:
    replicas = tuple(Replica("quant", 1, 1, 0.0, 1.0, (d,), 0, 0.9, 0.0, 1.0, 2.0) for d in devices)
    placed = Placement(Machine(kind, 2, 80.0), replicas)
    return Timeline("2026-01-01T00:00:00+00:00", "node", "", placed, spans)


def test_one_device_is_split_into_load_generate_and_idle() -> None:
    time = device_time([execution(span("quant", 0, 10, 40), span("merge", 50, 55, 60))])
    assert dict(time.load) == {"quant": 10, "merge": 5}
    assert dict(time.generate) == {"quant": 30, "merge": 5}
    assert (time.idle, time.held) == (10, 60)


def test_a_planned_device_without_a_worker_idles_to_the_end() -> None:
    assert device_time([execution(span("quant", 0, 10, 40), devices=(0, 1))]).idle == 40


def test_a_model_over_two_devices_takes_both() -> None:
    time = device_time([execution(span("quant", 0, 10, 40, devices=(0, 1)))])
    assert (time.load["quant"], time.generate["quant"], time.rows["quant"]) == (20, 60, 10)


def test_models_that_share_a_device_share_its_time() -> None:
    """A second is not counted twice: from 10 to 20 one generates while the other still loads."""
    time = device_time([execution(span("quant", 0, 10, 40), span("chrono", 0, 20, 20, lane=1))])
    assert dict(time.load) == {"quant": 5, "chrono": 10}
    assert time.generate["quant"] == 5 + 20
    assert time.held == 40


def test_one_that_never_loaded_has_made_no_rows() -> None:
    time = device_time([execution(span("quant", 0, None, 40))])
    assert (time.load["quant"], time.generate["quant"], time.rows["quant"]) == (40, 0, 0)


def test_what_is_held_is_devices_times_seconds() -> None:
    spans = [
        span("a", 0, 3, 9, devices=(0, 1)),
        span("b", 9, 11, 30, devices=(1,)),
        span("c", 12, 13, 20),
    ]
    time = device_time([execution(*spans), execution(*spans)])
    assert time.held == pytest.approx(2 * 2 * 30)


def cost(rows: int, now: int = 0) -> Cost:
    return Cost(rows, now, Usage(100, 20, 30), 1.0, 2.0)


def test_shards_sum_up_to_answers_per_device_hour() -> None:
    made = plan([agent("quant", {})], agent("merge", {}, "merge"))
    shards = [execution(span("quant", 0, 10, 40), span("merge", 40, 50, 90))] * 2
    found = spending(made, {"quant": cost(20), "merge": cost(20)}, shards, correct=15)
    assert (found.load_s, found.generate_s, found.merge_s, found.idle_s) == (40, 60, 80, 0)
    assert found.correct_per_device_hour == pytest.approx(15 / (180 / 3600))
    assert found.device == "cuda"
    quant, merge = found.agents
    assert (quant.rows, quant.generated_now, quant.load_s, quant.generate_s) == (20, 20, 20, 60)
    assert (merge.prompt_tokens, merge.cached_tokens, merge.generated_tokens) == (100, 20, 30)


def test_rows_that_came_from_the_store_leave_no_answers_per_hour() -> None:
    made = plan([agent("quant", {})])
    found = spending(made, {"quant": cost(20, now=10)}, [execution(span("quant", 0, 10, 40))], correct=15)
    assert found.correct_per_device_hour is None
    assert (found.agents[0].rows, found.agents[0].generated_now) == (20, 10)


def test_without_timelines_no_device_time_is_told() -> None:
    found = spending(plan([agent("quant", {})]), {}, [], correct=15)
    assert (found.device, found.load_s, found.idle_s, found.correct_per_device_hour) == ("cpu", 0, 0, None)


def test_the_timelines_of_a_run_are_found(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    keep(RunFolder(run.folder.root), execution(span("quant", 0, 10, 40), kind="cpu"))
    assert summarise(run.folder).spending.load_s == 10
