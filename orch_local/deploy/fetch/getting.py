"""The order of a fetch: ask the hub for everything, check all of it, then download, verify and record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orch_local.config.model_configs import ModelConfig
from orch_local.deploy.fetch.choosing import Listed, choose
from orch_local.deploy.fetch.files import OnBytes, RepositoryFolder, check_space, writing
from orch_local.deploy.fetch.hub import Commit, Hub
from orch_local.deploy.fetch.record import Fetched, FetchedFile, add_to_record, drop_from_record, read_record
from orch_local.deploy.fetch.wanted import Wanted
from orch_local.errors import InputError, ModelError
from orch_local.models.folders import digests, open_model_folder, remember
from orch_local.models.opening import INDEX, read_json
from orch_local.util.locks import held

_LOCK = ".fetching.lock"


class FetchDisplay(Protocol):
    """Where the progress is shown."""

    def bar(self, name: str, total: int) -> AbstractContextManager[OnBytes]:
        """A bar of ``total`` bytes; what it gives is called with the number of bytes done."""

    def waiting(self, seconds: float) -> None:
        """Another fetch is at work in this folder."""


@dataclass(slots=True)
class FetchJob:
    """A model or benchmark, and what is known of it so far."""

    place: RepositoryFolder
    commit: Commit
    files: tuple[Listed, ...]
    stale: frozenset[str]
    """Files of ours of an earlier commit that this one does not have."""
    sound: dict[str, FetchedFile] = field(default_factory=dict)
    """By path: those that are here and verified."""

    @property
    def missing(self) -> list[Listed]:
        """Those that are to come; first the small ones that may refuse the whole."""
        left = [file for file in self.files if file.path not in self.sound]
        return sorted(left, key=lambda file: (file.path not in ("config.json", INDEX), file.path))

    @property
    def to_come(self) -> int:
        """Bytes."""
        return sum(file.size - self.place.partial_size(file) for file in self.missing)


def fetch(wanted: Sequence[Wanted], root: Path, display: FetchDisplay, *, update: bool) -> list[Fetched]:
    """Fetch everything that is wanted into ``root``.

    Parameters
    ----------
    wanted:
        Without a revision each is taken at the commit of the record, or of an unfinished fetch.
    root:
        The fetched folder; made if missing.
    display:
        Shows the progress.
    update:
        Take the newest commit of the default branch instead.

    Raises
    ------
    InputError
        If something cannot be had, or must not be used.
    FetchError
        If the hub, or the way to it, fails.
    StoreError
        If the disk is full, or cannot be written.
    """
    hub = Hub()
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
        with held(root / _LOCK, display.waiting):
            record = read_record(root)
            jobs = [_asked(hub, RepositoryFolder(root, one), record, update) for one in wanted]
            for job in jobs:
                _look(job, display)
            check_space(root, sum(job.to_come for job in jobs))
            return [_got(hub, job, display) for job in jobs]


def planned_revision(place: RepositoryFolder, record: Mapping[str, Fetched], *, update: bool) -> str:
    """The revision that is asked for; empty for the default branch.

    Raises
    ------
    InputError
        If the folder holds another repository.
    """
    one, before = place.one, record.get(place.one.folder)
    if before and before.repo != one.repo:
        hint = f"fetch {one.repo} with another --to"
        raise InputError(f"holds {before.repo}, not {one.repo}", where=str(place.path), hint=hint)
    if one.revision or update:
        return one.revision
    return place.begun().revision or (before.revision if before else "")


def _asked(hub: Hub, place: RepositoryFolder, record: Mapping[str, Fetched], update: bool) -> FetchJob:
    """What the hub says, checked; nothing is downloaded yet."""
    before = record.get(place.one.folder)
    commit = hub.commit(place.one, planned_revision(place, record, update=update))
    files = choose(place.one, hub.listing(place.one, commit.sha))
    hub.check_sizes(place.one, files)
    listed = {file.path for file in files}
    ours = {file.path for file in before.files} if before else set()
    ours.update(place.begun().files)
    place.refuse_foreign(listed | ours)
    return FetchJob(place, commit, files, frozenset(ours - listed))


def _look(job: FetchJob, display: FetchDisplay) -> None:
    """Find out which files are here as they should be."""
    here = [file for file in job.files if (job.place.path / file.path).exists()]
    if not here:
        return
    with display.bar(f"check {job.place.one.name}", sum(file.size for file in here)) as on_bytes:
        found = [job.place.sound(file, on_bytes) for file in here]
    job.sound.update({file.path: file for file in found if file})


def _got(hub: Hub, job: FetchJob, display: FetchDisplay) -> Fetched:
    place = job.place
    if job.missing:
        place.begin(job.commit.sha, job.stale.union(file.path for file in job.files))
        drop_from_record(place.root, place.one.folder)
        with display.bar(place.one.name, sum(file.size for file in job.missing)) as on_bytes:
            for file in job.missing:
                _refuse_remote_code(job)
                job.sound[file.path] = place.fetch(hub, job.commit, file, on_bytes)
    place.finish(job.stale)
    files = tuple(job.sound[file.path] for file in job.files)
    if place.one.kind == "model":
        _check_model(place, files)
    found = Fetched(
        kind=place.one.kind,
        name=place.one.name,
        repo=place.one.repo,
        revision=job.commit.sha,
        licence=job.commit.licence,
        gated=job.commit.gated,
        files=files,
    )
    add_to_record(place.root, found)
    return found


def _refuse_remote_code(job: FetchJob) -> None:
    """As soon as the config is here, before the weights come; a run looks at it again."""
    one, config = job.place.one, job.place.path / "config.json"
    if one.kind != "model" or config.name not in job.sound:
        return
    settings = read_json(config)
    if not isinstance(settings, dict):
        raise ModelError("its config.json is not the config of a model", where=one.repo)
    if "auto_map" in settings and not settings.get("architectures"):
        hint = "take a model that transformers and vLLM know by themselves"
        raise ModelError("needs code from its own repository, which is never run", where=one.repo, hint=hint)


def _check_model(place: RepositoryFolder, files: Iterable[FetchedFile]) -> None:
    """Look at the finished folder as a run does; it then need not read the weights to know their digests."""
    folder = open_model_folder(ModelConfig(name=place.one.name[:64], path=place.path))
    remember({place.path / file.path: file.sha256 for file in files})
    listed = {file.path: file.sha256 for file in files}
    if any(listed.get(name) != value for name, value in digests(folder).items()):
        raise ModelError(
            "changed while it was fetched", where=str(place.path), hint="run the same command again"
        )
