"""The result files of a run: decisions as JSON Lines and Parquet, metrics as JSON.

Every file is written whole or not at all; a million decisions pass through in batches.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orch_local.records import Decision, LevelAssessment
from orch_local.results.diagnostics import Diagnostics
from orch_local.results.scoring import Cost, Metrics, is_correct
from orch_local.store.store import RunFolder, atomic_write, write_json

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 8192


def write_decisions(folder: Path, decisions: Iterable[Decision], agents: Sequence[str]) -> None:
    """Write ``decisions.jsonl``, and ``decisions.parquet`` with the same rows as flat columns.

    Parameters
    ----------
    folder:
        The run folder.
    decisions:
        In question order; read once.
    agents:
        Names of all agents of the run, in agent order: they name columns of the Parquet file.

    Raises
    ------
    StoreError
        If the folder cannot be written; files of an earlier run are then as they were.
    """
    # Deferred: pyarrow takes long to load, and the command line must not.
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines_path = RunFolder(folder).decisions
    schema = _schema(agents)
    with (
        atomic_write(lines_path) as lines_temporary,
        atomic_write(lines_path.with_suffix(".parquet")) as table_temporary,
        lines_temporary.open("wb") as lines,
        pq.ParquetWriter(table_temporary, schema, compression="zstd") as table,
    ):
        for batch in _batches(decisions):
            lines.writelines(_json_line(decision) for decision in batch)
            table.write_table(pa.Table.from_pylist([_flat(d, agents) for d in batch], schema))


class DecisionTable:
    """``decisions.parquet`` as it is read back, row by row, beside decisions that are made again."""

    def __init__(self, folder: Path, agents: Sequence[str]) -> None:
        self.path = RunFolder(folder).decisions.with_suffix(".parquet")
        self._agents = agents
        self._rows = self._read()
        self._same = True

    def compare(self, decision: Decision) -> None:
        """Compare the next row."""
        if self._same:
            self._same = next(self._rows, None) == _flat(decision, self._agents)

    def same(self) -> bool:
        """Whether all rows were those of the decisions, and no more were there."""
        return self._same and next(self._rows, None) is None

    def _read(self) -> Iterator[dict[str, Any] | None]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(BATCH_ROWS):
                    yield from batch.to_pylist()
        except (OSError, ValueError, pa.ArrowException):
            yield {}  # a damaged file is no row of a decision


def write_metrics(
    folder: Path,
    metrics: Metrics,
    costs: Mapping[str, Cost],
    digest: str,
    level: LevelAssessment,
    diagnostics: Diagnostics | None = None,
) -> None:
    """Write ``metrics.json``: digest, level, all numbers of ``metrics``, costs by agent, diagnostics."""
    values = {"digest": digest, "standing": dataclasses.asdict(level), **metrics.to_dict()}
    values["cost"] = {name: dataclasses.asdict(value) for name, value in costs.items()}
    if diagnostics is not None:
        values["diagnostics"] = dataclasses.asdict(diagnostics)
    write_json(RunFolder(folder).metrics, values)


def _batches(decisions: Iterable[Decision]) -> Iterator[list[Decision]]:
    rest = iter(decisions)
    while batch := list(islice(rest, BATCH_ROWS)):
        yield batch


def _json_line(decision: Decision) -> bytes:
    # A lone surrogate becomes the escape \udXXX, which is how JSON writes one: the file stays valid UTF-8.
    text = json.dumps(decision.to_row(), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _schema(agents: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    text = ("question_id", "category", "gold", "answer", "how", "reason", "majority")
    fields = [(name, pa.string()) for name in text] + [("correct", pa.bool_())]
    fields += [("cluster", pa.string()), ("confidence", pa.int16()), ("probability", pa.float64())]
    for name in agents:
        fields.append((f"answer.{name}", pa.string()))
        fields.append((f"confidence.{name}", pa.int16()))
        fields.append((f"probability.{name}", pa.float64()))
        fields.append((f"outcome.{name}", pa.string()))
    return pa.schema(fields)


def _flat(decision: Decision, agents: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "question_id": decision.question_id,
        "category": _utf8(decision.category),
        "gold": _utf8(decision.gold),
        "answer": decision.answer,
        "how": str(decision.how),
        "reason": _utf8(decision.reason),
        "majority": decision.majority,
        "correct": is_correct(decision.answer, decision.gold),
        "cluster": _utf8(decision.cluster),
        "confidence": decision.confidence,
        "probability": decision.probability,
    }
    for name in agents:
        row[f"answer.{name}"] = decision.answers.get(name)
        row[f"confidence.{name}"] = decision.confidences.get(name)
        row[f"probability.{name}"] = decision.probabilities.get(name)
        row[f"outcome.{name}"] = decision.outcomes.get(name)
    return row


def _utf8(text: str | None) -> str | None:
    """Parquet holds valid UTF-8 only; a lone surrogate of a data set is written as its escape."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()
