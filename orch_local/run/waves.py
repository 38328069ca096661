"""The routes of a run, and the waves of one whose router learns: each is routed from those before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from orch_local.config.run_files import RunConfig
from orch_local.errors import InputError
from orch_local.router.routes import MissingRowError, Routes, Walk, begun_routes, write_routes
from orch_local.router.routing import block
from orch_local.run.context import RunContext
from orch_local.store.questions import Questions


@dataclass(frozen=True, slots=True)
class Wave:
    """Questions whose routes are known."""

    questions: Questions
    routes: Routes
    """Of these questions and of those before them."""
    last: bool = True
    """Whether all questions of the run are in it, so that merges can be scheduled with the analyses."""


def size(config: RunConfig) -> int | None:
    """Questions of a wave; ``None`` where all routes are known from the start."""
    return block(config.router) if config.router else None


def refuse_shards(config: RunConfig, shards: int) -> None:
    """A router that learns has one state, which shards cannot share.

    Raises
    ------
    InputError
        If such a run is to be divided.
    """
    if shards > 1 and size(config):
        raise InputError(
            "a router that learns while the run goes on cannot be divided into shards",
            hint="learn a state first (`orch-local calibrate`) and set `router.mode: calibrated`",
        )


def route(context: RunContext) -> Iterator[Wave]:
    """Route the questions: all at once or, where the router learns, wave after wave.

    The analyses of a wave must be in the store before the next wave is asked for. The last wave holds all
    questions of the run, and their routes are then recorded.

    Raises
    ------
    StoreError
        If the record of the routes cannot be read or written.
    """
    routes = begun_routes(context.folder, context.plan)
    if size(context.plan.config):
        shown, routed = context.display.stage("routed", len(context.questions), 0), 0
        for questions in _waves(context, routes):
            routed += len(questions)
            shown(routed)
            yield Wave(questions, routes, last=False)
        write_routes(context.folder, context.plan, context.questions)
    yield Wave(context.questions, routes)


def route_stored(context: RunContext) -> tuple[Routes, Questions]:
    """Route as far as the rows in the store allow; returns the routes and the questions without one."""
    routes, routed = begun_routes(context.folder, context.plan), 0
    if not size(context.plan.config):
        return routes, context.questions[len(context.questions) :]
    try:
        for questions in _waves(context, routes):
            routed += len(questions)
    except MissingRowError:
        pass
    return routes, context.questions[routed:]


def _waves(context: RunContext, routes: Routes) -> Iterator[Questions]:
    """The questions of each wave, whose routes are then added; its rows must be there before the next."""
    walk, start = Walk(context.plan, context.questions, context.store), 0
    while lookups := list(islice(walk, size(context.plan.config))):
        for question, found in lookups:
            routes.add(question.key, found.agents)
        yield context.questions[start : start + len(lookups)]
        start += len(lookups)
        walk.update()
