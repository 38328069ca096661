"""The difference between two runs on the terminal: one sentence, the plans, the answers, some questions."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from orch_local.audit.diff import (
    FINAL,
    Difference,
    Example,
    PlanChange,
    PlanDifference,
    Run,
    Scores,
    SystemDifference,
)
from orch_local.records import Decision
from orch_local.report.console import print_paragraph, print_table, table
from orch_local.report.formatting import CHANCE_P, NBSP, counted, p_value, percent, points
from orch_local.report.safe import safe, visible
from orch_local.results.scoring import is_correct

MAX_CHANGES = 30
MAX_TEXT_LINES = 16
MAX_VALUE = 60
_DIGEST = re.compile(r"[0-9a-f]{32,}")
_DIGEST_SHOWN = 12
_CELL_GAP = "   "
_ALARM = "bold red"


def print_difference(console: Console, difference: Difference) -> None:
    """Print what differs between two runs.

    The headline comes first, then alarms, plans, questions, answers with paired statistics, the first
    differing questions, and what identifies the two runs.
    """
    print_paragraph(console, headline(difference), style=_ALARM if _is_alarming(difference) else "bold")
    for alarm in _alarms(difference):
        print_paragraph(console, alarm, style=_ALARM)
    _print_plans(console, difference.plans)
    print_paragraph(console, _questions_sentence(difference))
    if difference.common and (difference.differing or not difference.same_digest):
        _print_answers(console, difference)
        _print_scores(console, difference)
    _print_examples(console, difference)
    for name, run in (("A", difference.a), ("B", difference.b)):
        _print_run(console, name, run)


def headline(difference: Difference) -> str:
    """The whole difference in one or two sentences; no-break spaces hold numbers and units together."""
    if not difference.common:
        return "The runs have no question in common, so none of their answers can be compared."
    if difference.same_digest:
        return _same_sentence(difference)
    if not difference.plans.same:
        return f"{_plans_clause(difference.plans)}; {_final_clause(difference)}."
    return _same_plan_sentence(difference)


def _same_sentence(difference: Difference) -> str:
    same = f"The runs gave the same {counted(difference.common, 'answer')}"
    same = f"{same}, byte for byte in all that the digest covers"
    if difference.plans.same:
        return f"{same}."
    clause = _plans_clause(difference.plans)
    return f"{same}, although {clause[0].lower()}{clause[1:]}."


def _same_plan_sentence(difference: Difference) -> str:
    """Two runs that must be the same are not."""
    common, final = difference.common, difference.final
    if final.broken and final.differing:
        share = f"{final.differing:,} of {counted(common, 'final answer')}"
        verb = _verb(final.differing, "differs", "differ")
        return f"Same plan, same environment, but {share} {verb}: {_verdict(difference)}."
    if final.broken or _broken_agents(difference):
        share = f"{difference.differing:,} of {counted(common, 'question')}"
        return (
            f"Same plan, same environment, same final answers, but on {share} the agents' answers, their "
            f"confidences or the way to the final answer differ: {_verdict(difference)}."
        )
    if difference.differing or difference.how:
        share = f"{max(difference.differing, difference.how):,} of {counted(common, 'question')}"
        return (
            f"Same plan, same environment; {share} came out differently because an engine failed on them in "
            "one of the runs. `orch-local run ... --retry-failed` generates those rows again."
        )
    return (
        "Same plan, same environment, and no answer differs, yet the digests do: a metrics.json was changed "
        "afterwards, or another version of orch-local wrote it."
    )


def _verdict(difference: Difference) -> str:
    """What it means that a run did not come again."""
    if not difference.plans.unpromised:
        return "determinism was broken"
    names = visible(_listed(difference.plans.unpromised))
    return f"the same bytes were not promised, as the engine of {names} is not batch-invariant"


def _is_alarming(difference: Difference) -> bool:
    """Whether two runs that were promised to be the same are not."""
    plans, broken = difference.plans, difference.final.broken + _broken_agents(difference)
    return plans.same and not plans.unpromised and broken > 0


def _plans_clause(plans: PlanDifference) -> str:
    where = []
    if plans.changed:
        where.append(f"in {counted(len(plans.changed), 'field')}")
    if not plans.same_agents:
        where.append("in their agents")
    if not plans.same_questions:
        where.append("in their questions")
    return f"The plans differ {_listed(where)}"


def _final_clause(difference: Difference) -> str:
    count, scores = difference.final.differing, difference.final.scores
    of = f"of {counted(difference.common, 'common question')}"
    if not count:
        return f"{of} no final answer differs"
    said = f"{of} {counted(count, 'final answer')} {_verb(count, 'differs', 'differ')}"
    return f"{said} ({_scores_phrase(scores, difference.common)})" if scores else said


def _scores_phrase(scores: Scores, common: int) -> str:
    parts = [
        f"A {percent(scores.accuracy_a)}",
        f"B {percent(scores.accuracy_b)}",
        f"difference {_signed(scores.difference)} points",
        f"95{NBSP}% interval {_interval(scores, f'{NBSP}to{NBSP}')}",
        f"p{NBSP}{p_value(scores.p, '=' + NBSP).replace(' ', NBSP)}",
    ]
    if scores.p >= CHANCE_P:
        parts.append("within chance")
    if scores.n < common:
        parts[:0] = [f"on the {scores.n:,} that can be scored in both"]
    return ", ".join(parts)


def _broken_agents(difference: Difference) -> int:
    return sum(agent.broken for agent in difference.agents)


def _alarms(difference: Difference) -> Iterator[str]:
    """What no other difference between the runs can explain."""
    unpromised = difference.plans.unpromised
    broken = [agent for agent in difference.agents if agent.broken and agent.name not in unpromised]
    if broken:
        counts = _listed([f"{visible(agent.name)} on {agent.broken:,}" for agent in broken])
        yield (
            f"DETERMINISM BROKEN: the spec is the same in both runs, yet answers or confidences are not: "
            f"{counts} of {counted(difference.common, 'common question')}."
        )
    lists = difference.only_a or difference.only_b or not difference.same_order
    covered = difference.differing or difference.how or lists
    if difference.same_digest and difference.plans.same_agents and covered:
        yield (
            "The digests are the same, yet the decisions are not: a decisions.jsonl or metrics.json was "
            "changed after its run."
        )


def _print_plans(console: Console, plans: PlanDifference) -> None:
    lines = [*_changed_lines(plans), *_agent_lines(plans)]
    if not lines:
        return
    console.print(Text("Plans (A -> B)", "bold"))
    for line in lines:
        console.print(Padding(line, (0, 0, 0, 2), expand=False), overflow="fold")
    console.print()


def _changed_lines(plans: PlanDifference) -> Iterator[Text]:
    for changed in plans.changed[:MAX_CHANGES]:
        yield from _change_lines(changed, _whose(changed, plans))
    if len(plans.changed) > MAX_CHANGES:
        yield Text(f"... and {len(plans.changed) - MAX_CHANGES:,} more; the two run.json hold them", "dim")


def _whose(changed: PlanChange, plans: PlanDifference) -> str:
    if not changed.agents:
        return ""
    if len(changed.agents) == plans.workers > 1:
        return "all agents: "
    return f"{', '.join(changed.agents)}: "


def _change_lines(changed: PlanChange, whose: str) -> Iterator[Text]:
    name, before, after = changed.change
    head = Text.assemble(safe(whose, "dim"), safe(name))
    if not (isinstance(before, str) and isinstance(after, str) and "\n" in before + after):
        yield head.append_text(Text.assemble(": ", safe(_value(before)), " -> ", safe(_value(after))))
        return
    lines = _text_lines(before, after)
    yield head.append(":" if lines else ": differs in white space only")
    for line in lines[:MAX_TEXT_LINES]:
        yield Text("  ").append_text(safe(line, "red" if line.startswith("-") else "green"))
    if len(lines) > MAX_TEXT_LINES:
        yield Text(f"  ... and {len(lines) - MAX_TEXT_LINES:,} more lines", "dim")


def _text_lines(before: str, after: str) -> list[str]:
    """The lines that differ, behind ``-`` and ``+``, in the order of a unified diff."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [line for line in list(lines)[2:] if not line.startswith("@@")]


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if _DIGEST.fullmatch(text):
        return text[:_DIGEST_SHOWN]
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}..."


def _agent_lines(plans: PlanDifference) -> Iterator[Text]:
    renamed = [match for match in plans.matches if match.a != match.b]
    for match in renamed:
        yield Text.assemble("agent ", safe(match.a), " -> ", safe(match.b), ", matched by position")
    for run, names in (("A", plans.only_a), ("B", plans.only_b)):
        if names:
            yield Text.assemble(f"only in {run}: ", safe(", ".join(names)))
    if not plans.same_order:
        yield Text("the agents come in a different order, which decides ties and enters the digest")


def _questions_sentence(difference: Difference) -> str:
    common = counted(difference.common, "question")
    if difference.plans.same_questions:
        return f"Both runs asked the same {common}."
    both = f"{common} {_verb(difference.common, 'is', 'are')} in both runs"
    parts = [f"{both}, {difference.only_a:,} in A only and {difference.only_b:,} in B only."]
    if difference.common and not difference.same_order:
        parts.append("The common ones come in a different order.")
    if difference.other_gold:
        verb = _verb(difference.other_gold, "has", "have")
        parts.append(f"{difference.other_gold:,} of them {verb} another gold answer and cannot be scored.")
    elif difference.same_order and not (difference.only_a or difference.only_b):
        parts.append("Their categories, examples or other data differ.")
    return " ".join(parts)


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
        same = f"{counted(difference.how, 'final answer')} {_verb(difference.how, 'was', 'were')}"
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
        cells += [_signed(scores.difference), _interval(scores, " to "), f"{scores.gained:,}"]
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


def _example_head(example: Example) -> Text:
    a, b = example
    gold = _arrow(a.gold or "none", b.gold or "none")
    return Text.assemble(safe(a.question_id, "cyan"), "  ", safe(a.category), ", gold ", safe(gold))


def _example_answers(example: Example, plans: PlanDifference) -> Iterator[Text]:
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


def _print_run(console: Console, name: str, run: Run) -> None:
    # A path or digest with a line break in it cannot be copied, so these lines may be longer than the screen.
    for title, value in ((f"digest {name} ", run.digest), (f"run    {name} ", str(run.folder))):
        console.print(Text.assemble((title, "dim"), safe(value)), soft_wrap=True)


def _verb(n: int, one: str, many: str) -> str:
    return one if n == 1 else many


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _signed(share: float) -> str:
    """A difference in percentage points with its sign; none where it rounds to zero."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _interval(scores: Scores, between: str) -> str:
    return f"{_signed(scores.interval.low)}{between}{_signed(scores.interval.high)}"
