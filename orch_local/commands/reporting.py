"""Commands that turn finished runs into numbers, pages and other programs' files; none loads a model but one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from orch_local.commands.options import Folder, Quiet, console_of, run_folder_at, short


def report(
    run_folder: Folder,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the files. [default: that of the run]")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write report.html (one file, no network), report.md and report.json; print the summary."""
    from orch_local.report.markdown import markdown
    from orch_local.report.page import write_page
    from orch_local.report.summary import print_summary
    from orch_local.store import write_json, write_text
    from orch_local.summaries import summarise, to_json
    from orch_local.timeline import read_all

    folder = run_folder_at(run_folder)
    made = summarise(folder)
    files = (out or folder.root).absolute()
    write_json(files / "report.json", to_json(made))
    write_text(files / "report.md", markdown(made))
    page = write_page(made, folder, files / "report.html", read_all(folder).read)
    console = console_of()
    if not quiet:
        print_summary(console, made)
    console.print(f"report  {short(page)}", markup=False, soft_wrap=True)


def export(
    run_folder: Folder,
    to: Annotated[Literal["lm-eval", "inspect", "nemo", "datasets"], typer.Option("--to", help="Form.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the files.")],
) -> None:
    """Write a finished run in the form of lm-eval, Inspect, NeMo Evaluator or datasets (docs/exports.md)."""
    from orch_local.exporting import export as export_run

    print(f"written: {short(export_run(run_folder_at(run_folder), to, out.absolute()))}")
