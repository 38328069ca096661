"""Question files that attack whoever reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orch_local.benchmarks.loading import load_questions
from orch_local.config.blocks import BenchmarkConfig

GOOD = '{"question": "1 + 1?", "choices": ["1", "2"], "answer": "B"}\n'


LAST = '{"question": "1 + 2?", "choices": ["2", "3"], "answer": "B"}\n'


def loaded(path: Path, **more: Any) -> Any:
    return load_questions(BenchmarkConfig(name="jsonl", path=path, skip_bad_rows=True, **more))


def lines(path: Path, *rows: str | bytes) -> Path:
    path.write_bytes(b"".join(row.encode() if isinstance(row, str) else row for row in rows))
    return path


def table(questions: Any, count: int) -> Any:
    import pyarrow

    choices = pyarrow.array([["x", "y"]] * count)
    return pyarrow.table({"question": questions, "choices": choices, "answer": pyarrow.array(["A"] * count)})


def repeated(text: str, count: int) -> Any:
    """The same text in all rows, stored once."""
    import pyarrow

    index = pyarrow.array([0] * count, pyarrow.int32())
    return table(pyarrow.DictionaryArray.from_arrays(index, pyarrow.array([text])), count)
