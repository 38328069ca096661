"""The report: what it says, that it fits, and that foreign text does nothing to a terminal."""

from __future__ import annotations

import io
import json
import random
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orch_local.errors import StoreError
from orch_local.records import Analysis, Decision, How, Level, LevelAssessment, Outcome, Question, Usage
from orch_local.report.headline import headline
from orch_local.report.safe import safe, visible
from orch_local.report.story import MAX_THOUGHT, print_story
from orch_local.report.terminal import print_metrics, print_warnings
from orch_local.results.files import write_decisions, write_metrics
from orch_local.results.scoring import Cost, Metrics, score

AGENTS = ("quant", "chrono", "verbal")
COST = Cost(
    rows=1000, generated_now=600, usage=Usage(1_234_567, 900_123, 41_235), load_s=12.3, generate_s=412.7
)
STANDING = LevelAssessment(Level.RULES, 40, 39, ("quant: 1 of 8 rows generated again differed",))
HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold]x[/bold][/] \u202eevil\u2066\x9b31m\ud800:skull:"


def make_console(width: int, terminal: bool) -> tuple[Console, io.StringIO]:
    """A console of fixed width; colours are given so that TERM does not matter."""
    file = io.StringIO()
    colors: Literal["standard"] | None = "standard" if terminal else None
    return Console(file=file, width=width, force_terminal=terminal, color_system=colors), file


def make(n: int, agents: tuple[str, ...] = AGENTS, categories: int = 9) -> Iterator[Decision]:
    """Decisions of agents of 45 % and of an ORCH of 80 %, all with gold and answered."""
    dice = random.Random(7)
    for i in range(n):
        gold = dice.choice("ABCD")
        answers = {name: gold if dice.random() < 0.3 else dice.choice("ABCD") for name in agents}
        yield Decision(
            question_id=f"{i:016x}",
            category=f"category {i % categories:02}",
            gold=gold,
            answers=answers,
            confidences=dict.fromkeys(agents, 70),
            outcomes=dict.fromkeys(agents, "ok"),
            answer=gold if dice.random() < 0.8 else dice.choice("ABCD"),
            how=How.UNANIMOUS if len(set(answers.values())) == 1 else How.MERGE,
            majority=answers[agents[0]],
        )


def unscored(decision: Decision, reason: str = "quorum") -> Decision:
    nobody = dict.fromkeys(decision.answers)
    failed = dict.fromkeys(decision.answers, "truncated")
    return replace(
        decision, answers=nobody, outcomes=failed, answer=None, majority=None, how=How.UNSCORED, reason=reason
    )


def printed(
    metrics: Metrics, width: int = 80, terminal: bool = False, costs: Mapping[str, Cost] | None = None
) -> str:
    console, file = make_console(width, terminal)
    shown = dict.fromkeys((*AGENTS, "merge"), COST) if costs is None else costs
    print_metrics(console, metrics, shown, digest="ab" * 32, run_dir=Path("/runs/demo"))
    return file.getvalue()


def told(
    question: Question, analyses: Mapping[str, Analysis], decision: Decision, terminal: bool = False
) -> str:
    console, file = make_console(80, terminal)
    print_story(
        console, question, analyses, Analysis("m", Outcome.OK, "B", reasoning="I read both."), decision
    )
    return file.getvalue()


def is_inert(text: str) -> bool:
    return not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in text.replace("\n", ""))


QUESTION = Question("3f2a9c0d11e2b4a7", "When does\nthe train arrive?", ("12:05", "12:15"), "B", "calendar")
ANALYSES = {
    "quant": Analysis(
        "k", Outcome.OK, "A", 62, "95 minutes is 1:25.", eliminated=("B",), probabilities={"A": 0.7, "B": 0.3}
    ),
    "chrono": Analysis(
        "k", Outcome.OK, "B", 97, "95 minutes is 1:35.", thought="Let me see. " * 100, thought_cut=True
    ),
    "verbal": Analysis("k", Outcome.TRUNCATED, error="cut at 64 tokens", text='{"reasoning": "A tr'),
}
DECISION = Decision(
    QUESTION.id,
    "calendar",
    "B",
    {"quant": "A", "chrono": "B", "verbal": None},
    {},
    {},
    "B",
    How.MERGE,
    "",
    "A",
)


class TestSafe:
    def test_escapes_what_cannot_be_seen_and_keeps_the_rest(self) -> None:
        assert visible("a\x1b[1m\u202e\u2066é漢\U000e0041") == "a\\x1b[1m\\u202e\\u2066é漢\\U000e0041"

    def test_keeps_line_breaks_only_where_asked(self) -> None:
        assert visible("a\nb") == "a\\x0ab"
        assert visible("a\r\nb\rc", newlines=True) == "a\nb\\x0dc"

    def test_markup_is_shown_as_written(self) -> None:
        file = io.StringIO()
        Console(file=file, force_terminal=True).print(safe("[bold]x[/bold] [link=file:///etc]y[/]"))
        assert file.getvalue() == "[bold]x[/bold] [link=file:///etc]y[/]\n"

    @given(st.text(st.characters(codec=None)))
    def test_any_text_becomes_inert_and_encodable(self, text: str) -> None:
        shown = visible(text, newlines=True)
        assert is_inert(shown)
        shown.encode("utf-8")


class TestMetrics:
    def test_headline_says_result_uncertainty_and_comparisons(self) -> None:
        metrics = score(make(1000), AGENTS)
        said = headline(metrics).replace("\N{NO-BREAK SPACE}", " ")
        assert said.startswith(
            f"ORCH answered {100 * metrics.total.orch.correct / 1000:.1f} % of 1,000 questions"
        )
        assert "(95 % interval " in said
        assert f" points above the best single agent, {metrics.best_agent} (p < 1e-20)" in said
        assert " points above the majority vote (p < 1e-20). An oracle that picks the right agent" in said

    @pytest.mark.parametrize("width", range(42, 48))
    def test_a_number_and_its_unit_stay_on_one_line(self, width: int) -> None:
        lines = printed(score(make(100), AGENTS), width).split("\n\n")[0].split("\n")
        assert not any(re.match(r"%|to |[<=] ", line) for line in lines)

    def test_headline_admits_a_loss_and_a_difference_within_chance(self) -> None:
        good, bad = (replace(d, answer=None) for d in make(2))
        good = replace(good, answers={"quant": good.gold}, answer="wrong", majority="wrong")
        said = headline(score([good, replace(bad, gold=None)], ["quant"])).replace("\N{NO-BREAK SPACE}", " ")
        assert "100.0 points below the best single agent, quant (p = 1.000, within chance)" in said
        assert "level with the majority vote" in said
        assert said.endswith("Left out for want of a gold answer: 1 question.")

    def test_headline_and_table_show_unscored_questions(self) -> None:
        text = printed(score([*make(98), *(unscored(d) for d in make(2))], AGENTS))
        assert text.startswith("ORCH answered 98 of 100 questions,")
        assert "Of all 100 questions with a gold answer, the 2 unscored included, ORCH has" in " ".join(
            text.split()
        )
        assert "Unscored (neither right nor wrong)" in text
        for row in ("verbal 2 truncated", "ORCH 2 quorum", "oracle 2 no_usable_analysis"):
            assert row in " ".join(text.split())

    def test_comparison_over_fewer_questions_says_so(self) -> None:
        made = [
            replace(d, answers={"quant": d.answers["quant"]} if i < 5 else {}) for i, d in enumerate(make(9))
        ]
        assert "on the 5 questions that both answered" in headline(score(made, ["quant"]))

    def test_without_gold_nothing_is_scored(self) -> None:
        text = printed(score((replace(d, gold=None) for d in make(5)), AGENTS))
        assert "No question has a gold answer" in text
        assert "Accuracy" not in text

    def test_nothing_answered_is_said(self) -> None:
        assert "answered none of 3 questions" in printed(score(map(unscored, make(3)), AGENTS))

    def test_an_empty_run_prints(self) -> None:
        assert "ORCH answered 0 of 0" in printed(score([], AGENTS), costs={})

    @pytest.mark.parametrize("width", [80, 120])
    def test_plain_output_is_ascii_without_ansi_and_fits(self, width: int) -> None:
        text = printed(score([*make(1000), *map(unscored, make(9))], AGENTS), width)
        assert text.isascii()
        assert "\x1b" not in text
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
        assert "Their agreement saved" in text
        assert "1,235k" in text
        assert f"digest {'ab' * 32}\n" in text
        assert "/runs/demo\n" in text

    def test_terminal_output_shows_the_best_of_a_category_in_bold(self) -> None:
        metrics = score(make(1000), AGENTS)
        assert f"\x1b[1m{100 * (metrics.categories['category 00'].best_accuracy or 0):.1f}" in printed(
            metrics, terminal=True
        )

    def test_many_agents_and_categories_are_cut_with_a_note(self) -> None:
        agents = tuple(f"agent-with-a-long-name-{i}" for i in range(10))
        text = printed(score(make(200, agents, categories=25), agents))
        assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
        assert "... and 5 more in metrics.json; the other agents do not fit here" in text
        assert "category 19" in text
        assert "category 20" not in text

    @pytest.mark.parametrize("terminal", [False, True])
    def test_a_narrow_screen_cuts_no_number(self, terminal: bool) -> None:
        metrics = score([*make(1000), *map(unscored, make(9))], AGENTS)
        narrow, wide = (printed(metrics, width, terminal) for width in (30, 120))
        for table in ("Accuracy (%", "Cost (rows"):
            rows = (text[text.index(table) :].split("\n\n")[0] for text in (narrow, wide))
            numbers, expected = (sorted(re.findall(r"[\d.,/k]{3,}", text)) for text in rows)
            assert numbers == expected

    @pytest.mark.parametrize("terminal", [False, True])
    def test_hostile_names_do_nothing(self, terminal: bool) -> None:
        made = [unscored(replace(next(make(1)), category=HOSTILE), reason=HOSTILE), *make(3)]
        text = printed(score(made, AGENTS), terminal=terminal)
        assert "\x1b[2J" not in text
        assert "\x1b]" not in text
        assert is_inert(text) or terminal
        assert "\\x1b[2J" in text


class TestStory:
    def test_tells_everything_in_order(self) -> None:
        text = told(QUESTION, ANALYSES, DECISION)
        parts = (
            "Question 3f2a9c0d11e2b4a7 (calendar)",
            "  When does",
            "  * B 12:15  (gold)",
            "quant: answers A, confidence 62",
            "A 70 % #######   B 30 % ###",
            "eliminated: B",
            "chrono: answers B",
            "thought (ended at its bound): Let me see.",
            f"[cut: {MAX_THOUGHT} of 1,200",
            "verbal: truncated, unscored: cut at 64 tokens",
            'raw output: {"reasoning": "A tr',
            "merge agent: answers B",
            "Decision: B, by the merge agent (correct, gold B).",
            "The majority vote would have been A.",
        )
        flat = " ".join(text.split())
        places = [flat.index(" ".join(part.split())) for part in parts]
        assert places == sorted(places)
        assert text.isascii()
        assert max(len(line.rstrip()) for line in text.splitlines()) <= 80

    def test_numeric_question_shows_its_gold(self) -> None:
        text = told(replace(QUESTION, choices=(), gold="72"), {}, replace(DECISION, gold="72", answer="71"))
        assert "gold: 72" in text
        assert "(wrong, gold 72)" in text

    def test_unscored_says_why(self) -> None:
        text = told(QUESTION, ANALYSES, unscored(DECISION, reason="quorum not reached"))
        assert "Decision: unscored (quorum not reached)" in text
        assert "majority" not in text

    @pytest.mark.parametrize("how", [how for how in How if how is not How.UNSCORED])
    def test_every_way_to_a_decision_has_words(self, how: How) -> None:
        assert "Decision: B, " in told(QUESTION, {}, replace(DECISION, how=how))

    def test_hostile_text_does_nothing(self) -> None:
        bad = Analysis(
            "k",
            Outcome.OK,
            "A",
            1,
            HOSTILE,
            eliminated=(HOSTILE,),
            probabilities={HOSTILE: 1.0},
            thought=HOSTILE,
            text=HOSTILE,
        )
        failed = replace(bad, outcome=Outcome.FAILED, answer=None, error=HOSTILE)
        question = replace(QUESTION, text=HOSTILE, choices=(HOSTILE, "b"), category=HOSTILE)
        text = told(
            question, {"quant": bad, "chrono": failed}, replace(DECISION, answer=HOSTILE, gold=HOSTILE)
        )
        assert is_inert(text)
        assert text.count("[bold]x[/bold][/]") >= 10
        shown = told(question, {"quant": bad}, DECISION, terminal=True)
        assert "\x1b[2J" not in shown
        assert "\x1b]" not in shown


class TestFiles:
    def test_decisions_come_back_from_both_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("orch_local.results.files.BATCH_ROWS", 4)
        made = [*make(9), *map(unscored, make(1)), replace(next(make(1)), gold=None, answers={"quant": "B"})]
        write_decisions(tmp_path, iter(made), AGENTS)
        lines = (tmp_path / "decisions.jsonl").read_text(encoding="utf-8").splitlines()
        assert [Decision.from_row(json.loads(line)) for line in lines] == made
        rows = pq.read_table(tmp_path / "decisions.parquet").to_pylist()
        assert [row["question_id"] for row in rows] == [d.question_id for d in made]
        assert [row["correct"] for row in rows] == [*(d.answer == d.gold for d in made[:9]), None, None]
        assert [row["answer.quant"] for row in rows] == [d.answers["quant"] for d in made]
        assert (rows[9]["outcome.verbal"], rows[9]["answer"], rows[9]["reason"]) == (
            "truncated",
            None,
            "quorum",
        )
        assert (rows[10]["answer.verbal"], rows[0]["confidence.verbal"], rows[0]["how"]) == (
            None,
            70,
            made[0].how,
        )

    def test_an_empty_run_has_files_with_columns(self, tmp_path: Path) -> None:
        write_decisions(tmp_path, [], AGENTS)
        assert (tmp_path / "decisions.jsonl").read_bytes() == b""
        assert "confidence.chrono" in pq.read_table(tmp_path / "decisions.parquet").column_names

    def test_lone_surrogates_are_written(self, tmp_path: Path) -> None:
        made = replace(next(make(1)), category="\ud800", gold="\udfff")
        write_decisions(tmp_path, [made], AGENTS)
        line = (tmp_path / "decisions.jsonl").read_text(encoding="utf-8")
        assert Decision.from_row(json.loads(line)) == made
        assert pq.read_table(tmp_path / "decisions.parquet")["category"].to_pylist() == ["\\ud800"]

    def test_a_failure_leaves_the_files_of_the_earlier_run(self, tmp_path: Path) -> None:
        write_decisions(tmp_path, make(2), AGENTS)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

        def broken() -> Iterator[Decision]:
            yield from make(1)
            raise OSError(28, "No space left on device")

        with pytest.raises(StoreError):
            write_decisions(tmp_path, broken(), AGENTS)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_metrics_are_json_and_the_same_bytes_each_time(self, tmp_path: Path) -> None:
        metrics = score(make(20), AGENTS)
        for name in ("one", "two"):
            write_metrics(tmp_path / name, score(make(20), AGENTS), {"quant": COST}, "ab", STANDING)
        one, two = ((tmp_path / name / "metrics.json").read_bytes() for name in ("one", "two"))
        assert one == two
        written = json.loads(one)
        assert written.pop("digest") == "ab"
        assert written.pop("standing")["level"] == "rules"
        assert written.pop("cost")["quant"]["usage"]["cached"] == COST.usage.cached
        assert written == metrics.to_dict()


def test_skipped_rows_and_violations_are_told_and_nothing_else() -> None:
    console, file = make_console(80, terminal=False)
    print_warnings(console, bad_rows=0, violations=0, damaged=0, deaths={})
    assert file.getvalue() == ""
    print_warnings(console, bad_rows=1234, violations=2, damaged=3, deaths={"quant": 2})
    assert "1,234 bad rows" in file.getvalue()
    assert "VIOLATION: 2 rows" in file.getvalue()
    assert "3 files of the store" in file.getvalue()
    assert "A worker of quant died 2 times" in file.getvalue()
