"""Folders and files of exports: written aside and moved into place, whatever the text in them."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orch_local.errors import InputError
from orch_local.store.store import unwritable


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``out``; it becomes ``out`` when the block ends well.

    Raises
    ------
    InputError
        If ``out`` is there and not an empty folder.
    StoreError
        If it cannot be written; nothing is left behind.
    """
    _refuse_taken(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Within a folder of its own: only the owner can open what mkdtemp makes.
        scratch = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name[:40]}.", suffix=".tmp"))
    except OSError as error:
        raise unwritable(out, error) from None
    try:
        unfinished = scratch / "export"
        unfinished.mkdir()
        yield unfinished
        unfinished.replace(out)
    except OSError as error:
        raise unwritable(out, error) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _refuse_taken(out: Path) -> None:
    try:
        taken = any(out.iterdir())
    except FileNotFoundError:
        return
    except NotADirectoryError:
        taken = True
    except OSError as error:
        raise unwritable(out, error) from None
    if taken:
        hint = "name a folder that is not there yet, or empty this one"
        raise InputError("is there already, and not an empty folder", where=str(out), hint=hint)


def file_name(text: str) -> str:
    """``text`` as a name that is one file in any folder, e.g. no ``..``, no separator."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".")[:100] or "_"


def file_names(texts: Iterable[str]) -> list[str]:
    """A name for each text, all different even where a file system takes upper for lower case."""
    taken: set[str] = set()
    names = []
    for text in texts:
        base = name = file_name(text)
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def json_line(row: Any) -> bytes:
    """One line of JSON Lines.

    All but ASCII is escaped: some readers split lines at any character that Unicode takes for a line's end.
    """
    return json.dumps(row, ensure_ascii=True, allow_nan=False).encode() + b"\n"


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document."""
    path.write_bytes(json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False).encode() + b"\n")
