"""What is said of how the agents answered: only where it matters, in the same words in every report."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from page_runs import finished, questions, spoken, written
from rich.console import Console
from run_folders import Run
from summaries import AGENTS, HOSTILE, diagnostics, hostile, usual

from orch_local.records import Analysis, Question
from orch_local.report.findings import Findings, baseline_sentence, findings, flat_sentence
from orch_local.report.formatting import NBSP
from orch_local.report.markdown import code, markdown
from orch_local.report.page import render
from orch_local.report.page.writing import page_of
from orch_local.report.story import print_story
from orch_local.report.summary import print_summary
from orch_local.results.diagnostics import AgainstLabel, Diagnostics, NeverDiffer, Spread
from orch_local.results.showing import story
from orch_local.results.summarise import summarise, to_json
from orch_local.results.summary import Summary
from orch_local.results.tables import ORCH

QUANT = AGENTS[0]
GOOD = diagnostics().agents[AGENTS[1]]


def said(found: Diagnostics, policy: str = "agent") -> Findings:
    """The findings with ordinary spaces."""
    made = findings(found, policy)
    return Findings(*(tuple(one.replace(NBSP, " ") for one in part) for part in made))


def of(policy: str = "agent", **changes: Any) -> Findings:
    """What is said of a good run in which one agent differs in some figure."""
    return said(run_of(**changes), policy)


def run_of(**changes: Any) -> Diagnostics:
    """A run with nothing to say, but for the figures of one agent."""
    good = diagnostics()
    baselines = replace(good.baselines, against={ORCH: AgainstLabel(100, 90, 30, 1e-9)})
    return Diagnostics(baselines, {QUANT: replace(GOOD, **changes), "chrono": GOOD}, ())


def test_of_a_good_run_nothing_is_said() -> None:
    assert of() == Findings((), ())
    assert not of()
    assert of("confidence") == Findings((), ())
    assert findings(None, "agent") == Findings((), ())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"labels": {"A": 96, "B": 4}},
            "quant answered A on 96.0 % of 100 questions (gold: A 25.0 %).",
        ),
        (
            {"cut": 12},
            "12.0 % of the reasonings of quant reached their bound and end where it cut them; raise "
            "answer.reasoning_chars or ask for less.",
        ),
        (
            {"copied": 5},
            "5.0 % of the reasonings of quant copy instructions of the prompt instead of reasoning.",
        ),
        ({"empty": 100}, "100.0 % of the reasonings of quant are empty, though the form asks for one."),
        (
            {"contradicted": 8},
            "8.0 % of the reasonings of quant contradict their own answer: the last statement in "
            "the text names another one.",
        ),
        ({"undecided": 20}, "20.0 % of the reasonings of quant name several labels as the answer."),
        (
            {"identical": 31, "alike": 40},
            "31.0 % of the reasonings of quant are identical to another reasoning of the same agent.",
        ),
        (
            {"alike": 10},
            "10.0 % of the reasonings of quant begin and end like another one, with other words or "
            "numbers between.",
        ),
        (
            {"confidence": Spread(100, 1, 100, 100)},
            "quant stated 100 for confidence in every row, so a vote weighted by it is a plain vote.",
        ),
        (
            {"confidence": Spread(100, 4, 90, 96)},
            "quant stated 90 for confidence in 96.0 % of rows, so a vote weighted by it is a plain vote.",
        ),
        (
            {"confidence": Spread(100, 2, 0, 60)},
            "quant (0 in 60.0 % of rows) stated only two values for confidence.",
        ),
    ],
)
def test_each_finding_has_its_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert of(**changes) == Findings((), (sentence,))


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": {"A": 44, "B": 19, "C": 19, "D": 18}},
        {"labels": {"A": 19}, "gold": {"B": 19}},
        {"labels": {"A": 89, "B": 11}, "gold": {}},
        {"cut": 4},
        {"copied": 4},
        {"empty": 4},
        {"contradicted": 4},
        {"undecided": 4},
        {"identical": 9, "alike": 18},
        {"reasonings": 19, "cut": 19, "copied": 19, "identical": 19, "alike": 19},
        {"confidence": Spread(19, 1, 100, 19)},
        {"confidence": Spread(100, 3, 100, 94)},
        {"confidence": None, "probability": None},
    ],
)
def test_below_the_thresholds_nothing_is_said(changes: dict[str, Any]) -> None:
    assert of(**changes) == Findings((), ())


def test_without_gold_one_label_is_told_by_its_share() -> None:
    assert of(labels={"A": 90, "B": 10}, gold={}).agents == ("quant answered A on 90.0 % of 100 questions.",)


def test_nearly_all_is_not_written_as_all() -> None:
    (sentence,) = of(reasonings=100_000, cut=99_999).agents
    assert sentence.startswith("over 99.9 % of the reasonings of quant")


def test_several_agents_share_a_sentence() -> None:
    agents = {f"agent{number}": replace(GOOD, cut=50) for number in range(10)}
    found = said(replace(run_of(), agents=agents)).agents
    assert len(found) == 1
    assert "of the reasonings of agent0, 50.0 % of those of agent1," in found[0]
    assert "of agent7 and 2 more reached their bound" in found[0]


def test_agents_that_never_differ_are_named() -> None:
    found = replace(run_of(), never_differ=(NeverDiffer("quant", "chrono", 1234),))
    assert said(found).agents == (
        "quant and chrono gave the same answer to all 1,234 questions that both answered: together they say "
        "no more than one of them.",
    )


@pytest.mark.parametrize(
    ("orch", "sentence"),
    [
        (
            AgainstLabel(100, 31, 30, 0.9),
            "ORCH (31.0 % of 100 questions) is not above always answering D (30.0 %; "
            "p = 0.900); chance is 25.0 %.",
        ),
        (
            AgainstLabel(100, 29, 30, 0.9),
            "ORCH (29.0 % of 100 questions) is not above always answering D (30.0 %; "
            "p = 0.900); chance is 25.0 %.",
        ),
        (
            AgainstLabel(100, 10, 30, 0.001),
            "ORCH (10.0 % of 100 questions) is below always answering D (30.0 %; "
            "p = 0.001); chance is 25.0 %.",
        ),
        (AgainstLabel(100, 50, 30, 0.049), None),
        (AgainstLabel(19, 1, 9, 0.01), None),
    ],
)
def test_orch_against_the_most_frequent_label(orch: AgainstLabel, sentence: str | None) -> None:
    found = run_of()
    found = replace(found, baselines=replace(found.baselines, against={ORCH: orch}))
    assert said(found) == Findings((sentence,) if sentence else (), ())


def test_an_agent_against_the_most_frequent_label() -> None:
    found = diagnostics()
    found = replace(found, agents={QUANT: GOOD}, never_differ=())
    assert said(found).agents == (
        "quant (26.0 % of 100 questions) is not above always answering D (30.0 %; p = 0.600).",
    )


def test_where_all_golds_are_one_label_accuracy_shows_nothing() -> None:
    found = run_of(gold={"D": 100}, labels={"D": 100})
    baselines = replace(found.baselines, gold={"D": 102}, label_accuracy=1.0)
    assert said(replace(found, baselines=baselines)).headline == (
        "The gold of all 102 multiple-choice questions is D: accuracy shows no more than who prefers that "
        "label.",
    )


CONSTANT = Spread(100, 1, 100, 100)


@pytest.mark.parametrize(
    ("probability", "ending"),
    [
        (
            Spread(100, 23, 99, 30),
            "merge.policy: probability decides the same stored rows anew and generates no "
            "analysis; the probabilities of quant vary.",
        ),
        (
            Spread(100, 2, 100, 97),
            "merge.policy: probability decides the same stored rows anew and generates no "
            "analysis; the probabilities of quant (100 % in 97.0 % of rows) do not vary either.",
        ),
        (
            None,
            "There are no probabilities either; merge.policy: majority is the same plain vote.",
        ),
    ],
)
def test_a_vote_by_a_constant_confidence_is_warned_about(probability: Spread | None, ending: str) -> None:
    found = of("confidence", confidence=CONSTANT, probability=probability)
    begin = "merge.policy: confidence weighs a signal that does not vary: quant stated 100 in every row. "
    assert found.headline == (begin + ending,)
    assert of("probability", confidence=CONSTANT, probability=probability).headline == ()


def test_a_vote_by_several_constant_confidences() -> None:
    flat = replace(GOOD, confidence=CONSTANT, probability=Spread(100, 1, 100, 100))
    found = replace(
        run_of(confidence=CONSTANT), agents={QUANT: replace(GOOD, confidence=CONSTANT), "chrono": flat}
    )
    (told,) = said(found, "confidence").headline
    assert "quant stated 100 in every row and chrono stated 100 in every row. " in told
    assert told.endswith(
        "probabilities of quant vary; the probabilities of chrono (100 % in every row) do not vary either."
    )


def test_the_merge_agent_takes_no_part_in_a_vote() -> None:
    found = replace(run_of(), agents={"chrono": GOOD, "merge": replace(GOOD, confidence=CONSTANT)})
    assert said(found).agents == (
        "merge stated 100 for confidence in every row, which does not tell its right answers from its wrong "
        "ones.",
    )


def test_a_flat_signal_is_named() -> None:
    first, *rest = usual().calibration
    assert flat_sentence([first, *rest]) == ""
    told = flat_sentence([replace(first, spread=CONSTANT), *rest]).replace(NBSP, " ")
    assert told == (
        "A signal that does not vary cannot tell right answers from wrong ones: probability of quant (100 % "
        "in every row)."
    )


# The renderers


def degenerate(question: Question, number: int) -> Analysis:
    """Always A, the same text, cut, 100; each tenth contradicts itself plainly."""
    text = "The answer is B. It is" if number % 10 == 0 else "The correct choice depends"
    row = spoken(question.key, "A", text)
    return replace(row, confidence=100, cut=number % 10 == 0)


def varied(question: Question, number: int) -> Analysis:
    """Right on half of the questions, each in other words."""
    row = spoken(question.key, "AB"[number % 2], f"{'abcdefghij'[number % 10]} {number} says it all")
    return replace(row, confidence=number % 100)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 100 questions of which one agent answers A always."""
    return finished(tmp_path_factory.mktemp("degenerate"), questions(100), (degenerate, varied))


@pytest.fixture(scope="module")
def summary(run: Run) -> Summary:
    return summarise(run.folder)


def printed(show: Callable[[Console], None], width: int = 100) -> str:
    """What goes to a file or pipe of this width, on one line a paragraph."""
    console = Console(file=io.StringIO(), width=width)
    show(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_figures_of_a_degenerate_run(summary: Summary) -> None:
    found = summary.diagnostics
    assert found is not None
    quant = found.agents["quant"]
    assert quant.labels == {"A": 100}
    assert (quant.identical, quant.cut, quant.contradicted) == (100, 10, 10)
    assert quant.confidence == Spread(100, 1, 100, 100)
    assert found.agents["chrono"].identical == 0
    assert found.baselines.label_accuracy == 1


def test_all_reports_say_the_same(run: Run, summary: Summary) -> None:
    made = findings(summary.diagnostics, summary.policy)
    assert len(made.headline) == 1
    assert len(made.agents) >= 5
    terminal = " ".join(printed(lambda console: print_summary(console, summary)).split())
    text, page = markdown(summary), written(run).read_text(encoding="utf-8")
    for one in (*made.headline, *made.agents):
        assert one.replace(NBSP, " ") in terminal
        assert one in page
    for one in itertools.chain(*findings(summary.diagnostics, summary.policy, code)):
        assert one.replace(NBSP, " ") in text
    for where in (terminal, text, page):
        assert "How the agents answered" in where
        assert baseline_sentence(summary.diagnostics or diagnostics()).replace(NBSP, " ") in where.replace(
            NBSP, " "
        )


def test_the_page_says_the_headline_first(run: Run, summary: Summary) -> None:
    page = written(run).read_text(encoding="utf-8")
    (told,) = findings(summary.diagnostics, summary.policy).headline
    lead = page.index('<p class="sentence">')
    assert page.index(told) < lead < page.index('<section id="answers"')
    assert '<a href="#answers">' in page[lead:]


def test_a_constant_signal_has_no_diagram(run: Run, summary: Summary) -> None:
    told = flat_sentence(summary.calibration)
    assert "confidence of quant (100" in told
    assert "confidence of chrono" not in told
    page = written(run).read_text(encoding="utf-8")
    assert f"{told} It has no diagram." in page
    drawn = page[page.index("<h3>By confidence</h3>") :]
    drawn = drawn[: drawn.index("</section>")]
    assert "<b>chrono</b>" in drawn
    assert "<b>quant</b>" not in drawn
    assert told.replace(NBSP, " ").replace(" quant ", " `quant` ").split(":")[0] in markdown(summary)
    assert "A signal that does not vary" in printed(lambda console: print_summary(console, summary))


def test_where_no_signal_varies_there_is_no_plot() -> None:
    flat = tuple(replace(one, spread=CONSTANT) for one in usual().calibration)
    page = render(page_of(replace(usual(), calibration=flat)))
    assert "<h3>By confidence</h3>" not in page
    assert "Calibration in numbers" in page
    assert "It has no diagram." in page


def test_a_run_without_the_figures_says_nothing_of_them() -> None:
    old = replace(usual(), diagnostics=None)
    assert 'id="answers"' not in render(page_of(old))
    assert "How the agents answered" not in markdown(old)
    assert "How the agents answered" not in printed(lambda console: print_summary(console, old))


def test_the_report_as_json_holds_the_figures(summary: Summary) -> None:
    values = json.loads(json.dumps(to_json(summary)))["diagnostics"]
    assert values["agents"]["quant"]["labels"] == {"A": 100}
    assert values["baselines"]["against"]["ORCH"]["questions"] == 100


def test_what_is_no_label_is_not_told_of_as_one() -> None:
    found = diagnostics()
    label = "<b>Z</b>" * 1000
    agents = {
        name: replace(one, labels={label: 100}, gold={label: 100}) for name, one in found.agents.items()
    }
    found = replace(found, agents=agents, baselines=replace(found.baselines, label=label, gold={label: 102}))
    assert label not in render(page_of(replace(usual(), diagnostics=found)))
    assert label not in markdown(replace(usual(), diagnostics=found))


def test_hostile_names_stay_names(run: Run) -> None:
    texts = iter(HOSTILE * 40)
    page = render(page_of(hostile(lambda: next(texts))))
    assert "<script>window.pwned" not in page.split("</head>")[1]


def test_show_says_it_of_one_question(run: Run) -> None:
    first = run.questions[0]
    shown = printed(lambda console: print_story(console, *story(run.folder, first.id)))
    assert "(reasoning reached its bound of 22 characters)" in shown
    assert "(contradicts its own text, which names B)" in shown
    other = printed(lambda console: print_story(console, *story(run.folder, run.questions[1].id)))
    assert "bound of" not in other and "contradicts" not in other


def test_sentences_of_a_run_with_one_question_alone() -> None:
    alone = replace(
        run_of(), baselines=replace(diagnostics().baselines, questions=0, label=None, chance=None)
    )
    assert baseline_sentence(alone) == ""
    assert "is right on 30.0 %" in baseline_sentence(diagnostics()).replace(NBSP, " ")
