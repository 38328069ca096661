"""The results of a finished run, as they are read back from its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from orch_local.errors import StoreError
from orch_local.records import Decision
from orch_local.store.store import RunFolder, read_json

_UNFINISHED = "finish the run first: the command that began it continues it"


def read_decisions(path: Path) -> Iterator[Decision]:
    """The decisions of a finished run, one at a time.

    Raises
    ------
    StoreError
        If there are none, or a line is damaged.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise StoreError(f"cannot be read: {error.strerror}", where=str(path), hint=_UNFINISHED) from None
    with file:
        for number, line in enumerate(file, 1):
            try:
                yield Decision.from_row(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                hint = "run the same command again: it is made anew from the stored rows"
                raise StoreError(
                    f"line {number} is no decision: {error!r}", where=str(path), hint=hint
                ) from None


def recorded_digest(folder: RunFolder) -> str:
    """The digest that a finished run wrote down.

    Raises
    ------
    StoreError
        If there is none.
    """
    for file in (folder.metrics, folder.decisions):
        if not file.exists():
            message = f"the run is not finished: it has no {file.name}"
            raise StoreError(message, where=str(folder.root), hint=_UNFINISHED)
    values = read_json(folder.metrics)
    if not isinstance(values, dict) or not isinstance(values.get("digest"), str):
        raise StoreError("holds no digest", where=str(folder.metrics), hint="run the same command again")
    return str(values["digest"])
