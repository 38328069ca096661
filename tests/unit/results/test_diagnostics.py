"""How the agents answered: counted in one pass and flat memory, against counting in the plainest way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from two_runs import AGENTS, agent, plan, usual_plan

from orch_local.config.blocks import AnswerConfig
from orch_local.merge.merging import Panel
from orch_local.plan.plans import AgentPlan
from orch_local.prompts.template import builtin_text
from orch_local.records import Analysis, Outcome, Question
from orch_local.results.diagnostics import Diagnostics, DiagnosticsCounter, Spread, spread_of
from orch_local.results.diagnostics.copying import RUN, SHORTEST, Instructions, letters
from orch_local.results.diagnostics.counting import instructions
from orch_local.results.diagnostics.figures import ENOUGH
from orch_local.results.diagnostics.repeats import Repeats
from orch_local.results.tables import ORCH

PLAN = usual_plan(3)
NAMES = (*AGENTS, "merge")


def asked(number: int, gold: str | None = "A", choices: int = 4) -> Question:
    """A multiple-choice question, or a numeric one without choices."""
    return Question(f"{number:016x}", f"Number {number}?", tuple("wxyz"[:choices]), gold, "made up")


def row(answer: str, reasoning: str = "", **more: object) -> Analysis:
    """A usable analysis."""
    return replace(Analysis("k", Outcome.OK, answer, reasoning=reasoning), **more)


FAILED = Analysis("k", Outcome.FAILED)


def counted(
    *questions: tuple[Question, Sequence[Analysis | None], Analysis | None, str | None],
) -> Diagnostics:
    """The figures of some questions: each with its panel, the merge agent's row and the final answer."""
    counter = DiagnosticsCounter(PLAN)
    for question, panel, merged, final in questions:
        counter.add(question, Panel(AGENTS, tuple(panel)), merged, final)
    return counter.diagnostics()


ROWS = st.none() | st.builds(
    row,
    st.sampled_from("ABCD"),
    st.sampled_from(
        ["", " ", "one", "two", "two ", "x" * 120, "y" * 60 + " 7 " + "x" * 60, "y" * 60 + "8" + "x" * 60]
    ),
    confidence=st.none() | st.integers(0, 100),
    probabilities=st.none() | st.just({"A": 0.7, "B": 0.3}),
    cut=st.booleans(),
    outcome=st.sampled_from([Outcome.OK, Outcome.OK, Outcome.INVALID]),
)
QUESTIONS = st.lists(
    st.tuples(
        st.builds(asked, st.integers(0, 99), st.none() | st.sampled_from("ABCD"), st.sampled_from([2, 3, 4])),
        st.tuples(ROWS, ROWS),
        ROWS,
        st.none() | st.sampled_from("ABCD"),
    ),
    max_size=60,
)


def of(
    found: Sequence[tuple[Question, Sequence[Analysis | None], Analysis | None, str | None]], name: str
) -> list[tuple[Question, Analysis]]:
    """The usable rows of one agent with their questions."""
    place = NAMES.index(name)
    rows = [(question, [*panel, merged][place]) for question, panel, merged, _ in found]
    return [(question, one) for question, one in rows if one is not None and one.usable]


@settings(max_examples=100, deadline=None)
@given(QUESTIONS)
def test_the_counters_agree_with_the_plainest_way(
    found: list[tuple[Question, Sequence[Analysis | None], Analysis | None, str | None]],
) -> None:
    made = counted(*found)
    assert list(made.agents) == list(NAMES)
    for name in NAMES:
        rows, one = of(found, name), made.agents[name]
        assert one.answers == one.reasonings == len(rows)
        assert one.labels == Counter(said.answer for _, said in rows)
        assert one.gold == Counter(question.gold for question, _ in rows if question.gold)
        texts = [said.reasoning for _, said in rows if said.reasoning.strip()]
        assert one.empty == len(rows) - len(texts)
        assert one.cut == sum(said.cut for _, said in rows if said.reasoning.strip())
        assert one.identical == sum(texts.count(text) > 1 for text in texts)
        ends = [text if len(text) < 60 else text[:50] + text[-50:] for text in texts]
        assert one.alike == sum(ends.count(end) > 1 for end in ends)
        assert one.confidence == naive_spread([said.confidence for _, said in rows])
        shares = [(said.probabilities or {}).get(said.answer or "") for _, said in rows]
        assert one.probability == naive_spread(
            [None if share is None else round(100 * share) for share in shares]
        )
    golds = [(question.gold, len(question.choices)) for question, *_ in found if question.gold]
    assert made.baselines.questions == len(golds)
    if golds:
        most = max(sorted("ABCD"), key=[gold for gold, _ in golds].count)
        assert made.baselines.label == most
        assert made.baselines.chance == pytest.approx(sum(1 / n for _, n in golds) / len(golds))
        final = [(answer, question.gold) for question, *_, answer in found if answer and question.gold]
        if final:
            against = made.baselines.against[ORCH]
            assert against.questions == len(final)
            assert against.right == sum(answer == gold for answer, gold in final)
            assert against.label_right == sum(gold == most for _, gold in final)


def naive_spread(values: Sequence[int | None]) -> Spread | None:
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    top = max(known, key=known.count)
    return Spread(len(known), len(set(known)), top, known.count(top))


def test_memory_does_not_grow_with_the_questions() -> None:
    repeats = Repeats(capacity=64)
    for number in range(5_000):
        repeats.add(f"text {number}".encode())
    assert 0 < len(repeats) <= 64


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=600), st.randoms())
def test_which_texts_are_kept_does_not_depend_on_their_order(numbers: list[int], random: object) -> None:
    first, second, exact = Repeats(32), Repeats(32), Repeats()
    for number in numbers:
        first.add(str(number).encode())
        exact.add(str(number).encode())
    for number in sorted(numbers):
        second.add(str(number).encode())
    assert first.repeated == second.repeated
    assert exact.repeated == sum(numbers.count(number) > 1 for number in numbers)


def test_beyond_the_capacity_the_repeated_texts_are_estimated() -> None:
    repeats = Repeats(capacity=4096)
    for number in range(60_000):
        repeats.add(f"only once: {number}".encode())
    for number in range(30_000):
        repeats.add(f"many times: {number % 3_000}".encode())
    assert repeats.repeated / 90_000 == pytest.approx(1 / 3, abs=0.03)


def test_reasonings_with_lone_surrogates_are_counted() -> None:
    rows = [(asked(n), (row("A", "\ud800 is no character"), None), None, "A") for n in range(2)]
    assert counted(*rows).agents["quant"].identical == 2


def told(role: str, kind: str = "analysis", chars: int = 600) -> AgentPlan:
    """An agent with a built-in prompt."""
    made = agent("quant", {}, "merge" if kind == "merge" else "analysis")
    return made.model_copy(
        update={"template": builtin_text(role), "answer": AnswerConfig(reasoning_chars=chars)}
    )


@pytest.mark.parametrize("role", ["solve", "eliminate", "verify", "merge"])
@pytest.mark.parametrize("labels", ["ABCD", ""])
def test_a_part_of_the_prompt_is_found_again(role: str, labels: str) -> None:
    parts = list(instructions(told(role, role), labels))
    known = Instructions(parts)
    longest = max(parts, key=len)
    middle = len(longest) // 2
    piece = " ".join(longest[middle : middle + 90].split())
    for text in (longest, piece, f"Iron is heavy. {piece.upper()} So iron it is.", piece.replace(" ", "\n")):
        assert known.are_copied(letters(text.encode()))
    own = "Iron sinks in water because its density is larger, so the nail goes down and the cork floats."
    assert not known.are_copied(letters(own.encode()))
    assert not known.are_copied(b"")


@settings(max_examples=200, deadline=None)
@given(
    st.text("abcd", max_size=80),
    st.integers(0, 200),
    st.text("efgh", max_size=60),
    st.text("efgh", max_size=60),
)
def test_a_run_of_instructions_is_found_wherever_it_stands(
    told_: str, at: int, before: str, after: str
) -> None:
    text = "".join(chr(97 + (number * number + number // 7) % 26) for number in range(200)) + told_
    run = text[at : at + RUN]
    if len(run) == RUN:
        assert Instructions([text]).are_copied(f"{before}{run}{after}".encode())


@settings(max_examples=200, deadline=None)
@given(st.text("ab", max_size=120), st.text("ab", max_size=120))
def test_copies_are_runs_that_both_texts_hold(told_: str, text: str) -> None:
    runs = {text[at : at + RUN] for at in range(len(text) - RUN + 1)}
    expected = any(run in told_ for run in runs) or (SHORTEST <= len(text) < RUN and text in told_)
    assert Instructions([told_]).are_copied(text.encode()) == expected


def test_a_prompt_that_cannot_be_made_has_no_instructions() -> None:
    assert list(instructions(agent("quant", {}), "ABCD")) == []  # its template has no place for choices


def test_copies_are_counted_by_agent() -> None:
    made = plan([told("solve")], count=1)
    counter = DiagnosticsCounter(made)
    form = list(instructions(made.agents[0], "ABCD"))[-1][-120:]
    for number, text in enumerate(
        [form, "at most 600 characters", "Iron sinks, since it is dense and heavy."]
    ):
        counter.add(asked(number), Panel(("quant",), (row("A", text),)), None, "A")
    found = counter.diagnostics().agents["quant"]
    assert found.copied == (
        2 if "at most 600 characters" in "".join(instructions(made.agents[0], "ABCD")) else 1
    )


def test_an_agent_without_reasoning_has_no_figures_of_it() -> None:
    direct = agent("quant", {}).model_copy(update={"answer": AnswerConfig(reasoning_chars=0)})
    counter = DiagnosticsCounter(plan([direct], count=1))
    counter.add(asked(1), Panel(("quant",), (row("A"),)), None, "A")
    found = counter.diagnostics().agents["quant"]
    assert (found.answers, found.reasonings, found.empty) == (1, 0, 0)


def test_contradictions_are_counted() -> None:
    texts = ["The answer is B.", "The answer is A.", "The correct answer is A, B, C, or D."]
    found = counted(*((asked(n), (row("A", text), None), None, "A") for n, text in enumerate(texts)))
    assert (found.agents["quant"].contradicted, found.agents["quant"].undecided) == (1, 1)


def test_agents_that_never_differ() -> None:
    def run(count: int, last: str) -> Diagnostics:
        letters_ = ["ABCD"[number % 4] for number in range(count)]
        rows = [(asked(n), (row(one), row(one)), row(one), one) for n, one in enumerate(letters_)]
        return counted(*rows, (asked(count), (row("A"), row(last)), FAILED, None))

    same = run(ENOUGH, "A")
    assert {(one.first, one.second) for one in same.never_differ} == set(combinations(NAMES, 2))
    assert {one.questions for one in same.never_differ} == {ENOUGH, ENOUGH + 1}  # the merge agent failed once
    assert [(one.first, one.second) for one in run(ENOUGH, "B").never_differ] == [
        ("quant", "merge"),
        ("chrono", "merge"),
    ]
    assert run(ENOUGH - 2, "A").never_differ == ()


def test_numeric_questions_have_no_labels_and_no_baseline() -> None:
    found = counted((asked(1, "12", choices=0), (row("12", "3 * 4 = 12"), None), None, "12"))
    assert found.agents["quant"].labels == {}
    assert (found.baselines.questions, found.baselines.label, found.baselines.against) == (0, None, {})


def test_always_the_most_frequent_gold_is_compared_on_the_same_questions() -> None:
    golds = "AAAB" * 10
    rows = [(asked(n, gold), (row("A"), row(gold)), None, "B") for n, gold in enumerate(golds)]
    found = counted(*rows).baselines
    assert (found.label, found.label_accuracy, found.chance) == ("A", 0.75, 0.25)
    quant, chrono, orch = (found.against[name] for name in ("quant", "chrono", ORCH))
    assert (quant.right, quant.label_right, quant.p) == (30, 30, 1.0)
    assert (chrono.right, chrono.label_right) == (40, 30)
    assert chrono.p == pytest.approx(2 / 2**10)
    assert (orch.right, orch.label_right) == (10, 30)


@pytest.mark.parametrize(
    ("counts", "constant", "flat"),
    [
        ({100: 19}, False, False),  # too few rows
        ({100: 20}, True, True),
        ({100: 95, 0: 1, 1: 1, 2: 1, 3: 1, 4: 1}, True, True),
        ({100: 94, 0: 6}, False, True),
        ({100: 94, 0: 3, 50: 3}, False, False),
    ],
)
def test_a_signal_without_spread(counts: dict[int, int], constant: bool, flat: bool) -> None:
    found = spread_of(Counter(counts))
    assert found is not None
    assert (found.value, found.is_constant, found.is_flat) == (100, constant, flat)


def test_of_equally_frequent_values_the_lowest_is_named() -> None:
    assert spread_of(Counter({80: 2, 20: 2, 90: 1})) == Spread(5, 3, 20, 2)
    assert spread_of(Counter()) is None


def test_the_figures_come_back_from_their_file() -> None:
    found = counted((asked(1), (row("A", "so it is", confidence=7), FAILED), row("B"), "B"))
    written = json.loads(json.dumps(asdict(found)))
    assert TypeAdapter(Diagnostics).validate_python(written) == found
