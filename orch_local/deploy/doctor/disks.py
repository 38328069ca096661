"""The folders of a run: is there room, what do they lie on, and can files really be written there."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from orch_local.deploy.doctor.checks import Finding, green, red, unchecked, yellow
from orch_local.deploy.doctor.filesystems import Mount, doubt, mount_of, mounts
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.request import run_folder, store_folder
from orch_local.deploy.doctor.tools import read, size

ROW_BYTES = 1217
"""Of the store, a row: 7.3 kB a question with 5 agents and a merge agent (docs/scaling.md)."""
RUN_BYTES = 960
"""Of the run folder, a question: as asked, and its decision (docs/scaling.md)."""
_SPARE = 256 * 2**20
_FEW_FILES = 10_000
_SECONDS = 15.0
_HANGS = "a network disk does not answer: mount it again, or name another folder"


class Folder(NamedTuple):
    """A folder of the run."""

    name: str
    path: Path
    option: str
    """How another one is chosen."""
    needed: int = 0
    """Bytes that the run will write there, as far as that is known."""
    lasting: bool = False
    """Whether it must be there tomorrow."""


class Room(NamedTuple):
    """What is left of a disk."""

    free: int
    files: int | None
    """Files that may still be made; ``None`` where there is no bound."""


def examine(inspection: Inspection) -> Iterator[Finding]:
    """Look at each folder; a disk that hangs is named by the step."""
    inspection.step("file-writing", "looking for the temporary folder", _SECONDS, _HANGS)
    yield from judge_temporary(os.environ.get("TMPDIR"), tempfile.gettempdir())
    known = mounts(read(Path("/proc/self/mountinfo")))
    for folder in _folders(inspection):
        name = folder.name
        inspection.step("disk-space", f"looking for the {name}", _SECONDS, _HANGS)
        there = nearest(folder.path)
        if there is None:
            text = "the folder cannot be looked at, nor those above it"
            yield red("disk-space", text, f"choose another one: {folder.option}", name)
            continue
        yield judge_room(folder, _room(there))
        inspection.step("file-system", f"asking what the {name} lies on", _SECONDS, _HANGS)
        yield judge_mount(folder, mount_of(there, known))
        inspection.step("file-writing", f"writing a file for the {name}", _SECONDS, _HANGS)
        yield judge_writing(folder, try_writing(there))


def _folders(inspection: Inspection) -> Iterator[Folder]:
    subject, questions, rows = inspection.subject, 0, 0
    if subject is not None:
        questions = inspection.questions or subject.config.benchmark.limit or 0
        rows = questions * len(subject.model_names)
    run, store = run_folder(inspection.request), store_folder(inspection.request)
    yield Folder("run folder", run, "--out", questions * RUN_BYTES, lasting=True)
    yield Folder("store", store, "--store", rows * ROW_BYTES, lasting=True)
    if subject is not None and subject.config.slurm.stage_to:
        yield from _stage(inspection, subject.config.slurm.stage_to)
    yield Folder("cache", _cache(), "XDG_CACHE_HOME")
    yield Folder("temporary folder", Path(tempfile.gettempdir()), "TMPDIR")


def _stage(inspection: Inspection, text: str) -> Iterator[Folder]:
    """Where weights are copied to on a node; often a variable that only jobs have."""
    from orch_local.errors import OrchError
    from orch_local.models.folders import open_model_folder
    from orch_local.run.staging import expanded

    assert inspection.subject is not None
    with suppress(OrchError):
        place = expanded(text)
        weights = {
            one.path: open_model_folder(one).weight_bytes for one in inspection.subject.models().values()
        }
        yield Folder("stage_to folder", place, "slurm.stage_to", sum(weights.values()))


def _cache() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("orch-local"))


def nearest(path: Path) -> Path | None:
    """The folder itself, or where it would be made."""
    for one in (path, *path.parents):
        with suppress(OSError):
            if one.is_dir():
                return one
    return None


def _room(folder: Path) -> Room | None:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return Room(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


def judge_room(folder: Folder, room: Room | None) -> Finding:
    """Whether the disk has room for what the run writes."""
    check, name = "disk-space", folder.name
    if room is None:
        return unchecked(check, "the disk does not tell its size", about=name)
    need = f", about {size(folder.needed)} are needed" if folder.needed else ""
    text = f"{size(room.free)} are free{need}"
    other = f"free some space, or choose another disk ({folder.option})"
    if room.free < folder.needed + _SPARE // 4:
        return red(check, text, other, name)
    if room.files is not None and room.files < _FEW_FILES:
        text = f"{text}; only {room.files:,} more files can be made (inodes)"
        return (red if room.files < 100 else yellow)(check, text, other, name)
    if room.free < 2 * folder.needed + _SPARE:
        return yellow(check, text, other, name)
    return green(check, text, name)


def judge_mount(folder: Folder, mount: Mount | None) -> Finding:
    """Whether the file system keeps what is written to it."""
    check, name = "file-system", folder.name
    if mount is None:
        return unchecked(check, "/proc/self/mountinfo does not tell", about=name)
    why = doubt(mount, lasting=folder.lasting)
    if why:
        return yellow(
            check, f"{mount.kind}: {why}", f"choose a local disk, NFS or Lustre ({folder.option})", name
        )
    return green(check, mount.kind, name)


def try_writing(folder: Path) -> str:
    """Write a file as the store does, move it over another, read it back; says what went wrong."""
    made: list[Path] = []
    try:
        handle, name = tempfile.mkstemp(dir=folder, prefix=".orch-local-doctor-")
        made.append(Path(name))
        with os.fdopen(handle, "wb") as stream:
            stream.write(b"probe" * 1000)
            stream.flush()
            os.fsync(stream.fileno())
        target = Path(f"{name}.moved")
        target.write_bytes(b"old")
        made.append(target)
        Path(name).replace(target)
        return (
            "" if target.read_bytes() == b"probe" * 1000 else "what was written came back as something else"
        )
    except OSError as error:
        return _words(error)
    finally:
        for file in made:
            with suppress(OSError):
                file.unlink(missing_ok=True)


def _words(error: OSError) -> str:
    words = {
        errno.EROFS: "the disk can only be read",
        errno.ENOSPC: "no space is left",
        errno.EDQUOT: "your quota is used up",
        errno.EACCES: "you may not write there",
        errno.EPERM: "you may not write there",
    }
    return words.get(error.errno or 0, error.strerror or str(error))


def judge_temporary(named: str | None, used: str) -> Iterator[Finding]:
    """Python passes over a TMPDIR that it cannot write to, and takes another folder without a word."""
    if named and os.path.abspath(named) != used:  # noqa: PTH100 - as tempfile does it
        text = f"TMPDIR names a folder that cannot be written; {used} is used instead"
        yield yellow("file-writing", text, "correct TMPDIR, or unset it", "TMPDIR")


def judge_writing(folder: Folder, problem: str) -> Finding:
    """Whether files can be written, moved over others and read back."""
    check, name = "file-writing", folder.name
    if not problem:
        return green(check, "written, moved over another file and read back", name)
    advice = f"choose another folder ({folder.option})"
    if name == "cache":
        text = f"{problem}; digests of weights are then not remembered, and kernels are compiled for each run"
        return yellow(check, text, advice, name)
    return red(check, problem, advice, name)
