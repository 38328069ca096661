"""A worker generates a few of its rows again before it ends, in other batches and for a bounded time.

Which rows these are is fixed: the first of its rows in the order of their keys, which are hashes. How many of
them are generated again depends on measured time. That is no decision of the run: no row, answer or digest
depends on it, only the amount of evidence that the run's level rests on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from orch_local.config.blocks import EngineConfig
from orch_local.records import Analysis, Outcome
from orch_local.run.generating import Hooks, Unit
from orch_local.run.orders import Recheck
from orch_local.store.evidence import SMALL_BATCH, Evidence

_ON_CPU = Recheck(rows=8, least=2)
_ON_GPU = Recheck(rows=64, least=16)
"""More than on a CPU: batch invariance is measured there, and on a GPU declared by vLLM. At least two rows
alone and two batches, which take seconds where a load takes minutes."""


def recheck_for(engine: EngineConfig, device: str) -> Recheck:
    """How many rows each worker on that device generates again, by the run file."""
    usual = _ON_CPU if device == "cpu" else _ON_GPU
    rows = usual.rows if engine.recheck_rows is None else engine.recheck_rows
    return Recheck(rows, engine.recheck_share, usual.least)


class Worker(Protocol):
    """What is needed of a worker."""

    @property
    def finishing(self) -> bool:
        """Whether the worker must take no further row."""

    def generate(self, units: Iterable[Unit], hooks: Hooks) -> None:
        """Generate rows as one batch."""


class Signs(NamedTuple):
    """How a worker reports that it generates rows again."""

    begun: Callable[[int], None]
    """Called with the number of rows to be generated again, those before included, as far as it is known."""
    alive: Callable[[], None]
    """Called after each step of the engine."""


@dataclass(slots=True)
class _Pace:
    """What generating takes, to estimate a batch before it begins."""

    row_s: float
    """Seconds of a row in the run, where many others are computed beside it."""
    token_s: float = 0.0
    """Seconds of a generated token of a row alone, measured on the first one."""

    def estimate(self, rows: Sequence[Analysis]) -> float:
        """Seconds of a batch: its longest row as if alone, and what each further row adds at most."""
        *others, longest = sorted(self.token_s * row.usage.generated for row in rows)
        return longest + sum(min(alone_s, self.row_s) for alone_s in others)


@dataclass(slots=True)
class Rechecking:
    """The sample of one worker, and what generating it again took.

    The batches are one row alone, seven rows in reversed order, one alone, and so on. The worker begins a
    batch only if it is expected to fit into the time that is left, and makes it smaller where that helps. A
    row alone takes far longer than its share of a full batch, so the first row is measured.
    """

    order: Recheck
    clock: Callable[[], float] = time.monotonic
    finished: int = 0
    """Rows that the worker generated in the run."""
    rows: int = 0
    """Rows that were generated again."""
    seconds: float = 0.0
    """What that took."""
    _sample: dict[str, tuple[Unit, Analysis]] = field(default_factory=dict)

    def note(self, unit: Unit, row: Analysis) -> None:
        """Count a finished row, and keep it if it is one of the sample."""
        self.finished += 1
        if row.outcome in (Outcome.FAILED, Outcome.TOO_LONG):  # nothing was generated that could differ
            return
        self._sample[row.key] = unit, row
        if len(self._sample) > self.order.rows:
            del self._sample[max(self._sample)]

    def run(self, worker: Worker, generated_s: float, signs: Signs) -> Evidence | None:
        """Generate rows again and compare them; ``None`` where there are none or the worker has to end.

        Parameters
        ----------
        generated_s:
            Seconds in which the worker generated its rows.
        """
        keys, again = sorted(self._sample), dict[str, Analysis]()
        hooks = Hooks(lambda _: None, lambda row: again.update({row.key: row}), signs.alive)
        pace, known = _Pace(generated_s / max(1, self.finished)), 0
        while not worker.finishing:
            batch = self._next(keys, pace, self.order.share * generated_s - self.seconds)
            if not batch:
                break
            before, known = known, max(self.rows + len(batch), min(self.order.least, len(keys)))
            if known > before:
                signs.begun(known)
            took = self._timed(worker, batch, hooks)
            if not self.rows:
                pace.token_s = took / max(1, self._row(batch[0]).usage.generated)
            self.rows += len(batch)
        if worker.finishing or not self.rows:
            return None
        return Evidence.of("worker", ((self._row(key), again.get(key)) for key in keys[: self.rows]))

    def _next(self, keys: Sequence[str], pace: _Pace, left_s: float) -> list[str]:
        """The next batch; empty where the time or the sample is used up."""
        alone = self.rows % (1 + SMALL_BATCH) == 0
        batch = list(keys[self.rows : self.rows + (1 if alone else SMALL_BATCH)])
        least = self.order.least - self.rows
        while len(batch) > max(0, least) and pace.estimate([self._row(key) for key in batch]) > left_s:
            batch.pop()
        return batch[::-1]

    def _timed(self, worker: Worker, keys: Sequence[str], hooks: Hooks) -> float:
        began = self.clock()
        worker.generate([self._sample[key][0] for key in keys], hooks)
        took = self.clock() - began
        self.seconds += took
        return took

    def _row(self, key: str) -> Analysis:
        return self._sample[key][1]
