"""The difference between two runs on the terminal: one sentence, the plans, the answers, some questions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from orch_local.audit.difference import (
    FINAL,
    Difference,
    DifferingQuestion,
    PlanDifference,
    RunIdentity,
    SystemDifference,
)
from orch_local.records import Decision
from orch_local.report.console import print_paragraph, print_table, table
from orch_local.report.difference_plans import print_plans
from orch_local.report.difference_sentences import (
    alarms,
    headline,
    interval,
    is_alarming,
    questions_sentence,
    signed,
    verb_for,
)
from orch_local.report.formatting import counted, p_value, points
from orch_local.report.safe import safe
from orch_local.results.scoring import is_correct

_CELL_GAP = "   "
_ALARM = "bold red"


def print_difference(console: Console, difference: Difference) -> None:
    """Print what differs between two runs.

    The headline comes first, then alarms, plans, questions, answers with paired statistics, the first
    differing questions, and what identifies the two runs.
    """
    print_paragraph(console, headline(difference), style=_ALARM if is_alarming(difference) else "bold")
    for alarm in alarms(difference):
        print_paragraph(console, alarm, style=_ALARM)
    print_plans(console, difference.plans)
    print_paragraph(console, questions_sentence(difference))
    if difference.common and (difference.differing or not difference.same_digest):
        _print_answers(console, difference)
        _print_scores(console, difference)
    _print_examples(console, difference)
    for name, run in (("A", difference.a), ("B", difference.b)):
        _print_run(console, name, run)


def _print_answers(console: Console, difference: Difference) -> None:
    heads = ["same", "different", "only A", "only B", "neither"]
    confidences = any(system.confidences for system in difference.systems)
    made = table(console, "system", [*heads, "confidence"] if confidences else heads)
    for system in difference.systems:
        counts = [system.same, system.different, system.only_a, system.only_b, system.neither]
        cells = [*counts, system.confidences] if confidences else counts
        made.add_row(
            safe(system.name), *(Text(f"{count:,}") for count in cells), style=_style(system, difference)
        )
    notes = ["confidence = same answer, other confidence"] if confidences else []
    if difference.how:
        same = f"{counted(difference.how, 'final answer')} {verb_for(difference.how, 'was', 'were')}"
        notes.append(f"{same} reached in another way, without being another")
    print_table(console, "Answers to the common questions", made)
    if notes:
        print_paragraph(console, "; ".join(notes), style="dim")


def _print_scores(console: Console, difference: Difference) -> None:
    """The accuracies of the systems whose answers differ; where they do not, there is nothing to compare."""
    scored = [(s, s.scores) for s in difference.systems if s.scores and s.differing]
    if not scored:
        return
    adjusted = sum(scores.p_holm is not None for _, scores in scored)
    heads = ["n", "A", "B", "B - A", "interval", "gained", "lost", "p"]
    made = table(console, "system", [*heads, "p Holm"] if adjusted > 1 else heads)
    for system, scores in scored:
        cells = [f"{scores.n:,}", points(scores.accuracy_a), points(scores.accuracy_b)]
        cells += [signed(scores.difference), interval(scores, " to "), f"{scores.gained:,}"]
        cells += [f"{scores.lost:,}", p_value(scores.p)]
        cells += [p_value(scores.p_holm)] if adjusted > 1 else []
        made.add_row(safe(system.name), *map(Text, cells), style=_style(system, difference))
    print_table(console, "Accuracy (%, 95 % interval of B - A) on the n questions scored in both", made)
    note = "gained, lost = right in B only, in A only; p = exact McNemar test"
    holm = f"; p Holm = the same, adjusted for {adjusted} comparisons" if adjusted > 1 else ""
    print_paragraph(console, note + holm, style="dim")


def _style(system: SystemDifference, difference: Difference) -> str:
    return "bold" if system is difference.final else ""


def _print_examples(console: Console, difference: Difference) -> None:
    if not difference.examples:
        return
    shown, total = len(difference.examples), difference.differing
    few = f"{shown:,} of {total:,}, other final answers first" if shown < total else f"all {total:,}"
    console.print(Text(f"Differing questions ({few}, A -> B)", "bold"))
    for example in difference.examples:
        console.print(_example_head(example))
        for line in _flowing(_example_answers(example, difference.plans), console.width - 2):
            console.print(Padding(line, (0, 0, 0, 2), expand=False), overflow="fold")
    console.print(Text("orch-local show RUN QUESTION tells what each run made of one", "dim"))
    console.print()


def _flowing(cells: Iterable[Text], width: int) -> Iterator[Text]:
    """Lines of whole cells, as many to a line as fit."""
    line = Text()
    for cell in cells:
        if line and line.cell_len + len(_CELL_GAP) + cell.cell_len > width:
            yield line
            line = Text()
        line = Text(_CELL_GAP).join([line, cell]) if line else cell
    yield line


def _example_head(example: DifferingQuestion) -> Text:
    a, b = example
    gold = _arrow(a.gold or "none", b.gold or "none")
    return Text.assemble(safe(a.question_id, "cyan"), "  ", safe(a.category), ", gold ", safe(gold))


def _example_answers(example: DifferingQuestion, plans: PlanDifference) -> Iterator[Text]:
    a, b = example
    for match in plans.matches:
        one, other = _told(a.answers, a, match.a), _told(b.answers, b, match.b)
        changed = a.confidences.get(match.a), b.confidences.get(match.b)
        if one == other and changed[0] != changed[1]:
            one, other = f"{one} ({_none(changed[0])})", f"{other} ({_none(changed[1])})"
        yield _pair(match.name, one, other)
    one, other = a.answer or "unscored", b.answer or "unscored"
    if one == other and a.how != b.how:
        one, other = f"{one} ({a.how})", f"{other} ({b.how})"
    yield _pair(FINAL, one, other).append_text(_verdicts(a, b))


def _told(answers: Mapping[str, str | None], decision: Decision, name: str) -> str:
    return answers.get(name) or decision.outcomes.get(name, "missing")


def _none(confidence: int | None) -> str:
    return "-" if confidence is None else str(confidence)


def _pair(name: str, one: str, other: str) -> Text:
    return Text.assemble(safe(f"{name} "), safe(_arrow(one, other), "bold" if one != other else ""))


def _arrow(one: str, other: str) -> str:
    return one if one == other else f"{one} -> {other}"


def _verdicts(a: Decision, b: Decision) -> Text:
    """Whether a changed final answer was and is right."""
    right = is_correct(a.answer, a.gold), is_correct(b.answer, b.gold)
    if a.answer == b.answer or None in right:
        return Text()
    words = ["right" if one else "wrong" for one in right]
    styles = {("wrong", "right"): "green", ("right", "wrong"): "red"}
    return Text.assemble(" (", (_arrow(*words), styles.get((words[0], words[1]), "")), ")")


def _print_run(console: Console, name: str, run: RunIdentity) -> None:
    # A path or digest with a line break in it cannot be copied, so these lines may be longer than the screen.
    for title, value in ((f"digest {name} ", run.digest), (f"run    {name} ", str(run.folder))):
        console.print(Text.assemble((title, "dim"), safe(value)), soft_wrap=True)
