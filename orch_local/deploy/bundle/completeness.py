"""Whether a set of wheels is closed: each fits the target, none is there twice, and none needs another one.

What a wheel says about itself comes from the index, that is, from strangers: it is read with a bound, and
nothing of it is executed.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.metadata import RawMetadata, parse_email
from packaging.requirements import Requirement
from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from orch_local.deploy.bundle.manifest import Target
from orch_local.deploy.bundle.platforms import marker_environment, tags_of
from orch_local.errors import InputError

_LONGEST = 8 * 2**20
"""Bytes of a METADATA file; they hold the README, too."""
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel, with what it says about itself."""

    path: Path
    name: str
    """Normalised."""
    version: str
    tags: frozenset[Tag]
    metadata: RawMetadata


@dataclass(frozen=True, slots=True)
class World:
    """What a target will have, and what it may lack."""

    wheels: Sequence[Wheel]
    there: Mapping[str, str]
    """Version by name of what it has already."""
    left_out: frozenset[str]
    """What others name as theirs and is not missed."""
    target: Target

    def versions(self) -> dict[str, str]:
        """Version by name of all that will be there."""
        return {**self.there, **{wheel.name: wheel.version for wheel in self.wheels}}


def read_wheel(path: Path) -> Wheel:
    """Read what a wheel says about itself.

    Raises
    ------
    InputError
        If it is no wheel, or says to be another one than its name does.
    """
    try:
        name, version, _, tags = parse_wheel_filename(path.name)
        metadata, _ = parse_email(_metadata(path, name))
        stated = canonicalize_name(metadata["name"]), Version(metadata["version"])
        if stated != (name, version):
            raise ValueError(f"it says to be {stated[0]} {stated[1]}")
        for text in metadata.get("requires_dist", []):
            Requirement(text)
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        hint = "take it anew: remove it, and the work folder beside the bundle"
        raise InputError(f"is no wheel: {error}", where=str(path), hint=hint) from None
    return Wheel(path, str(name), metadata["version"], tags, metadata)


def _metadata(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            folder, _, file = info.filename.partition("/")
            own = folder.endswith(".dist-info") and canonicalize_name(
                folder.rpartition("-")[0].rpartition("-")[0]
            )
            if file == "METADATA" and own == name:
                with archive.open(info) as stream:
                    content = stream.read(_LONGEST + 1)
                if len(content) > _LONGEST:
                    raise ValueError(f"its METADATA is longer than {_LONGEST:,} bytes")
                return content
    raise ValueError("it has no METADATA of its own")


def check(world: World, roots: Iterable[str]) -> None:
    """Refuse wheels that would not be enough, or not fit.

    Parameters
    ----------
    roots:
        What is wanted of them, such as ``orch-local[cpu]``.

    Raises
    ------
    InputError
        Naming each package that is missing, who wants it, and in which version.
    """
    _check_each(world.wheels, world.target)
    problems = sorted(set(_unmet(world, roots)))
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InputError(
            "the wheels are not complete: " + "; ".join(problems[:_SHOWN]) + more,
            hint="bring the pins of requirements/ up to date (requirements/relock.py), or name what is left "
            "out on purpose in requirements/left-out.txt, with the reason",
        )


def _check_each(wheels: Sequence[Wheel], target: Target) -> None:
    fitting, seen = tags_of(target), set()
    for wheel in wheels:
        if not wheel.tags & fitting:
            text = f"{wheel.path.name} is not for Python {target.python} on {target.platform}"
            raise InputError(
                f"{text} with glibc {target.glibc}", hint="name another target, or another wheel"
            )
        if wheel.name in seen:
            raise InputError(f"there are two wheels of {wheel.name}", where=str(wheel.path.parent))
        seen.add(wheel.name)


def _unmet(world: World, roots: Iterable[str]) -> Iterator[str]:
    """Each requirement of each wheel, under the target's markers and with the extras that are asked for."""
    versions = world.versions()
    for wanting, requirement in requirements_of(world, roots):
        name = str(canonicalize_name(requirement.name))
        version = versions.get(name)
        if version is None and name not in world.left_out:
            yield f"{requirement.name}{requirement.specifier} is missing, which {wanting} wants"
        elif version is not None and not requirement.specifier.contains(version, prereleases=True):
            yield f"{wanting} wants {requirement.name}{requirement.specifier}, and {version} is there"


def requirements_of(world: World, roots: Iterable[str]) -> Iterator[tuple[str, Requirement]]:
    """All requirements that count, each with the name of the wheel that has it.

    An extra of a wheel counts once somebody asks for it, so it is gone round until nobody asks for more.
    """
    environment = marker_environment(world.target)
    wheels = {wheel.name: wheel for wheel in world.wheels}
    waiting = [("", Requirement(root)) for root in roots] + [("", Requirement(name)) for name in wheels]
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanting, requirement = waiting.pop()
        if wanting:
            yield wanting, requirement
        name = str(canonicalize_name(requirement.name))
        for extra in sorted({"", *requirement.extras}):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in wheels[name].metadata.get("requires_dist", []) if name in wheels else []:
                inner = Requirement(text)
                if inner.marker is None and extra:
                    continue  # counts without the extra, as the user was warned
                if inner.marker is None or inner.marker.evaluate({**environment, "extra": extra}):
                    waiting.append((name, inner))
