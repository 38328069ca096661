"""Whether kernels can be compiled: Triton compiles a small C program for each at the first start on a GPU."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from orch_local.deploy.doctor.checks import Finding, green, red, unchecked
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.packages import installed_engines

_COMPILERS = ("gcc", "clang")
"""What Triton takes where CC names none, in its order."""


class Tools(NamedTuple):
    """What a compilation needs."""

    compiler: str | None
    """The C compiler that is found, by name."""
    headers: bool
    """Whether the headers of this Python are there."""
    python: str
    """As in ``3.11``."""


def examine(inspection: Inspection) -> Iterator[Finding]:  # noqa: ARG001 - all themes are called alike
    """Look for a C compiler and for Python.h, where the environment is for a GPU."""
    if installed_engines().build != "cuda":
        yield unchecked("kernel-compiler", "vLLM is not installed for GPUs")
        return
    names = (os.environ.get("CC"), *_COMPILERS)
    compiler = next((name for name in names if name and shutil.which(name)), None)
    headers = (Path(sysconfig.get_path("include")) / "Python.h").is_file()
    yield judge(Tools(compiler, headers, sysconfig.get_python_version()))


def judge(tools: Tools) -> Finding:
    """What to make of them."""
    check = "kernel-compiler"
    if tools.compiler is None:
        text = "no C compiler is found (gcc or clang): Triton cannot start a kernel"
        return red(check, text, "install one, on Debian and Ubuntu: sudo apt install gcc")
    if not tools.headers:
        text = f"the headers of Python {tools.python} are missing (Python.h): Triton cannot start a kernel"
        return red(check, text, f"on Debian and Ubuntu: sudo apt install python{tools.python}-dev")
    return green(check, f"{tools.compiler} and the headers of Python {tools.python}")
