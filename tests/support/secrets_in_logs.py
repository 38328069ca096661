"""A question that may not show in a log, and the places where it does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

SECRET = "quokka zephyr 71 patient Jane Doe"


def leaks(log: str, ids: Sequence[int]) -> list[str]:
    """Where a log holds a part of the secret, or four of its token ids in a row."""
    runs = (ids[start : start + 4] for start in range(len(ids) - 3))
    patterns = [
        *map(re.escape, SECRET.split(" ", 1)),
        *(r"\b" + r"\D{1,3}".join(map(str, run)) for run in runs),
    ]
    return [found[0] for pattern in patterns for found in re.finditer(pattern, log)]


def secret_ids(model: Path) -> list[int]:
    """The secret as a model reads it."""
    from tokenizers import Tokenizer

    ids: list[int] = Tokenizer.from_file(str(model / "tokenizer.json")).encode(SECRET).ids
    assert len(set(ids)) > 8
    return ids
