"""The virtual environment of an installed bundle: made by venv, filled by pip out of one folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from orch_local.deploy.bundle.target import Here, ask
from orch_local.errors import InputError, StoreError

VENV = "venv"
REQUIREMENTS = "requirements.txt"
PROJECT = "orch-local"
UNFINISHED = ".venv-unfinished"
"""There while the environment is made and filled for the first time."""
OURS = ".orch-local-bundle"
"""In an environment that was made here: no other one is filled, or cleared."""
_LINE = re.compile(
    r"(?P<pin>[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*)(?: --hash=sha256:[0-9a-f]{64})+"
)
_LAST_LINES = 8
_QUIET = ("--isolated", "--no-input", "--quiet", "--disable-pip-version-check")
_CLOSED = tuple(
    "--no-index --no-deps --require-hashes --only-binary :all: --no-cache-dir".split()
    + "--force-reinstall --no-compile --no-warn-script-location".split()
)
"""No index, nothing that is not listed, no code of a source package, nothing downloaded earlier.

What is there in the same version is installed all the same: it may have other bytes than the listed wheel.
"""


def pinned_lines(content: bytes, pins: Sequence[str]) -> tuple[str, ...]:
    """Read a list for pip, which may have nothing in it but names, versions and hashes.

    An option in such a list counts for pip as one of the command line does: one of them names an index. So
    pip gets the lines that were understood here, and never the file: there is no second opinion on it.

    Raises
    ------
    InputError
        With the line, or the difference to what the manifest says.
    """
    text = content.decode("ascii", "backslashreplace").replace("\\\n", " ")
    lines = [" ".join(line.split()) for line in text.split("\n") if not line.startswith("#")]
    matches = [(line, _LINE.fullmatch(line)) for line in lines if line]
    if odd := [line for line, matched in matches if matched is None]:
        raise InputError(f"has a line that is no pinned wheel: {odd[0][:80]!r}", where=REQUIREMENTS)
    found = sorted(matched["pin"] for _, matched in matches if matched is not None)
    if found != sorted(pins):
        names = sorted(set(found) ^ set(pins))[:3] or ["one of them twice"]
        raise InputError(f"lists other wheels than the manifest: {', '.join(names)}", where=REQUIREMENTS)
    return tuple(line for line, _ in matches)


def python_of(root: Path) -> Path | None:
    """Find the Python of an environment that is there, as a whole, already.

    Raises
    ------
    InputError
        If there is something else in its place.
    """
    venv = root / VENV
    if venv.is_symlink():
        raise InputError("is a link: nothing is written through it", where=str(venv), hint="move it away")
    if _half_made(root) or not venv.exists():
        return None
    if not (venv / "pyvenv.cfg").is_file():
        raise InputError("is no environment of Python's", where=str(venv), hint="move it away")
    if not (venv / OURS).is_file():
        raise _not_ours(venv)
    inner = (venv / "bin", venv / "lib", *venv.glob("lib/python*"), *venv.glob("lib/python*/site-packages"))
    if links := [path for path in inner if path.is_symlink()]:
        raise InputError("is a link: nothing is written through it", where=str(links[0]), hint="move it away")
    return venv / "bin" / "python"


def make(root: Path, here: Here, *, with_base: bool) -> None:
    """Make the environment, if it is not there yet.

    Parameters
    ----------
    with_base:
        The packages of ``here`` are to be seen in it.
    """
    if python_of(root) is not None:
        return
    # Killed before it is filled, it is made from the start: pip cannot tell half a package from a whole one.
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(root / UNFINISHED, flags, 0o644))
    _clear(root / VENV)
    # What an environment sees is handed to the new one below: it may be less than all that the system has.
    options = ["--system-site-packages"] if with_base and not here.in_venv else []
    command = [here.path, "-I", "-m", "venv", *options, str(root / VENV)]
    _run(command, "the environment cannot be made")
    if with_base and here.in_venv:
        _see(here, ask(str(root / VENV / "bin" / "python"), ()))


def _clear(venv: Path) -> None:
    """Have an empty folder that is marked as ours; one that is not ours, and not empty, is left alone."""
    if venv.is_dir() and any(venv.iterdir()) and not (venv / OURS).is_file():
        raise _not_ours(venv)
    venv.mkdir(exist_ok=True)
    (venv / OURS).touch()
    for item in venv.iterdir():
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        elif item.name != OURS:
            item.unlink()


def _not_ours(venv: Path) -> InputError:
    hint = "move it away, or name another folder with --to"
    return InputError("is an environment that came with no bundle", where=str(venv), hint=hint)


def fill(root: Path, links: Path, lines: Sequence[str]) -> None:
    """Install the listed wheels, and nothing else from nowhere else."""
    with tempfile.TemporaryDirectory(prefix="orch-local-") as folder:
        listed = Path(folder, REQUIREMENTS)
        listed.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        python = str(root / VENV / "bin" / "python")
        wheels = ["--find-links", str(links), "-r", str(listed)]
        command = [python, "-I", "-m", "pip", *_QUIET, "install", *_CLOSED, *wheels]
        _run(command, "pip cannot install the wheels")


def check_import(root: Path) -> None:
    """Start the program that was installed, as far as its help."""
    program = root / VENV / "bin" / PROJECT
    if not program.is_file():
        raise InputError(
            f"the bundle has no program {PROJECT}", where=str(program), hint="have it made again"
        )
    _run([str(program), "--help"], "what was installed does not start")


def finished(root: Path) -> None:
    """Remember that the environment is whole."""
    (root / UNFINISHED).unlink(missing_ok=True)


def _half_made(root: Path) -> bool:
    return (root / UNFINISHED).is_file()


def _see(base: Here, inner: Here) -> None:
    """Let an environment see those of the environment that it was made from; venv knows the system's only."""
    site = Path(inner.libraries[0])
    (site / "orch-local-base.pth").write_text(
        "".join(f"{path}\n" for path in base.libraries), encoding="utf-8"
    )


def _run(command: Sequence[str], failed: str) -> None:
    try:
        answer = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=_environment(), check=False
        )
    except OSError as error:
        hint = "may programs be started from there? some disks are mounted noexec"
        raise StoreError(f"{failed}: {error.strerror}", where=command[0], hint=hint) from error
    if answer.returncode:
        text = (answer.stdout + b"\n" + answer.stderr).decode(errors="replace")
        last = "\n".join([line for line in text.splitlines() if line.strip()][-_LAST_LINES:])
        hint = "the files are whole; once the cause is gone, run the same command again"
        raise StoreError(f"{failed}:\n{last}", where=shutil.which(command[0]) or command[0], hint=hint)


def _environment() -> dict[str, str]:
    """The variables, without those that tell pip or Python where else to look."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "PYTHON", "VIRTUAL_ENV"))
    }
    return {**ours, "PIP_CONFIG_FILE": os.devnull}
