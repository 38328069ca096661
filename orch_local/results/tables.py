"""The decisions of a finished run as columns of numbers: what all statistics, reports and plots start from.

A million questions of five agents take some 100 MB. Text is held once, and stands in the columns as a code:
the place in a list of all texts, with -1 for "none".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from orch_local.errors import StoreError
from orch_local.store.store import RunFolder

if TYPE_CHECKING:
    import pyarrow as pa

Codes = npt.NDArray[np.int32]
Verdicts = npt.NDArray[np.int8]
"""1 right, 0 wrong, -1 unscored (no answer, not asked, or no gold)."""
Shares = npt.NDArray[np.float64]
"""Within 0 and 1, NaN where there is none."""

MAJORITY, ORCH, ORACLE = "majority", "ORCH", "oracle"
NOT_ASKED = "not_asked"
_HINT = "`orch-local run`, as the run was begun, or `orch-local score` makes it anew from the stored rows"


@dataclass(frozen=True, eq=False)
class Column:
    """A column of texts, each as its code."""

    names: tuple[str, ...]
    """All texts, sorted."""
    codes: Codes
    """Shape (n,); -1 for none."""


@dataclass(frozen=True, eq=False)
class RunTable:
    """All decisions of a run in question order; ``n`` questions, ``a`` agents."""

    agents: tuple[str, ...]
    ids: Sequence[str]
    """Question ids; an Arrow array, not a list of a million strings: ``str(ids[i])``."""
    category: Column
    cluster: Column
    """The source that questions share; -1 where none is known."""
    how: Column
    reason: Column
    """Why a question is unscored; -1 where it is not."""
    answers: tuple[str, ...]
    """All texts that occur as an answer or gold, sorted; their places are the codes of the next four."""
    gold: Codes
    """Shape (n,)."""
    final: Codes
    """Shape (n,): ORCH's answer."""
    majority: Codes
    """Shape (n,)."""
    answer: Codes
    """Shape (a, n): each agent's answer, -1 where it has none or was not asked."""
    outcome: tuple[Column, ...]
    """By agent; ``not_asked`` where the router did not ask it."""
    confidence: Shares
    """Shape (a, n): stated confidence / 100."""
    probability: Shares
    """Shape (a, n): probability of the own answer."""
    final_confidence: Shares
    """Shape (n,): of the merge agent."""
    final_probability: Shares

    def __len__(self) -> int:
        return len(self.gold)

    @cached_property
    def verdicts(self) -> Mapping[str, Verdicts]:
        """By system: the agents in order, the majority vote, ORCH, the oracle."""
        by_agent = {name: _verdicts(self.answer[i], self.gold) for i, name in enumerate(self.agents)}
        best = np.stack(list(by_agent.values())).max(axis=0)  # right before wrong before unscored
        voted, final = _verdicts(self.majority, self.gold), _verdicts(self.final, self.gold)
        return by_agent | {MAJORITY: voted, ORCH: final, ORACLE: best}

    @property
    def has_gold(self) -> npt.NDArray[np.bool_]:
        """Shape (n,)."""
        return self.gold >= 0


def _verdicts(answer: Codes, gold: Codes) -> Verdicts:
    return np.where((answer < 0) | (gold < 0), -1, answer == gold).astype(np.int8)


def read_table(folder: RunFolder, agents: Sequence[str]) -> RunTable:
    """The decisions of a finished run, from its Parquet file.

    Raises
    ------
    StoreError
        If there is none, or it is not one of these agents.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder.decisions.with_suffix(".parquet")
    if not path.exists():
        message = f"the run is not finished: it has no {path.name}"
        hint = "finish the run first: the command that began it continues it"
        raise StoreError(message, where=str(folder.root), hint=hint)
    try:
        return table_of(pq.read_table(path), agents)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise StoreError(f"cannot be used: {error}", where=str(path), hint=_HINT) from None


def table_of(rows: pa.Table, agents: Sequence[str]) -> RunTable:
    """The columns of ``decisions.parquet``, as `results/files.py` writes it.

    Raises
    ------
    KeyError
        If a column is missing.
    """
    text = _coded([rows["gold"], rows["answer"], rows["majority"], *(rows[f"answer.{a}"] for a in agents)])
    gold, final, majority, *answer = (column.codes for column in text)
    return RunTable(
        agents=tuple(agents),
        ids=rows["question_id"],
        category=_coded([rows["category"]])[0],
        cluster=_without_empty(_coded([rows["cluster"]])[0]),
        how=_coded([rows["how"]])[0],
        reason=_without_empty(_coded([rows["reason"]])[0]),
        answers=text[0].names,
        gold=gold,
        final=final,
        majority=majority,
        answer=np.stack(answer),
        outcome=tuple(_coded([rows[f"outcome.{name}"].fill_null(NOT_ASKED)])[0] for name in agents),
        confidence=np.stack([_numbers(rows[f"confidence.{name}"]) / 100 for name in agents]),
        probability=np.stack([_numbers(rows[f"probability.{name}"]) for name in agents]),
        final_confidence=_numbers(rows["confidence"]) / 100,
        final_probability=_numbers(rows["probability"]),
    )


def _coded(columns: Sequence[pa.ChunkedArray]) -> list[Column]:
    """Columns of texts, with codes that are common to all of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pc.unique(pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()))
    names = known.drop_null().sort()
    codes = (pc.index_in(column, names).fill_null(-1).to_numpy().astype(np.int32) for column in columns)
    return [Column(tuple(names.to_pylist()), one) for one in codes]


def _without_empty(column: Column) -> Column:
    """The column with "none" where the text is empty; an empty text sorts first."""
    if column.names[:1] != ("",):
        return column
    return Column(column.names[1:], column.codes - np.int32(1) * (column.codes >= 0))


def _numbers(column: pa.ChunkedArray) -> Shares:
    import pyarrow as pa

    numbers: Shares = column.cast(pa.float64()).fill_null(float("nan")).to_numpy()
    return numbers
