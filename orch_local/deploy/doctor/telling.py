"""From a request to a page on the terminal, by whatever of the terminal's libraries can be had."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orch_local.deploy.doctor import plain
from orch_local.deploy.doctor.asking import Request
from orch_local.deploy.doctor.checks import Page
from orch_local.deploy.doctor.lanes import examine
from orch_local.errors import InputError
from orch_local.util.streams import lose_output

Doing = Callable[[str], None]


def tell(request: Request, *, as_json: bool) -> int:
    """Look, print, and return the exit code.

    Raises
    ------
    InputError
        If a path was mistyped, which is no finding about the machine.
    """
    _check(request)
    with _status(quiet=as_json) as doing:
        page = examine(request, doing)
    try:
        if as_json:
            print(json.dumps(page.to_json(), indent=2))
        else:
            _print(page)
        sys.stdout.flush()
    except BrokenPipeError:
        lose_output()
    return page.exit_code


def _check(request: Request) -> None:
    file = request.run_file
    if file is not None and not Path(file).is_file():
        told = "is a folder, not a run file" if Path(file).is_dir() else "no such file"
        raise InputError(told, where=file, hint="check the path; without one doctor looks at the demo")
    for path in filter(None, (request.out, request.store)):
        for one in (Path(path), *Path(path).parents):
            if one.is_file():
                raise InputError("is a file, not a folder", where=str(one), hint="name a folder")


@contextmanager
def _status(*, quiet: bool) -> Iterator[Doing | None]:
    """Say what is being done while a terminal waits."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console

        status = Console(stderr=True, highlight=False).status("looking at this machine")
        status.start()
    except Exception:  # noqa: BLE001 - rich may be what is broken
        yield None
        return
    try:
        yield lambda text: status.update(f"{text} ...")
    finally:
        status.stop()


def _print(page: Page) -> None:
    try:
        from rich.console import Console

        from orch_local.report.doctor import print_page
    except Exception:  # noqa: BLE001 - rich may be what is broken; any page is better than none
        for line in plain.lines(page):
            print(line)
        return

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the process, with the code for red

    print_page(Terminal(highlight=False), page)
