"""A child process of the doctor: runs parts and writes what they find as JSON, a line each."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from orch_local.deploy.doctor.checks import Finding, red, unchecked
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.parts import PARTS
from orch_local.deploy.doctor.request import REINSTALL, Step, request_from
from orch_local.deploy.doctor.tools import one_line

Say = Callable[[dict[str, Any]], None]


def main() -> None:
    """Answer the request on standard input."""
    say = _own_output()
    asked = json.load(sys.stdin)
    at = [Step("", "")]

    def tell(step: Step) -> None:
        at[0] = step
        say({"step": asdict(step)})

    with suppress(Exception):  # it needs nothing but the standard library
        from orch_local.util.offline import go_offline

        go_offline()
    inspection = Inspection(request_from(asked["request"]), tell)
    for name in asked["parts"]:
        at[0] = Step(PARTS[name].checks[0], "looking")
        try:
            for found in _findings(name, inspection):
                say({"finding": asdict(found)})
        except BaseException as error:  # a package may raise whatever it likes when imported
            say({"finding": asdict(_failure(at[0], error))})
            if isinstance(error, KeyboardInterrupt):
                raise
        say({"done": name})
    # Libraries that were imported may hang or crash when they are taken down.
    sys.stderr.flush()
    os._exit(0)


def _findings(part: str, inspection: Inspection) -> Iterator[Finding]:
    module = importlib.import_module(f"orch_local.deploy.doctor.{PARTS[part].module}")
    yield from module.examine(inspection)


def _failure(step: Step, error: BaseException) -> Finding:
    """An exception that no theme expected."""
    message = getattr(error, "message", "")  # one of ours says more than its class
    words = one_line(message or "".join(traceback.format_exception_only(error)))
    if isinstance(error, ImportError):
        return red(step.check, f"cannot be looked at: {words}", REINSTALL)
    return unchecked(step.check, f"the check itself failed while {step.doing}: {words}")


def _own_output() -> Say:
    """Lines for the parent; what libraries print goes to standard error."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        stream.write(json.dumps(message) + "\n")
        stream.flush()

    return say


if __name__ == "__main__":
    main()
