"""What a reasoning says the answer is, against the answer: plain sentences and traps of our own making."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.records import Analysis, Outcome, Question
from orch_local.results.diagnostics.notes import row_notes
from orch_local.results.diagnostics.statements import Verdict, labels_stated, verdict

CHOICES = ("iron", "a decrease in pressure", "the moon", "seven days", "copper wire")
CHOICE = Question("q", "Which one?", CHOICES, "A", "made up")
NUMBER = Question("n", "How many?", (), "12", "made up")


def judged(reasoning: str, answer: str = "A", question: Question = CHOICE, cut: bool = False) -> Verdict:
    """The verdict over a row that answers so, with this reasoning."""
    return verdict(question, Analysis("k", Outcome.OK, answer, reasoning=reasoning, cut=cut))


NAMES_B = [
    "Iron rusts, so the answer is B.",
    "The correct answer is B",
    "The answer is (B) because it is the only gas law.",
    "the answer is b) wrong. The correct answer is (B).",
    "Answer: B",
    "Final answer: **B**",
    "ANSWER: B.",
    "The answer is: B) a decrease in pressure.",
    "The best choice is B, since iron does not float.",
    "The correct option is option B.",
    "The right answer must be B!",
    "Therefore, B.",
    "Hence (B).",
    "Thus option B is correct.",
    "So B is correct.",
    "So, choice B is the right answer.",
    "Therefore B is the best answer, and nothing else fits.",
    "B is the correct answer.",
    "Iron is a metal. Option B is the correct choice",
    "We see that B is the only correct answer.",
    "The answer to this question is B.",
    "The answer is therefore B - a decrease in pressure.",
    "If pressure falls the balloon grows, so the answer is B.",
    "It cannot be the moon, therefore the answer is B.",
    "At first the answer is C. Then it turns out that the answer is B.",
    'It replies {"answer":"B","confidence":90}',
    "The answer is $\\boxed{B}$.",
    "C is wrong, D is wrong and E is wrong. The answer is B",
    "The answer is 'B'.",
    "A heavy stone falls. The correct answer is B.",
]


@pytest.mark.parametrize("reasoning", NAMES_B)
def test_a_plain_statement_of_another_label_contradicts(reasoning: str) -> None:
    assert judged(reasoning, "D") is Verdict.CONTRADICTED
    assert judged(reasoning, "B") is Verdict.NOTHING


NAMES_B_BY_ITS_TEXT = [
    "The answer is a decrease in pressure.",
    "Iron rusts, so the correct answer is decrease in pressure",
    "The answer is 'a decrease in pressure', because iron is a metal.",
    "The best answer is: A decrease in pressure.",
]


@pytest.mark.parametrize("reasoning", NAMES_B_BY_ITS_TEXT)
def test_a_choice_may_be_named_by_its_text(reasoning: str) -> None:
    assert judged(reasoning, "D") is Verdict.CONTRADICTED
    assert judged(reasoning, "B") is Verdict.NOTHING
    assert judged(f"{reasoning} Or is it seven days", "D") is Verdict.NOTHING
    assert judged(reasoning.replace("is", "is not"), "D") is Verdict.NOTHING


@pytest.mark.parametrize(
    "reasoning",
    [
        "The answer is a decrease in pressure and temperature.",
        "The answer is iron, copper wire.",
        "The answer is irony.",
        "The answer is iron or the moon.",
        "The answer is iron ore.",
        "The answer is 100.5",
    ],
)
def test_more_than_the_text_of_a_choice_names_none(reasoning: str) -> None:
    choices = Question("q", "?", (*CHOICES, "100"), "A", "made up")
    assert judged(reasoning, "D", choices) is Verdict.NOTHING


def test_of_two_choices_the_longer_text_is_named() -> None:
    rocks = Question("q", "?", ("rock", "rock. Salt", "rock."), "A", "made up")
    assert judged("The answer is rock. Salt", "A", rocks) is Verdict.CONTRADICTED
    assert judged("The answer is rock.", "B", rocks) is Verdict.NOTHING  # two choices read so


NAMES_NOTHING = [
    "",
    "Iron rusts.",
    "The answer is not B.",
    "The answer is vitamin B.",
    "Vitamin B is the correct answer to a scurvy question.",
    "The answer is B12.",
    "The answer is B-flat.",
    "The answer is E = mc2.",
    "The answer could be B.",
    "The answer is probably B.",
    "Perhaps the answer is B.",
    "Is the answer B? Is it C?",
    "Let us see whether the answer is B.",
    "If the answer is B, iron floats.",
    "Assume that the answer is B.",
    "Suppose B is the correct answer.",
    "Someone may ask why B is the correct answer.",
    "It is not true that the answer is B.",
    "Agent 2 says that the answer is B.",
    "The majority of the panel thinks the answer is B.",
    "According to the second analysis the answer is B.",
    "A wrong answer is B.",
    "The incorrect answer is B.",
    "Another answer is B.",
    "The first answer is B.",
    "B is correct as a statement, and so is C.",
    "So B is wrong.",
    "So B is correct, but D is better.",
    "The answer is B. No: it is D.",
    "The answer is found by looking at the moon.",
    "The answer is B if iron floats.",
    "The answer is the sun.",
    "The answer is H.",
    "Answers differ. B: a decrease in pressure.",
    "So I think that it is iron.",
    "The answer is B. The answer depends on pressure, and the answer is hard to see.",
    "Plan B is the correct choice of words.",
]


@pytest.mark.parametrize("reasoning", NAMES_NOTHING)
def test_what_is_not_plain_says_nothing(reasoning: str) -> None:
    assert judged(reasoning, "D") is Verdict.NOTHING


SEVERAL = [
    "The correct answer is A, B, C, or D.",
    "The correct answer is A, B, C or D",
    "The answer is A or B.",
    "The answer is (A) and (C).",
    "Answer: A/B",
    'It wants {"answer":"A, B, C or D"}.',
]


@pytest.mark.parametrize("reasoning", SEVERAL)
@pytest.mark.parametrize("answer", ["A", "D"])
def test_several_labels_are_undecided(reasoning: str, answer: str) -> None:
    assert judged(reasoning, answer) is Verdict.UNDECIDED


def test_a_label_may_be_meant_as_the_text_of_a_choice() -> None:
    blood = Question("q", "Which blood type?", ("0", "AB", "A", "B"), "A", "made up")
    both = Question("q", "Which metals?", ("iron", "copper", "Both A and B", "none"), "A", "made up")
    assert judged("The answer is A.", "C", blood) is Verdict.NOTHING
    assert judged("The answer is A and B.", "C", both) is Verdict.NOTHING


def test_a_label_at_the_cut_may_not_be_whole() -> None:
    assert judged("The answer is B", "D", cut=True) is Verdict.NOTHING
    assert judged("The answer is B. It is so because the pre", "D", cut=True) is Verdict.CONTRADICTED


def test_a_sentence_that_ends_a_list_elsewhere_names_its_first_label() -> None:
    assert judged("The answer is B, A is too small.", "D") is Verdict.CONTRADICTED


NUMBERS = [
    ("The answer is 14.", "12", True),
    ("The answer is $14.", "12", True),
    ("Answer: 3,600", "3", True),
    ("So the answer is 14 apples.", "12", True),
    ("She has 7 + 7 = 14", "12", True),
    ("7 + 7 = 14 apples.", "12", True),
    ("The final answer is \\boxed{14}.", "12", True),
    ("The answer is 3.5.", "4.5", True),
    ("The answer is -14.", "14", True),
    ("The answer is 12.", "12", False),
    ("The answer is 12.00", "12", False),
    ("The answer is 1,200.", "1200", False),
    ("The answer is 3.3333.", "3.33", False),
    ("The answer is 2 hours.", "120", False),
    ("The answer is 0.25.", "25", False),
    ("The answer is 14 or 15.", "12", False),
    ("The answer is 14 to 15.", "12", False),
    ("The answer is 14/15.", "12", False),
    ("The answer is 14 dozen.", "12", False),
    ("The answer is about 14.", "12", False),
    ("The answer is not 14.", "12", False),
    ("If the answer is 14, she has too many.", "12", False),
    ("The answer is 5 hours and 30 minutes.", "330", False),
    ("She has 10 - 3 = 7 left. Check: 7 + 3 = 10.", "7", False),
    ("The answer is 12. Check: 12 - 5 = 7", "12", False),
    ("x = 14, and then it is halved", "7", False),
    ("So we can write the equation x + (3x + 1) = 33.", "10", False),
    ("This gives x = 33", "10", False),
    ("Step 1: 7 + 7 = 14. The rest is easy", "12", False),
    ("The answer is 1234567890123456789012345678901234567890.", "12", True),
]


@pytest.mark.parametrize(("reasoning", "answer", "other"), NUMBERS)
def test_numbers(reasoning: str, answer: str, other: bool) -> None:
    assert (judged(reasoning, answer, NUMBER) is Verdict.CONTRADICTED) == other


def test_a_number_at_the_cut_may_not_be_whole() -> None:
    assert judged("7 + 7 = 1", "12", NUMBER, cut=True) is Verdict.NOTHING
    assert judged("The answer is 1", "12", NUMBER, cut=True) is Verdict.NOTHING


@settings(max_examples=200)
@given(st.text(), st.sampled_from("ABCDE"), st.booleans())
def test_any_text_has_a_verdict(reasoning: str, answer: str, cut: bool) -> None:
    assert judged(reasoning, answer, cut=cut) in Verdict
    assert judged(reasoning, "12", NUMBER, cut) in Verdict


@settings(max_examples=200)
@given(st.lists(st.sampled_from([*NAMES_B, *NAMES_NOTHING]), max_size=4), st.sampled_from("ACD"))
def test_the_last_statement_counts(before: list[str], answer: str) -> None:
    text = " ".join([*before, "The answer is C."])
    expected = Verdict.NOTHING if answer == "C" else Verdict.CONTRADICTED
    assert judged(text, answer) is expected


def test_the_notes_of_a_row() -> None:
    row = Analysis("k", Outcome.OK, "D", reasoning="The answer is B. It fal", cut=True)
    assert row_notes(CHOICE, row) == [
        "reasoning reached its bound of 23 characters",
        "contradicts its own text, which names B",
    ]
    several = Analysis("k", Outcome.OK, "D", reasoning="The answer is A or B.")
    assert row_notes(CHOICE, several) == ["its text names several answers: A, B"]
    number = Analysis("k", Outcome.OK, "12", reasoning="The answer is 14.")
    assert row_notes(NUMBER, number) == ["contradicts its own text"]
    assert row_notes(CHOICE, Analysis("k", Outcome.INVALID, reasoning="The answer is B.")) == []
    assert labels_stated(CHOICE, row) == "B"
