"""The command line. Heavy modules are imported inside the commands, so that ``--help`` comes at once."""

from __future__ import annotations

import errno
import resource
import sys
from typing import NoReturn

import typer

from orch_local.cli import bundle, doctor, evidence, fetch, models, report, router, run, slurm
from orch_local.errors import OrchError
from orch_local.util import streams
from orch_local.util.offline import go_offline, may_connect

COMMANDS = (
    run.run,
    run.plan,
    run.demo,
    evidence.show,
    evidence.verify,
    evidence.replay,
    evidence.diff,
    report.report,
    report.compare,
    report.ablate,
    report.export,
    report.power,
    router.profile,
    router.calibrate,
    slurm.submit,
    slurm.status,
    slurm.prepare,
    slurm.shard,
    slurm.score,
    doctor.doctor,
    fetch.fetch,
    models.models,
    models.schema,
)
"""In the order of the help."""

app = typer.Typer(
    name="orch-local",
    help="Many analyses, one merge: several local models answer, a merge agent decides. Everything offline.",
    no_args_is_help=True,
    rich_markup_mode=None,  # loading rich's help pages takes half of the time of --help
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(bundle.app)


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
        app()
    except OrchError as error:
        message = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in str(error))
        print(f"error: {message}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # a path that may not be looked at, say; an error that names no file is ours
        if error.filename is None and error.errno not in _FULL:
            raise
        where = "the output cannot be written" if error.filename is None else ascii(error.filename)[1:-1]
        print(f"error: {where}: {error.strerror}", file=sys.stderr)
        print("hint: is there room, and may you read and write there?", file=sys.stderr)
        streams.lose_output()
        sys.exit(1)
    sys.exit(0)
