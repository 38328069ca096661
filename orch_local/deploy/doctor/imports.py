"""Whether the packages can be imported: a broken one raises, crashes or hangs, here at no cost."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

from orch_local.deploy.doctor.checks import Finding, green, red
from orch_local.deploy.doctor.gpu import sight
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.packages import installed_engines
from orch_local.deploy.doctor.request import REINSTALL
from orch_local.deploy.doctor.tools import one_line

MODULES = (
    "yaml", "pydantic", "typer", "rich", "psutil", "filelock", "platformdirs", "jinja2", "numpy", "pyarrow",
    "safetensors", "tokenizers", "scipy", "statsmodels.api", "matplotlib", "datasets", "outlines_core",
    "transformers",
)  # fmt: skip
"""What the project imports besides torch and vLLM."""
OF_CUDA = ("cutlass", "flashinfer")
"""What vLLM imports besides when it chooses kernels on a GPU; without a driver flashinfer may not import."""
_SECONDS = 40.0
_SECONDS_OF_CUDA = 120.0
"""They import torch."""


def examine(inspection: Inspection) -> Iterator[Finding]:
    """Import each; one that takes the process with it is named by the step."""
    problems: dict[str, str] = {}
    names = MODULES + (OF_CUDA if installed_engines().build == "cuda" and sight().cards else ())
    for name in names:
        seconds = _SECONDS_OF_CUDA if name in OF_CUDA else _SECONDS
        inspection.step("packages-import", f"importing {name}", seconds, REINSTALL)
        try:
            importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001 - a package may raise whatever it likes
            problems[name] = one_line(f"{type(error).__name__}: {error}", 120)
    yield judge(problems, len(names))


def judge(problems: Mapping[str, str], count: int = len(MODULES)) -> Finding:
    """What to make of the packages that raised, of ``count``."""
    if not problems:
        return green("packages-import", f"all {count} import")
    named = "; ".join(f"{name} ({text})" for name, text in problems.items())
    return red("packages-import", f"cannot be imported: {named}", REINSTALL)
