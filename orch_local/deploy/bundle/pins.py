"""Lists of packages as they are written down: pins, what is left out on purpose, what a target has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from orch_local.errors import InputError

_LONGEST = 4 * 2**20
"""Bytes of a list; one of 10,000 packages has a tenth of that."""

Pins = dict[str, str]
"""Version by normalised name."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which pins become wheels of the bundle."""

    wanted: Pins
    excluded: Pins
    """What the target has already, in its own version."""
    otherwise: Pins
    """What the target has in another version than the pinned one; an empty one where it does not say."""


def read_pins(file: Path, environment: Mapping[str, str]) -> Pins:
    """Pins of a lock file that count where its markers are evaluated so.

    Raises
    ------
    InputError
        If the file cannot be read, or has a line that is no ``name==version``.
    """
    pins: Pins = {}
    for line in _lines(file):
        try:
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
        except (InvalidRequirement, ValueError):
            raise InputError(f"has a line that is no pin: {line[:80]!r}", where=str(file)) from None
        if specifier.operator != "==" or "*" in specifier.version or requirement.url:
            raise InputError(f"has a line that is no pin: {line[:80]!r}", where=str(file))
        if requirement.marker is None or requirement.marker.evaluate(dict(environment)):
            pins[canonicalize_name(requirement.name)] = specifier.version
    return pins


def read_left_out(file: Path, device: str) -> frozenset[str]:
    """Names that ``left-out.txt`` has under ``[device]``."""
    names, current = set(), ""
    for line in _lines(file):
        if line.startswith("["):
            current = line.strip("[]")
        elif current == device:
            names.add(str(canonicalize_name(line)))
    return frozenset(names)


def read_freeze(file: Path) -> Pins:
    """What ``pip freeze`` wrote on the target; a version is empty where the line does not give it.

    Raises
    ------
    InputError
        If the file cannot be read, or has a line that pip would not write.
    """
    found: Pins = {}
    for line in _lines(file):
        if line.startswith("-"):  # an editable installation, or an option: no version is given
            continue
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            hint = "write it with `python -m pip freeze > FILE` on the target"
            raise InputError(
                f"has a line that is none of pip freeze: {line[:80]!r}", where=str(file), hint=hint
            ) from None
        versions = [one.version for one in requirement.specifier if one.operator in ("==", "===")]
        found[canonicalize_name(requirement.name)] = versions[0] if versions else ""
    return found


def choose(pins: Mapping[str, str], there: Mapping[str, str]) -> Chosen:
    """Leave out what is there already in the pinned version; ``2.13.0+cpu`` is a ``2.13.0``."""
    excluded = {name: there[name] for name, pin in pins.items() if meets(there.get(name, ""), pin)}
    wanted = {name: pin for name, pin in pins.items() if name not in excluded}
    return Chosen(wanted, excluded, {name: there[name] for name in wanted if name in there})


def is_for_cpus(version: Version) -> bool:
    """Whether this is a build for CPUs, which pip takes for the best of its version: ``2.13.0+cpu``."""
    return (version.local or "").startswith("cpu")


def meets(text: str, pin: str) -> bool:
    """Whether a version is a pinned one, or a build of it for no other device."""
    try:
        version = Version(text)
    except ValueError:  # an empty one, one with thousands of digits
        return False
    if is_for_cpus(version) and "+" not in pin:
        return False
    return SpecifierSet(f"=={pin}").contains(version, prereleases=True)


def _lines(file: Path) -> list[str]:
    try:
        with file.open("rb") as stream:
            content = stream.read(_LONGEST + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InputError(f"cannot be read: {reason}", where=str(file), hint="check the path") from None
    if len(content) > _LONGEST:
        raise InputError(
            f"is longer than {_LONGEST:,} bytes", where=str(file), hint="is it a list of packages?"
        )
    lines = [line.partition(" #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
