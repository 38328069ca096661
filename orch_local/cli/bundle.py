"""`orch-local bundle`: everything for a machine without a network, in one folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orch_local.cli.bundle_install import inspect, install, verify
from orch_local.cli.grouping import grouped
from orch_local.cli.options import console_of, short

if TYPE_CHECKING:
    from orch_local.deploy.bundle.creating import BundleRequest, Made
    from orch_local.deploy.bundle.manifest import Target

app = typer.Typer(
    name="bundle",
    help="Everything for a machine without a network, in one folder.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@dataclass(frozen=True)
class BundleContent:
    """What a bundle is to hold."""

    run: Annotated[list[Path] | None, typer.Option(help="A run file, with all that it names.")] = None
    model: Annotated[list[str] | None, typer.Option(help="A model, as a run file would name it.")] = None
    benchmark: Annotated[list[Path] | None, typer.Option(help="A benchmark: its folder or file.")] = None


@dataclass(frozen=True)
class TargetOptions:
    """The machine that a bundle is for."""

    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="What the wheels compute on.")] = "cpu"
    python: Annotated[
        str | None, typer.Option(help="Python of the other machine, such as 3.12. [default: this one]")
    ] = None
    platform: Annotated[
        str | None, typer.Option(help="Its platform, such as linux_x86_64. [default: this one]")
    ] = None
    glibc: Annotated[
        str | None, typer.Option(help="Its glibc, or an older one, such as 2.28. [default: this one]")
    ] = None

    def target(self) -> Target:
        """The target; what is not given is that of this machine."""
        from orch_local.deploy.bundle.manifest import Target
        from orch_local.deploy.bundle.platforms import this_machine

        named = {"python": self.python, "platform": self.platform, "glibc": self.glibc}
        given = {name: value for name, value in named.items() if value is not None}
        here = Target("", "", "", self.device) if len(given) == len(named) else this_machine(self.device)
        return replace(here, **given)


@app.command()
@grouped
def create(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The bundle: a new folder.")],
    *,
    content: BundleContent,
    target: TargetOptions,
    exclude_installed: Annotated[
        Path | None, typer.Option(metavar="FREEZE", help="Leave out what is there: its `pip freeze`.")
    ] = None,
    part_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Cut the bundle into parts, such as 60MiB.")
    ] = None,
    wheels: Annotated[list[Path] | None, typer.Option(help="Wheels from this folder, and no index.")] = None,
    project: Annotated[
        Path | None, typer.Option(help="Checkout to build orch-local from. [default: this one's]")
    ] = None,
    sign: Annotated[Path | None, typer.Option(metavar="KEY", help="Sign it with this ssh key.")] = None,
) -> None:
    """Make a bundle: wheels, orch-local itself, models, benchmarks, run files, a bill of materials."""
    from orch_local.deploy.bundle.creating import BundleRequest, create
    from orch_local.deploy.bundle.sizes import parse_size

    order = BundleRequest(
        folder=folder,
        target=target.target(),
        run_files=tuple(content.run or ()),
        models=tuple(content.model or ()),
        benchmarks=tuple(content.benchmark or ()),
        freeze=exclude_installed,
        wheels=tuple(wheels or ()),
        part_size=None if part_size is None else parse_size(part_size),
        key=sign,
    )
    steps = console_of(stderr=True)
    made = create(
        replace(order, project=project) if project else order,
        lambda text: steps.print(text, markup=False, soft_wrap=True),
    )
    print_made(order, made)


def print_made(order: BundleRequest, made: Made) -> None:
    """A table of what lies in the bundle, and what to look at."""
    from rich.table import Table

    from orch_local.deploy.bundle.sizes import shown

    console, manifest = console_of(), made.manifest
    table = Table("What", "Files", "Size", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    places = ("wheels/", "models/", "benchmarks/", "run-files/", "")
    rest = list(manifest.files)
    for place in places:
        here = [entry for entry in rest if entry.path.startswith(place)]
        rest = [entry for entry in rest if entry not in here]
        if here:
            table.add_row(
                place or "papers, installer", f"{len(here):,}", shown(sum(one.size for one in here))
            )
    table.add_row("total", f"{len(manifest.files):,}", shown(manifest.size))
    console.print(table)
    if manifest.parts:
        console.print(f"{len(manifest.parts):,} parts of {shown(manifest.parts[0].size)}")
    if manifest.excluded:
        console.print(f"{len(manifest.excluded):,} packages are there already and left out")
    for name, version in sorted(made.otherwise.items()):
        pin = next(pin for pin in manifest.requirements if pin.startswith(f"{name}=="))
        version = version or "of no told version"
        console.print(f"the other machine has {name} {version}; the bundle has {pin}", markup=False)
    target = manifest.target
    words = f"Python {target.python}, {target.platform}, glibc {target.glibc} or later, {target.device}"
    console.print(
        f"For {words}. On the other machine: python{target.python} install.pyz --help", markup=False
    )
    console.print(f"Bundle: {short(order.folder)}", markup=False, soft_wrap=True)


app.command()(inspect)
app.command()(verify)
app.command()(install)
