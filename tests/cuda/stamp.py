#!/usr/bin/env python3
"""Whether this tier has passed with the files as they are now; CI runs it where it has not.

    python tests/cuda/stamp.py check     # exit code 0 where `passed` has the digest of the files
    python tests/cuda/stamp.py write     # after a pass; to be committed

`passed` holds one SHA-256 over the names and contents of the files whose change this tier alone can judge.
It can be written by hand, as any result that is committed: a reviewer sees it change.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STAMP = "tests/cuda/passed"
WATCHED = (
    "requirements/cuda.txt",
    "orch_local/engines/vllm/*.py",
    "orch_local/engines/base.py",
    "orch_local/engines/traits.py",
    "tests/cuda/**/*",
)
"""Patterns of what the snapshots and the start of vLLM's processes come from.

Placement, plans and workers are used here too, but what they do is fixed here (how many GPUs share a model)
or looked at by tests that need no CUDA build (`golden_plans.py`, `test_offline.py`): watching them as well
would have asked for a run at 30 of the first 126 commits, and these files ask at 11.
"""


def watched(root: Path) -> Iterator[Path]:
    """The files, each once, in order; no caches, and not the stamp itself."""
    found = {file for pattern in WATCHED for file in root.glob(pattern) if file.is_file()}
    own = root / STAMP
    yield from sorted(file for file in found if file != own and "__pycache__" not in file.parts)


def digest(root: Path) -> str:
    """One SHA-256 over names and contents."""
    total = hashlib.sha256()
    for file in watched(root):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{file.relative_to(root).as_posix()} {content}\n".encode())
    return total.hexdigest()


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Check or write the stamp; returns the exit code."""
    file, now = root / STAMP, digest(root)
    if arguments == ["write"]:
        file.write_text(now + "\n", encoding="utf-8")
        return 0
    if arguments == ["check"]:
        return int(not file.is_file() or file.read_text(encoding="utf-8").strip() != now)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
