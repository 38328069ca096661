"""Wheels for a target, taken or built by pip as a child process with the user's own settings of pip."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from orch_local.deploy.bundle.manifest import Target
from orch_local.deploy.bundle.pins import Pins, is_for_cpus, meets
from orch_local.deploy.bundle.platforms import is_native, pip_options, tags_of
from orch_local.errors import InputError, OrchError, StoreError
from orch_local.util.offline import SILENCE

TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH = "2.13.0+cpu"
"""The build for a CPU; plain PyPI has the one for CUDA under the same version."""
_EPOCH = "1580601600"
"""Time stamps in the project's wheel: the same sources make the same bytes."""
_ALONE = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_INDEX_URL": "", "PIP_EXTRA_INDEX_URL": ""}
"""What makes pip forget its settings, where folders are all that it may take from."""
_LAST_LINES = 6


@dataclass(frozen=True, slots=True)
class WheelSource:
    """Where wheels come from, and for whom."""

    target: Target
    folders: tuple[Path, ...] = ()
    """Folders of wheels that are used instead of an index."""

    @property
    def options(self) -> list[str]:
        """Of pip: what to take, and from where."""
        found = [option for folder in self.folders for option in ("--find-links", str(folder.absolute()))]
        return [*pip_options(self.target), *(["--no-index", *found] if found else [])]


def take(pins: Pins, folder: Path, source: WheelSource) -> list[Path]:
    """Have a wheel of each pin in ``folder``; those that lie there already are not taken again.

    Raises
    ------
    InputError
        If pip cannot have one of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if source.folders:  # what they hold may be another one of the same name now
        for file in folder.glob("*.whl"):
            file.unlink()
    kept = _kept(pins, folder, tags_of(source.target))
    missing = {name: pin for name, pin in pins.items() if name not in kept}
    from_torch_index = {name: missing.pop(name) for name in ("torch",) if _is_cpu_torch(name, missing)}
    if from_torch_index:
        _take(from_torch_index, folder, source, _torch_index(source))
    if missing:
        _take(missing, folder, source, [])
    if source.target.device == "cuda":
        _refuse_cpu_builds(folder.glob("*.whl"))
    return sorted(_kept(pins, folder, tags_of(source.target)).values())


def check_folders(folders: Iterable[Path]) -> None:
    """Refuse a path that is no folder.

    Raises
    ------
    InputError
        With its name; pip would say nothing and find no wheel.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError("is no folder of wheels", where=str(folder), hint="check --wheels")


def build_project(project: Path, folder: Path) -> Path:
    """Build the wheel of the project; the same sources make the same bytes.

    Raises
    ------
    InputError
        If there is no checkout of it, or it cannot be built.
    """
    check_project(project)
    with tempfile.TemporaryDirectory(dir=folder, prefix="built-") as built:
        # Without isolation: what builds it is part of every environment that requirements/ makes.
        options = ["--no-deps", "--no-build-isolation", "--wheel-dir", built]
        answer = _pip("wheel", [*options, str(project.absolute())], {"SOURCE_DATE_EPOCH": _EPOCH})
        wheels = list(Path(built).glob("*.whl"))
        if answer.returncode or len(wheels) != 1:
            hint = "it is built with hatchling: `pip install hatchling`, or take requirements/cpu.txt"
            raise InputError(f"cannot be built: {_last(answer)}", where=str(project), hint=hint)
        return wheels[0].replace(folder / wheels[0].name)


def check_project(project: Path) -> None:
    """Refuse a folder that is no checkout of this project.

    Raises
    ------
    InputError
        With what to do where this program was installed from a wheel.
    """
    try:
        values = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
        name = values["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        name = None
    if name != "orch-local":
        hint = "--project DIR names the checkout that the bundle's own orch-local is built from"
        raise InputError("is no checkout of orch-local", where=str(project), hint=hint)


def _kept(pins: Pins, folder: Path, fitting: frozenset[Tag]) -> dict[str, Path]:
    """The wheels of the folder, by name. One that is not of these pins is of an earlier try, and goes."""
    kept: dict[str, Path] = {}
    for file in sorted(folder.glob("*.whl")):
        try:
            name, version, _, tags = parse_wheel_filename(file.name)
        except InvalidWheelFilename:
            raise InputError("is not named as wheels are", where=str(file)) from None
        pin = pins.get(name)
        right = pin is not None and meets(str(version), pin)
        if right and tags & fitting and name not in kept:
            kept[name] = file
        else:
            file.unlink()
    return kept


def _refuse_cpu_builds(wheels: Iterable[Path]) -> None:
    for wheel in wheels:
        _, version, _, _ = parse_wheel_filename(wheel.name)
        if is_for_cpus(version):
            wheel.unlink()
            hint = "its settings name a place with builds for CPUs: `pip config list` shows it"
            raise InputError(f"pip took {wheel.name}, which is for CPUs, for a bundle for CUDA", hint=hint)


def _is_cpu_torch(name: str, pins: Mapping[str, str]) -> bool:
    return "+cpu" in pins.get(name, "")


def _torch_index(source: WheelSource) -> list[str]:
    index = os.environ.get("ORCH_TORCH_INDEX", TORCH_INDEX)
    if source.folders or not index:
        return []
    # Behind a firewall it is not within reach, and pip's own index may have the build: one try tells.
    return ["--extra-index-url", index, "--retries", "0", "--timeout", "20"]


def _take(pins: Pins, folder: Path, source: WheelSource, more: Sequence[str]) -> None:
    native = is_native(source.target)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="incoming-") as incoming:
        wanted = Path(incoming) / "wanted.txt"
        wanted.write_text("".join(f"{name}=={pin}\n" for name, pin in sorted(pins.items())), encoding="utf-8")
        where = ["--wheel-dir" if native else "--dest", incoming]
        options = ["--no-deps", *where, *source.options, *more, "--requirement", str(wanted)]
        # `pip wheel` builds what has no wheel; for another machine nothing can be built here.
        answer = _pip("wheel" if native else "download", options, _ALONE if source.folders else {})
        if answer.returncode:
            raise _not_taken(answer, source)
        for file in Path(incoming).glob("*.whl"):
            file.replace(folder / file.name)  # at once: a wheel in the folder is a whole one


def _not_taken(answer: subprocess.CompletedProcess[str], source: WheelSource) -> OrchError:
    target = source.target
    # The second, where pip is set up with constraints.
    missing = re.findall(r"(?:No matching distribution found for|Cannot install) (\S+==\S+)", answer.stderr)
    if "No space left on device" in answer.stderr:
        return StoreError("no room is left for the wheels", hint="make room there, or name another folder")
    if not missing:
        hint = "is a package index within reach? `pip config list` shows what pip is set up for"
        return InputError(f"pip cannot take the wheels: {_last(answer)}", hint=hint)
    there = ", ".join(map(str, source.folders)) or "pip's index"
    for_whom = f"Python {target.python} on {target.platform} with glibc {target.glibc}"
    hint = "another --python, a later --glibc, or --wheels DIR with a wheel of it that you built"
    if missing[0].startswith("torch=="):
        hint = f"ORCH_TORCH_INDEX names the index that has the CPU build ({TORCH_INDEX}); or {hint}"
    return InputError(f"there is no wheel of {missing[0]} for {for_whom}", where=there, hint=hint)


def _pip(command: str, options: Iterable[str], more: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    # -P: a file named like a module in the folder that we are in is not imported.
    arguments = [sys.executable, "-P", "-m", "pip", command, "--quiet", "--no-input", *options]
    environment = {**_environment(), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "LC_ALL": "C.UTF-8", **more}
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)


def _environment() -> dict[str, str]:
    """That of this process, without what keeps its own libraries silent: pip may need the user's proxy."""
    return {name: value for name, value in os.environ.items() if SILENCE.get(name) != value}


def _last(answer: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in answer.stderr.splitlines() if line.strip() and "WARNING" not in line]
    return " | ".join(lines[-_LAST_LINES:])[:600] or f"it ended with {answer.returncode}"
