"""What the stages of one execution share; none of them changes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orch_local.plan.files import load_plan
from orch_local.plan.plans import Plan
from orch_local.run.loaded import LoadedWorkers
from orch_local.run.supervisor import Progress
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


class Finishing(Protocol):
    """What can be asked to finish; :class:`orch_local.run.supervisor.Supervisor` is one."""

    def finish(self) -> None:
        """Take up no further work."""


class StopRequest:
    """Ends an execution early: :meth:`finish` lets rows in flight finish, an exception stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._running: Sequence[Finishing] = ()

    @property
    def covers_work(self) -> bool:
        """Whether something runs that could finish."""
        return bool(self._running)

    @contextmanager
    def covering(self, running: Sequence[Finishing]) -> Iterator[None]:
        """Inside the block, :meth:`finish` asks these to finish."""
        self._running = running
        try:
            yield
        finally:
            self._running = ()

    def finish(self) -> None:
        """Take up no further work; from any thread or signal handler."""
        self.asked = True
        for one in self._running:
            one.finish()


@dataclass(frozen=True, slots=True)
class RunContext:
    """One execution of a plan, or of one shard of it."""

    folder: RunFolder
    plan: Plan
    questions: Questions
    store: Store
    display: Display = field(default_factory=Blind)
    stop: StopRequest = field(default_factory=StopRequest)
    retry_failed: bool = False
    """Rows that failed before are generated again."""
    read_only: bool = False
    """Nothing is to be changed: damaged chunks stay where they are."""
    stage_to: Path | None = None
    """Folder on a local disk that weights are copied to first."""
    workers: LoadedWorkers = field(default_factory=LoadedWorkers)
    """Workers that wait with their model loaded for the next stage."""

    @classmethod
    def of(
        cls,
        folder: RunFolder,
        display: Display | None = None,
        stop: StopRequest | None = None,
        *,
        shard: Shard | None = None,
        retry_failed: bool = False,
        stage_to: Path | None = None,
    ) -> RunContext:
        """The context of a prepared run folder; with ``shard`` it knows the questions of that alone.

        Raises
        ------
        StoreError
            If the folder holds no plan or no questions.
        """
        plan, questions = load_plan(folder), read_questions(folder.questions)
        return cls(
            folder,
            plan,
            questions.of_shard(shard) if shard else questions,
            Store(plan.store, shard),
            display or Blind(),
            stop or StopRequest(),
            retry_failed=retry_failed,
            stage_to=stage_to,
        )
