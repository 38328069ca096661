"""What `orch-local diff` prints: exact texts, alarms, and that foreign text does nothing to a terminal."""

from __future__ import annotations

import io
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from two_runs import agent, decision, finished, plan, usual_plan

from orch_local.audit.diff import compare
from orch_local.audit.difference import Difference, RunIdentity
from orch_local.plan.plans import Plan
from orch_local.records import Decision, How
from orch_local.report.difference import print_difference
from orch_local.report.difference_plans import MAX_CHANGES, MAX_TEXT_LINES
from orch_local.report.difference_sentences import headline

HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold]x[/bold][/] \u202eevil"
DIGESTS = "d" * 64, "e" * 64


def between(plans: Sequence[Plan], a: Sequence[Decision], b: Sequence[Decision], same: bool) -> Difference:
    """The difference of two runs; ``same`` is whether their digests are."""
    with tempfile.TemporaryDirectory() as folder:
        one = finished(Path(folder) / "a", plans[0], a, DIGESTS[0])
        other = finished(Path(folder) / "b", plans[-1], b, DIGESTS[0 if same else 1])
        found = compare(one, other)
    return replace(
        found, a=found.a._replace(folder=Path("/runs/a")), b=found.b._replace(folder=Path("/runs/b"))
    )


def printed(difference: Difference, width: int = 80, terminal: bool = False) -> str:
    file = io.StringIO()
    colors: Any = "standard" if terminal else None
    print_difference(
        Console(file=file, width=width, force_terminal=terminal, color_system=colors), difference
    )
    # Wrapped lines are padded; what cannot be seen is not compared.
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def said(difference: Difference) -> str:
    return headline(difference).replace("\N{NO-BREAK SPACE}", " ")


def rich_pair() -> Difference:
    """Two runs that differ in plans and answers, with one question unscored and one without gold."""
    weights = "a3e96f06701344fc3d52741f217f358471a5daf783cf4a3a8e131029a676a397"
    prompts = "[user]\nAnswer:\n{{ question }}\n", "[user]\nAnswer with care:\n{{ question }}\n"
    plans = []
    for torch, prompt, file in (("2.13", prompts[0], weights), ("2.14", prompts[1], weights[::-1])):
        environment = {"environment": {"torch": torch}}
        quant = agent("quant", {**environment, "prompt": prompt, "model": {"files": {"w": file}}})
        names = "hidden" if torch == "2.13" else "shown"
        merger = agent("merge", {**environment, "panel": {"names": names}}, "merge")
        plans.append(plan([quant, agent("chrono", environment)], merger, 40, names=names))
    a = [decision(n, "AAA") for n in range(38)] + [decision(38, "BAB"), decision(39, "AAA", None)]
    b = [*a[:36], decision(36, "BAB"), decision(37, "-B-"), decision(38, "AAA"), a[39]]
    return between(plans, a, b, same=False)


EXPECTED = f"""\
The plans differ in 4 fields; of 40 common questions 3 final answers differ (on
the 38 that can be scored in both, A 97.4 %, B 97.4 %, difference 0.0 points,
95 % interval -11.1 to +11.1, p = 1.000, within chance).

Plans (A -> B)
  all agents: environment.torch: 2.13 -> 2.14
  quant: prompt:
    -Answer:
    +Answer with care:
  quant: model.files.w: a3e96f067013 -> 793a676a9201
  merge.names: hidden -> shown

Both runs asked the same 40 questions.

Answers to the common questions
system  same  different  only A  only B  neither
------------------------------------------------
quant     37          2       1       0        0
chrono    39          1       0       0        0
ORCH      37          2       1       0        0

Accuracy (%, 95 % interval of B - A) on the n questions scored in both
system   n      A     B  B - A        interval  gained  lost      p  p Holm
---------------------------------------------------------------------------
quant   38   97.4  97.4    0.0  -11.1 to +11.1       1     1  1.000   1.000
chrono  39  100.0  97.4   -2.6   -13.2 to +6.6       0     1  1.000   1.000
ORCH    38   97.4  97.4    0.0  -11.1 to +11.1       1     1  1.000   1.000

gained, lost = right in B only, in A only; p = exact McNemar test; p Holm = the
same, adjusted for 3 comparisons

Differing questions (all 3, A -> B)
0000000000000024  calendar, gold A
  quant A -> B   chrono A   ORCH A -> B (right -> wrong)
0000000000000025  calendar, gold A
  quant A -> invalid   chrono A -> B   ORCH A -> unscored
0000000000000026  calendar, gold A
  quant B -> A   chrono A   ORCH B -> A (wrong -> right)
orch-local show RUN QUESTION tells what each run made of one

digest A {DIGESTS[0]}
run    A /runs/a
digest B {DIGESTS[1]}
run    B /runs/b
"""


class TestWhole:
    def test_two_runs_that_differ_in_everything(self) -> None:
        assert printed(rich_pair()) == EXPECTED

    def test_a_run_against_itself(self) -> None:
        rows = [decision(n, "ABA") for n in range(1000)]
        assert printed(between([usual_plan(1000)], rows, rows, same=True)) == (
            "The runs gave the same 1,000 answers, byte for byte in all that the digest\n"
            "covers.\n\nBoth runs asked the same 1,000 questions.\n\n"
            f"digest A {DIGESTS[0]}\nrun    A /runs/a\ndigest B {DIGESTS[0]}\nrun    B /runs/b\n"
        )

    @pytest.mark.parametrize("width", [80, 160])
    def test_plain_output_is_ascii_and_fits(self, width: int) -> None:
        text = printed(rich_pair(), width)
        assert text.isascii()
        assert "\x1b" not in text
        assert max(map(len, text.splitlines())) <= width

    def test_a_terminal_shows_changed_answers_in_bold(self) -> None:
        text = printed(rich_pair(), terminal=True)
        assert "quant \x1b[1mA -> B\x1b[0m   chrono A   ORCH" in text
        assert "\x1b[31mright -> wrong\x1b[0m" in text


class TestHeadline:
    A = (decision(0, "AAA"), decision(1, "AAA"), decision(2, "BBB"))

    def test_broken_determinism_is_an_alarm(self) -> None:
        broken = between([usual_plan(3)], self.A, [*self.A[:2], decision(2, "CBC")], same=False)
        assert said(broken) == (
            "Same plan, same environment, but 1 of 3 final answers differs: determinism was broken."
        )
        assert "DETERMINISM BROKEN: the spec is the same in both runs, yet answers or" in printed(broken)
        assert "quant on 1 of 3 common questions." in " ".join(printed(broken).split())
        assert "\x1b[1;31mSame plan" in printed(broken, terminal=True)

    def test_broken_agents_below_the_same_final_answers_are_an_alarm(self) -> None:
        broken = between([usual_plan(3)], self.A, [*self.A[:2], decision(2, "CBB")], same=False)
        assert "same final answers, but on 1 of 3 questions the agents' answers" in said(broken)
        assert said(broken).endswith("determinism was broken.")

    def test_an_engine_that_promised_nothing_is_no_alarm(self) -> None:
        made = usual_plan(3, {"environment": {"batch_invariant": False}})
        found = between([made], self.A, [*self.A[:2], decision(2, "CBC")], same=False)
        assert said(found) == (
            "Same plan, same environment, but 1 of 3 final answers differs: the same bytes were not "
            "promised, as the engine of quant, chrono and merge is not batch-invariant."
        )
        assert "DETERMINISM" not in printed(found)
        assert "\x1b[1;31m" not in printed(found, terminal=True)

    def test_an_agent_of_the_same_spec_is_an_alarm_in_another_plan_too(self) -> None:
        plans = usual_plan(3), plan([agent("quant", {}), agent("chrono", {"x": 1})], count=3)
        broken = between(plans, self.A, [*self.A[:2], decision(2, "CCB")], same=False)
        assert "quant on 1 of 3 common questions." in " ".join(printed(broken).split())
        assert said(broken) == (
            "The plans differ in 2 fields and in their agents; of 3 common questions no final answer differs."
        )

    def test_a_failed_engine_is_no_alarm(self) -> None:
        failed = decision(2, "-BB", outcomes={"quant": "failed", "chrono": "ok"})
        found = between([usual_plan(3)], self.A, [*self.A[:2], failed], same=False)
        assert said(found) == (
            "Same plan, same environment; 1 of 3 questions came out differently because an engine failed on "
            "them in one of the runs. `orch-local run ... --retry-failed` generates those rows again."
        )
        assert "quant B -> failed   chrono B   ORCH B" in printed(found)

    def test_other_digests_of_the_same_answers_are_explained(self) -> None:
        assert "no answer differs, yet the digests do" in said(
            between([usual_plan(3)], self.A, self.A, same=False)
        )

    def test_the_same_digest_of_other_answers_is_an_alarm(self) -> None:
        edited = between([usual_plan(3)], self.A, [*self.A[:2], decision(2, "CBC")], same=True)
        assert "The digests are the same, yet the decisions are not" in printed(edited)

    def test_the_same_answers_of_other_plans_say_so(self) -> None:
        found = between([usual_plan(3), usual_plan(3, {"x": 1})], self.A, self.A, same=True)
        assert said(found) == (
            "The runs gave the same 3 answers, byte for byte in all that the digest covers, although the "
            "plans differ in 1 field."
        )

    def test_no_common_question_compares_nothing(self) -> None:
        plans = usual_plan(3), usual_plan(1, questions="r" * 64)
        text = printed(between(plans, self.A, [decision(9, "AAA")], same=False))
        assert text.startswith("The runs have no question in common, so none of their answers")
        assert "0 questions are in both runs, 3 in A only and 1 in B only." in text
        assert "Accuracy" not in text
        assert "Answers" not in text

    def test_without_gold_answers_are_compared_but_not_scored(self) -> None:
        a, b = ([replace(d, gold=None) for d in rows] for rows in (self.A, [*self.A[:2], decision(2, "CBC")]))
        found = between([usual_plan(3), usual_plan(3, {"x": 1})], a, b, same=False)
        assert said(found) == "The plans differ in 1 field; of 3 common questions 1 final answer differs."
        assert "Accuracy" not in printed(found)
        assert "calendar, gold none" in printed(found)

    def test_every_difference_of_the_questions_is_told(self) -> None:
        plans = usual_plan(3), usual_plan(3, questions="r" * 64)
        other_gold = [replace(self.A[1], gold="B"), self.A[0], decision(7, "AAA")]
        text = " ".join(printed(between(plans, self.A, other_gold, same=False)).split())
        assert (
            "2 questions are in both runs, 1 in A only and 1 in B only. The common ones come in a different "
            "order. 1 of them has another gold answer and cannot be scored."
        ) in text
        data = " ".join(printed(between(plans, self.A, self.A, same=False)).split())
        assert "Their categories, examples or other data differ." in data


class TestDetails:
    A = (decision(0, "AAA"),)

    def test_confidences_and_ways_to_the_answer_are_told(self) -> None:
        b = replace(self.A[0], confidences={"quant": 70, "chrono": 12}, how=How.UNANIMOUS)
        found = between([usual_plan(1), usual_plan(1, {"x": 1})], self.A, [b], same=False)
        text = printed(found)
        assert "chrono     1          0       0       0        0           1" in text
        assert "1 final answer was reached in another way, without being another" in " ".join(text.split())
        assert "quant A   chrono A (70) -> A (12)   ORCH A (merge) -> A (unanimous)" in text

    def test_renamed_missing_and_moved_agents_are_told(self) -> None:
        a, b = (plan([agent(n, {}) for n in names], count=0) for names in (["x", "y", "z"], ["z", "x"]))
        text = printed(between([a, b], [], [], same=False))
        assert "only in A: y" in text
        assert "the agents come in a different order" in text
        renamed = printed(between([usual_plan(0), plan([agent("quant", {})], count=0)], [], [], same=False))
        assert "only in A: chrono, merge" in renamed
        new = printed(between([plan([agent(n, {})], count=0) for n in ("old", "new")], [], [], same=False))
        assert "agent old -> new, matched by position" in new

    def test_long_lists_and_texts_are_cut_with_a_note(self) -> None:
        count = MAX_CHANGES + 7
        many = [
            plan([agent("one", {f"field {n}": value for n in range(count)})], count=0) for value in (1, 2)
        ]
        assert "... and 7 more; the two run.json hold them" in printed(between(many, [], [], same=False))
        texts = ["\n".join(f"{word} {n}" for n in range(MAX_TEXT_LINES)) for word in ("old", "new")]
        prompts = [plan([agent("one", {"prompt": text})], count=0) for text in texts]
        text = printed(between(prompts, [], [], same=False))
        assert f"... and {MAX_TEXT_LINES} more lines" in text
        assert "+new" not in text

    def test_white_space_and_absent_fields_have_words(self) -> None:
        plans = [plan([agent("one", c)], count=0) for c in ({"p": "a\n"}, {"p": "a", "q": [1]})]
        text = printed(between(plans, [], [], same=False))
        assert "one: p: differs in white space only" in text
        assert "one: q: (absent) -> [1]" in text

    def test_many_agents_flow_over_lines_without_being_torn(self) -> None:
        row = decision(0, "A" * 12)
        agents = plan([agent(name, {}) for name in row.answers], count=1)
        other = plan([agent(name, {"x": 1}) for name in row.answers], count=1)
        text = printed(between([agents, other], [row], [decision(0, "B" * 12)], same=False))
        assert (
            "  agent0 A -> B   agent1 A -> B   agent2 A -> B   agent3 A -> B   agent4 A -> B\n  agent5"
            in text
        )

    @pytest.mark.parametrize("terminal", [False, True])
    def test_hostile_text_does_nothing(self, terminal: bool) -> None:
        a = decision(0, "AAA", HOSTILE, category=HOSTILE, answer=HOSTILE)
        b = replace(a, answers={"quant": HOSTILE, "chrono": None}, outcomes={"chrono": HOSTILE}, answer="B")
        plans = [usual_plan(1, {HOSTILE: value}) for value in (HOSTILE, f"{HOSTILE}\n{HOSTILE}")]
        found = between(plans, [a], [b], same=False)
        text = printed(replace(found, a=RunIdentity(Path(HOSTILE), HOSTILE, 1)), terminal=terminal)
        assert "\x1b[2J" not in text
        assert "\x1b]" not in text
        assert text.count("[bold]x[/bold][/]") >= 8
        if not terminal:
            assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in text.replace("\n", ""))
