"""Making a bundle: look at everything, take the wheels, check that nothing is missing, and only then write.

All of it happens in a work folder beside the bundle, which is moved into place when it is whole. A work
folder that was left behind by one that was stopped is used again: its wheels are not taken a second time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

import orch_local
from orch_local.deploy.bundle import completeness, pins, platforms, run_files, sbom, wheels
from orch_local.deploy.bundle.contents import BundleSource
from orch_local.deploy.bundle.manifest import INSTALLER, Entry, Manifest, Target, parse
from orch_local.deploy.bundle.parts import write_parts
from orch_local.deploy.bundle.signature import sign
from orch_local.deploy.bundle.sizes import shown
from orch_local.deploy.bundle.zipping import write_installer
from orch_local.errors import InputError, StoreError
from orch_local.store.store import atomic_write
from orch_local.util.paths import MANIFEST, check_distinct, check_path

REQUIREMENTS = "requirements.txt"
WHEELS = "wheels"
_BLOCK = 2**20
_LARGE = 2**28
"""Bytes from which on the writing of a file is reported."""
_ROOM = 16 * 2**20

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BundleRequest:
    """What a bundle is to hold, and for whom."""

    folder: Path
    target: Target
    run_files: tuple[Path, ...] = ()
    models: tuple[str, ...] = ()
    benchmarks: tuple[Path, ...] = ()
    freeze: Path | None = None
    """What the target has already, as pip freeze writes it."""
    wheels: tuple[Path, ...] = ()
    """Folders of wheels that are used instead of an index."""
    project: Path = Path(orch_local.__file__).parent.parent
    part_size: int | None = None
    """None leaves the files as they are."""
    key: Path | None = None
    """To sign with."""


@dataclass(frozen=True, slots=True)
class Made:
    """A bundle that is there."""

    manifest: Manifest
    otherwise: pins.Pins
    """What the target has in another version than the bundle."""
    left_out: tuple[str, ...]


def create(order: BundleRequest, notify: Notify) -> Made:
    """Make a bundle.

    Raises
    ------
    OrchError
        If something that it needs cannot be had, or it cannot be written.
    """
    _check(order)
    folder = order.folder.absolute()
    work = folder.with_name(f"{folder.name}.partial")
    try:
        with _alone(work):
            made = _create(order, work, notify)
            (work / "bundle").replace(folder)
        shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        hint = f"make room there, or name another folder; {work.name} is used again by the next try"
        raise StoreError(
            f"cannot be written: {error.strerror or error}", where=str(folder), hint=hint
        ) from None
    return made


def _check(order: BundleRequest) -> None:
    """Checks that need no long work."""
    platforms.check(order.target)
    wheels.check_folders(order.wheels)
    folder = order.folder
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise InputError("exists, and is no empty folder", where=str(folder), hint="name a new folder")
    if folder.is_mount():
        raise InputError("is a disk of its own", where=str(folder), hint="name a new folder on it")
    if order.key is not None and not order.key.is_file():
        raise InputError("no such key", where=str(order.key), hint="make one: ssh-keygen -t ed25519 -f KEY")
    wheels.check_project(order.project)


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError("another one makes this bundle", where=str(work), hint="wait for its end") from None
    try:
        yield
    finally:
        lock.release()


def _create(order: BundleRequest, work: Path, notify: Notify) -> Made:
    packed = run_files.pack(list(order.run_files), list(order.models), list(order.benchmarks), notify)
    _check_places({**{place: source.file for place, source in packed.sources.items()}, **packed.texts})
    _check_room(work, sum(source.file.stat().st_size for source in packed.sources.values()))
    world, chosen = _wheels(order, work, notify)
    notify("checking that nothing is missing")
    roots = (f"{sbom.PROJECT}[{order.target.device}]",)
    completeness.check(world, roots)

    written = _fresh(work / "written")
    sources = list(packed.sources.values()) + [
        BundleSource(wheel.path, f"{WHEELS}/{wheel.path.name}") for wheel in world.wheels
    ]
    sources += _written(written, {place: text.encode() for place, text in packed.texts.items()})
    write_installer(written / INSTALLER)
    sources.append(BundleSource(written / INSTALLER, INSTALLER))
    notify(f"reading {len(sources):,} files, {shown(sum(one.file.stat().st_size for one in sources))}")
    entries = {source.to: _entry(source) for source in sources}
    models, benchmarks = tuple(packed.models.values()), tuple(packed.benchmarks.values())
    papers = {
        REQUIREMENTS: _requirements(world.wheels, entries),
        sbom.PATH: sbom.write_sbom(sbom.Materials(world, models, benchmarks, entries, roots)),
    }
    sources += _written(written, papers)
    entries |= {source.to: _entry(source) for source in sources if source.to in papers}

    manifest = Manifest(
        version=next(wheel.version for wheel in world.wheels if wheel.name == sbom.PROJECT),
        target=platforms.with_needed_glibc(order.target, (wheel.tags for wheel in world.wheels)),
        files=tuple(entries[place] for place in sorted(entries)),
        requirements=tuple(f"{wheel.name}=={wheel.version}" for wheel in world.wheels),
        excluded=tuple(f"{name}=={version}" for name, version in sorted(chosen.excluded.items())),
        models=tuple(sorted(models, key=lambda one: one.folder)),
        benchmarks=tuple(sorted(benchmarks, key=lambda one: one.folder)),
        run_files=tuple(sorted(packed.run_files)),
    )
    _check_room(work, manifest.size)
    manifest = _write(order, work, manifest, {source.to: source.file for source in sources}, notify)
    return Made(manifest, chosen.otherwise, tuple(sorted(world.left_out - world.versions().keys())))


def _check_places(named: Mapping[str, object]) -> None:
    """Refuse names that no bundle may have before minutes of work, while the user can rename the files."""
    hint = "rename it, or leave it out"
    for place, source in named.items():
        try:
            check_path(place)
        except ValueError as error:
            where = str(source) if isinstance(source, Path) else ascii(place)
            raise InputError(f"cannot be in a bundle: {error}", where=where, hint=hint) from None
    try:
        check_distinct(sorted(named))
    except ValueError as error:
        raise InputError(f"cannot be in one bundle: {error}", hint=hint) from None


def _wheels(order: BundleRequest, work: Path, notify: Notify) -> tuple[completeness.World, pins.Chosen]:
    """Have all wheels in the work folder, that of the project among them."""
    target, lists = order.target, order.project / "requirements"
    locked = pins.read_pins(lists / f"{target.device}.txt", platforms.marker_environment(target))
    if target.device == "cpu":
        locked["torch"] = wheels.TORCH
    there = pins.read_freeze(order.freeze) if order.freeze else {}  # once: it may be a pipe
    chosen = pins.choose(locked, there)
    count = len(chosen.wanted)
    notify(
        f"taking {count:,} wheels with pip, for Python {target.python} on {target.platform} ({target.device})"
    )
    taken = wheels.take(chosen.wanted, work / WHEELS, wheels.WheelSource(target, order.wheels))
    notify("building the wheel of orch-local")
    project = wheels.build_project(order.project, _fresh(work / "project"))
    found = [completeness.read_wheel(path) for path in (*taken, project)]
    left_out = pins.read_left_out(lists / "left-out.txt", target.device)
    # Where nothing is left out, the environment is made without what is there, in whatever version that is.
    seen = there.items() if chosen.excluded else ()
    known = {name: version for name, version in seen if version and name not in left_out}
    in_order = sorted(found, key=lambda wheel: wheel.name)
    return completeness.World(in_order, known, left_out, target), chosen


def _fresh(folder: Path) -> Path:
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def _written(folder: Path, contents: dict[str, bytes]) -> list[BundleSource]:
    for place, content in contents.items():
        file = folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return [BundleSource(folder / place, place) for place in contents]


def _entry(source: BundleSource) -> Entry:
    try:
        with source.file.open("rb") as stream:
            found = source.sha256 or hashlib.file_digest(stream, "sha256").hexdigest()
            return Entry(source.to, os.fstat(stream.fileno()).st_size, found)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(source.file)) from None


def _requirements(found: Sequence[completeness.Wheel], entries: dict[str, Entry]) -> bytes:
    """For pip on the other side, which compares the digests once more."""
    lines = [
        f"{wheel.name}=={wheel.version} --hash=sha256:{entries[f'{WHEELS}/{wheel.path.name}'].sha256}\n"
        for wheel in found
    ]
    return "".join(lines).encode("ascii")


def _check_room(work: Path, needed: int) -> None:
    free = shutil.disk_usage(work).free
    if needed + _ROOM > free:
        raise StoreError(
            f"the bundle needs {shown(needed + _ROOM)}, but only {shown(free)} are free",
            where=str(work.parent),
            hint="free some space, or name a folder on a larger disk",
        )


def _write(
    order: BundleRequest, work: Path, manifest: Manifest, files: dict[str, Path], notify: Notify
) -> Manifest:
    """Write files or parts, then the manifest, then its signature."""
    bundle = _fresh(work / "bundle")
    notify(f"writing {len(manifest.files):,} files, {shown(manifest.size)}")
    if order.part_size is None:
        for entry in manifest.files:
            _notify_large(entry, notify)
            _copy(files[entry.path], bundle / entry.path, entry, own=files[entry.path].is_relative_to(work))
    else:
        parts = write_parts(bundle, _with_notices(manifest.files, files, notify), order.part_size)
        manifest = replace(manifest, parts=parts)
        installer = next(entry for entry in manifest.files if entry.path == INSTALLER)
        _copy(files[INSTALLER], bundle / INSTALLER, installer, own=True)
    (bundle / INSTALLER).chmod(0o755)
    content = manifest.to_bytes()
    parse(content, MANIFEST)  # the other side will
    with atomic_write(bundle / MANIFEST) as temporary:
        temporary.write_bytes(content)
    if order.key is not None:
        sign(bundle / MANIFEST, order.key)
    return manifest


def _with_notices(
    entries: Sequence[Entry], files: dict[str, Path], notify: Notify
) -> Iterator[tuple[Path, Entry]]:
    for entry in entries:
        _notify_large(entry, notify)
        yield files[entry.path], entry


def _notify_large(entry: Entry, notify: Notify) -> None:
    if entry.size >= _LARGE:
        notify(f"  {entry.path}, {shown(entry.size)}")


def _copy(file: Path, to: Path, entry: Entry, *, own: bool) -> None:
    """Copy a file, and check it on the way. One of the work folder is nobody else's: it may be linked."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if own:
        with suppress(OSError):
            os.link(file, to)
            return
    found, size = hashlib.sha256(), 0
    with file.open("rb") as source, to.open("xb") as target:
        while block := source.read(_BLOCK):
            found.update(block)
            size += len(block)
            target.write(block)
    if (size, found.hexdigest()) != (entry.size, entry.sha256):
        hint = "let nobody write there, and make the bundle again"
        raise InputError("changed while the bundle was made", where=str(file), hint=hint)
