"""The systems of a run, each with a folder of its own: the agents in order, and ORCH last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from orch_local.export.cases import ExportedQuestion, FinishedRun, SystemAnswer
from orch_local.export.folders import file_names
from orch_local.results.tables import ORCH


class ExportedSystem(NamedTuple):
    """An agent, or ORCH."""

    name: str
    model: str
    """The model that gave the answers; empty where votes did."""
    folder: Path
    answer_to: Callable[[ExportedQuestion], SystemAnswer | None]
    """Its answer; ``None`` where it was not asked."""


def systems(run: FinishedRun, out: Path) -> list[ExportedSystem]:
    """The systems, with their folders made below ``out``."""
    agents, merger = run.plan.agents, run.plan.merger
    names = [*run.plan.names, ORCH]
    models = [*(agent.model.name for agent in agents), merger.model.name if merger else ""]
    folders = [out / name for name in file_names(names)]
    for folder in folders:
        folder.mkdir()
    answers = [*(_agent(name) for name in run.plan.names), ExportedQuestion.orch]
    return [ExportedSystem(*fields) for fields in zip(names, models, folders, answers, strict=True)]


def _agent(name: str) -> Callable[[ExportedQuestion], SystemAnswer | None]:
    return lambda case: case.agent(name)
