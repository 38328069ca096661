"""The store: every path, atomic writes, memoised rows, digests.

Layout of a store folder::

    store/<spec digest>/spec.json                    what the rows are a function of
    store/<spec digest>/<sha256 of content>.jsonl    a chunk: rows, one JSON object a line
    store/<spec digest>/00003-of-00008/              chunks of jobs on this shard, with its rows alone
    store/<spec digest>/damaged/                     chunks whose bytes are not those of their name
    store/<spec digest>/evidence/                    what was found when rows were generated again
    store/<spec digest>/checks/                      what a check of an execution found, beside no rows

A chunk is named by the SHA-256 of its bytes, written to a temporary file beside it and moved into place,
so a file exists only when it is whole, two writers never touch the same file, and a damaged one is told
by its name. Layout of a run folder: :class:`RunFolder`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from orch_local.errors import StoreError
from orch_local.records import Analysis, canonical_json, digest
from orch_local.store.shards import Shard

if TYPE_CHECKING:
    from orch_local.store.rows import Rows

FLUSH_ROWS = 512
FLUSH_SECONDS = 5.0
FLUSH_SHARE = 0.01
"""Of the seconds since a writer began: a kill costs a long run no larger share than a short one."""
LONGEST_FLUSH_SECONDS = 60.0


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it into place when the block ends well.

    Raises
    ------
    StoreError
        If the folder cannot be written or the disk is full; ``path`` is then as it was before.
    """
    handle, temporary = -1, path
    try:
        handle, temporary = _temporary(path)
        os.fchmod(handle, 0o666 & ~_UMASK)
        yield temporary
        os.fsync(handle)
        temporary.replace(path)
        temporary = path
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        if handle >= 0:
            os.close(handle)
        if temporary != path:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> tuple[int, Path]:
    """Open a new file beside ``path``. The folder is there but for the first file, so it is not asked for."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
    return handle, Path(name)


def _read_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


# Read once, at import: os.umask changes the whole process for a moment, which threads would see.
_UMASK = _read_umask()


def unwritable(path: Path, error: OSError) -> StoreError:
    """The error of a file or folder that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = "free some space" if full else "choose a folder that you may write to (--out)"
    return StoreError(
        f"cannot be written: {error.strerror or error}",
        where=str(path),
        hint=f"{hint}, then run the same command again: finished rows are kept",
    )


def write_text(path: Path, text: str) -> None:
    """Write a whole text file atomically, as UTF-8 (lone surrogates are kept)."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "surrogatepass"))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, hint: str = "") -> Any:
    """Read a JSON file of ours; ``hint`` is told instead of what is usual for the files of a run.

    Raises
    ------
    StoreError
        If it is missing or damaged.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
    except FileNotFoundError:
        raise StoreError(
            "no such file", where=str(path), hint=hint or "is this the folder of a run?"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        usual = "it is damaged: put a good copy back, or delete it and run the same command again"
        raise StoreError(f"cannot be read: {error}", where=str(path), hint=hint or usual) from None


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything that can change the bytes of an answer; its digest names a folder of the store."""

    content: Mapping[str, Any]
    digest: str

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Spec:
        """The spec of ``content``; the digest is its SHA-256, cut to 32 hex digits."""
        return cls(content, digest(content)[:32])


class Store:
    """Rows by spec digest and key, on any file system with atomic rename (local, NFS, Lustre).

    With ``shard`` only what concerns its questions is read, and what is written is kept apart for it: a job
    on one of many shards then reads its part of the store, not all of it.
    """

    def __init__(self, root: Path, shard: Shard | None = None) -> None:
        self.root = root
        self.shard = shard

    def folder(self, spec: str) -> Path:
        """Folder of one spec."""
        return self.root / spec

    def evidence(self, spec: str) -> Path:
        """Folder of what was found when rows of a spec were generated again; see `store/evidence.py`."""
        return self.folder(spec) / "evidence"

    def checks(self, spec: str) -> Path:
        """Folder of what was found when an execution was checked; see `store/evidence.py`."""
        return self.folder(spec) / "checks"

    def declare(self, spec: Spec) -> None:
        """Write ``spec.json`` so that the rows can be understood without the run that made them."""
        path = self.folder(spec.digest) / "spec.json"
        if not path.exists():
            write_json(path, spec.content)

    def read(self, spec: str, only: Container[str] | None = None) -> Rows:
        """The rows of a spec, or those ``only`` with some keys.

        Raises
        ------
        StoreError
            If a chunk cannot be read, or was written by another version.
        """
        # Deferred: those who only write do without numpy, and start in a third of the time.
        from orch_local.store.rows import Rows

        return Rows(self.folder(spec), self.shard, only)

    def set_aside(self, chunk: Path) -> Path | None:
        """Move a damaged chunk into the folder ``damaged`` beside it; ``None`` where it is gone already.

        Its rows then count as missing for good, and nobody has to look at it again.

        Raises
        ------
        StoreError
            If it cannot be moved.
        """
        target = chunk.parent / "damaged" / chunk.name
        try:
            target.parent.mkdir(exist_ok=True)
            chunk.replace(target)
        except FileNotFoundError:
            return None  # another run was faster
        except OSError as error:
            raise unwritable(chunk, error) from None
        return target

    def writer(self, spec: str, clock: Callable[[], float] = time.monotonic) -> RowWriter:
        """A writer of chunks for one spec; use it as a context manager."""
        folder = self.folder(spec)
        return RowWriter(folder / self.shard.name if self.shard else folder, clock)


class RowWriter:
    """Collects rows and writes them as chunks, after some rows or seconds and at the end.

    The seconds grow with what would be lost in proportion, from ``FLUSH_SECONDS`` on: a slow worker would
    else fill a parallel file system with very many small files.
    """

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._lines: list[str] = []
        self._began = self._since = clock()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def add(self, row: Analysis) -> bool:
        """Add a row; returns whether it, and all before it, are on disk now."""
        self._lines.append(canonical_json(row.to_row()))
        return self.flush_if_due()

    def flush_if_due(self) -> bool:
        """Write the collected rows if there are many or the oldest has waited long."""
        now = self._clock()
        longest = min(max(FLUSH_SECONDS, FLUSH_SHARE * (now - self._began)), LONGEST_FLUSH_SECONDS)
        due = len(self._lines) >= FLUSH_ROWS or now - self._since >= longest
        if due:
            self.flush()
        return due

    def flush(self) -> None:
        """Write the collected rows as one chunk."""
        self._since = self._clock()
        if not self._lines:
            return
        content = ("\n".join(self._lines) + "\n").encode("utf-8", "surrogatepass")
        path = self._folder / f"{hashlib.sha256(content).hexdigest()}.jsonl"
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
        self._lines.clear()


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run; no other module makes up a name in it."""

    root: Path

    @property
    def plan(self) -> Path:
        """``run.json``: the frozen plan."""
        return self.root / "run.json"

    @property
    def places(self) -> Path:
        """``places.json``: where the files of the plan lie on this machine."""
        return self.root / "places.json"

    @property
    def questions(self) -> Path:
        """``questions.jsonl``: the questions as asked, in order."""
        return self.root / "questions.jsonl"

    @property
    def bad_rows(self) -> Path:
        """``bad_rows.jsonl``: rows of the benchmark that were skipped, with the reason."""
        return self.root / "bad_rows.jsonl"

    @property
    def decisions(self) -> Path:
        """``decisions.jsonl`` (and ``.parquet`` beside it)."""
        return self.root / "decisions.jsonl"

    @property
    def routes(self) -> Path:
        """``routes.jsonl``: which agents the router chose, and from what."""
        return self.root / "routes.jsonl"

    @property
    def level(self) -> Path:
        """``level.json``: how far the answers are promised to come again, and why no further."""
        return self.root / "level.json"

    @property
    def metrics(self) -> Path:
        """``metrics.json``."""
        return self.root / "metrics.json"

    @property
    def log(self) -> Path:
        """``run.log``."""
        return self.root / "run.log"

    def worker_log(self, name: str, shard: Shard | None = None) -> Path:
        """What a worker printed; those of one shard have a folder of their own."""
        folder = self.root / "workers"
        return (folder / shard.name if shard else folder) / f"{name}.log"

    @property
    def timelines(self) -> Path:
        """``timelines/``: when each worker loaded and generated, a file for each execution."""
        return self.root / "timelines"

    @property
    def slurm(self) -> Path:
        """``slurm/``: what `orch-local submit` writes."""
        return self.root / "slurm"

    @property
    def slurm_run_file(self) -> Path:
        """``slurm/run.yaml``: the run file as submitted, all paths absolute."""
        return self.slurm / "run.yaml"

    @property
    def slurm_jobs(self) -> Path:
        """``slurm/jobs.json``: what was submitted, and the numbers of its jobs."""
        return self.slurm / "jobs.json"

    def slurm_script(self, name: str) -> Path:
        """A script for sbatch: ``plan``, ``shards`` or ``score``."""
        return self.slurm / f"{name}.sbatch"

    def slurm_task(self, name: str) -> Path:
        """What the last job for ``plan``, ``score`` or a shard's name wrote down about itself."""
        return self.slurm / "tasks" / f"{name}.json"

    def slurm_log(self, job_name: str, job: str) -> Path:
        """What a job printed; ``job`` may be the pattern that SLURM replaces by its number."""
        return self.slurm / "logs" / f"{job_name}-{job}.log"
