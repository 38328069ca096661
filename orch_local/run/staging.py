"""Copies of model folders on the local disk of a node (``stage_to: $TMPDIR``), one for all its processes.

Layout below the folder that the user names::

    orch-local/models/<digest of the plan's files>/           a whole copy, moved into place when complete
    orch-local/models/<digest of the plan's files>.lock       held by the one process that copies
    orch-local/models/.<digest of the plan's files>.partial/  a copy being made, or one that was killed
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from orch_local.errors import ConfigError, ModelError, StoreError
from orch_local.models.folders import remember
from orch_local.plan.plans import AgentPlan
from orch_local.records import digest
from orch_local.util.locks import held

log = logging.getLogger(__name__)

_BLOCK_BYTES = 16 * 2**20
_TELL_SECONDS = 30.0
_DISK_BLOCK = 4096
_COMPANIONS = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Endings of small files that a tokenizer or a config may need, besides those that the plan names."""
_COMPANION_BYTES = 100 * 2**20
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def expanded(text: str) -> Path:
    """The folder that ``text`` means on this machine, with ``~`` and ``$VARIABLES`` resolved.

    Raises
    ------
    ConfigError
        Naming a variable that is not set here, or that is empty.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise ConfigError(
                f"${name} is not set on this machine",
                where=f"stage_to: {text}",
                hint="name a folder on a local disk, or leave `stage_to` out",
            )
        return os.environ[name]

    path = Path(_VARIABLE.sub(value, text))
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise ConfigError("no such user", where=f"stage_to: {text}", hint="write the path out") from None


def stage(agent: AgentPlan, root: Path, alive: Callable[[], None] = lambda: None) -> Path:
    """A copy of the agent's model folder below ``root``, made now or by another process of this node.

    Every byte is hashed on its way; a copy that is there already is known by the sizes of its files.
    ``alive`` is called every few seconds at least, while copying and while waiting for who copies.

    Raises
    ------
    ModelError
        If a file is missing, cannot be read, or is not the one of the plan.
    StoreError
        If ``root`` cannot be written or has too little room.
    """
    planned = _planned(agent)
    sources = _sources(agent.settings.model_path, planned)
    folder = root / "orch-local" / "models" / digest(planned)[:32]
    try:
        if not _is_copy(folder, sources):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with held(folder.with_suffix(".lock"), _Waiting(agent.name, folder, alive).tell):
                if not _is_copy(folder, sources):
                    _make_copy(folder, sources, planned, alive)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return folder


def at(agent: AgentPlan, folder: Path) -> AgentPlan:
    """The agent with its model at ``folder``; the spec is the same, for no path is part of it."""
    settings = dataclasses.replace(agent.settings, model_path=folder)
    model = agent.model.model_copy(update={"path": folder})
    return agent.model_copy(update={"settings": settings, "model": model})


class _Waiting:
    """Says now and then that another process is copying."""

    def __init__(self, name: str, folder: Path, alive: Callable[[], None]) -> None:
        self._about = name, folder
        self._alive = alive
        self._told = -_TELL_SECONDS

    def tell(self, seconds: float) -> None:
        self._alive()
        if seconds - self._told >= _TELL_SECONDS:
            self._told = seconds
            log.info(
                "%s: another process is copying the model to %s; waiting, %.0f s so far",
                *self._about,
                seconds,
            )


def _planned(agent: AgentPlan) -> dict[str, str]:
    """SHA-256 by file name, as the plan has it."""
    return dict(agent.spec_content["model"]["files"])


def _sources(model: Path, planned: Mapping[str, str]) -> dict[str, Path]:
    """What is copied, by name: the plan's files, and what stands beside them for tokenizer and config.

    Small files come first, so that a wrong tokenizer shows before minutes of copying.
    """
    try:
        found = {file.name: file for file in model.iterdir() if file.name in planned or _is_companion(file)}
        sizes = {name: file.stat().st_size for name, file in found.items()}
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror or error}", where=str(model)) from None
    missing = sorted(planned.keys() - found.keys())
    if missing:
        hint = "put the file back that was planned with, or choose another --out"
        raise ModelError(f"{missing[0]} is not there any more", where=str(model), hint=hint)
    return dict(sorted(found.items(), key=lambda item: (sizes[item[0]], item[0])))


def _is_companion(file: Path) -> bool:
    return file.suffix in _COMPANIONS and file.is_file() and file.stat().st_size <= _COMPANION_BYTES


def _is_copy(folder: Path, sources: Mapping[str, Path]) -> bool:
    """Whether all files are there in full size: some nodes clear old files out of their scratch folders."""
    try:
        return all((folder / name).stat().st_size == file.stat().st_size for name, file in sources.items())
    except FileNotFoundError:
        return False


def _make_copy(
    folder: Path, sources: Mapping[str, Path], planned: Mapping[str, str], alive: Callable[[], None]
) -> None:
    """Copy everything beside ``folder``, then move it into place; the lock is held."""
    partial = folder.with_name(f".{folder.name}.partial")
    for left_behind in (partial, folder):
        if left_behind.exists():
            shutil.rmtree(left_behind)
    size = _check_room(folder, sources)
    log.info("copying %s of %.1f GiB to %s", next(iter(sources.values())).parent, size / 2**30, folder)
    started = time.monotonic()
    try:
        partial.mkdir()
        found = {
            name: _copied(file, partial / name, planned.get(name), alive) for name, file in sources.items()
        }
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    log.info("copied in %.0f s", time.monotonic() - started)
    # Or each worker would read all that was just written again, to check it.
    remember({folder / name: value for name, value in found.items()})


def _check_room(folder: Path, sources: Mapping[str, Path]) -> int:
    """The size of a copy on disk; refuse to begin one that does not fit."""
    blocks = sum(-(-file.stat().st_size // _DISK_BLOCK) + 1 for file in sources.values())
    needed, free = blocks * _DISK_BLOCK, shutil.disk_usage(folder.parent).free
    if needed > free:
        raise StoreError(
            f"the copy of the model needs {_size(needed)}, but only {_size(free)} are free",
            where=str(folder.parent),
            hint="free some space, let `stage_to` name a larger disk, or leave it out",
        )
    return needed


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _copied(source: Path, target: Path, planned: str | None, alive: Callable[[], None]) -> str:
    """Copy one file; returns its SHA-256, which must be the planned one where there is one."""
    found = hashlib.sha256()
    with target.open("wb") as stream:
        for block in _blocks(source):
            found.update(block)
            stream.write(block)
            alive()
    value = found.hexdigest()
    if planned is not None and value != planned:
        raise ModelError(
            "is not the file that was planned with: its SHA-256 is another",
            where=str(source),
            hint="put the old file back, or choose another --out for the new one",
        )
    return value


def _blocks(source: Path) -> Iterator[bytes]:
    try:
        with source.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                yield block
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror or error}", where=str(source)) from None


def _unwritable(folder: Path, error: OSError) -> StoreError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return StoreError(
        f"the model cannot be copied there: {error.strerror or error}",
        where=str(folder.parent),
        hint="free some space, or let `stage_to` name a larger disk"
        if full
        else "let `stage_to` name a folder on a local disk that you may write to, or leave it out",
    )
