"""Which questions stand in the table of a page, in which order they get their details, and what it lists.

Text of questions is clipped so that the list keeps to its part of the file, whatever the questions are like.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orch_local.report.page.wording import clipped, shown
from orch_local.results.tables import ORCH, Codes, Column, RunTable
from orch_local.store.questions import Questions

MOST_QUESTIONS = 12_000
MOST_BYTES = 1_200_000
"""Of the packed list."""
TEXT_LENGTHS = (160, 100, 60, 30, 0)
"""Characters of a question that are tried, until the list is small enough."""
MOST_OF_ANSWER = 40
MOST_OF_CATEGORY = 60
_UNSET = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Choice:
    """Which questions are shown."""

    rows: npt.NDArray[np.int64]
    """Their numbers in the run, in question order."""
    urgent: npt.NDArray[np.int64]
    """The same numbers, those first that a reader asks about first."""
    of: int


def choose(table: RunTable, most: int = MOST_QUESTIONS) -> Choice:
    """All questions, or as many as fit: wrong or unscored ones first, then disagreement, then the rest."""
    kinds = np.full(len(table), 2, np.int8)
    kinds[_disagree(table)] = 1
    kinds[(table.verdicts[ORCH] == 0) | (table.final < 0)] = 0
    urgent = np.argsort(kinds, kind="stable")[:most]
    return Choice(np.sort(urgent), urgent, len(table))


def _disagree(table: RunTable) -> npt.NDArray[np.bool_]:
    """Where two agents gave different answers."""
    lowest, highest = np.full(len(table), _UNSET, np.int32), np.full(len(table), -1, np.int32)
    for codes in table.answer:
        np.minimum(lowest, np.where(codes < 0, _UNSET, codes), out=lowest)
        np.maximum(highest, codes, out=highest)
    differing: npt.NDArray[np.bool_] = (highest >= 0) & (lowest != highest)
    return differing


def packed(value: Any) -> str:
    """JSON, compressed (raw deflate) and as base64, which the page reads again."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    press = zlib.compressobj(9, zlib.DEFLATED, -15)
    return base64.b64encode(press.compress(text.encode()) + press.flush()).decode()


def index(table: RunTable, choice: Choice, questions: Questions) -> tuple[str, int]:
    """The packed list without the details, and how many characters of each question it holds."""
    columns = _columns(table, choice.rows)
    texts = [_line(questions[int(row)].text, TEXT_LENGTHS[0]) for row in choice.rows]
    for length in TEXT_LENGTHS:
        made = packed({**columns, "text": [_cut(text, length) for text in texts]})
        if len(made) <= MOST_BYTES:
            return made, length
    return made, 0


def _line(text: str, most: int) -> str:
    """The beginning of a text on one line, one character longer than shown where there is more."""
    return shown(" ".join(text[: 4 * most].split()))[: most + 1]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}\N{HORIZONTAL ELLIPSIS}" * bool(most)


def _columns(table: RunTable, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
    coded = np.stack([table.gold[rows], table.final[rows], table.majority[rows], *table.answer[:, rows]])
    used, places = np.unique(coded, return_inverse=True)
    none = int(used[0] < 0) if len(used) else 0
    (gold, final, majority), answers = np.split(places.reshape(coded.shape) - none, [3])
    return {
        "ids": [shown(str(table.ids[int(row)])) for row in rows],
        "answers": [_short(table.answers[code], MOST_OF_ANSWER) for code in used if code >= 0],
        "gold": gold.tolist(),
        "orch": final.tolist(),
        "majority": majority.tolist(),
        "panel": answers.tolist(),
        "category": _texts(table.category, rows, MOST_OF_CATEGORY),
        "how": _texts(table.how, rows, MOST_OF_CATEGORY),
        "reason": _texts(table.reason, rows, MOST_OF_CATEGORY * 2),
        "outcome": [_texts(column, rows, MOST_OF_CATEGORY) for column in table.outcome],
    }


def _texts(column: Column, rows: npt.NDArray[np.int64], most: int) -> dict[str, Any]:
    """The texts that occur, and the place of each row's among them; -1 for none."""
    codes: Codes = column.codes[rows]
    used, places = np.unique(codes, return_inverse=True)
    none = int(used[0] < 0) if len(used) else 0
    names = [_short(column.names[code], most) for code in used if code >= 0]
    return {"names": names, "codes": (places.reshape(codes.shape) - none).tolist()}


def _short(text: str, most: int) -> str:
    return clipped(text, most) if len(text) <= most else f"{shown(text[:most])}\N{HORIZONTAL ELLIPSIS}"
