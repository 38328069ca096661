"""``fetched.json``: what lies in a fetched folder, where it came from, and under which licence.

It has nothing of the machine or its user in it: the same files of the same commits make the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from orch_local.errors import InputError
from orch_local.store.store import read_json, write_json
from orch_local.util.paths import check_path

FETCHED = "fetched.json"
FORMAT = 1
PARTIAL = ".partial"
"""Folder inside of that of a model or benchmark whose fetch is not finished."""
UNKNOWN = "unknown"
"""Licence of a repository whose card names none."""
Kind = Literal["model", "benchmark"]
FOLDERS: Mapping[Kind, str] = {"model": "models", "benchmark": "benchmarks"}
_HINT = "have it fetched again into an empty folder, or put a good copy back"


def _path(value: str) -> str:
    check_path(value)
    return value


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("has characters that cannot be seen")
    return value


_Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A file as it was when it had been fetched and verified."""

    path: Annotated[str, AfterValidator(_path)]
    """Relative to the folder of the model or benchmark, parts joined by ``/``."""
    size: Annotated[int, Field(ge=0, lt=2**50)]
    """Bytes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model or benchmark that was fetched as a whole."""

    kind: Kind
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]
    """Of its folder."""
    repo: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,96}(/[A-Za-z0-9._-]{1,96})?$")]
    """Where it came from, as owner/name on the hub."""
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    """Commit hash there."""
    licence: _Line
    """As the card of the repository names it, or :data:`UNKNOWN`."""
    gated: bool
    """Whether the hub gives it only to those who accepted its terms."""
    files: tuple[FetchedFile, ...]
    """In order of their paths."""

    @property
    def folder(self) -> str:
        """Where it lies in the fetched folder, such as ``models/Qwen3-8B``."""
        return f"{FOLDERS[self.kind]}/{self.name}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


_RECORD = TypeAdapter(dict[str, Fetched], config=ConfigDict(extra="forbid", strict=False))


def read_record(folder: Path) -> dict[str, Fetched]:
    """What a fetched folder holds, by :attr:`Fetched.folder`; nothing where it has no record.

    Raises
    ------
    StoreError
        If the record cannot be read.
    InputError
        If it is none of ours, or says what it may not.
    """
    file = folder / FETCHED
    if not file.exists():
        return {}
    values = read_json(file, _HINT)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InputError(
            f"its format is not {FORMAT}: is it from another version of orch-local?",
            where=str(file),
            hint=_HINT,
        )
    try:
        record = _RECORD.validate_python(values.get("fetched"))
        wrong = next((key for key, item in record.items() if key != item.folder), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} is the folder of {record[wrong].folder!r}")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{place}: {first['msg']}", where=str(file), hint=_HINT) from None
    except ValueError as error:
        raise InputError(str(error), where=str(file), hint=_HINT) from None
    return record


def add_to_record(folder: Path, item: Fetched) -> None:
    """Write ``item`` into the record of ``folder``; the others in it stay.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    _write(folder, {**read_record(folder), item.folder: item})


def drop_from_record(folder: Path, key: str) -> None:
    """Take an item out of the record, because its files are about to change."""
    record = read_record(folder)
    if record.pop(key, None) is not None:
        _write(folder, record)


def _write(folder: Path, record: Mapping[str, Fetched]) -> None:
    fetched: dict[str, Any] = {key: asdict(record[key]) for key in sorted(record)}
    write_json(folder / FETCHED, {"format": FORMAT, "fetched": fetched})
