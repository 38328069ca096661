"""What `verify`, `replay` and the level of a run look like on the terminal, to the letter."""

from __future__ import annotations

import io
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from two_runs import decision, usual_plan

from orch_local.audit.replay import Misread, Replay
from orch_local.audit.verify import Mismatch, Rate, Stage, Verification
from orch_local.records import Analysis, Level, LevelAssessment, Outcome, Usage
from orch_local.report.proof import print_level, print_recheck_cost, print_replay, print_verification
from orch_local.report.safe import visible
from orch_local.results.scoring import Cost
from orch_local.store.evidence import Evidence
from orch_local.store.rows import Violation

PLAN = usual_plan(3)
BITWISE = LevelAssessment(Level.BITWISE, 1, 1, ())
ROW = Analysis("k", Outcome.OK, "A", 80, text="same", probabilities={"A": 0.5, "B": 0.25})
# Controls, bidi, wide, combining and zero-width characters, escapes, markup, a lone surrogate, an emoji.
HOSTILE = "\x1b[2J\u202e\u2066漢字e\u0301\u200b\n\t[bold]x[/bold]\ud800😀\x9b31m:skull:"


def told(what: Any, *arguments: Any, width: int = 80, terminal: bool = False) -> str:
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=terminal, color_system="standard" if terminal else None
    )
    what(console, *arguments)
    return file.getvalue()


@pytest.mark.parametrize(
    ("standing", "at_80"),
    [
        (
            LevelAssessment(Level.BITWISE, 1234, 1234, ()),
            "\nLevel bitwise: every engine is batch-invariant by its set-up; 1,234 times a row\n"
            "was generated again in another batch, in all runs with these specs, and 1,234\n"
            "times it came to the same bytes.\n\n",
        ),
        (
            LevelAssessment(Level.BITWISE, 16, 16, (), declared=True),
            "\nLevel bitwise: every engine is batch-invariant by its set-up, on a GPU as vLLM\n"
            "declares and these rows show; 16 times a row was generated again in another\n"
            "batch, in all runs with these specs, and 16 times it came to the same bytes.\n\n",
        ),
        (
            LevelAssessment(Level.VERIFIED, 1, 1, ("quant: its engine is not set up to be batch-invariant",)),
            "\nLevel verified: no engine differed, but not all are batch-invariant by their\n"
            "set-up; 1 times a row was generated again in another batch, in all runs with\n"
            "these specs, and 1 times it came to the same bytes. Not higher because: quant:\n"
            "its engine is not set up to be batch-invariant.\n\n",
        ),
        (
            LevelAssessment(
                Level.RULES,
                16,
                15,
                ("qu\x1bant: 1 of 8 rows generated again differed", "merge: no row was generated again"),
            ),
            "\nLevel rules: routing and aggregation are fixed, the analyses may differ; 16\n"
            "times a row was generated again in another batch, in all runs with these specs,\n"
            "and 15 times it came to the same bytes. Not higher because: qu\\x1bant: 1 of 8\n"
            "rows generated again differed; merge: no row was generated again.\n\n",
        ),
    ],
    ids=["bitwise", "bitwise on a GPU", "verified", "rules"],
)
def test_a_standing(standing: LevelAssessment, at_80: str) -> None:
    assert told(print_level, standing) == at_80
    at_120 = told(print_level, standing, width=120)
    assert " ".join(at_120.split()) == " ".join(at_80.split())
    assert max(map(len, at_120.splitlines())) in range(81, 121)


def test_a_standing_is_red_where_rows_differed() -> None:
    for same, red in ((15, True), (16, False)):
        text = told(print_level, LevelAssessment(Level.RULES, 16, same, ("x",)), terminal=True)
        assert ("\x1b[1;31m" in text) == red


def cost(generate_s: float, recheck_s: float, rechecked: int) -> Cost:
    return Cost(100, 100, Usage(), 9.0, generate_s, recheck_s, rechecked)


def test_the_price_of_rows_generated_again() -> None:
    costs = [cost(500.0, 9.0, 8), cost(140.0, 3.0, 2), cost(0.0, 0.0, 0)]
    assert " ".join(told(print_recheck_cost, costs).split()) == (
        "In this run 10 rows were generated again in 12.0 s, 1.9 % of the time that its workers generated."
    )
    assert "1 row was generated again in 0.5 s, 50.0 %" in told(print_recheck_cost, [cost(1.0, 0.5, 1)])


@pytest.mark.parametrize("costs", [[], [cost(0.0, 0.0, 0)], [cost(9.0, 0.0, 0)]])
def test_there_is_no_price_where_no_row_was_generated_again(costs: list[Cost]) -> None:
    assert told(print_recheck_cost, costs) == ""


def replayed(**changes: Any) -> Replay:
    return Replay(**{"plan": PLAN, "recorded": "a" * 64, "digest": "a" * 64, "decisions": 3, **changes})


@pytest.mark.parametrize("width", [80, 120])
def test_a_replay_that_is_the_same(width: int) -> None:
    lines = told(print_replay, replayed(), width=width)
    assert " ".join(lines.split()) == (
        "3 decisions made again from the stored rows, without an engine: the digest that the run wrote down. "
        f"store /store recorded {'a' * 64} replayed {'a' * 64}"
    )
    assert lines.endswith(f"\n\nstore    /store\nrecorded {'a' * 64}\nreplayed {'a' * 64}\n")


def test_a_replay_that_is_not() -> None:
    found = replayed(
        digest="b" * 64,
        same_questions=False,
        forged=[Path("/run/metrics.json")],
        different=[
            (decision(1, "AAB"), decision(1, "AAC", category=HOSTILE)),
            (decision(2, "AA-"), None),
            (None, decision(3, "AAA", answer=None, reason=HOSTILE)),
        ],
        misread=[Misread("merge", "f" * 16, "its text has another answer than the row")],
        violations=[Violation("0" * 32, "e" * 16, "c", "d")],
    )
    assert told(print_replay, found) == (
        "3 decisions made again from the stored rows, without an engine: NOT what the run\n"
        "wrote down.\n\n"
        "questions.jsonl holds other questions than the plan says\n"
        "merge, question ffffffffffffffff: its text has another answer than the row\n"
        "two answers under one key of the store: eeeeeeeeeeeeeeee\n"
        "3 decisions differ from those of decisions.jsonl, the first:\n"
        f"  0000000000000001: category: calendar -> {visible(HOSTILE)}; answer: B -> C\n"
        "  0000000000000002: one too many\n"
        "  0000000000000003: not there\n"
        "/run/metrics.json holds something else than follows from the rows\n\n"
        "store    /store\n"
        f"recorded {'a' * 64}\n"
        f"replayed {'b' * 64}\n"
    )


def test_what_is_lost_is_told_alone_with_what_to_do() -> None:
    found = replayed(
        digest="b" * 64,
        missing={"quant": 1234},
        damaged=[Path("/store/x.jsonl")],
        different=[(decision(1, "AAB"), decision(1, "AAC"))],
        misread=[Misread("merge", "f" * 16, "its text has another answer than the row")],
        violations=[Violation("0" * 32, "e" * 16, "c", "d")],
        forged=[Path("/run/metrics.json")],
    )
    assert not found.same
    lines = told(print_replay, found, width=120).split("\n\n")[1]
    assert lines.splitlines() == [
        "/store/x.jsonl is damaged",
        "quant: 1,234 rows are not in the store: run the same command again to generate them anew",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "b" * 64},
        {"same_questions": False},
        {"missing": {"quant": 1}},
        {"damaged": [Path("x")]},
        {"different": [(None, decision(1, "AAB"))]},
        {"misread": [Misread("merge", "f" * 16, "why")]},
        {"violations": [Violation("0" * 32, "e" * 16, "c", "d")]},
        {"forged": [Path("x")]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_finding_is_not_the_same(change: dict[str, Any]) -> None:
    assert replayed().same and replayed().findings() == []
    assert not replayed(**change).same
    assert len(replayed(**change).findings()) == (2 if "different" in change else 1)


def test_of_many_findings_five_are_shown() -> None:
    found = replayed(
        different=[(decision(number, "AAB"), None) for number in range(9)],
        misread=[Misread("quant", f"m{number}", "why") for number in range(9)],
        violations=[Violation("0" * 32, f"v{number}", "c", "d") for number in range(9)],
    )
    text = told(print_replay, found)
    assert "9 decisions differ from those of decisions.jsonl" in text
    for begin in ("  0000", "quant, question m", "two answers under one key of the store: v"):
        assert sum(line.startswith(begin) for line in text.splitlines()) == 5


def verification(*first: Mismatch | None, problems: tuple[str, ...] = ()) -> Verification:
    stages = []
    for name, one in zip(("quant", "merge"), first, strict=False):
        same = 1200 if one is None else 1199
        evidence = Evidence("verify", 1200, same, 1200, "s", () if one is None else ("k",))
        rates = {"alone": Rate(300, 300), "by sevens": Rate(595, same - 605), "together": Rate(305, 305)}
        stages.append(Stage(name, 5000, evidence, rates, one))
    return Verification(PLAN, list(problems), stages)


TABLE = (
    "Rows generated again in other batches\n"
    "agent   rows  again   same bytes    same text    alone  by sevens  together\n"
    "---------------------------------------------------------------------------\n"
    "quant  5,000  1,200  1,199/1,200  1,200/1,200  300/300    594/595   305/305\n"
    "merge  5,000  1,200  1,200/1,200  1,200/1,200  300/300    595/595   305/305\n"
)


def squeezed(text: str) -> list[list[str]]:
    """Words by line, without rules and empty lines."""
    return [line.split() for line in text.splitlines() if line.strip(" -")]


@pytest.mark.parametrize("width", [80, 120])
def test_a_verification_with_a_mismatch(width: int) -> None:
    said = '{"reasoning":"One hundred and ninety-'
    rests = [word + ' minutes is 3:15.","answer":"A","confidence":80}' for word in ("five", "six")]
    before, again = (replace(ROW, text=said + rest) for rest in rests)
    text = told(
        print_verification, verification(Mismatch("f" * 16, before, again), None), BITWISE, width=width
    )
    files = "Files: plan, specs, chunks, model files, questions, decisions and metrics are what they were."
    assert " ".join(text.split("\n\n")[0].split()) == files
    assert squeezed(text[text.index("Rows generated") :])[:4] == squeezed(TABLE)
    assert (
        text[text.index("First difference") :]
        == (
            "First difference of quant: question ffffffffffffffff\n\n"
            "text differs from character 38 on\n"
            f'stored  ..."One hundred and ninety-{rests[0][: width - 35]}\n'
            f'again   ..."One hundred and ninety-{rests[1][: width - 35]}\n'
            f"{' ' * 35}^\n\n"
            "store    /store\n"
        )
        + told(print_level, BITWISE, width=width)
        + "NOT OK: 0 problems with the files, 1 row differed.\n\n"
    )


def test_the_last_line_is_the_verdict() -> None:
    def last(*first: Mismatch | None, problems: tuple[str, ...] = ()) -> str:
        text = told(print_verification, verification(*first, problems=problems), BITWISE)
        return text.rstrip("\n").splitlines()[-1]

    one = Mismatch("f" * 16, ROW, None)
    assert last(None, None) == "OK"
    assert last() == "OK"
    assert last(one, None) == "NOT OK: 0 problems with the files, 1 row differed."
    assert last(one, one, problems=("a",)) == "NOT OK: 1 problem with the files, 2 rows differed."
    assert last(None, problems=("a", "b")) == "NOT OK: 2 problems with the files, 0 rows differed."


def test_no_table_where_nothing_was_generated_again() -> None:
    nothing = Evidence("verify", 0, 0, 0, "s", ())
    found = Verification(PLAN, [], [Stage(name, 40, nothing, {}, None) for name in ("quant", "merge")])
    text = told(print_verification, found, BITWISE)
    assert "again in other batches" not in text and "quant" not in text
    assert text.rstrip().endswith("\n\nOK")
    some = replace(found.stages[0], evidence=Evidence("verify", 1, 1, 1, "s", ()))
    text = told(print_verification, Verification(PLAN, [], [some, found.stages[1]]), BITWISE)
    assert "Rows generated again in other batches" in text and "merge" in text


def test_a_table_of_rates_to_the_letter() -> None:
    found = verification(Mismatch("f" * 16, ROW, None), None)
    assert TABLE in told(print_verification, found, BITWISE)


def test_problems_come_first_and_are_shown_as_text() -> None:
    text = told(print_verification, verification(None, None, problems=("a\x1b[2J [bold]", "b")), BITWISE)
    assert text.startswith("2 problems with the files:\n\na\\x1b[2J [bold]\nb\n\n")
    assert "First difference" not in text
    assert "what they were" not in text


def mismatch(before: Analysis, again: Analysis | None, width: int = 80) -> list[str]:
    """The lines about the first difference."""
    text = told(print_verification, verification(Mismatch("f" * 16, before, again)), BITWISE, width=width)
    return text[text.index("First difference") :].split("\n\n")[1].split("\n")


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (None, ["it did not come again"]),
        ({"outcome": Outcome.INVALID, "text": "x"}, ["stored  ok", "again   invalid"]),
        (
            {"outcome": Outcome.FAILED, "error": "died \x1b"},
            ["stored  ok", "again   failed died \\x1b"],
        ),
        (
            {"text": "some"},
            ["text differs from character 2 on", "stored  same", "again   some", " " * 9 + "^"],
        ),
        (
            {"text": "samer"},
            ["text differs from character 5 on", "stored  same", "again   samer", " " * 12 + "^"],
        ),
        (
            {"thought": "t", "text": "x"},
            ["thought differs from character 1 on", "stored  ", "again   t", " " * 8 + "^"],
        ),
        (
            {"probabilities": {"A": 0.5, "B": 0.2500000000000001}},
            ["the texts are the same, the probabilities are not: of B, 0.25 and 0.2500000000000001"],
        ),
        ({"probabilities": None}, ["the texts are the same, the probabilities are not: of A, 0.5 and None"]),
        ({"probabilities": {}}, ["the texts are the same, the probabilities are not: of A, 0.5 and None"]),
        ({"answer": "B", "thought_cut": True}, ["the texts are the same, but not: answer, thought_cut"]),
    ],
)
def test_how_two_rows_differ(change: dict[str, Any] | None, lines: list[str]) -> None:
    again = None if change is None else replace(ROW, **change)
    assert mismatch(ROW, again, 120) == lines


# Marks that combine with what stands before them take no cell: a place by cells does not tell them apart.
CHARACTERS = st.sampled_from([c for c in HOSTILE + "ab" if not unicodedata.combining(c)])


@settings(max_examples=60, deadline=None)
@given(
    st.text(CHARACTERS, max_size=60),
    st.text(CHARACTERS, max_size=90),
    st.text(CHARACTERS, max_size=90),
    st.sampled_from([80, 120]),
)
def test_the_caret_stands_under_the_first_difference(common: str, old: str, new: str, width: int) -> None:
    assume(old[:1] != new[:1])
    _, stored, again, caret = mismatch(
        replace(ROW, text=common + old), replace(ROW, text=common + new), width
    )
    place = len(caret) - 1
    assert caret == " " * place + "^"
    for line, name, text in ((stored, "stored  ", old), (again, "again   ", new)):
        head, rest = cut(line, place)
        # What stands before the caret is the end of what is common, and what stands at it is what differs.
        shown = head.removeprefix(name)
        assert shown == visible(common) or visible(common).endswith(shown.removeprefix("..."))
        assert visible(text).startswith(rest)
        assert bool(rest) == bool(text)
        assert cell_len(line) <= width, "the screen would fold it"
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in line)


def cut(line: str, cells: int) -> tuple[str, str]:
    """A line in two at a place by cells."""
    end = next(end for end in range(len(line) + 1) if cell_len(line[:end]) >= cells)
    assert cell_len(line[:end]) == cells
    return line[:end], line[end:]


def test_the_caret_under_wide_hidden_and_combining_characters() -> None:
    text = "漢字e\u0301\u202e"
    assert mismatch(replace(ROW, text=text + "1"), replace(ROW, text=text + "2")) == [
        "text differs from character 6 on",
        "stored  漢字e\u0301\\u202e1",
        "again   漢字e\u0301\\u202e2",
        "                   ^",
    ]
