"""Options that are grouped in a dataclass: Typer shows and reads them as options of the command itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from orch_local.cli.grouping import grouped

Size = Annotated[int, typer.Option("--size", min=1, help="How large.")]


@dataclass(frozen=True)
class Shape:
    size: Size = 3
    colours: Annotated[list[str] | None, typer.Option("--colour")] = None
    filled: Annotated[bool, typer.Option("--filled")] = False


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer(rich_markup_mode=None)

    @made.command()
    @grouped
    def draw(
        name: Annotated[str, typer.Argument()],
        *,
        before: Annotated[int, typer.Option()] = 1,
        shape: Shape,
        after: Annotated[int, typer.Option()] = 2,
    ) -> None:
        """Draw a shape."""
        print(name, before, shape, after)

    return made


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["x"], "x 1 Shape(size=3, colours=None, filled=False) 2"),
        (
            ["x", "--size", "4", "--colour", "red", "--colour", "blue", "--filled", "--after", "5"],
            "x 1 Shape(size=4, colours=['red', 'blue'], filled=True) 5",
        ),
    ],
)
def test_the_command_gets_the_dataclass(app: typer.Typer, arguments: list[str], printed: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.output.strip()) == (0, printed)


def test_an_option_of_a_group_is_checked(app: typer.Typer) -> None:
    done = CliRunner().invoke(app, ["x", "--size", "0"])
    assert done.exit_code == 2
    assert "--size" in done.output


def test_options_stand_in_the_help_where_their_group_does(app: typer.Typer) -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    places = [text.index(option) for option in ("--before", "--size", "--colour", "--filled", "--after")]
    assert places == sorted(places)
    assert "Draw a shape." in text
    assert "--shape" not in text
