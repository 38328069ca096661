"""Question files that would fill the memory, read by a child that has little of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from hostile_files import GOOD, LAST, lines, repeated

from orch_local.benchmarks.reading import MAX_ARRAY_BYTES, MAX_ROW_BYTES

_CHILD = """
import json, resource, sys
from pathlib import Path
limit = int(sys.argv[2]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from orch_local.benchmarks.loading import load_questions
from orch_local.config.blocks import BenchmarkConfig
from orch_local.errors import BenchmarkError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    loaded = load_questions(BenchmarkConfig(name="jsonl", path=Path(sys.argv[1]), skip_bad_rows=True))
    said = {"good": len(loaded.questions), "bad": [[row.row, row.reason] for row in loaded.bad_rows]}
except BenchmarkError as error:
    said = {"error": error.message, "where": error.where, "hint": error.hint}
print(json.dumps(said | {"mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}))
"""


class Outcome(NamedTuple):
    """What a child with little memory made of a file."""

    said: dict[str, Any]
    seconds: float

    @property
    def mib(self) -> float:
        return float(self.said["mib"])


def read_in_a_child(path: Path, memory_mib: int = 4096) -> Outcome:
    start = time.monotonic()
    arguments = [sys.executable, "-c", _CHILD, str(path), str(memory_mib)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=True)
    return Outcome(json.loads(done.stdout), time.monotonic() - start)


def test_a_line_of_a_gibibyte_is_one_bad_row(tmp_path: Path) -> None:
    file = lines(tmp_path / "test.jsonl", GOOD)
    with file.open("r+b") as opened:
        opened.seek(2**30)  # a hole of zeros takes no place on disk
        opened.write(b"\n" + LAST.encode())
    found = read_in_a_child(file)
    assert found.said["good"] == 2
    ((row, reason),) = found.said["bad"]
    assert row == 2
    assert reason == f"has {2**30 - len(GOOD) + 1:,} bytes, more than {MAX_ROW_BYTES:,}"
    assert found.mib < 100


def test_an_array_that_would_fill_the_memory_is_not_begun(tmp_path: Path) -> None:
    file = lines(tmp_path / "test.json", "[")
    with file.open("r+b") as opened:
        opened.truncate(MAX_ARRAY_BYTES + 1)
    found = read_in_a_child(file)
    assert "one JSON array of 134,217,729 bytes" in found.said["error"]
    assert "JSONL" in found.said["hint"]
    assert found.mib < 50


def test_a_parquet_file_of_two_kilobytes_is_not_forty_gigabytes(tmp_path: Path) -> None:
    import pyarrow.parquet

    file = tmp_path / "test.parquet"
    pyarrow.parquet.write_table(repeated("a" * 20_000_000, 400), file, compression="zstd")
    assert file.stat().st_size < 4000  # 8 GB, had it been read as a whole
    found = read_in_a_child(file, 6144)
    assert "bytes, more than 16,777,216 (the first of 400 bad rows)" in found.said["error"]
    assert found.said["where"].endswith("row 1")
    assert found.mib < 1500
