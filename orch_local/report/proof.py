"""What `verify` and `replay` found, and the level of a run, on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from orch_local.audit.replay import Replay
from orch_local.audit.verify import Mismatch, Stage, Verification
from orch_local.records import Analysis, Level, LevelAssessment
from orch_local.report.console import print_paragraph, print_table, table
from orch_local.report.formatting import counted, percent
from orch_local.report.safe import safe, visible
from orch_local.results.scoring import Cost

_CONTEXT = 24
"""Cells shown before the first difference of two texts."""
_MEANING = {
    Level.BITWISE: "every engine is batch-invariant by its set-up",
    Level.VERIFIED: "no engine differed, but not all are batch-invariant by their set-up",
    Level.RULES: "routing and aggregation are fixed, the analyses may differ",
}

_DECLARED = "every engine is batch-invariant by its set-up, on a GPU as vLLM declares and these rows show"


def print_level(console: Console, assessment: LevelAssessment) -> None:
    """Print how far the answers are promised to come again, and why no further."""
    again, same = assessment.generated_again, assessment.same
    times = f"{again:,} times a row was generated again in another batch, in all runs with these specs"
    meaning = (
        _DECLARED if assessment.declared and assessment.level is Level.BITWISE else _MEANING[assessment.level]
    )
    sentence = f"Level {assessment.level}: {meaning}; {times}, "
    sentence += f"and {same:,} times it came to the same bytes."
    reasons = "; ".join(map(visible, assessment.reasons))
    style = "bold red" if same < again else ""
    console.print()
    print_paragraph(console, f"{sentence} Not higher because: {reasons}." if reasons else sentence, style)


def print_recheck_cost(console: Console, costs: Iterable[Cost]) -> None:
    """Print what it cost that workers generated rows again; nothing where none did."""
    costs = list(costs)
    rows, took = sum(one.rechecked for one in costs), sum(one.recheck_s for one in costs)
    generated_s = sum(one.generate_s for one in costs)
    if rows and generated_s:
        were = f"{counted(rows, 'row')} {'was' if rows == 1 else 'were'} generated again"
        share = percent(took / generated_s)
        print_paragraph(
            console, f"In this run {were} in {took:,.1f} s, {share} of the time that its workers generated."
        )


def print_replay(console: Console, replay: Replay) -> None:
    """Print whether the stored rows come to the digest that the run wrote down."""
    verdict = "the digest that the run wrote down" if replay.same else "NOT what the run wrote down"
    made = f"{counted(replay.decisions, 'decision')} made again from the stored rows, without an engine"
    print_paragraph(console, f"{made}: {verdict}.", "bold" if replay.same else "bold red")
    findings = replay.findings()
    for line in findings:
        console.print(safe(line), soft_wrap=True)
    if findings:
        console.print()
    print_places(console, store=replay.plan.store, recorded=replay.recorded, replayed=replay.digest)


def print_places(console: Console, **values: object) -> None:
    """Print names and values in lines that can be copied."""
    for name, value in values.items():
        console.print(Text.assemble((f"{name:<9}", "dim"), safe(str(value))), soft_wrap=True)


def print_verification(console: Console, found: Verification, assessment: LevelAssessment) -> None:
    """Print what is wrong with the files, the match rates, and the first difference of each stage."""
    if found.problems:
        print_paragraph(console, f"{counted(len(found.problems), 'problem')} with the files:", "bold red")
        for problem in found.problems:
            console.print(safe(problem), soft_wrap=True)
        console.print()
    else:
        whole = "plan, specs, chunks, model files, questions, decisions and metrics are what they were"
        print_paragraph(console, f"Files: {whole}.")
    if any(stage.evidence.rows for stage in found.stages):
        _print_rates(console, found.stages)
    for stage in found.stages:
        if stage.first is not None:
            _print_mismatch(console, stage.agent, stage.first)
    print_places(console, store=found.plan.store)
    print_level(console, assessment)
    differed = sum(stage.evidence.rows - stage.evidence.same for stage in found.stages)
    wrong = f"{counted(len(found.problems), 'problem')} with the files, {counted(differed, 'row')} differed"
    print_paragraph(
        console, "OK" if found.passed else f"NOT OK: {wrong}.", "bold" if found.passed else "bold red"
    )


def _print_rates(console: Console, stages: Iterable[Stage]) -> None:
    heads = ["rows", "again", "same bytes", "same text", "alone", "by sevens", "together"]
    rows = table(console, "agent", heads)
    for stage in stages:
        rows.add_row(safe(stage.agent), *map(Text, _rates(stage)))
    print_table(console, "Rows generated again in other batches", rows)


def _rates(stage: Stage) -> list[str]:
    evidence = stage.evidence
    cells = [f"{stage.stored:,}", f"{evidence.rows:,}"]
    cells += [f"{part:,}/{evidence.rows:,}" for part in (evidence.same, evidence.same_text)]
    rates = (stage.by_batch.get(name) for name in ("alone", "by sevens", "together"))
    return cells + [f"{rate.same:,}/{rate.rows:,}" if rate else "-" for rate in rates]


def _print_mismatch(console: Console, agent: str, first: Mismatch) -> None:
    print_paragraph(
        console, f"First difference of {visible(agent)}: question {first.question_id}", "bold red"
    )
    for line in _difference(first.before, first.again, console.width):
        console.print(safe(line), soft_wrap=True)
    console.print()


def _difference(before: Analysis, again: Analysis | None, width: int) -> list[str]:
    """Both texts under each other from shortly before the first difference on, each on one line."""
    if again is None:
        return ["it did not come again"]
    if before.outcome is not again.outcome:
        return [f"stored  {before.outcome}", f"again   {again.outcome} {again.error}".rstrip()]
    for what in ("thought", "text"):
        old, new = getattr(before, what), getattr(again, what)
        if old != new:
            place = _common_start(old, new)
            alike = _fitting(reversed(old[:place]), _CONTEXT)
            lead = ("..." if len(alike) < place else "") + "".join(reversed(alike))
            room = width - 8 - cell_len(lead)
            return [
                f"{what} differs from character {place + 1} on",
                f"stored  {lead}{''.join(_fitting(old[place:], room))}",
                f"again   {lead}{''.join(_fitting(new[place:], room))}",
                " " * (8 + cell_len(lead)) + "^",
            ]
    if before.probabilities != again.probabilities:
        return [f"the texts are the same, the probabilities are not: {_farthest(before, again)}"]
    old_fields, new_fields = before.content(), again.content()
    others = [name for name, value in old_fields.items() if value != new_fields[name]]
    return [f"the texts are the same, but not: {', '.join(others)}"]


def _fitting(characters: Iterable[str], room: int) -> list[str]:
    """The first of the characters, made visible, that fit into so many cells."""
    fitting = []
    for shown in map(visible, characters):
        room -= cell_len(shown)
        if room < 0:
            break
        fitting.append(shown)
    return fitting


def _common_start(old: str, new: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))


def _farthest(before: Analysis, again: Analysis) -> str:
    old, new = before.probabilities or {}, again.probabilities or {}
    gaps = {label: abs(old.get(label, 0.0) - new.get(label, 0.0)) for label in old.keys() | new.keys()}
    label = max(sorted(gaps), key=lambda one: gaps[one], default="")
    return f"of {label}, {old.get(label)} and {new.get(label)}" if label else "one has none"
