"""The questions that several finished runs have in common, as tables whose rows are the same questions.

Questions are the same where their ids are; of a question that a run asked twice the first decision counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orch_local.errors import InputError
from orch_local.results.tables import Codes, Column, RunTable

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Aligned:
    """The same questions in several runs."""

    tables: tuple[RunTable, ...]
    """Of each run the common questions, in the order of the first run, with the categories of each.

    A question without gold in one of the runs has none in all.
    """
    common: int
    without_gold: int
    """Common questions without gold in at least one run."""


def align(names: Sequence[str], tables: Sequence[RunTable]) -> Aligned:
    """Bring the common questions of several runs into the same rows.

    Raises
    ------
    InputError
        If they have none in common, or one has another gold answer in another run.
    """
    places = _common_places(tables)
    if not len(places[0]):
        counts = ", ".join(f"{name}: {len(one):,}" for name, one in zip(names, tables, strict=True))
        raise InputError(
            "no question is in all of these runs, so nothing can be compared",
            where=f"questions of {counts}",
            hint="compare runs over the same benchmark; `limit`, `split` and `categories` choose questions",
        )
    taken = [take(one, where) for one, where in zip(tables, places, strict=True)]
    known = _known_gold(names, taken)
    nothing = np.int32(-1)
    scored = tuple(replace(one, gold=np.where(known, one.gold, nothing)) for one in taken)
    return Aligned(scored, len(known), int(np.count_nonzero(~known)))


def take(table: RunTable, places: Places) -> RunTable:
    """Some questions of a table, in this order."""
    return replace(
        table,
        ids=table.ids.take(places),  # type: ignore[attr-defined]
        category=_taken(table.category, places),
        cluster=_taken(table.cluster, places),
        how=_taken(table.how, places),
        reason=_taken(table.reason, places),
        gold=table.gold[places],
        final=table.final[places],
        majority=table.majority[places],
        answer=table.answer[:, places],
        outcome=tuple(_taken(one, places) for one in table.outcome),
        confidence=table.confidence[:, places],
        probability=table.probability[:, places],
        final_confidence=table.final_confidence[places],
        final_probability=table.final_probability[places],
    )


def distinct_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """A name for each run: that of its folder, with as many of those above as tell them all apart.

    Raises
    ------
    InputError
        If a run is given twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    twice = [folder for folder, count in zip(folders, map(parts.count, parts), strict=True) if count > 1]
    if twice:
        raise InputError("is given twice", where=str(twice[0]), hint="name each run once")
    lengths = [1] * len(parts)
    while True:
        names = ["/".join(one[-length:]) for one, length in zip(parts, lengths, strict=True)]
        shared = Counter(names)
        if max(shared.values()) == 1:
            return tuple(names)
        lengths = [length + (shared[name] > 1) for name, length in zip(names, lengths, strict=True)]


def _common_places(tables: Sequence[RunTable]) -> list[Places]:
    """Where each table has the questions that all have, in the order of the first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # A table holds its ids as an Arrow column, which is typed as a sequence of strings.
    ids = [pa.chunked_array(getattr(one.ids, "chunks"), pa.string()).combine_chunks() for one in tables]  # noqa: B009
    common = pc.unique(ids[0])
    for other in ids[1:]:
        common = common.filter(pc.is_in(common, value_set=other))
    return [pc.index_in(common, value_set=one).to_numpy(zero_copy_only=False).astype(np.int64) for one in ids]


def _taken(column: Column, places: Places) -> Column:
    return Column(column.names, column.codes[places])


def _known_gold(names: Sequence[str], tables: Sequence[RunTable]) -> npt.NDArray[np.bool_]:
    """Which questions have gold in all tables, whose rows are the same questions."""
    golds = _common_codes(tables)
    known: npt.NDArray[np.bool_] = np.logical_and.reduce([one >= 0 for one in golds])
    for place in range(1, len(golds)):
        for before in range(place):
            differs = (golds[before] != golds[place]) & (golds[before] >= 0) & (golds[place] >= 0)
            if differs.any():
                raise _other_gold([names[before], names[place]], [tables[before], tables[place]], differs)
    return known


def _common_codes(tables: Sequence[RunTable]) -> list[Codes]:
    """Gold of each table, in codes that are common to all; -1 for none."""
    vocabulary = {text: code for code, text in enumerate(sorted({t for one in tables for t in one.answers}))}
    lookups = [np.array([*(vocabulary[text] for text in one.answers), -1], np.int32) for one in tables]
    return [lookup[one.gold] for lookup, one in zip(lookups, tables, strict=True)]


def _other_gold(
    names: Sequence[str], tables: Sequence[RunTable], differs: npt.NDArray[np.bool_]
) -> InputError:
    first, count = int(np.argmax(differs)), int(np.count_nonzero(differs))
    texts = [f"{one.answers[one.gold[first]]!r} in {name}" for name, one in zip(names, tables, strict=True)]
    more = f", and {count - 1:,} more questions differ" if count > 1 else ""
    return InputError(
        f"another gold answer in another run: {texts[0]}, {texts[1]}{more}",
        where=f"question {tables[0].ids[first]}",
        hint="the runs were scored against different versions of the benchmark; `orch-local diff` tells more",
    )
