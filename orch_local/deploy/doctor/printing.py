"""From a request to a page on the terminal, by whatever of the terminal's libraries can be had."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from orch_local.deploy.doctor import plain
from orch_local.deploy.doctor.checks import DoctorReport
from orch_local.deploy.doctor.lanes import examine
from orch_local.deploy.doctor.request import DoctorRequest
from orch_local.errors import InputError
from orch_local.util.streams import lose_output

OnStep = Callable[[str], None]


def print_report(request: DoctorRequest, *, as_json: bool) -> int:
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


def _check(request: DoctorRequest) -> None:
    file = request.run_file
    if file is not None and not Path(file).is_file():
        text = "is a folder, not a run file" if Path(file).is_dir() else "no such file"
        raise InputError(text, where=file, hint="check the path; without one doctor looks at the demo")
    for path in filter(None, (request.out, request.store)):
        for one in (Path(path), *Path(path).parents):
            if one.is_file():
                raise InputError("is a file, not a folder", where=str(one), hint="name a folder")


def _status(*, quiet: bool) -> AbstractContextManager[OnStep | None]:
    """Say what is being done while a terminal waits."""
    if quiet or not sys.stderr.isatty():
        return nullcontext()
    try:
        from orch_local.deploy.doctor.terminal import status

        return status()
    except Exception:  # noqa: BLE001 - rich may be what is broken
        return nullcontext()


def _print(page: DoctorReport) -> None:
    try:
        from orch_local.deploy.doctor.terminal import print_page, terminal
    except Exception:  # noqa: BLE001 - rich may be what is broken; any page is better than none
        for line in plain.lines(page):
            print(line)
        return
    print_page(terminal(), page)
