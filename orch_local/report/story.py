"""One question from its text to its decision: what every agent wrote, and what the merge agent wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orch_local.records import Analysis, Decision, How, Question
from orch_local.report.console import is_plain
from orch_local.report.safe import safe
from orch_local.results.diagnostics import row_notes
from orch_local.results.scoring import is_correct

MAX_THOUGHT = 600
_BAR_WIDTH = 10
_HOW = {
    How.MERGE: "by the merge agent",
    How.UNANIMOUS: "unanimous, so the merge agent was not asked",
    How.MAJORITY: "by majority vote",
    How.CONFIDENCE: "by stated confidence",
    How.PROBABILITY: "by probability",
}


def print_story(
    console: Console,
    question: Question,
    analyses: Mapping[str, Analysis],
    merge: Analysis | None,
    decision: Decision,
    route: Mapping[str, Any] | None = None,
) -> None:
    """Print the whole story of one question.

    Parameters
    ----------
    analyses:
        By agent name, in agent order; only those of the agents that were asked.
    merge:
        What the merge agent wrote; ``None`` where it was not asked.
    route:
        Its row of ``routes.jsonl``, where the run has a router.
    """
    _print_question(console, question)
    if route is not None:
        _print_route(console, route)
    for name, analysis in analyses.items():
        _print_analysis(console, question, name, analysis)
    if merge is not None:
        _print_analysis(console, question, "merge agent", merge)
    console.print(_decision_line(decision))
    if decision.majority is not None and decision.how is not How.MAJORITY:
        console.print(Text.assemble("The majority vote would have been ", safe(decision.majority), "."))


def _print_question(console: Console, question: Question) -> None:
    console.print(Text.assemble(("Question ", "bold"), safe(question.id), " (", safe(question.category), ")"))
    _print_indented(console, safe(question.text, newlines=True))
    choices = Table.grid(padding=(0, 1))
    for label, choice in zip(question.labels, question.choices, strict=True):
        gold = label == question.gold
        shown = Text.assemble(safe(choice), ("  (gold)" if gold else "", "bold green"))
        choices.add_row("*" if gold else "", label, shown)
    if question.choices:
        _print_indented(console, choices)
    if question.is_numeric and question.gold is not None:
        _print_indented(console, Text.assemble("gold: ", safe(question.gold)))
    console.print()


def _print_route(console: Console, route: Mapping[str, Any]) -> None:
    """Who was asked, and what the router expected of each agent."""
    expected = ", ".join(
        f"{name}{'' if name in route['asked'] else ' (not asked)'} {one['accuracy']:.2f}"
        for name, one in route["estimates"].items()
    )
    why = f"{route['phase'].replace('_', '-')}, after {route['observed']:,} questions had come back"
    console.print(safe(f"Router: asked {', '.join(route['asked'])} ({why}; accuracy expected: {expected})"))
    console.print()


def _print_analysis(console: Console, question: Question, name: str, analysis: Analysis) -> None:
    console.print(Text.assemble(safe(name, "bold cyan"), ": ", _verdict(analysis)))
    for part in _parts(analysis, bar="#" if is_plain(console) else "\N{FULL BLOCK}"):
        _print_indented(console, part)
    for note in row_notes(question, analysis):
        _print_indented(console, Text(f"({note})", "yellow"))
    console.print()


def _verdict(analysis: Analysis) -> Text:
    if not analysis.usable or analysis.answer is None:
        why = safe(f": {analysis.error}" if analysis.error else "")
        return Text.assemble((f"{analysis.outcome}, unscored", "yellow"), why)
    confidence = "" if analysis.confidence is None else f", confidence {analysis.confidence}"
    return Text.assemble("answers ", safe(analysis.answer, "bold"), confidence)


def _parts(analysis: Analysis, bar: str) -> Iterator[Text]:
    if analysis.probabilities:
        yield _probabilities(analysis.probabilities, bar)
    if analysis.eliminated:
        yield safe(f"eliminated: {', '.join(analysis.eliminated)}")
    if analysis.reasoning:
        yield safe(analysis.reasoning, newlines=True)
    if analysis.thought:
        yield _thought(analysis)
    if not analysis.usable and analysis.text:
        yield Text.assemble("raw output: ", _cut(analysis.text))


def _probabilities(probabilities: Mapping[str, float], bar: str) -> Text:
    shares = (
        Text.assemble(safe(label), f" {100 * share:.0f} %", f" {bar * round(share * _BAR_WIDTH)}".rstrip())
        for label, share in probabilities.items()
    )
    return Text("   ").join(shares)


def _thought(analysis: Analysis) -> Text:
    bound = " (ended at its bound)" if analysis.thought_cut else ""
    text = Text.assemble(f"thought{bound}: ", _cut(analysis.thought))
    text.stylize("dim")
    return text


def _cut(text: str) -> Text:
    shown = safe(text[:MAX_THOUGHT], newlines=True)
    if len(text) > MAX_THOUGHT:
        shown.append(f" [cut: {MAX_THOUGHT} of {len(text):,} characters]")
    return shown


def _decision_line(decision: Decision) -> Text:
    if decision.answer is None:
        reason = safe(decision.reason or "no answer")
        return Text.assemble(("Decision: unscored", "bold yellow"), " (", reason, ")")
    line = Text.assemble(("Decision: ", "bold"), safe(decision.answer, "bold"), f", {_HOW[decision.how]}")
    correct = is_correct(decision.answer, decision.gold)
    if correct is not None and decision.gold is not None:
        word, style = ("correct", "green") if correct else ("wrong", "red")
        line.append_text(Text.assemble(" (", (word, style), ", gold ", safe(decision.gold), ")"))
    return line.append(".")


def _print_indented(console: Console, content: Text | Table) -> None:
    console.print(Padding(content, (0, 0, 0, 2), expand=False), overflow="fold")
