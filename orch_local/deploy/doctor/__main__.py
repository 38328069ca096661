"""``python -m orch_local.deploy.doctor``: `orch-local doctor` where typer or pydantic are broken."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from orch_local.deploy.doctor.offline import set_by_user
from orch_local.deploy.doctor.printing import print_report
from orch_local.deploy.doctor.request import DoctorRequest
from orch_local.errors import OrchError
from orch_local.util import streams
from orch_local.util.offline import go_offline

MOST_SHARDS = 100_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and print the page; returns the exit code."""
    streams.ready()
    go_offline()
    given = _parser().parse_args(arguments)
    if given.shards is not None and not 1 <= given.shards <= MOST_SHARDS:
        print(f"error: --shards {given.shards}: 1 to {MOST_SHARDS:,}", file=sys.stderr)
        return 2
    request = DoctorRequest(
        given.run_file, given.out, given.store, given.shards, given.fresh, given.quick, silence=set_by_user()
    )
    try:
        return print_report(request, as_json=given.json)
    except OrchError as error:
        print(f"error: {error}".encode("ascii", "backslashreplace").decode(), file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m orch_local.deploy.doctor", description="Can this machine do a run?"
    )
    parser.add_argument("run_file", nargs="?", help="The run file; none looks at the demo.")
    parser.add_argument("--out", help="Run folder.")
    parser.add_argument("--store", help="Where rows are kept.")
    parser.add_argument("--shards", type=int, help="Parts that `submit` would make, for SLURM's limits.")
    parser.add_argument("--fresh", action="store_true", help="Hash all weights anew.")
    parser.add_argument("--quick", action="store_true", help="Do not import torch and the engine.")
    parser.add_argument("--json", action="store_true", help="Print JSON.")
    return parser


if __name__ == "__main__":
    sys.exit(main())
