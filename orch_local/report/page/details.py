"""What a page holds of single questions: text, choices, the whole panel, and what the merge agent wrote.

Details are packed in blocks, which a browser unpacks when one of their questions is opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from orch_local.merge.deciding import Deciding
from orch_local.records import Analysis, Question
from orch_local.report.page.index import packed
from orch_local.report.page.wording import clipped
from orch_local.results.diagnostics import row_notes

BLOCK_QUESTIONS = 128
BLOCK_CHARACTERS = 400_000
"""A block ends where it holds as many, so that one of huge questions does not wait for many of them."""
MOST_OF_QUESTION = 4000
MOST_OF_CHOICE = 500
MOST_OF_PANEL = 60_000
"""Characters of reasoning that a question's agents have together."""
MOST_OF_REASONING = 3000
LEAST_OF_REASONING = 200
BLOCK_COST = 80
"""Bytes of the element that a block stands in."""


class Blocks(NamedTuple):
    """Packed details."""

    texts: list[str]
    sizes: list[int]
    """Questions in each."""

    @property
    def questions(self) -> int:
        """How many questions have details."""
        return sum(self.sizes)


def pack(details: Iterable[Any], room: int) -> Blocks:
    """As many details, from the first on, as fit into so many bytes."""
    blocks = Blocks([], [])
    for group in _groups(details):
        whole = len(group)
        while group and len(text := packed(group)) + BLOCK_COST > room:
            group = group[: len(group) // 2]
        if group:
            blocks.texts.append(text)
            blocks.sizes.append(len(group))
            room -= len(text) + BLOCK_COST
        if len(group) < whole:
            break
    return blocks


def _groups(details: Iterable[Any]) -> Iterator[list[Any]]:
    group: list[Any] = []
    size = 0
    for one in details:
        group.append(one)
        size += len(json.dumps(one, ensure_ascii=False))
        if len(group) == BLOCK_QUESTIONS or size > BLOCK_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group


def details(questions: Iterable[Question], agents: Sequence[str], deciding: Deciding) -> Iterator[list[Any]]:
    """The details of some questions: text, choices, one entry for each agent, and that of the merge agent.

    An agent that was not asked has none.
    """
    for question in questions:
        panel = deciding.panel(question)
        rows = dict(zip(panel.names, panel.analyses, strict=True))
        most = MOST_OF_PANEL // (len(panel.analyses) + 1)
        most = max(LEAST_OF_REASONING, min(MOST_OF_REASONING, most))
        yield [
            clipped(question.text, MOST_OF_QUESTION),
            [clipped(choice, MOST_OF_CHOICE) for choice in question.choices],
            [_entry(question, rows.get(agent), most) for agent in agents],
            _entry(question, deciding.merged(question, panel), most),
        ]


def _entry(question: Question, analysis: Analysis | None, most: int) -> Sequence[Any] | None:
    """Outcome, answer, confidence, probabilities, eliminated, reasoning, thought, raw output, error."""
    if analysis is None:
        return None
    shares = analysis.probabilities or {}
    answer = analysis.answer
    return [
        str(analysis.outcome),
        None if answer is None else clipped(answer, MOST_OF_CHOICE),
        analysis.confidence,
        {clipped(label, 10): round(share, 4) for label, share in list(shares.items())[:10]},
        clipped(", ".join(analysis.eliminated), MOST_OF_CHOICE),
        clipped(analysis.reasoning, most) + "".join(f" [{note}]" for note in row_notes(question, analysis)),
        clipped(analysis.thought, most // 2) + (" [ended at its bound]" if analysis.thought_cut else ""),
        "" if analysis.usable else clipped(analysis.text, most // 2),
        clipped(analysis.error, MOST_OF_CHOICE),
    ]
