"""From the files of a finished run to the tree of numbers that its reports draw.

Read are the plan, ``metrics.json`` (digest, level, cost, diagnostics), ``decisions.parquet`` and the
timelines; neither ``decisions.jsonl`` nor the store, so a run may be archived without them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orch_local.errors import StoreError
from orch_local.plan.files import load_plan
from orch_local.plan.plans import AgentPlan, Plan
from orch_local.records import How, LevelAssessment
from orch_local.results.calibration import calibration
from orch_local.results.diagnostics import Diagnostics
from orch_local.results.scoring import Cost
from orch_local.results.spending import spending
from orch_local.results.summary import Summary
from orch_local.results.systems import best_agent, categories, cochran, pairs, systems, tally
from orch_local.results.tables import ORACLE, ORCH, RunTable, read_table
from orch_local.results.timeline import read_all
from orch_local.results.together import complementarity, multiplicity
from orch_local.results.trajectory import router_summary
from orch_local.store.store import RunFolder, read_json

SPEC_DIGITS = 16
_AGAIN = "run the same command again: it is made anew from the stored rows"


class Recorded(BaseModel):
    """What of ``metrics.json`` does not follow from the decisions."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: str
    level: LevelAssessment = Field(alias="standing")
    questions: int
    cost: Mapping[str, Cost]
    diagnostics: Diagnostics | None = None


def summarise(folder: RunFolder) -> Summary:
    """All numbers of a finished run.

    Raises
    ------
    StoreError
        If the folder is not that of a finished run, or one of its files is damaged.
    """
    plan, recorded = load_plan(folder), read_recorded(folder)
    table = read_table(folder, plan.names)
    if len(table) != recorded.questions:
        message = f"holds {len(table):,} decisions, and metrics.json is of {recorded.questions:,}"
        raise StoreError(message, where=str(folder.decisions.with_suffix(".parquet")), hint=_AGAIN)
    return summary_of(folder, plan, recorded, table)


def read_recorded(folder: RunFolder) -> Recorded:
    """What a finished run wrote down beside its decisions.

    Raises
    ------
    StoreError
        If it is not finished, or the file is damaged.
    """
    if not folder.metrics.exists():
        message = f"the run is not finished: it has no {folder.metrics.name}"
        hint = "finish the run first: the command that began it continues it"
        raise StoreError(message, where=str(folder.root), hint=hint)
    try:
        return Recorded.model_validate(read_json(folder.metrics))
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, one["loc"])) for one in error.errors()[:5])
        raise StoreError(f"cannot be used: {fields}", where=str(folder.metrics), hint=_AGAIN) from None


def summary_of(folder: RunFolder, plan: Plan, recorded: Recorded, table: RunTable) -> Summary:
    """All numbers, from what was read."""
    found = systems(table)
    best, orch = best_agent(found), next(one for one in found if one.name == ORCH)
    gold, level = int(np.count_nonzero(table.has_gold)), recorded.level
    return Summary(
        title=folder.root.name,
        benchmark=_benchmark(plan),
        version=plan.version,
        digest=recorded.digest,
        level=str(level.level),
        level_reasons=level.reasons,
        declared=level.declared,
        generated_again=level.generated_again,
        same=level.same,
        questions=len(table),
        gold=gold,
        no_gold=len(table) - gold,
        bad_rows=plan.questions.bad_rows,
        policy=plan.config.merge.policy,
        best_agent=best,
        systems=found,
        pairs=pairs(table),
        cochran=cochran([column for name, column in table.verdicts.items() if name != ORACLE]),
        categories=categories(table, best),
        how=_how(table),
        agreement=_agreement(table),
        unscored=tally(table.reason, table.final < 0),
        complementarity=complementarity(table, best),
        multiplicity=multiplicity(table, found, best),
        calibration=calibration(table),
        spending=spending(plan, recorded.cost, read_all(folder).read, orch.correct),
        router=router_summary(folder, plan),
        environment={name: _text(value) for name, value in plan.environment.items()},
        agents={one.name: _facts(one, plan) for one in plan.workers},
        diagnostics=recorded.diagnostics,
    )


def _benchmark(plan: Plan) -> str:
    """Its name, and the file or folder it was read from, without the path to it."""
    return f"{plan.config.benchmark.name} ({plan.config.benchmark.path.name})"


def _how(table: RunTable) -> dict[str, int]:
    """Questions by how they were decided, in the order of :class:`How`."""
    found = tally(table.how, np.ones(len(table), bool))
    order = [str(how) for how in How if str(how) in found]
    return {how: found[how] for how in (*order, *(name for name in found if name not in order))}


def _agreement(table: RunTable) -> float | None:
    """Share of the panels of at least two usable analyses that were unanimous."""
    given = table.answer >= 0
    panels = given.sum(axis=0) > 1
    lowest = np.where(given, table.answer, np.iinfo(np.int32).max).min(axis=0)
    unanimous = panels & (lowest == table.answer.max(axis=0))
    count = int(np.count_nonzero(panels))
    return int(np.count_nonzero(unanimous)) / count if count else None


def _facts(agent: AgentPlan, plan: Plan) -> dict[str, str]:
    settings, content = agent.settings, agent.spec_content
    roles = {one.name: one.mode if one.mode == "direct" else one.role for one in plan.config.agents}
    version = content.get("environment", {}).get(settings.name)
    return {
        "model": agent.model.name,
        "architecture": str(content.get("model", {}).get("architecture", "")),
        "role": "merge" if agent.kind == "merge" else roles[agent.name],
        "spec": agent.spec[:SPEC_DIGITS],
        "engine": f"{settings.name} {version}" if version else settings.name,
        "dtype": settings.dtype,
    }


def _text(value: str | float | bool | None) -> str:
    """As YAML and JSON write it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def to_json(summary: Summary) -> dict[str, Any]:
    """The content of ``report.json``: the fields of :class:`Summary`, ``null`` where there is no number.

    JSON has no infinity: an odds ratio, or an end of its interval, that is infinite is the text ``"inf"``,
    which ``float`` of Python, R and pandas read back.
    """
    made: dict[str, Any] = plain(summary)
    return made


def plain(value: Any) -> Any:
    """Dataclasses as objects, tuples as lists, and infinity as a text."""
    if dataclasses.is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value
