"""The files of an ablation, in ``RUN/ablations/``."""

from __future__ import annotations

from pathlib import Path

from orch_local.ablate.study import Ablation
from orch_local.report.ablation import markdown
from orch_local.report.ablation_plot import write_plot
from orch_local.store.store import RunFolder, write_json, write_text


def write_files(folder: RunFolder, ablation: Ablation) -> list[Path]:
    """Write ``ablation.json``, ``.md``, ``.svg`` and ``.png``; returns them.

    Raises
    ------
    StoreError
        If they cannot be written.
    """
    root = folder.root / "ablations"
    files = [root / f"ablation.{kind}" for kind in ("json", "md", "svg", "png")]
    write_json(files[0], ablation.to_dict())
    write_text(files[1], markdown(ablation))
    write_plot(ablation, *files[2:])
    return files
