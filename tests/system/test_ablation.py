"""An ablation over a frozen panel: votes, subsets, routers, variants of the merge, what is shown of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from run_folders import Run, analysis, finished_run, snapshot
from running import Cli, Silent
from two_runs import agent, plan

from orch_local.ablate.frozen import AS_RUN, Frozen, RuleReplay, freeze
from orch_local.ablate.missing import Missing, Price, price
from orch_local.ablate.orders import audit
from orch_local.ablate.routers import Choices, grid, sizes
from orch_local.ablate.scores import AblationSystem, adjusted, row_of
from orch_local.ablate.study import CHOICES, ORCH, Ablating, Ablation
from orch_local.ablate.variants import Merges, Variant, derived, seeded_orders, wanted
from orch_local.ablate.votes import VOTES, Votes, subsets, voted
from orch_local.cli import report
from orch_local.errors import InputError, StoreError
from orch_local.merge.merging import Panel, decide, merge_task, needs_merge
from orch_local.merge.panels import Panels
from orch_local.placement.machine import Machine
from orch_local.placement.replicas import Placement
from orch_local.plan.files import load_plan, write_plan
from orch_local.records import Analysis, Outcome, Question
from orch_local.report.ablation import markdown, print_ablation
from orch_local.report.ablation_files import write_files
from orch_local.results.finished import read_decisions, recorded_digest
from orch_local.results.timeline import Span, Timeline, keep
from orch_local.router.averages import Signal
from orch_local.router.routing import RoutingCase
from orch_local.run import scheduler
from orch_local.run.context import RunContext
from orch_local.run.pipeline import run as run_pipeline
from orch_local.run.stats import Timing
from orch_local.store.questions import read_questions
from orch_local.store.store import RunFolder

LABELS = "ABC"
PLACED = Placement(Machine("cpu", 2, 8.0), (), "merge")
NAMES = ("one", "two", "three", "four")


@st.composite
def rows(draw: st.DrawFn) -> Analysis:
    """An analysis as it may come: usable or not, sure or not."""
    if draw(st.integers(0, 4)) == 0:
        return Analysis("k", Outcome.INVALID)
    answer = draw(st.sampled_from(LABELS))
    shares = draw(st.none() | st.just({label: 0.5 if label == answer else 0.25 for label in LABELS}))
    confidence = draw(st.none() | st.integers(0, 100))
    return Analysis("k", Outcome.OK, answer, confidence, probabilities=shares)


panels = st.lists(rows(), min_size=1, max_size=4)


def question(number: int, gold: str | None) -> Question:
    return Question(f"{number:016x}", f"{number}?", tuple(LABELS), gold, f"category {number % 2}")


def frozen_of(table: Sequence[Sequence[Analysis]], golds: Sequence[str | None], quorum: int = 1) -> Frozen:
    """A frozen panel of these analyses."""
    count = len(table[0])
    made = plan([agent(name, {}) for name in NAMES[:count]], agent("merge", {}, "merge"), count=len(table))
    rules = made.config.merge.model_copy(update={"quorum": quorum})
    made = made.model_copy(update={"config": made.config.model_copy(update={"merge": rules})})
    cases = [
        RoutingCase(
            f"{number:016x}",
            f"category {number % 2}",
            tuple(Signal(None if gold is None else row.answer == gold, 1.0, 2.0) for row in panel),
        )
        for number, (panel, gold) in enumerate(zip(table, golds, strict=True))
    ]
    return Frozen(
        plan=made,
        digest="d" * 64,
        usable=[tuple(row if row.usable else None for row in panel) for panel in table],
        labels=[LABELS] * len(table),
        gold=golds,
        cases=cases,
        tokens=np.full((count, len(table)), 10, dtype=np.int64),
        replays={AS_RUN: RuleReplay([panel[0].answer for panel in table], 0)},
    )


frozens = st.integers(2, 4).flatmap(
    lambda count: st.lists(
        st.tuples(
            st.lists(rows(), min_size=count, max_size=count), st.sampled_from(["A", "A", "B", "C", None])
        ),
        min_size=1,
        max_size=12,
    ).map(lambda found: frozen_of([panel for panel, _ in found], [gold for _, gold in found]))
)


@given(st.integers(1, 6))
def test_all_subsets_of_a_few_agents_stand_once(count: int) -> None:
    found = subsets(count)
    assert len(set(found)) == len(found) == 2**count - 1
    assert all(places == tuple(sorted(set(places))) and places for places in found)


@given(st.integers(7, 12))
def test_of_many_agents_there_are_singles_all_but_one_and_all(count: int) -> None:
    assert sorted({len(places) for places in subsets(count)}) == [1, count - 1, count]
    assert len(subsets(count)) == 2 * count + 1


@given(panels, st.sampled_from(VOTES), st.integers(1, 4))
def test_a_vote_is_what_a_run_by_that_policy_decides(panel: list[Analysis], vote: str, quorum: int) -> None:
    quorum = min(quorum, len(panel))
    rules = plan([agent("one", {})]).config.merge.model_copy(update={"policy": vote, "quorum": quorum})
    whole = Panel(NAMES[: len(panel)], tuple(panel))
    assert voted(vote, whole.usable, LABELS, quorum) == decide(question(1, "A"), whole, rules, None).answer


@given(frozens, st.sampled_from(VOTES))
def test_leaving_one_out_is_a_run_without_that_agent(frozen: Frozen, vote: str) -> None:
    every = tuple(range(frozen.agents))
    for places in combinations(every, frozen.agents - 1):
        less = replace(frozen, usable=[tuple(row[place] for place in places) for row in frozen.usable])
        alone = Votes(less).answers(vote, tuple(range(len(places))))
        assert list(Votes(frozen).answers(vote, places)) == list(alone)


@given(st.lists(rows(), min_size=2, max_size=4), st.integers(1, 4))
def test_the_quorum_of_a_subset_is_at_most_its_size(panel: list[Analysis], quorum: int) -> None:
    frozen = frozen_of([panel], ["A"], min(quorum, len(panel)))
    assert list(Votes(frozen).answers("majority", (0,))) == [panel[0].answer]


@settings(deadline=None)
@given(frozens, st.sampled_from(VOTES))
def test_no_choice_of_agents_is_right_more_often_than_the_oracle(frozen: Frozen, vote: str) -> None:
    for k in sizes(frozen.agents):
        choices = Choices(frozen, Votes(frozen), k, vote)
        routed = [choices.routed(one) for one in grid(frozen.agents) if one.k == k]
        most = (choices.chosen(choices.oracle()) == 1).sum()
        fixed = (choices.chosen(choices.fixed()) == 1).sum()
        for choice in (*routed, choices.random(), choices.fixed()):
            assert (choices.chosen(choice) == 1).sum() <= most
        assert fixed == max((row == 1).sum() for row in choices.verdicts)
        expected, gold = choices.expected(), sum(one is not None for one in frozen.gold)
        if expected is None:
            assert not gold
            continue
        shares = [(row == 1).sum() / gold for row in choices.verdicts]
        assert min(shares) - 1e-9 <= expected <= max(shares) + 1e-9


def test_a_routed_panel_costs_what_its_agents_cost() -> None:
    frozen = frozen_of([[analysis("k", "A")] * 3] * 5, ["A"] * 5)
    choices = Choices(frozen, Votes(frozen), 2, "majority")
    assert all(choices.tokens(choices.routed(one)) == 5 * 2 * 10 for one in grid(3) if one.k == 2)


def test_the_grid_leaves_out_what_has_too_many_ways() -> None:
    assert sizes(6) == [1, 2, 3, 4, 5]
    assert all(comb(9, k) <= 64 for k in sizes(9))
    assert {one.k for one in grid(9)} == set(sizes(9)) == {1, 2, 7, 8}


def test_rows_keep_what_is_unscored_apart_and_adjust_for_each_other() -> None:
    reference = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, -1], dtype=np.int8)
    worse = np.array([0, 0, 0, 0, 0, 0, 0, 1, -1, 1], dtype=np.int8)
    systems = [AblationSystem("f", name, "majority", worse, 5) for name in "ab"]
    made = adjusted([row_of(one, reference, 10, 10) for one in (systems[0], *systems)])
    assert (made[1].scored, made[1].correct, made[1].unscored, made[1].cost) == (9, 2, 1, 0.5)
    assert (made[1].compared, made[1].gained, made[1].lost) == (8, 0, 7)
    assert made[0].p is made[0].p_holm is None
    assert made[1].p == pytest.approx(2 / 2**7)
    assert made[1].p_holm == pytest.approx(2 * 2 / 2**7)


def test_holm_leaves_out_what_is_no_hypothesis() -> None:
    reference = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, -1], dtype=np.int8)
    worse = np.array([0, 0, 0, 0, 0, 0, 0, 1, -1, 1], dtype=np.int8)
    families = (ORCH, "votes", *(3 * [CHOICES]))
    made = adjusted(
        [row_of(AblationSystem(f, f, "v", worse, 5), reference, 10, 10) for f in families], CHOICES
    )
    assert made[0].difference is None and made[0].p is None
    assert made[1].p_holm == made[1].p == pytest.approx(2 / 2**7)
    assert [(row.p, row.p_holm) for row in made[2:]] == 3 * [(None, None)]
    assert all(row.difference for row in made[1:])


def test_bounds_and_orch_have_no_p_and_both_bases_of_tokens_are_told(tmp_path: Path) -> None:
    made, _ = ablated(run_with(tmp_path).folder, "none")
    bounds = [row for row in made.rows if row.family == CHOICES]
    assert bounds and all(row.p is row.p_holm is None for row in (made.rows[0], *bounds))
    tested = sum(row.p_holm is not None for row in made.rows)
    assert 0 < tested < len(made.rows) - len(bounds)
    text = markdown(made)
    (first,) = [line for line in text.splitlines() if line.startswith(f"| {ORCH} |")]
    assert [cell.strip() for cell in first.split("|")][6:9] == ["-", "-", "-"]
    assert f"by Holm for the {tested} rows that have one" in text
    console = Console(width=90, record=True, file=(tmp_path / "out").open("w"))
    print_ablation(console, made, 0)
    for told in (text, " ".join(console.export_text().split())):
        assert "of analyses and merges over those of the run" in told
        assert "of the analyses alone" in told


def test_flips_and_positions_are_counted() -> None:
    a, b = analysis("k", "A"), analysis("k", "B")
    frozen = frozen_of([[a, b], [a, b], [a, a], [b, a]], ["A", "B", "A", None])
    found = audit(frozen, (1, 0), ["A", "A", "A", None], ["B", "B", "A", "A"])
    assert (found.n, found.unscored, found.flips, found.to_wrong, found.to_right) == (3, 1, 2, 1, 1)
    assert found.order == ("two", "one")
    # Contested with gold: the first two, of which "two" stands first and is chosen both times.
    assert found.contested == 2
    assert [(one.chosen, one.right) for one in found.positions] == [(2, 1), (0, 1)]


@given(st.integers(1, 9), st.integers(0, 30))
def test_seeded_orders_are_different_and_always_the_same(agents: int, count: int) -> None:
    found = seeded_orders(agents, count)
    assert found == seeded_orders(agents, count)
    assert len(set(found)) == len(found) and tuple(range(agents)) not in found
    assert all(sorted(order) == list(range(agents)) for order in found)
    assert len(found) == min(count, {1: 0, 2: 1, 3: 5, 4: 23}.get(agents, count))


def test_the_folder_of_a_variant_is_named_by_letters_digits_and_dashes() -> None:
    short = Variant("f", "../../etc; rm -rf /", (2, 0), when="always")
    assert short.name == "merge-always-of-3-1"
    names = {Variant("f", "l", tuple(range(n))).name for n in range(60, 70)}
    assert len(names) == 10 and all(len(name) < 120 and "/" not in name for name in names)


def test_variants_are_those_that_the_run_has_not_told_already() -> None:
    three = [agent(name, {}) for name in NAMES[:3]]
    always = plan(three, agent("merge", {}, "merge"))
    few = {one.name for one in wanted(always, "few")}
    assert few == {
        "merge-nominated-of-1-2-3",
        "merge-of-1-2",
        "merge-of-1-3",
        "merge-of-2-3",
        "merge-of-3-2-1",
        "merge-of-2-3-1",
    }
    assert {one.name for one in wanted(always, "all")} == few | {"merge-of-3-1-2"}
    assert wanted(always, "none") == [] == wanted(plan(three), "all")
    seldom = plan(three, agent("merge", {}, "merge"), when="disagreement", candidates="nominated")
    assert {"merge-always-of-1-2-3", "merge-all-of-1-2-3"} < {one.name for one in wanted(seldom, "few")}


def test_other_candidates_are_another_spec_and_another_order_is_not() -> None:
    content: dict[str, Any] = {"panel": {"names": "hidden", "candidates": "all"}}
    made = plan([agent(name, {}) for name in NAMES[:3]], agent("merge", content, "merge"))
    assert made.merger
    nominated = derived(made, Variant("f", "l", (0, 1, 2), candidates="nominated"))
    turned = derived(made, Variant("f", "l", (2, 1, 0)))
    assert nominated.merger and nominated.merger.spec != made.merger.spec
    assert nominated.merger.spec_content["panel"] == {"names": "hidden", "candidates": "nominated"}
    assert turned.merger == made.merger and turned.names == ("three", "two", "one")
    assert made.merger.spec_content == agent("merge", content, "merge").spec_content


Picks = Callable[[Panel], str | None]


def last_nominated(panel: Panel) -> str | None:
    """A merge that does not see the order."""
    return panel.nominated[-1]


def first_position(panel: Panel) -> str | None:
    """A merge that sees nothing else."""
    return panel.usable[0].answer


def run_with(root: Path, pick: Picks = last_nominated, **rules: str) -> Run:
    """A finished run of four questions, whose store has the merges of its variants too."""
    run = Run.begin(root, 4, **rules)
    run.analyse({"quant": "BACA", "chrono": "BBA-"})
    provide(run, run, pick)
    run.decide()
    for one in wanted(run.plan, "all"):
        provide(run, Run(run.folder, derived(run.plan, one), run.store, run.questions), pick)
    return run


def provide(run: Run, other: Run, pick: Picks) -> None:
    """Write the merges that ``other`` wants and the store has not."""
    found, rules, merger = Panels(other.plan, run.store), other.plan.config.merge, other.plan.merger
    assert merger
    stored, wanted_rows = run.store.read(merger.spec), {}
    for one in run.questions:
        panel = found.of(one)
        if needs_merge(panel, rules) and (key := merge_task(one, panel, rules).key) not in stored:
            wanted_rows[key] = analysis(key, str(pick(panel)))
    if wanted_rows:
        other.add("merge", *wanted_rows.values())


def ablated(folder: RunFolder, merges: Merges) -> tuple[Ablation, int]:
    """The ablation from the stored rows alone."""
    return Ablating(folder, merges).finish(Silent())


def of(made: Ablation, family: str, name: str, vote: str) -> Any:
    """The one row of that name."""
    (row,) = [one for one in made.rows if (one.family, one.name, one.vote) == (family, name, vote)]
    return row


def test_a_run_is_ablated_without_being_touched(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    before = snapshot(run.folder.root)
    digest = recorded_digest(run.folder)
    made, generated = ablated(run.folder, "all")
    write_files(run.folder, made)
    after = snapshot(run.folder.root)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("ablations/") for name in set(after) - set(before))
    assert generated == 0 and made.digest == digest
    assert of(made, ORCH, ORCH, "merge").correct == 2
    assert of(made, "one agent alone", "chrono", "agent").unscored == 1
    voted_ = [one.majority for one in read_decisions(run.folder.decisions)]
    row = of(made, "votes", "all agents", "majority")
    assert row.correct == sum(answer == "B" for answer in voted_)


def test_a_merge_that_does_not_see_the_order_never_flips(tmp_path: Path) -> None:
    blind, _ = ablated(run_with(tmp_path / "blind").folder, "all")
    assert [one.flips for one in blind.orders] == [0, 0]
    biased, _ = ablated(run_with(tmp_path / "biased", first_position).folder, "all")
    assert [one.flips for one in biased.orders] == [0, 2]
    assert biased.orders[1].positions[0].chosen == biased.orders[1].contested == 2


def test_disagreement_is_told_from_the_merges_that_are_there(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    made, _ = ablated(run.folder, "none")
    always, seldom = of(made, ORCH, ORCH, "merge"), of(made, "merge rules", "on disagreement", "merge")
    assert (seldom.correct, seldom.scored) == (always.correct, always.scored)
    assert not (run.folder.root / "ablations").exists()


class Merger:
    """Stands for `Supervisor`: writes the merges that it is asked for; ``started`` counts its runs."""

    started: list[str]
    loaded = True
    resident_gib = 0.0

    def __init__(self, folder: RunFolder, agent: Any, store: Any, *_: Any) -> None:
        self._folder, self._store, self.timing = folder, store, Timing(1.0, 1.0)

    def run(self, rows: Any, progress: Any) -> None:
        """See `Supervisor`."""
        self.started.append(self._folder.root.name)
        there = Run(
            self._folder, load_plan(self._folder), self._store, list(read_questions(self._folder.questions))
        )
        provide(there, there, last_nominated)
        progress(len(rows))

    def stop(self) -> None:
        """See `Supervisor`."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Variants that an engine was started for; the engine is ours."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(scheduler, "Supervisor", Merger)
    Merger.started = []
    return Merger.started


def test_no_engine_is_started_unasked(tmp_path: Path, started: list[str]) -> None:
    run = finished_run(tmp_path)
    ablating = Ablating(run.folder, "all")
    missing = {one.label: one.merges for one in ablating.missing}
    # Chrono failed at one question: without quant nothing is left to merge, and one has no other order.
    assert missing == {"candidates nominated": 4, "without quant": 3, "without chrono": 4, "chrono, quant": 3}
    made, generated = ablating.finish(Silent())
    assert (generated, started) == (0, [])
    assert made.left_out == ablating.missing
    left_out = {(one.family, one.label) for one in made.left_out}
    assert left_out.isdisjoint((row.family, row.name) for row in made.rows)
    assert made.orders == ()
    assert of(made, "votes", "all agents", "majority").scored
    assert not list((run.folder.root / "ablations").glob("merge-*"))
    (note,) = [one for one in made.notes if "Left out" in one]
    assert "14 of their merges" in note and "merge, one agent left out: without quant" in note
    assert note in markdown(made)


def test_what_is_asked_for_is_generated_once(tmp_path: Path, started: list[str]) -> None:
    run = finished_run(tmp_path)
    ablating = Ablating(run.folder, "all")
    made, generated = ablating.finish(Silent(), generate=True)
    assert generated == 13  # of 14: where chrono failed, two variants are the same
    assert len(started) == len(ablating.missing) and made.left_out == ()
    again = Ablating(run.folder, "all")
    assert again.missing == ()
    assert again.finish(Silent()) == (made, 0)


def test_variants_whose_merges_are_stored_are_told_beside_those_left_out(
    tmp_path: Path, started: list[str]
) -> None:
    run = finished_run(tmp_path)
    some = wanted(run.plan, "all")[-1]
    provide(run, Run(run.folder, derived(run.plan, some), run.store, run.questions), last_nominated)
    made, _ = Ablating(run.folder, "all").finish(Silent())
    assert [one.order for one in made.orders] == [("quant", "chrono"), ("chrono", "quant")]
    assert [one.label for one in made.left_out] == ["candidates nominated", "without chrono", "without quant"]
    assert started == []


def test_the_price_is_that_of_the_merges_of_the_run(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    missing = [Missing("f", "one", 30), Missing("f", "two", 10)]
    metrics = json.loads(run.folder.metrics.read_text())
    run.folder.metrics.write_text(json.dumps({**metrics, "cost": {}}))
    assert price(run.folder, "merge", missing) == Price(40, None, None)
    cost = {"rows": 4, "generated_now": 0, "usage": {"prompt": 390, "cached": 0, "generated": 10}}
    cost |= {"load_s": 0.0, "generate_s": 0.0}
    run.folder.metrics.write_text(json.dumps({**metrics, "cost": {"merge": cost}}))
    for start, rows, took in ((0.0, 10, 50.0), (100.0, 30, 62.0)):
        # Two seconds of the second generated rows again; the third never came to generate.
        span = Span("merge", 1, 1, (0,), 0, start, start + 20, start + 20 + took, rows, took - 30 * rows / 15)
        other = replace(span, agent="quant", rows=1000)
        keep(run.folder, Timeline("2026-01-01T00:00:00+00:00", "here", "", PLACED, (span, other)))
    lost = Span("merge", 1, 1, (0,), 0, 0.0, None, 500.0, 7)
    keep(run.folder, Timeline("2026-01-02T00:00:00+00:00", "here", "", PLACED, (lost,)))
    # Two loads of 20 s, and 2 s for each of 40 merges; 100 tokens each.
    assert price(run.folder, "merge", missing) == Price(40, 4000, pytest.approx(2 * 20 + 40 * 2.0))


def test_a_command_in_a_pipe_leaves_out_what_is_not_stored(
    tmp_path: Path, cli: Cli, started: list[str]
) -> None:
    run = finished_run(tmp_path)
    found = cli("ablate", run.folder.root, "--merges", "all")
    assert (found.code, started) == (0, [])
    words = " ".join(found.err.split())
    assert "merge, other order: chrono, quant" in words
    assert "4 variants would need up to 14 merges" in words and "--generate generates them" in words
    assert "no analysis and 0 merges generated now" in " ".join(found.out.split())
    assert cli("ablate", run.folder.root, "--merges", "all", "-q").code == 0
    assert started == []


@pytest.mark.parametrize("agreed", [True, False])
def test_a_command_asks_on_a_terminal(
    tmp_path: Path, cli: Cli, started: list[str], monkeypatch: pytest.MonkeyPatch, agreed: bool
) -> None:
    run, asked = finished_run(tmp_path), list[str]()
    monkeypatch.setattr(report, "_has_terminal", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda text, **_: asked.append(text) or agreed)
    assert cli("ablate", run.folder.root).code == 0
    assert bool(started) == agreed
    assert cli("ablate", run.folder.root).code == 0
    assert asked == ["Generate them now?"] * (1 if agreed else 2)


@pytest.mark.parametrize("option", ["--generate", "--stored-only"])
def test_a_command_that_says_it_is_not_asked(
    tmp_path: Path, cli: Cli, started: list[str], monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    run = finished_run(tmp_path)
    monkeypatch.setattr(report, "_agreed", lambda ablating: pytest.fail("it asked"))
    assert cli("ablate", run.folder.root, option).code == 0
    assert bool(started) == (option == "--generate")


def test_a_finished_variant_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_with(tmp_path)
    ran: list[str] = []

    def noted(context: RunContext) -> Any:
        ran.append(context.folder.root.name)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return run_pipeline(context)

    monkeypatch.setattr("orch_local.ablate.variants.run", noted)
    with pytest.raises(KeyboardInterrupt):
        ablated(run.folder, "all")
    first, _ = ablated(run.folder, "all")
    names = [one.name for one in wanted(run.plan, "all")]
    assert ran == [*names[:2], *names[1:]]
    ran.clear()
    again, _ = ablated(run.folder, "all")
    assert ran == [] and again == first


def test_a_variant_of_other_analyses_is_run_again(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    ablated(run.folder, "all")
    basis = run.folder.root / "ablations" / wanted(run.plan, "all")[0].name / "ablation_of.json"
    basis.write_text(json.dumps({"run": "of another digest"}))
    ablated(run.folder, "all")
    assert json.loads(basis.read_text()) == {"run": recorded_digest(run.folder)}


def test_a_routed_run_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    config = run.plan.config.model_validate(
        {**run.plan.config.model_dump(), "router": {"mode": "online", "k": 1}}
    )
    write_plan(run.folder, run.plan.model_copy(update={"config": config}))
    with pytest.raises(InputError, match="without the `router` block"):
        freeze(run.folder)


def test_a_run_that_lacks_rows_is_refused_before_any_merge(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    for chunk in run.store.folder(run.spec("chrono")).glob("*.jsonl"):
        chunk.unlink()
    with pytest.raises(StoreError, match="4 of chrono"):
        ablated(run.folder, "all")
    assert not (run.folder.root / "ablations").exists()


def test_an_unfinished_run_and_a_changed_store_are_refused(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    metrics = json.loads(run.folder.metrics.read_text())
    run.folder.metrics.write_text(json.dumps(metrics | {"digest": "0" * 64}))
    with pytest.raises(StoreError, match="another digest"):
        freeze(run.folder)
    run.folder.metrics.unlink()
    with pytest.raises(StoreError, match="not finished"):
        freeze(run.folder)


def test_the_table_and_the_plot_are_written_and_always_the_same(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    made, _ = ablated(run.folder, "all")
    files = write_files(run.folder, made)
    first = [file.read_bytes() for file in files]
    assert [file.name for file in files] == [f"ablation.{kind}" for kind in ("json", "md", "svg", "png")]
    assert [file.read_bytes() for file in write_files(run.folder, made)] == first
    lines = first[1].decode().split("## ")[0].splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == len(made.rows) + 2
    assert len({line.count(" | ") for line in table}) == 1
    assert json.loads(first[0])["rows"][0]["name"] == ORCH


def test_hostile_names_are_inert(tmp_path: Path) -> None:
    made, _ = ablated(run_with(tmp_path).folder, "none")
    name = "a | b <script>x</script> [bold]c \x1b[31m"
    hostile = replace(made, title=name, rows=(replace(made.rows[0], name=name), *made.rows[1:]))
    text = markdown(hostile)
    assert "<script>" not in text and "\x1b" not in text and "a \\| b" in text
    console = Console(width=90, record=True, file=(tmp_path / "out").open("w"))
    print_ablation(console, hostile, 0)
    shown = console.export_text()
    assert "[bold]" in shown and "\x1b" not in shown


def test_the_table_fits_a_narrow_terminal(tmp_path: Path) -> None:
    made, _ = ablated(run_with(tmp_path).folder, "all")
    console = Console(width=80, record=True, file=(tmp_path / "out").open("w"))
    print_ablation(console, made, 3)
    assert max(map(len, console.export_text().splitlines())) <= 80
