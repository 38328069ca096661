"""`orch-local report`: one HTML file of a finished run, within a budget of bytes whatever the run is like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from orch_local.merge.deciding import Deciding
from orch_local.plan.files import load_plan
from orch_local.plan.plans import Plan
from orch_local.report.page import answers, cost, plotted, sections
from orch_local.report.page.base import Page, Section, body, json_for_script, render
from orch_local.report.page.details import Blocks, details, pack
from orch_local.report.page.index import Choice, choose, index
from orch_local.report.page.wording import counted, name
from orch_local.results.summary import Summary
from orch_local.results.tables import RunTable, read_table
from orch_local.results.timeline import Timeline
from orch_local.router.routes import read_routes
from orch_local.store.questions import Questions, read_questions
from orch_local.store.store import RunFolder, Store, atomic_write

MOST_BYTES = 2_900_000
_RESERVE = 20_000
"""For what is known only when the details are packed: their order, and how many there are."""


def write_page(summary: Summary, folder: RunFolder, path: Path, timelines: Sequence[Timeline] = ()) -> Path:
    """Write the report of a run.

    Parameters
    ----------
    path:
        The file; it is replaced if it is there.

    Raises
    ------
    StoreError
        If the run is not finished, its files cannot be read, or ``path`` cannot be written.
    """
    page = page_of(summary, timelines)
    html = render(_with_questions(page, summary, folder))
    with atomic_write(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def page_of(summary: Summary, timelines: Sequence[Timeline] = ()) -> Page:
    """The report without the table of questions."""
    parts = [
        Section("accuracy", "Accuracy", sections.accuracy(summary)),
        *_answers(summary),
        Section("pairs", "Who beats whom", sections.pairs(summary)),
        Section("categories", "Categories", sections.categories(summary)),
        Section("panel", "Panel", sections.panel(summary)),
    ]
    if summary.router:
        parts.append(Section("router", "Router", plotted.router(summary, summary.router)))
    if summary.calibration:
        parts.append(Section("calibration", "Confidence", plotted.calibration(summary)))
    parts += [
        Section("unscored", "Unscored", sections.unscored(summary)),
        Section("cost", "Cost and time", cost.cost(summary, timelines)),
        Section("provenance", "Provenance", sections.provenance(summary)),
    ]
    return Page(f"{name(summary.title)}: ORCH report", sections.lead(summary), parts)


def _answers(summary: Summary) -> Iterator[Section]:
    if summary.diagnostics:
        yield Section("answers", "Answers", answers.answers(summary, summary.diagnostics))


def _with_questions(page: Page, summary: Summary, folder: RunFolder) -> Page:
    plan = load_plan(folder)
    table, questions = read_table(folder, plan.names), read_questions(folder.questions)
    choice = choose(table)
    listed, length = index(table, choice, questions)
    data = {"index": json_for_script(listed)}
    whole = _with_section(page, summary, _words(choice, Blocks([], []), length), data)
    room = MOST_BYTES - _RESERVE - len(render(whole).encode()) - _details_cost(choice)
    blocks = pack(_details(folder, plan, questions, choice), room)
    data["meta"] = json_for_script(_meta(plan, table, choice, blocks))
    for number, text in enumerate(blocks.texts):
        data[f"block-{number}"] = json_for_script(text)
    return _with_section(page, summary, _words(choice, blocks, length), data)


def _details(folder: RunFolder, plan: Plan, questions: Questions, choice: Choice) -> Iterator[list[Any]]:
    """Details, the most urgent question first; a few thousand are all that a page can hold."""
    chosen = questions.picked(choice.urgent.tolist())
    deciding = Deciding(plan, Store(plan.store), read_routes(folder, plan), chosen)
    return details(chosen, plan.names, deciding)


def _with_section(page: Page, summary: Summary, words: str, data: dict[str, Markup]) -> Page:
    """The page with the table before the section that says how it was made."""
    section = Section(
        "questions", "Questions", body("questions.html.j2", words=words, run=name(summary.title))
    )
    return replace(page, sections=[*page.sections[:-2], section, *page.sections[-2:]], data=data)


def _meta(plan: Plan, table: RunTable, choice: Choice, blocks: Blocks) -> dict[str, object]:
    place = np.searchsorted(choice.rows, choice.urgent[: blocks.questions])
    return {
        "agents": [name(agent, 40) for agent in table.agents],
        "blocks": blocks.sizes,
        "detailed": place.tolist(),
        "merger": plan.merger is not None,
    }


def _details_cost(choice: Choice) -> int:
    """Bytes of the list that says whose details stand where."""
    return 6 * len(choice.rows)


def _words(choice: Choice, blocks: Blocks, length: int) -> str:
    shown, full = len(choice.rows), blocks.questions
    order = "those that ORCH has wrong or unscored, then those where the agents disagree, then the others"
    part = "All" if shown == choice.of else f"{shown:,} of the"
    words = [f"{part} {counted(choice.of, 'question')} {'is' if shown == 1 else 'are'} in this table."]
    if shown < choice.of:
        words = [f"{words[0][:-1]}: first {order}."]
    if full == shown:
        words.append("Each opens to its full text, the whole panel and the reasoning of the merge agent.")
    else:
        words.append(f"{full:,} of them open to the whole panel and the reasoning of the merge agent")
        words[-1] += "." if shown < choice.of else f": first {order}."
    words.append("orch-local show RUN ID prints any question." if full < choice.of else "")
    words.append(f"The search looks at the first {length} characters of a question." if length else "")
    return " ".join(word for word in words if word)
