"""A finished run in the file formats of other evaluation tools; what each holds: `docs/exports.md`.

Formats are loaded when they are asked for: each needs a library that nothing else here needs.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Literal

from orch_local.store.store import RunFolder

Format = Literal["lm-eval", "inspect", "nemo", "datasets"]
_MODULES: dict[Format, str] = {
    "lm-eval": "lm_eval_files",
    "inspect": "inspect_log",
    "nemo": "nemo_files",
    "datasets": "datasets_folder",
}


def export(folder: RunFolder, to: Format, out: Path) -> Path:
    """Write the run into a new folder ``out``, which appears when it is whole.

    Raises
    ------
    InputError
        If ``out`` is there and not empty, or the library of the format is not installed.
    StoreError
        If the run is not finished, rows of it are gone, or ``out`` cannot be written.
    """
    from orch_local.export.cases import FinishedRun
    from orch_local.export.folders import new_folder

    write = import_module(f"orch_local.export.{_MODULES[to]}").write
    run = FinishedRun(folder)
    with new_folder(out) as unfinished:
        write(run, unfinished)
    return out
