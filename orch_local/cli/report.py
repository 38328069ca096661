"""Commands that turn finished runs into numbers, pages and files of other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orch_local.cli.options import Folder, Quiet, console_of, run_folder_at, shown_path
from orch_local.cli.watching import watched
from orch_local.errors import InputError

if TYPE_CHECKING:
    from orch_local.ablate.study import Ablating


def report(
    run_folder: Folder,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the files. [default: that of the run]")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write report.html (one file, no network), report.md and report.json; print the summary."""
    from orch_local.plan.files import load_plan
    from orch_local.report.markdown import markdown
    from orch_local.report.page import write_page
    from orch_local.report.summary import print_summary
    from orch_local.results.summarise import summarise, to_json
    from orch_local.results.timeline import read_all
    from orch_local.store.store import write_json, write_text

    folder = run_folder_at(run_folder)
    made = summarise(folder)
    files = (out or folder.root).absolute()
    write_json(files / "report.json", to_json(made))
    write_text(files / "report.md", markdown(made))
    page = write_page(made, folder, files / "report.html", read_all(folder).read)
    console = console_of()
    if not quiet:
        print_summary(console, made)
    store = load_plan(folder).store
    if not store.is_dir():
        text = f"The store is not at {shown_path(store)}: the page has no panels."
        console.print(text, markup=False, soft_wrap=True)
    console.print(f"report  {shown_path(page)}", markup=False, soft_wrap=True)


def export(
    run_folder: Folder,
    to: Annotated[Literal["lm-eval", "inspect", "nemo", "datasets"], typer.Option("--to", help="Form.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the files.")],
) -> None:
    """Write a finished run in the form of lm-eval, Inspect, NeMo Evaluator or datasets (docs/exports.md)."""
    from orch_local.export.formats import export as export_run

    print(f"written: {shown_path(export_run(run_folder_at(run_folder), to, out.absolute()))}")


def compare(
    run_folders: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders of two or more finished runs.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for compare.html, compare.md and compare.json.")
    ] = None,
    agents: Annotated[bool, typer.Option("--agents", help="Also against every agent of every run.")] = False,
) -> None:
    """Say which of several runs is best, on the questions that they have in common."""
    from orch_local.report.comparison import print_comparison, write_comparison
    from orch_local.results.compare.comparing import compare_runs

    found = compare_runs([run_folder_at(folder) for folder in run_folders])
    console = console_of()
    print_comparison(console, found, agents)
    for file in write_comparison(out.absolute(), found) if out else ():
        console.print(f"written {shown_path(file)}", markup=False, soft_wrap=True)


def power(
    questions: Annotated[int | None, typer.Option("--questions", "-n", help="Questions of the run.")] = None,
    difference: Annotated[
        float | None, typer.Option(help="Difference of the accuracies that is to show, e.g. 0.02.")
    ] = None,
    discordant: Annotated[
        list[float] | None,
        typer.Option(help="Share of questions on which exactly one is right; may be repeated."),
    ] = None,
    pilot_run: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="Take that share from a finished run.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Chance of a false alarm.")] = 0.05,
    chance: Annotated[float, typer.Option("--power", help="Chance to see a difference.")] = 0.8,
) -> None:
    """Say, before a run, how many questions show a difference, and how small a difference shows."""
    from orch_local.report.power import print_power
    from orch_local.results.sizing import Wish, pilot, power_table

    if pilot_run and discordant:
        raise InputError(
            "--from and --discordant both tell how often exactly one system is right",
            hint="give one of the two",
        )
    before = pilot(run_folder_at(pilot_run)) if pilot_run else None
    shares = tuple(discordant or (before.shares if before else ()))
    print_power(console_of(), power_table(Wish(questions, difference, shares, alpha, chance)), before)


def ablate(
    run_folder: Folder,
    merges: Annotated[
        Literal["few", "all", "none"],
        typer.Option(help="Variants of the merge agent that are looked at."),
    ] = "few",
    permutations: Annotated[
        int | None,
        typer.Option(min=1, help="So many seeded orders of the agents. [default: reversed, and rotations]"),
    ] = None,
    generate: Annotated[
        bool | None,
        typer.Option(
            "--generate/--stored-only",
            help="Load the merge agent for merges that are not stored, or leave them out. [default: ask on a "
            "terminal, else leave them out]",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fewer agents, other votes, other merges, a router: over a finished run's panel (docs/ablation.md)."""
    from orch_local.ablate.study import Ablating
    from orch_local.report.ablation import print_ablation
    from orch_local.report.ablation_files import write_files
    from orch_local.store.store import RunFolder

    folder = run_folder_at(run_folder)
    ablating = Ablating(folder, merges, permutations)  # what is no finished run must not get files
    if generate is None:
        generate = not quiet and _agreed(ablating)
    aside = RunFolder(folder.root / "ablations")  # the log of the run stays as it was
    aside.root.mkdir(exist_ok=True)
    with watched(aside, quiet=quiet) as (display, stop):
        made, generated = ablating.finish(display, stop, generate=generate)
    files = write_files(folder, made)
    console = console_of()
    if not quiet:
        print_ablation(console, made, generated)
    for file in files:
        console.print(f"written  {shown_path(file)}", markup=False, soft_wrap=True)


def _agreed(ablating: Ablating) -> bool:
    """Show what is not stored, and ask whether it is to be generated; nobody is asked in a pipe."""
    from orch_local.report.ablation import print_missing

    if not ablating.missing:
        return False
    aside = console_of(stderr=True)
    print_missing(aside, ablating.missing, ablating.price())
    if _has_terminal():
        return typer.confirm("Generate them now?", default=False, err=True)
    aside.print("They are left out; --generate generates them.", markup=False, soft_wrap=True)
    return False


def _has_terminal() -> bool:
    """Whether somebody can read a question and answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()
