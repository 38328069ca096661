"""How many rows a run still needs, told from its folder and the store; nothing is changed."""

from __future__ import annotations

from dataclasses import replace

from orch_local.router.routes import Routes
from orch_local.run import waves
from orch_local.run.context import RunContext
from orch_local.run.missing import WantedMerges, missing_analyses
from orch_local.run.planning import asked_at_most
from orch_local.store.shards import Shard
from orch_local.store.store import RunFolder, Store


def remaining(folder: RunFolder) -> int:
    """Rows that a run still needs, at most: analyses, and merges, one for each panel that is not complete.

    Raises
    ------
    StoreError
        If the folder holds no plan, or the store cannot be read.
    """
    return remaining_by_shard(folder, 1)[0]


def remaining_by_shard(folder: RunFolder, shards: int) -> list[int]:
    """What each of so many shards needs, one shard in memory at a time. Raises as :func:`remaining`."""
    whole = replace(RunContext.of(folder), read_only=True)
    waves.refuse_shards(whole.plan.config, shards)
    routes, unrouted = waves.route_stored(whole)
    parts = whole.questions.by_shard(shards) if shards > 1 else [whole.questions]
    rows = []
    for number, part in enumerate(parts, 1):
        shard = Shard(number, shards) if shards > 1 else None
        context = replace(whole, questions=part, store=Store(whole.plan.store, shard))
        rows.append(_remaining(context, routes) + len(unrouted) * asked_at_most(whole.plan))
    return rows


def _remaining(context: RunContext, routes: Routes) -> int:
    analyses = sum(len(one.rows) for one in missing_analyses(context, context.questions, routes))
    return analyses + WantedMerges(context, routes).most()
