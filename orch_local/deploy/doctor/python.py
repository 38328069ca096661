"""Python itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from orch_local.deploy.doctor.checks import Finding, green, red, yellow
from orch_local.deploy.doctor.inspection import Inspection

OLDEST, NEWEST = (3, 11), (3, 13)
_INSTALL = "make an environment with Python 3.11, 3.12 or 3.13 and install orch-local into it"


class Python(NamedTuple):
    """The interpreter that would run the workers."""

    version: tuple[int, int, int]
    bits: int
    implementation: str
    isolated: bool
    """Whether it is a virtual environment, or one of conda's."""


def examine(inspection: Inspection) -> Iterator[Finding]:  # noqa: ARG001 - all themes are called alike
    """Look at this interpreter: the children run in the same one as workers do."""
    in_conda = (Path(sys.prefix) / "conda-meta").is_dir()
    here = Python(
        (sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        64 if sys.maxsize > 2**32 else 32,
        sys.implementation.name,
        sys.prefix != sys.base_prefix or in_conda,
    )
    yield from judge(here)


def judge(here: Python) -> Iterator[Finding]:
    """What to make of an interpreter."""
    version = ".".join(map(str, here.version))
    text = f"{here.implementation} {version}"
    if here.version[:2] < OLDEST:
        yield red("python-version", f"{text}; 3.11 is the oldest that works", _INSTALL)
    elif here.version[:2] > NEWEST:
        yield yellow("python-version", f"{text}; nothing newer than 3.13 was tried", _INSTALL)
    elif here.implementation != "cpython":
        yield red("python-version", f"{text}; torch and vLLM are built for CPython", _INSTALL)
    else:
        yield green("python-version", text)
    if here.bits == 64:
        yield green("python-64-bit", "64 bit")
    else:
        yield red("python-64-bit", f"{here.bits} bit: models do not fit into its memory", _INSTALL)
    if here.isolated:
        yield green("virtual-environment", "an environment of its own")
    else:
        yield yellow(
            "virtual-environment",
            "the system's own Python: packages of other programs may replace those of the run",
            "python -m venv ENV, and install orch-local into it",
        )
