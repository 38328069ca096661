"""Workers that pin themselves: a core has one of them at a time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PINS = """
import os, sys, threading
from orch_local.run.pinning import pin
print(pin([int(core) for core in sys.argv[1].split(",")]), flush=True)
found = []
thread = threading.Thread(target=lambda: found.append(os.sched_getaffinity(0)))
thread.start(); thread.join()
print(sorted(found[0]), flush=True)
sys.stdin.read()
"""


def pinned(cores: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PINS, cores]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> tuple[str, str]:
    assert process.stdout is not None
    return process.stdout.readline().strip(), process.stdout.readline().strip()


def test_a_core_has_one_worker_until_that_ends() -> None:
    core, *_ = everything = sorted(os.sched_getaffinity(0))
    with pinned(str(core)) as first:
        if said(first)[0] == "False":
            first.kill()
            pytest.skip("a worker of another test has the core")
        with pinned(",".join(map(str, everything))) as second:
            assert said(second) == ("False", str(everything))
            second.kill()
        first.kill()
    with pinned(str(core)) as third:
        assert said(third) == ("True", f"[{core}]")
        third.kill()


def test_a_core_that_is_not_ours_is_no_error() -> None:
    with pinned("4095") as process:
        assert said(process) == ("False", str(sorted(os.sched_getaffinity(0))))
        process.kill()
