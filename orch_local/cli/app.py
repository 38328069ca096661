"""The entry point of the command line; each command imports what it needs when it is called."""

from __future__ import annotations

import errno
import resource
import sys
from typing import NoReturn

from orch_local.cli.front_page import front_page
from orch_local.errors import OrchError
from orch_local.util import streams
from orch_local.util.offline import go_offline, may_connect

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def main() -> NoReturn:
    """Entry point: errors of ours become one message and an exit code, never a traceback."""
    streams.ready()
    if not may_connect(sys.argv[1:]):
        go_offline()
    # Scoring a run of many shards goes faster the more files it may hold open.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        run_command(sys.argv[1:])
    except OrchError as error:
        message = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in str(error))
        print(f"error: {message}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # a path that may not be looked at, say; an error that names no file is ours
        if error.errno == errno.EPIPE:  # typer does the same
            streams.lose_output()
            sys.exit(1)
        if error.filename is None and error.errno not in _FULL:
            raise
        where = "the output cannot be written" if error.filename is None else ascii(error.filename)[1:-1]
        print(f"error: {where}: {error.strerror}", file=sys.stderr)
        print("hint: is there room, and may you read and write there?", file=sys.stderr)
        streams.lose_output()
        sys.exit(1)
    sys.exit(0)


def run_command(arguments: list[str]) -> None:
    """Run a command, or show the front page without importing typer."""
    if arguments in (["--help"], ["-h"]):
        print(front_page(), end="", flush=True)
        return
    from orch_local.cli.commands import app

    app()
