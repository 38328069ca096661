"""SIGKILL at random points of a run on real vLLM, to parent and worker in turn: nothing lost, none twice."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from survival import Run, check_whole, make_run, no_worker_left, wait_until

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]

QUESTIONS = 800
"""So many that rows are left to generate at the last of the kills."""
KILLS = int(os.environ.get("ORCH_KILLS", "6"))
"""Each costs a load of the model, half a minute; every second one is the worker's."""


def test_killed_at_random_points(tmp_path: Path, models_dir: Path) -> None:
    run, whole = (make_run(tmp_path / name, models_dir / "first", QUESTIONS) for name in ("killed", "whole"))
    dice = random.Random(3)
    complete: set[tuple[str, str]] = set()
    for number in range(KILLS):
        kill_one(run, dice, worker=number % 2 == 1)
        now = set(run.written())
        assert complete <= now, "rows were lost"
        assert len(now) < QUESTIONS, "nothing was left to be killed"
        complete = now
    assert complete, "no kill fell into the generation"
    check_whole(run, (whole, whole.finish()))


def kill_one(run: Run, dice: random.Random, *, worker: bool) -> None:
    """Execute the run and kill its parent, or its worker and then the parent, somewhere on the way."""
    with run.start() as process:
        before = len(run.chunks())
        wait_until(run.workers, process)
        # The points are spread over loading and generating, whichever takes how long here.
        if dice.random() < 0.5:
            time.sleep(dice.uniform(0, 8))
        else:
            wait_until(lambda: len(run.chunks()) > before + dice.randrange(3), process)
        if worker:
            for victim in run.workers():
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            time.sleep(dice.uniform(0, 2))  # the parent may go on with a new worker, or give up
        process.kill()
        process.communicate()
    no_worker_left(run)
