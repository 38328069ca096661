"""Whether the packages can be imported: a broken one raises, crashes or hangs, here at no cost."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

from orch_local.doctor.asking import MEND, Look
from orch_local.doctor.checks import Finding, green, red
from orch_local.doctor.tools import one_line

MODULES = (
    "yaml", "pydantic", "typer", "rich", "psutil", "filelock", "platformdirs", "jinja2", "numpy", "pyarrow",
    "safetensors", "tokenizers", "scipy", "statsmodels.api", "matplotlib", "datasets", "outlines_core",
    "transformers",
)  # fmt: skip
"""What the project imports besides torch and vLLM."""
_SECONDS = 40.0


def examine(look: Look) -> Iterator[Finding]:
    """Import each; one that takes the process with it is named by the step."""
    problems: dict[str, str] = {}
    for name in MODULES:
        look.step("packages-import", f"importing {name}", _SECONDS, MEND)
        try:
            importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001 - a package may raise whatever it likes
            problems[name] = one_line(f"{type(error).__name__}: {error}", 120)
    yield judge(problems)


def judge(problems: Mapping[str, str]) -> Finding:
    """What to make of the packages that raised."""
    if not problems:
        return green("packages-import", f"all {len(MODULES)} import")
    named = "; ".join(f"{name} ({said})" for name, said in problems.items())
    return red("packages-import", f"cannot be imported: {named}", MEND)
