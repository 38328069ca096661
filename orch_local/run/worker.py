"""The worker: one child process for each loaded model, so that its end frees all memory.

Started by `run/supervisor.py` as ``python -m orch_local.run.worker RUN_FOLDER [ENGINE]``; with the name of
an engine it imports that before it reads its first order. It reads the frozen plan, the
questions and (for the merge agent) the panel from files, and writes its rows to the store itself.
What the two say to each other is listed in `run/worker_channel.py`.

Before it ends a worker generates a few of its rows again in other batches (`run/rechecking.py`), and
leaves what it found as evidence in the store: that is what a run's level rests on.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn, TextIO

from orch_local.engines.base import Engine
from orch_local.engines.registry import import_engine, open_engine
from orch_local.errors import EngineError, OrchError, StoreError
from orch_local.merge.panels import Panels
from orch_local.placement.machine import machine
from orch_local.plan.files import load_plan
from orch_local.plan.needs import graphs
from orch_local.plan.plans import AgentPlan, Plan
from orch_local.plan.prefix_cache import meeting
from orch_local.plan.unchanged import check_unchanged
from orch_local.prompts.tasks import analysis_task
from orch_local.prompts.tokenizer import PromptTokenizer
from orch_local.records import Analysis, Question
from orch_local.router.routes import Routes, read_routes
from orch_local.run.compile_cache import first_alone
from orch_local.run.following import Following
from orch_local.run.generating import Hooks, PromptWriter, Unit, generate
from orch_local.run.orders import Order
from orch_local.run.pinning import pin
from orch_local.run.rechecking import Rechecking, Signs
from orch_local.run.staging import at, stage
from orch_local.run.worker_channel import Parent, Reporter
from orch_local.store.evidence import keep_evidence
from orch_local.store.keys import QuestionsByKey
from orch_local.store.questions import Questions, read_questions
from orch_local.store.store import RowWriter, RunFolder, Store, unwritable
from orch_local.util.offline import go_offline, tell_refusals


@dataclass(slots=True)
class _Work:
    """An engine at work for one agent."""

    agent: AgentPlan
    engine: Engine
    prompts: PromptWriter
    parent: Parent
    in_flight: dict[str, Unit] = field(default_factory=dict)
    """By row key."""

    @property
    def finishing(self) -> bool:
        """Whether the parent wants no further row."""
        return self.parent.finishing.is_set()

    def generate(self, units: Iterable[Unit | None], hooks: Hooks) -> None:
        """Generate rows as one batch, until the parent wants no more."""
        generate(self.engine, self.prompts, self._wanted(units), self.agent.settings.max_model_len, hooks)

    def _wanted(self, units: Iterable[Unit | None]) -> Iterator[Unit | None]:
        for unit in units:
            if self.finishing:
                return
            if unit is not None:
                self.in_flight[unit.task.key] = unit
            yield unit


def unit_maker(
    plan: Plan, agent: AgentPlan, store: Store, routes: Routes | None
) -> Callable[[Question], Unit]:
    """How a question becomes a unit. For the merge agent the panel is read from the store."""
    if agent.kind == "analysis":
        return lambda question: Unit(question.key, analysis_task(question, agent.answer))
    panels = Panels(plan, store, routes)

    def unit(question: Question) -> Unit:
        request = panels.merge_of(question)
        assert request is not None  # else it was not ordered
        return Unit(question.key, request)

    return unit


def work(folder: RunFolder, order: Order, parent: Parent, reporter: Reporter) -> None:
    """Load the model of the ordered agent and generate what is ordered, then what is ordered next.

    Raises
    ------
    OrchError
        If the model cannot be loaded, the engine fails, or a row cannot be written.
    """
    plan = load_plan(folder)
    agent = _ordered(plan, order, reporter)
    started = time.monotonic()
    # Prompts need no engine: a broken template or tokenizer shows before minutes of loading.
    prompts = PromptWriter(agent, PromptTokenizer(agent.settings.model_path))
    engine = _loaded(agent, reporter)
    reporter.send("loaded", seconds=round(time.monotonic() - started, 3))
    _generate(folder, plan, order, _Work(agent, engine, prompts, parent), reporter)
    while order.stay and not parent.finishing.is_set():
        order = parent.next_order()
        _redirect(order.log)
        following = _served(plan, order, agent)
        prompts = PromptWriter(following, PromptTokenizer(following.settings.model_path))
        reporter.send("loaded", seconds=0.0)
        _generate(folder, plan, order, _Work(following, engine, prompts, parent), reporter)
    _leave(0)


def _generate(folder: RunFolder, plan: Plan, order: Order, mine: _Work, reporter: Reporter) -> None:
    """Generate the ordered rows, and some of them again."""
    agent, engine, parent = mine.agent, mine.engine, mine.parent
    routes = read_routes(folder, plan) if agent.kind == "merge" else None
    batches = _batches(plan, agent, order, parent, read_questions(folder.questions), routes)
    started = time.monotonic()
    store = Store(order.store, order.shard)
    recheck = Rechecking(order.recheck)
    with store.writer(agent.spec) as writer:
        hooks = _hooks(mine, writer, reporter, recheck)
        for batch in batches:
            mine.generate(batch, hooks)
            writer.flush()
    signs = Signs(reporter.again, reporter.alive)
    if evidence := recheck.run(mine, time.monotonic() - started, signs):
        size, backend = engine.attention
        keep_evidence(store, agent.spec, replace(evidence, head_size=size, attention=backend))
    reporter.end(time.monotonic() - started, recheck)


def _named(plan: Plan, name: str) -> AgentPlan:
    return next(agent for agent in plan.workers if agent.name == name)


def _ordered(plan: Plan, order: Order, reporter: Reporter) -> AgentPlan:
    """The agent, with the memory and the copy of its model that it is to use; neither is in its spec."""
    agent = _named(plan, order.agent)
    if order.memory_share is not None:
        args = {**agent.settings.args, "gpu_memory_utilization": order.memory_share}
        agent = agent.model_copy(update={"settings": replace(agent.settings, args=args)})
    if agent.settings.device == "cuda":
        captured = graphs(agent, plan, machine("cuda"))
        agent = agent.model_copy(update={"settings": replace(agent.settings, graphs=captured)})
    if order.stage_to is not None:
        agent = at(agent, stage(agent, order.stage_to, reporter.alive))
    check_unchanged(agent)
    return agent


def _served(plan: Plan, order: Order, loaded: AgentPlan) -> AgentPlan:
    """The agent of a later order, which is to use the model that was loaded for another agent.

    Raises
    ------
    EngineError
        If that is another model, or it is loaded with other settings.
    """
    agent = _named(plan, order.agent)
    if agent.engine != _named(plan, loaded.name).engine:
        raise EngineError(f"the model of {loaded.name!r} is loaded, which cannot serve {agent.name!r}")
    return agent.model_copy(update={"settings": loaded.settings})


def _loaded(agent: AgentPlan, reporter: Reporter) -> Engine:
    if agent.settings.device == "cpu":  # where nothing is compiled
        with reporter.loading():
            return open_engine(agent.settings)
    with first_alone(agent.engine_key, reporter.alive), reporter.loading():
        return open_engine(agent.settings)


def _redirect(log: Path | None) -> None:
    """Let all that this process and its libraries say go to another file."""
    if log is None:
        return
    sys.stderr.flush()
    try:
        with log.open("ab") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
    except OSError as error:
        raise unwritable(log, error) from None


def _batches(
    plan: Plan,
    agent: AgentPlan,
    order: Order,
    parent: Parent,
    questions: Questions,
    routes: Routes | None,
) -> Iterator[Iterable[Unit | None]]:
    """The units of each group of the order."""
    asked = QuestionsByKey(questions.of_shard(order.shard) if order.shard else questions)
    store = Store(plan.store, order.shard)
    if order.follow:
        following = Following(plan, agent, store, asked, routes)
        return (following.units(group, parent.complete.is_set) for group in order.groups)
    unit_of = unit_maker(plan, agent, store, routes)
    groups = order.groups
    if agent.settings.prefix_cache:
        groups = [meeting((key, asked[key]) for key in group) for group in groups]
    return ((unit_of(asked[key]) for key in group) for group in groups)


def _hooks(work: _Work, writer: RowWriter, reporter: Reporter, recheck: Rechecking) -> Hooks:
    def finished(row: Analysis) -> None:
        writer.add(row)
        recheck.note(work.in_flight.pop(row.key), row)
        reporter.count()

    def beat() -> None:
        writer.flush_if_due()
        reporter.beat()

    return Hooks(lambda keys: reporter.send("admitted", keys=keys), finished, beat)


def main(arguments: Sequence[str]) -> int:
    """Entry of the worker process; returns its exit code."""
    go_offline()
    events = _private_stdout()
    _log_ours()
    reporter = Reporter(events)
    signal.signal(signal.SIGTERM, _stop)
    try:
        for name in arguments[1:]:
            import_engine(name)
        line = sys.stdin.readline()
    except SystemExit as stop:  # started ahead, and not needed
        return int(stop.code or 0)
    if not line:  # the parent is gone
        return 1
    order, parent = Order.from_line(line), Parent()
    threading.Thread(target=parent.listen, args=(sys.stdin,), daemon=True).start()
    if order.cores:
        pin(order.cores)  # before libraries count the cores for their threads
    try:
        work(RunFolder(Path(arguments[0])), order, parent, reporter)
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


def _log_ours() -> None:
    """Let our own messages, as of waiting for a copy, into the worker's log; libraries have their own way."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    ours = logging.getLogger("orch_local")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)


def _stop(signum: int, _frame: object) -> None:
    """Leave by an exception, so that the writer flushes what is finished; a second signal changes nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signum)


def _leave(code: int) -> NoReturn:
    """End at once: everything is on disk, and an engine's own farewell is slow and fails sometimes."""
    tell_refusals()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__mp_main__":  # in a process that an engine spawned from here, as for tensor parallelism
    go_offline()

if __name__ == "__main__":
    _leave(main(sys.argv[1:]))
