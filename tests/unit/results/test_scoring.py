"""Scoring against a brute-force count of the same decisions, and what may never be counted as wrong."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.records import Decision, How
from orch_local.results.scoring import Metrics, System, is_correct, score
from orch_local.stats import mcnemar_exact, wilson

AGENTS = ("quant", "chrono", "verbal")
ANSWERS = st.sampled_from(["A", "B", "C", None])
FAILURES = st.sampled_from(["truncated", "invalid", "too_long", "failed"])


def decision(answers: str, answer: str | None = "A", gold: str | None = "A", **changes: object) -> Decision:
    """A decision from one letter for each agent; ``-`` is an invalid analysis, ``.`` an agent not asked."""
    asked = {name: letter for name, letter in zip(AGENTS, answers, strict=True) if letter != "."}
    made = Decision(
        question_id="0" * 16,
        category="logic",
        gold=gold,
        answers={name: None if letter == "-" else letter for name, letter in asked.items()},
        confidences=dict.fromkeys(asked, 50),
        outcomes={name: "invalid" if letter == "-" else "ok" for name, letter in asked.items()},
        answer=answer,
        how=How.MERGE if answer else How.UNSCORED,
        reason="" if answer else "quorum",
        majority=answer,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    asked = draw(st.lists(st.sampled_from(AGENTS), unique=True))
    answers = {name: draw(ANSWERS) for name in AGENTS if name in asked}
    answer = draw(ANSWERS)
    return Decision(
        question_id="0" * 16,
        category=draw(st.sampled_from(["arithmetic", "logic", ""])),
        gold=draw(ANSWERS),
        answers=answers,
        confidences={},
        outcomes={name: "ok" if given else draw(FAILURES) for name, given in answers.items()},
        answer=answer,
        how=draw(st.sampled_from([h for h in How if h is not How.UNSCORED])) if answer else How.UNSCORED,
        reason="" if answer else draw(st.sampled_from(["quorum", "merge invalid", ""])),
        majority=draw(ANSWERS),
    )


Verdict = Callable[[Decision], bool | None]


def of_agent(name: str) -> Verdict:
    return lambda d: is_correct(d.answers.get(name), d.gold)


def of_orch(d: Decision) -> bool | None:
    return is_correct(d.answer, d.gold)


def of_majority(d: Decision) -> bool | None:
    return is_correct(d.majority, d.gold)


def of_oracle(d: Decision) -> bool | None:
    given = [a for a in d.answers.values() if a is not None]
    return any(a == d.gold for a in given) if given and d.gold is not None else None


VERDICTS: dict[str, Verdict] = {
    **{name: of_agent(name) for name in AGENTS},
    "majority": of_majority,
    "ORCH": of_orch,
    "oracle": of_oracle,
}


def check_system(system: System, verdict: Verdict, with_gold: list[Decision]) -> None:
    results = [result for d in with_gold if (result := verdict(d)) is not None]
    assert (system.scored, system.correct) == (len(results), sum(results))
    assert system.accuracy == (sum(results) / len(results) if results else None)
    assert system.accuracy_all == (sum(results) / len(with_gold) if with_gold else None)
    interval = wilson(sum(results), len(results))
    assert (system.low, system.high) == (interval or (None, None))
    assert system.scored + sum(system.unscored.values()) == len(with_gold)


@settings(max_examples=40, deadline=None)
@given(st.lists(decisions(), max_size=30))
def test_every_system_in_every_category_equals_a_brute_force_count(made: list[Decision]) -> None:
    metrics = score(iter(made), AGENTS)
    with_gold = [d for d in made if d.gold is not None]
    assert list(metrics.categories) == sorted({d.category for d in with_gold})
    groups = [(metrics.total, with_gold)]
    groups += [(s, [d for d in with_gold if d.category == c]) for c, s in metrics.categories.items()]
    for systems, members in groups:
        assert systems.gold == len(members)
        for name, system in systems.named():
            check_system(system, VERDICTS[name], members)


@settings(max_examples=40, deadline=None)
@given(st.lists(decisions(), max_size=30))
def test_comparisons_are_over_questions_that_both_answered(made: list[Decision]) -> None:
    versus = score(made, AGENTS).versus
    for name, comparison in [*versus.agents.items(), ("majority", versus.majority)]:
        pairs = [(of_orch(d), VERDICTS[name](d)) for d in made]
        counts = Counter(pair for pair in pairs if None not in pair)
        gained, lost = counts[True, False], counts[False, True]
        assert (comparison.n, comparison.gained, comparison.lost) == (counts.total(), gained, lost)
        assert comparison.p == (mcnemar_exact(gained, lost).p if comparison.n else None)


@settings(max_examples=20, deadline=None)
@given(st.lists(decisions(), max_size=20), st.randoms(use_true_random=False))
def test_the_order_of_decisions_does_not_matter(made: list[Decision], random: object) -> None:
    shuffled = list(made)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert json.dumps(score(made, AGENTS).to_dict()) == json.dumps(score(shuffled, AGENTS).to_dict())


@given(st.lists(decisions(), max_size=20))
@settings(max_examples=20, deadline=None)
def test_every_decision_is_counted_once_by_how_and_by_gold(made: list[Decision]) -> None:
    metrics = score(made, AGENTS)
    assert metrics.questions == len(made) == sum(metrics.how.values())
    assert metrics.no_gold + metrics.total.gold == len(made)
    assert metrics.answered == sum(d.answer is not None for d in made)


def test_a_question_without_gold_enters_no_accuracy() -> None:
    metrics = score([decision("ABC"), decision("BBB", "B", gold=None)], AGENTS)
    assert (metrics.questions, metrics.no_gold, metrics.total.gold) == (2, 1, 1)
    assert metrics.total.orch.accuracy == 1
    assert metrics.total.agents["chrono"].scored == 1


def test_unscored_is_counted_by_reason_and_never_as_wrong() -> None:
    metrics = score([decision("AAA"), decision("--.", None)], AGENTS)
    orch, agents = metrics.total.orch, metrics.total.agents
    assert (orch.scored, orch.accuracy, orch.accuracy_all) == (1, 1.0, 0.5)
    assert orch.unscored == {"quorum": 1}
    assert agents["quant"].unscored == {"invalid": 1}
    assert agents["verbal"].unscored == {"not_asked": 1}
    assert metrics.total.majority.unscored == {"no_majority": 1}
    assert metrics.total.oracle.unscored == {"no_usable_analysis": 1}


def test_the_oracle_is_right_where_any_agent_is() -> None:
    metrics = score([decision("BCA", "B"), decision("BCC", "B"), decision("-B.", "B")], AGENTS)
    assert (metrics.total.oracle.correct, metrics.total.oracle.scored) == (1, 3)


def test_numbers_are_compared_as_canonical_strings() -> None:
    assert is_correct("72", "72") is True
    assert is_correct("72.0", "72") is False


@pytest.mark.parametrize(
    ("made", "best"),
    [
        pytest.param(["ABB", "ABB", "BAB"], "quant", id="most right"),
        pytest.param(["ABC", "BAC"], "quant", id="a tie goes to the first agent"),
        pytest.param(["A..", "AA.", "BA."], "chrono", id="as many right of fewer asked is better"),
        pytest.param(["---"], None, id="nobody answered"),
    ],
)
def test_the_best_agent(made: list[str], best: str | None) -> None:
    assert score([decision(answers) for answers in made], AGENTS).best_agent == best


def test_agreement_needs_two_usable_analyses() -> None:
    made = [decision("AAA"), decision("AA-"), decision("A--"), decision("ABA")]
    agreement = score(made, AGENTS).agreement
    assert (agreement.panels, agreement.unanimous, agreement.share) == (3, 2, 2 / 3)


def test_unanimous_decisions_are_merge_calls_saved() -> None:
    metrics = score([decision("AAA", how=How.UNANIMOUS), decision("ABA")], AGENTS)
    assert (metrics.merge_calls, metrics.merge_calls_saved) == (1, 1)
    assert metrics.how == {"merge": 1, "unanimous": 1}


def test_agents_may_have_the_names_of_other_systems() -> None:
    made = replace(decision("AAA", "B"), answers={"ORCH": "A"}, outcomes={"ORCH": "ok"})
    metrics = score([made], ["ORCH"])
    assert (metrics.total.agents["ORCH"].correct, metrics.total.orch.correct) == (1, 0)


def test_nothing_to_score_gives_no_numbers_but_valid_json() -> None:
    metrics = score([], AGENTS)
    assert metrics.total.orch.accuracy is None
    assert metrics.total.best_accuracy is None
    assert metrics.versus.majority.p is None
    json.dumps(metrics.to_dict(), allow_nan=False)


def test_metrics_as_a_dict_hold_plain_values_only() -> None:
    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(type(k) is str and plain(v) for k, v in value.items())
        return type(value) in (int, float, str, type(None))

    metrics: Metrics = score([decision("ABC"), decision("---", None)], AGENTS)
    assert plain(metrics.to_dict())
