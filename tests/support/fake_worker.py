"""A worker for tests of `launch.py`: ``python fake_worker.py SCENE.json``.

It speaks the protocol of `orch_local/run/worker.py`, and behaves as the scene says (see :class:`Scene`). Few
imports, since the tests start many of them. The worker of the project
itself, with the fake engine, is in `tests/system/test_real_worker.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orch_local.errors import StoreError
from orch_local.records import Analysis, Outcome
from orch_local.store.store import Store


@dataclass
class Scene:
    """What a worker does."""

    store: str
    spec: str
    starts: str
    """File that gets one line with the groups a worker was given, for every worker started."""
    rows: dict[str, str]
    """Question key -> row key."""
    capacity: int = 64
    poison: list[str] = field(default_factory=list)
    """Question keys that kill the worker when it comes to them; what it has computed is not written yet."""
    kill_by: str = "SIGKILL"
    hang: list[str] = field(default_factory=list)
    """Question keys that it never comes back from."""
    crash_times: int = 0
    """So many workers die in the midst of their first prompts, whatever those are."""
    load: str = ""
    """``die``, ``error``, ``exit`` or ``hang`` instead of loading; ``slow``: loads for ever, and says so."""
    slow_s: float = 0.0
    """Seconds for each row."""
    again: int = 0
    """Rows that it says it generated again."""
    torn: bool = False
    """It dies in the midst of an event."""
    orphan: bool = False
    """It has a child that holds its end of the pipe and outlives it."""

    def write(self, path: Path) -> Path:
        """Write the scene for a worker."""
        path.write_text(json.dumps(asdict(self)))
        return path


def send(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def die(how: str = "SIGKILL") -> None:
    os.kill(os.getpid(), signal.Signals[how])
    time.sleep(60)


def load(scene: Scene) -> bool:
    """Pretend to load; returns whether that went well."""
    if scene.load == "error":
        send("error", kind="engine", message="no such dtype", where="config.json", hint="choose another")
        return False
    if scene.load == "exit":
        print("Traceback: something unforeseen", file=sys.stderr)
        raise SystemExit(7)
    if scene.load == "die":
        die()
    if scene.load == "hang":
        time.sleep(60)
    while scene.load == "slow":
        send("loading")
        time.sleep(0.05)
    send("loaded", seconds=0.25)
    return True


def work(scene: Scene, groups: list[list[str]], start: int) -> int:
    """Go through the groups; rows are written at the end of a group, as by the real worker."""
    store, done = Store(Path(scene.store)), 0
    with store.writer(scene.spec) as writer:
        for group in groups:
            for first in range(0, len(group), scene.capacity):
                flight = group[first : first + scene.capacity]
                send("admitted", keys=flight)
                if scene.torn and start == 1:
                    print('{"event": "adm', end="", flush=True)
                    die()
                if start <= scene.crash_times:
                    die(scene.kill_by)
                for key in flight:
                    if key in scene.poison:
                        die(scene.kill_by)
                    while key in scene.hang:
                        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as if it hung in native code
                        time.sleep(60)
                    time.sleep(scene.slow_s)
                    writer.add(Analysis(scene.rows[key], Outcome.OK, answer="A", text=key))
                    done += 1
                    if scene.slow_s:
                        send("progress", done=done)
            writer.flush()
            send("progress", done=done)
    return done


def leave(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)


def main() -> int:
    scene = Scene(**json.loads(Path(sys.argv[1]).read_text()))
    signal.signal(signal.SIGTERM, leave)
    groups = json.loads(sys.stdin.readline())["groups"]
    with Path(scene.starts).open("a") as starts:
        starts.write(json.dumps(groups) + "\n")
    start = len(Path(scene.starts).read_text().splitlines())
    if scene.orphan:
        subprocess.Popen(["/bin/sleep", "60"], stdin=subprocess.DEVNULL)
    if not load(scene):
        return 3
    try:
        done = work(scene, groups, start)
        if scene.again:
            send("again", rows=scene.again)
    except StoreError as error:
        send("error", kind="store", message=error.message, where=error.where, hint=error.hint)
        return 3
    send("end", seconds=0.5, done=done, again=scene.again, again_s=scene.again / 100)
    return 0


if __name__ == "__main__":
    sys.exit(main())
