"""One execution of a plan, or of one shard of it: what its stages share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orch_local.plan.plans import Plan, load_plan
from orch_local.router.routes import Routes, begun_routes
from orch_local.run.loaded import LoadedWorkers
from orch_local.run.supervisor import AgentRun, Progress, Timing
from orch_local.store.questions import Questions, read_questions
from orch_local.store.shards import Shard
from orch_local.store.store import RunFolder, Store


class Display(Protocol):
    """Shows the progress of a stage; `report/progress.py` has the one for terminals."""

    def stage(self, name: str, total: int, done: int) -> Progress:
        """A stage begins: ``done`` of ``total`` rows are in the store already."""

    def again(self, name: str, rows: int) -> None:
        """A worker of a stage begins to generate so many of its rows again; 0: it has ended."""


class Blind:
    """A display that shows nothing."""

    def stage(self, name: str, total: int, done: int) -> Progress:  # noqa: ARG002 - see Display
        """See Display."""
        return lambda done: None  # noqa: ARG005

    def again(self, name: str, rows: int) -> None:
        """See Display."""


class StopRequest:
    """Ends an execution early: :meth:`finish` lets rows in flight finish, an exception stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self.running: Sequence[AgentRun] = []

    def finish(self) -> None:
        """Take up no further work; from any thread or signal handler."""
        self.asked = True
        for runner in self.running:
            runner.finish()


@dataclass(slots=True)
class Session:
    """One execution."""

    folder: RunFolder
    plan: Plan
    questions: Questions
    store: Store
    display: Display
    routes: Routes
    stop: StopRequest = field(default_factory=StopRequest)
    retry_failed: bool = False
    looks_only: bool = False
    """Nothing is to be changed: damaged chunks stay where they are."""
    stage_to: Path | None = None
    """Folder on a local disk that weights are copied to first."""
    timings: dict[str, Timing] = field(default_factory=dict)
    """By agent, of all its workers."""
    generated: dict[str, int] = field(default_factory=dict)
    """Rows that were missing, by agent."""
    loaded: LoadedWorkers = field(default_factory=LoadedWorkers)
    """Workers that wait with their model loaded."""
    damaged: set[Path] = field(default_factory=set)
    """Chunks that were set aside."""

    @classmethod
    def of(cls, folder: RunFolder, display: Display, shard: Shard | None = None) -> Session:
        """The session of a prepared run folder; with ``shard`` it knows the questions of that alone.

        Raises
        ------
        StoreError
            If the folder holds no plan or no questions.
        """
        plan, questions = load_plan(folder), read_questions(folder.questions)
        mine = questions.of_shard(shard) if shard else questions
        return cls(folder, plan, mine, Store(plan.store, shard), display, begun_routes(folder, plan))
