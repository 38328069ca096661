"""Tables for the fake engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_table(folder: Path, *rows: Mapping[str, Any] | str) -> Path:
    """Write a table."""
    path = folder / "table.jsonl"
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
