"""The command line of the project with the fake engine behind a gate, also in the jobs that it submits.

    python tests/support/table_run.py submit RUN.yaml --shards 8

Told by variables, which the `setup` lines of a run file may set:

TABLE_GATE   a path; while it exists, an engine that has answered one question waits
TABLE_SICK   number of an array task whose engine cannot be loaded
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from orch_local.engines.base import Completion, EngineSettings
from orch_local.engines.fake import FakeEngine, open_table_engine
from orch_local.errors import EngineError

_WORKER = "--worker"


class GatedEngine(FakeEngine):
    """The fake engine, which computes one request at a time and waits while the gate is closed."""

    def __init__(self, inner: FakeEngine) -> None:
        super().__init__(inner.answer, capacity=1)
        self._gate = Path(os.environ.get("TABLE_GATE", "/nowhere/at/all"))
        self._free = 1

    def step(self) -> list[Completion]:
        """See the protocol."""
        while self._free <= 0 and self._gate.exists():
            time.sleep(0.05)
        self._free -= 1
        return super().step()


def open_gated(settings: EngineSettings) -> GatedEngine:
    """The engine of a run, also of one whose file names vLLM: then its table is empty."""
    if os.environ.get("TABLE_SICK", "none") == os.environ.get("SLURM_ARRAY_TASK_ID"):
        raise EngineError("this node has no GPU", hint="ask for one")
    args = {"table": os.devnull, **settings.args}
    return GatedEngine(open_table_engine(replace(settings, args=args)))


def as_worker() -> None:
    """The worker of the project; each row is a chunk, so that what is finished can be seen."""
    from orch_local.run import worker
    from orch_local.store import store

    patched: Any = worker
    patched.open_engine, store.FLUSH_ROWS = open_gated, 1
    sys.exit(worker.main(sys.argv[2:]))


def as_command() -> None:
    """The command line of the project."""
    from orch_local.cli import app
    from orch_local.run import supervisor
    from orch_local.slurm import scripts

    supervisor.WORKER_COMMAND = (sys.executable, __file__, _WORKER)
    scripts.COMMAND = (sys.executable, __file__)
    app.main()


if __name__ == "__main__":
    if sys.argv[1:2] == [_WORKER]:
        as_worker()
    else:
        as_command()
