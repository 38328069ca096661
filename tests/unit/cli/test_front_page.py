"""The page of `orch-local --help` is the one that typer would show, and is made without typer."""

from __future__ import annotations

import sys

import pytest
import typer
from running import Cli

from orch_local.cli.commands import app
from orch_local.cli.front_page import COMMANDS, front_page


@pytest.mark.parametrize("columns", [20, 52, 57, 60, 61, 66, 70, 71, 73, 75, 79, 80, 200])
@pytest.mark.parametrize("program", ["orch-local", "python -m orch_local"])
def test_the_page_is_that_of_typer(monkeypatch: pytest.MonkeyPatch, columns: int, program: str) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "argv", ["/bin/orch-local" if program == "orch-local" else "/x/__main__.py"])
    command = typer.main.get_command(app)
    assert front_page() == command.get_help(command.make_context(program, [], resilient_parsing=True)) + "\n"


def test_the_page_names_every_command_in_order() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert list(COMMANDS) == list(commands)
    for name, command in commands.items():
        assert " ".join(command.help.split()).startswith(COMMANDS[name])


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_the_command_prints_it(cli: Cli, option: str) -> None:
    done = cli(option)
    assert (done.code, done.out, done.err) == (0, front_page(), "")
