"""What fits a machine that is not this one: its wheel tags, its markers, and pip's words for it."""

from __future__ import annotations

import os
import platform
import re
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import replace

from packaging import tags
from packaging.markers import default_environment
from packaging.tags import Tag

from orch_local.deploy.bundle.manifest import Target
from orch_local.errors import InputError

PYTHONS = ("3.11", "3.12", "3.13")
"""What orch-local is for, and all of its wheels are published for."""
_FLOOR = 17
"""Minor version of the oldest glibc that is considered: no Python 3.11 is built for an older one."""
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_GLIBC = re.compile(r"manylinux_2_([0-9]{1,3})_|(manylinux(?:2014|2010|1))_")
_PLATFORM = re.compile(r"linux_(x86_64|aarch64)")


def this_machine(device: str) -> Target:
    """This interpreter, on this machine.

    Raises
    ------
    InputError
        If it is no Linux with glibc.
    """
    name = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    library, version = platform.libc_ver()
    if library != "glibc":
        hint = "name the other machine: --python 3.12 --platform linux_x86_64 --glibc 2.28"
        raise InputError("this machine has no glibc, so wheels cannot be chosen by it", hint=hint)
    return Target(f"{sys.version_info[0]}.{sys.version_info[1]}", name, version, device)


def check(target: Target) -> None:
    """Refuse a target that no wheels are published for.

    Raises
    ------
    InputError
        With the option that is wrong.
    """
    if _PLATFORM.fullmatch(target.platform) is None:
        hint = "linux_x86_64 or linux_aarch64"
        raise InputError(f"--platform {target.platform[:40]!r} is not one of those known", hint=hint)
    for option, value, like in (("python", target.python, "3.12"), ("glibc", target.glibc, "2.28")):
        if re.fullmatch(r"[0-9]\.[0-9]{1,3}", value) is None:
            raise InputError(f"--{option} {value[:40]!r} is no version", hint=f"for example {like}")
    if re.fullmatch(r"2\.[0-9]+", target.glibc) is None or int(target.glibc[2:]) < _FLOOR:
        raise InputError(
            f"--glibc {target.glibc!r} is none: 2.{_FLOOR} is the oldest", hint="for example 2.31"
        )
    if target.python not in PYTHONS:
        hint = f"one of {', '.join(PYTHONS)}"
        raise InputError(f"orch-local is not for Python {target.python} (--python)", hint=hint)


def is_native(target: Target) -> bool:
    """Whether wheels that pip takes, or builds, for this interpreter are right for the target."""
    try:
        return target == this_machine(target.device)
    except InputError:  # no glibc here
        return False


def platforms(target: Target) -> list[str]:
    """Platform tags of wheels that run there, the best first."""
    machine = target.platform.removeprefix("linux_")
    minor = int(target.glibc.partition(".")[2])
    names: list[str] = []
    for number in range(minor, 4 if machine == "x86_64" else 16, -1):
        names.append(f"manylinux_2_{number}_{machine}")
        if number in _LEGACY:
            names.append(f"{_LEGACY[number]}_{machine}")
    # A wheel that was built here, and runs where this glibc is, or a later one.
    return [*names, target.platform] if is_native(target) else names


def tags_of(target: Target) -> frozenset[Tag]:
    """All wheel tags that fit."""
    major, _, minor = target.python.partition(".")
    version, names = (int(major), int(minor)), platforms(target)
    interpreter = f"cp{major}{minor}"
    fitting = tags.cpython_tags(version, abis=[interpreter], platforms=names)
    return frozenset(fitting) | frozenset(tags.compatible_tags(version, interpreter, names))


def marker_environment(target: Target) -> dict[str, str]:
    """Values of the environment markers there, as far as they can be known from here."""
    if is_native(target):
        return {name: str(value) for name, value in default_environment().items()}
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{target.python}.0",
        "os_name": os.name,
        "platform_machine": target.platform.removeprefix("linux_"),
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{target.python}.0",  # which of its patches is not known
        "python_version": target.python,
        "sys_platform": "linux",
    }


def pip_options(target: Target) -> list[str]:
    """What makes pip choose wheels for the target; empty for this machine."""
    if is_native(target):
        return []
    options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={target.python}"]
    return options + [f"--platform={name}" for name in platforms(target)]


def with_needed_glibc(target: Target, wheels: Iterable[frozenset[Tag]]) -> Target:
    """The target, with the oldest glibc that all of these wheels run with."""
    own = int(target.glibc.partition(".")[2])
    needed = max((min(_glibc(tag, own) for tag in found) for found in wheels), default=_FLOOR)
    return replace(target, glibc=f"2.{max(needed, _FLOOR)}")


def _glibc(tag: Tag, own: int) -> int:
    if tag.platform == "any":
        return 0
    match = _GLIBC.match(tag.platform)
    if match is None:
        return own  # built on the machine that it was built for
    if match[1]:
        return int(match[1])
    return next(number for number, name in _LEGACY.items() if name == match[2])
