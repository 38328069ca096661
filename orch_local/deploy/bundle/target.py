"""What a bundle is for against what is here, as the Python that is to run it reports it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orch_local.deploy.bundle.manifest import Target
from orch_local.errors import InputError

_PATIENCE_S = 60.0
_QUESTION = """
import importlib.metadata, importlib.util, json, os, sys, sysconfig
def version(name):
    try:
        return importlib.metadata.version(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""
def glibc():
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        return ""
def libraries():
    own = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    seen = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    return own + [path for path in seen if path not in own]
wanted = json.load(sys.stdin)
print(json.dumps({
    "python": "%d.%d" % sys.version_info[:2],
    "implementation": sys.implementation.name,
    "platform": sysconfig.get_platform().replace("-", "_").replace(".", "_"),
    "glibc": glibc().rpartition(" ")[2],
    "venv": all(importlib.util.find_spec(name) is not None for name in ("venv", "ensurepip")),
    "in_venv": sys.prefix != sys.base_prefix,
    "libraries": libraries(),
    "versions": {name: version(name) for name in wanted},
}))
"""


@dataclass(frozen=True, slots=True)
class Here:
    """A Python, as it describes itself and its machine."""

    path: str
    python: str
    implementation: str
    platform: str
    glibc: str
    venv: bool
    """Whether it can make an environment."""
    in_venv: bool
    libraries: tuple[str, ...]
    """Where its packages lie, its own first; then those that it sees of another one."""
    versions: dict[str, str]
    """Of each package that was asked for; empty where it has none."""


def ask(python: str, names: Sequence[str]) -> Here:
    """Let a Python describe itself.

    Raises
    ------
    InputError
        If it is no Python that starts.
    """
    hint = "--python PATH names another one"
    # -I: neither the folder that we are in nor a variable of the environment has a say in what it imports.
    command = [python, "-I", "-c", _QUESTION]
    try:
        answer = subprocess.run(
            command,
            input=json.dumps(list(names)),
            capture_output=True,
            text=True,
            check=True,
            timeout=_PATIENCE_S,
        )
        values: dict[str, Any] = json.loads(answer.stdout)
        return Here(path=python, **{**values, "libraries": tuple(values["libraries"])})
    except OSError as error:
        raise InputError(f"cannot be started: {error.strerror}", where=python, hint=hint) from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().rpartition("\n")[2][:200]
        raise InputError(f"does not work as a Python: {last}", where=python, hint=hint) from error
    except (subprocess.TimeoutExpired, ValueError, TypeError, KeyError) as error:
        raise InputError("does not answer as a Python would", where=python, hint=hint) from error


def check(target: Target, here: Here) -> None:
    """Refuse a Python or machine that the wheels of a bundle are not for.

    Raises
    ------
    InputError
        With each difference.
    """
    problems = list(_problems(target, here))
    if problems:
        raise InputError(
            "the bundle is not for this Python or machine: " + "; ".join(problems),
            where=here.path,
            hint="--python PATH names another Python; or have a bundle made for this one "
            f"(bundle create --python {here.python} --platform {here.platform} --glibc {here.glibc or '?'})",
        )


def _problems(target: Target, here: Here) -> Iterator[str]:
    if here.implementation != "cpython":
        yield f"its wheels are for CPython, this is {here.implementation}"
    if target.python != here.python:
        yield f"it is for Python {target.python}, this is {here.python}"
    if target.platform != here.platform:
        yield f"it is for {target.platform}, this is {here.platform}"
    if not here.glibc:
        yield f"it needs glibc {target.glibc}, and there is none here (is it musl?)"
    elif _numbers(here.glibc) < _numbers(target.glibc):
        yield f"it needs glibc {target.glibc} or later, this is {here.glibc}"
    if not here.venv:
        yield "this Python cannot make an environment (install its venv package, such as python3-venv)"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number[:9]) for number in re.findall(r"[0-9]+", version))


def split_pin(pin: str) -> tuple[str, str]:
    """Split ``name==version``; the version is empty where there is none."""
    name, _, version = pin.partition("==")
    return name.partition("[")[0].strip(), version.strip()


def check_excluded(excluded: Sequence[str], here: Here) -> None:
    """Refuse a Python that lacks what the bundle leaves out.

    Raises
    ------
    InputError
        With each package that is missing, or there in another version.
    """
    lacking = [
        f"{pin} ({f'here: {there}' if (there := here.versions.get(split_pin(pin)[0])) else 'missing'})"
        for pin in excluded
        if not _same_version(here.versions.get(split_pin(pin)[0], ""), split_pin(pin)[1])
    ]
    if lacking:
        shown = ", ".join(lacking[:20]) + (f" and {len(lacking) - 20} more" if len(lacking) > 20 else "")
        raise InputError(
            f"lacks what the bundle leaves out: {shown}",
            where=here.path,
            hint="--python PATH names the Python that has them; or have the bundle made again, with "
            f"`{Path(here.path).name} -m pip freeze` of this one as its --exclude-installed",
        )


def _same_version(there: str, wanted: str) -> bool:
    """Whether a package is there as asked for; a label such as ``+cu130`` counts if it was asked for, too."""
    return bool(there) and (not wanted or there == wanted or there.partition("+")[0] == wanted)
