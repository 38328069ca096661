"""The worker: one child process for each loaded model, so that its end frees all memory.

Started by `launch.py` as ``python -m orch_local.workers RUN_FOLDER AGENT_NAME``. It reads the frozen plan,
the questions and (for the merge agent) the panel from files, and writes its rows to the store itself.
The parent and the worker exchange one JSON object a line:

========================= =====================================================================
parent, first line        ``{"groups": [[question key, ...], ...]}``: work through the groups in
                          order; a group begins when the one before is finished
parent, end of input      the parent is gone or wants the worker to stop
worker                    ``{"event": "loaded", "seconds": s}``
                          ``{"event": "admitted", "keys": [...]}`` before the engine sees them
                          ``{"event": "progress", "done": n}``, also as a sign of life
                          ``{"event": "error", "kind": "engine" or "store", "message": m,
                          "where": w, "hint": h}``
                          ``{"event": "end", "seconds": s}``
========================= =====================================================================
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from orch_local.engines import open_engine
from orch_local.errors import OrchError, StoreError
from orch_local.generating import Hooks, Scribe, Unit, generate
from orch_local.merging import Panel, merge_task
from orch_local.plans import AgentPlan, Plan, load_plan
from orch_local.prompts.tokenizer import PromptTokenizer
from orch_local.records import Analysis, Question
from orch_local.store import RowWriter, RunFolder, Store
from orch_local.tasks import analysis_task

BEAT_SECONDS = 0.5


class Reporter:
    """Sends events to the parent."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._done = 0
        self._last = 0.0

    def send(self, event: str, **values: Any) -> None:
        """Send one event."""
        print(json.dumps({"event": event, **values}), file=self._stream, flush=True)

    def count(self) -> None:
        """Count one finished row."""
        self._done += 1

    def beat(self) -> None:
        """Report progress now and then; the parent takes long silence for a hanging engine."""
        now = time.monotonic()
        if now - self._last >= BEAT_SECONDS:
            self._last = now
            self.send("progress", done=self._done)


def unit_maker(plan: Plan, agent: AgentPlan, store: Store) -> Callable[[Question], Unit]:
    """How a question becomes a unit. For the merge agent the panels are read from the store, once."""
    if agent.kind == "analysis":
        return lambda question: Unit(question.key, analysis_task(question, agent.answer))
    panel_rows = [store.read(member.spec) for member in plan.agents]

    def merge_unit(question: Question) -> Unit:
        panel = Panel(plan.names, tuple(rows.get(question.key) for rows in panel_rows))
        return Unit(question.key, merge_task(question, panel, plan.config.merge))

    return merge_unit


def work(folder: RunFolder, name: str, groups: Sequence[Sequence[str]], reporter: Reporter) -> None:
    """Load the agent's model and generate the rows of ``groups``.

    Raises
    ------
    OrchError
        If the model cannot be loaded, the engine fails, or a row cannot be written.
    """
    plan = load_plan(folder)
    agent = next(agent for agent in plan.workers if agent.name == name)
    store = Store(plan.store)
    started = time.monotonic()
    # Prompts need no engine: a broken template or tokenizer shows before minutes of loading.
    scribe = Scribe(agent, PromptTokenizer(agent.settings.model_path))
    engine = open_engine(agent.settings)
    reporter.send("loaded", seconds=round(time.monotonic() - started, 3))
    questions = {question.key: question for question in folder.read_questions()}
    unit_of = unit_maker(plan, agent, store)
    started = time.monotonic()
    with store.writer(agent.spec) as writer:
        hooks = _hooks(writer, reporter)
        for group in groups:
            units = (unit_of(questions[key]) for key in group)
            generate(engine, scribe, units, agent.settings.max_model_len, hooks)
            writer.flush()
    reporter.send("end", seconds=round(time.monotonic() - started, 3))
    _leave(0)


def _hooks(writer: RowWriter, reporter: Reporter) -> Hooks:
    def finished(row: Analysis) -> None:
        writer.add(row)
        reporter.count()

    def beat() -> None:
        writer.flush_if_due()
        reporter.beat()

    return Hooks(lambda keys: reporter.send("admitted", keys=keys), finished, beat)


def main(arguments: Sequence[str]) -> int:
    """Entry of the worker process; returns its exit code."""
    events = _private_stdout()
    reporter = Reporter(events)
    signal.signal(signal.SIGTERM, _stop)
    try:
        groups = json.loads(sys.stdin.readline())["groups"]
        _end_with(sys.stdin)
        work(RunFolder(Path(arguments[0])), arguments[1], groups, reporter)
    except SystemExit as stop:
        return int(stop.code or 0)
    except OrchError as error:
        kind = "store" if isinstance(error, StoreError) else "engine"
        reporter.send("error", kind=kind, message=error.message, where=error.where, hint=error.hint)
        return 3
    return 0


def _private_stdout() -> TextIO:
    """Keep the pipe to the parent for events; whatever a library prints goes to the log instead."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _stop(signum: int, _frame: object) -> None:
    """Leave by an exception, so that the writer flushes what is finished."""
    raise SystemExit(128 + signum)


def _end_with(stream: TextIO) -> None:
    """End this process when the parent's pipe closes, even if an engine is busy in native code."""

    def watch(read: Callable[[], str]) -> None:
        while read():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)
        os._exit(1)

    threading.Thread(target=watch, args=(stream.readline,), daemon=True).start()


def _leave(code: int) -> NoReturn:
    """End at once: everything is on disk, and an engine's own farewell is slow and fails sometimes."""
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main(sys.argv[1:]))
