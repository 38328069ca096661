"""Finished runs whose reports are looked at: of many questions, and of hostile ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from run_folders import NAMES, Run, analysis, worker
from summaries import HOSTILE
from two_runs import plan

from orch_local.placement.machine import Machine
from orch_local.placement.replicas import Placement
from orch_local.plan.files import write_plan
from orch_local.records import Analysis, Outcome, Question, question_id
from orch_local.report.page import write_page
from orch_local.results.summarise import summarise
from orch_local.results.timeline import Span, Timeline
from orch_local.store.questions import questions_digest, read_questions, write_questions
from orch_local.store.store import RunFolder, Store

HARMFUL = tuple(text for text in HOSTILE if (text.strip() and text.isprintable()) or "\x1b" in text)
"""Of the hostile texts those that a file of questions may hold."""
Speaker = Callable[[Question, int], Analysis]
"""The row of an agent for the question with this number."""


def questions(count: int) -> list[Question]:
    """Of two categories; the gold is B."""
    return [
        _question(f"What is {n} + 4?", (f"{n + 3}", f"{n + 4}"), ("sums", "dates")[n % 2])
        for n in range(count)
    ]


def hostile_questions() -> list[Question]:
    """One for each hostile text, which is its question, a choice and its category."""
    return [
        _question(f"{n}: {text}", (text, f"other {n}"), f"{n}{text[:80]}") for n, text in enumerate(HARMFUL)
    ]


def _question(text: str, choices: tuple[str, ...], category: str) -> Question:
    return Question(question_id(text, choices), text, choices, "B", category)


def quant(question: Question, number: int) -> Analysis:
    """Right on all questions but each fifth, which it has no answer for."""
    if number % 5 == 0:
        return Analysis(question.key, Outcome.FAILED, error="the engine died on this prompt")
    return spoken(question.key, "B", f"quant thinks of {number}")


def chrono(question: Question, number: int) -> Analysis:
    """Right on each third question."""
    return spoken(question.key, "A" if number % 3 else "B", f"chrono thinks of {number}")


def hostile(question: Question, number: int) -> Analysis:
    """Says what the question says, wherever a row has text."""
    text = HARMFUL[number % len(HARMFUL)]
    if number % 3 == 0:
        return Analysis(question.key, Outcome.INVALID, error=text[:200], text=text)
    return replace(spoken(question.key, "AB"[number % 2], text), thought=text, eliminated=(text[:100],))


def spoken(key: str, answer: str, reasoning: str) -> Analysis:
    """An analysis of which text and fields say the same."""
    said = {"reasoning": reasoning, "answer": answer, "confidence": 80}
    return replace(analysis(key, answer), reasoning=reasoning, text=json.dumps(said))


def finished(root: Path, asked: Sequence[Question], speakers: Sequence[Speaker]) -> Run:
    """A run of two agents and a merge agent, to its end; the merge agent speaks like the first one."""
    folder, store = RunFolder(root / "run"), Store(root / "store")
    write_questions(folder.questions, asked)
    digest = questions_digest(read_questions(folder.questions))
    made = plan(
        [worker(root, name) for name in NAMES], worker(root, "merge"), count=len(asked), questions=digest
    )
    made = made.model_copy(update={"store": store.root})
    write_plan(folder, made)
    run = Run(folder, made, store, asked)
    for name, speaker in zip(NAMES, speakers, strict=True):
        run.add(name, *(speaker(one, number) for number, one in enumerate(asked)))
    numbers = {one.key: number for number, one in enumerate(asked)}
    merged = [(numbers[key], row) for key, row in run.merged().items()]
    if merged:
        run.add(
            "merge",
            *(replace(row, reasoning=f"merged {n}: {_said(speakers, asked[n], n)}") for n, row in merged),
        )
    run.decide()
    return run


def _said(speakers: Sequence[Speaker], question: Question, number: int) -> str:
    return speakers[0](question, number).reasoning


def written(run: Run) -> Path:
    """The report of a run."""
    return write_page(
        summarise(run.folder), run.folder, run.folder.root / "report.html", [timeline("quant", "chrono")]
    )


def timeline(*agents: str) -> Timeline:
    """An execution in which each agent works on one device after the other."""
    spans = [
        Span(name, 1, 1, (0,), 0, 10.0 * n, 10.0 * n + 2, 10.0 * n + 9, 50) for n, name in enumerate(agents)
    ]
    placed = Placement(Machine("cuda", 1, 80.0, "made up"), (), "merge")
    return Timeline("2026-01-01T00:00:00+00:00", "node17.cluster", "", placed, tuple(spans))
