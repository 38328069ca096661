"""Prepares the model that comes next on a device while the current one generates."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from orch_local.errors import OrchError
from orch_local.models.folders import open_model_folder
from orch_local.placement.replicas import Replica
from orch_local.plan.plans import AgentPlan
from orch_local.run.prefetch import ReadAhead
from orch_local.run.staging import stage
from orch_local.run.supervisor import Progress
from orch_local.run.worker_slots import WorkerSlots

log = logging.getLogger(__name__)


class NextModel:
    """Copies or reads the weights of each next model, once; on GPUs its worker is started as well.

    Parameters
    ----------
    start_worker:
        Starts the worker of a replica ahead; ``None`` on a CPU, where importing would take time from
        generating.
    stage_to:
        Folder on a local disk that weights are copied to instead of only read.
    """

    def __init__(
        self,
        agents: Mapping[str, AgentPlan],
        start_worker: Callable[[Replica], None] | None,
        stage_to: Path | None,
    ) -> None:
        self._agents = agents
        self._start_worker = start_worker
        self._stage_to = stage_to
        self._read: set[str] = set()
        """Agents whose weights were read, or are being read."""

    def after_first_row(self, replica: Replica, slots: WorkerSlots, progress: Progress) -> Progress:
        """The progress of a worker, at whose first sign the model that comes behind it is prepared."""
        seen = threading.Event()

        def update(done: int) -> None:
            if not seen.is_set():
                seen.set()
                self._read.add(replica.agent)
                self._prepare(replica, slots)
            progress(done)

        return update

    def _prepare(self, replica: Replica, slots: WorkerSlots) -> None:
        engine = self._agents[replica.agent].engine
        others = (one for one in slots.later(replica) if self._agents[one.agent].engine != engine)
        following = next(others, None)
        if following is None or following.agent in self._read:
            return
        self._read.add(following.agent)
        if self._start_worker:
            self._start_worker(following)
        agent, root = self._agents[following.agent], self._stage_to
        if root:
            threading.Thread(target=_copy, args=(agent, root), daemon=True).start()
        else:
            ReadAhead(open_model_folder(agent.model).weights).start()


def _copy(agent: AgentPlan, root: Path) -> None:
    try:
        stage(agent, root)
    except OrchError as error:
        log.info("the model of %s could not be copied ahead: %s", agent.name, error)
