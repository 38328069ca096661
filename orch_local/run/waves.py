"""Analyses of a run whose router learns while it runs: wave after wave, each routed from those before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from orch_local.config.run_files import RunConfig
from orch_local.errors import InputError
from orch_local.router.routes import MissingRowError, Walk, write_routes
from orch_local.router.routing import block
from orch_local.run.missing import lacking_analyses
from orch_local.run.scheduler import Crew
from orch_local.run.sessions import Session
from orch_local.store.questions import Questions


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


def analyse(session: Session) -> None:
    """Generate the analyses of each wave, and record the routes of all."""
    shown, routed = session.display.stage("routed", len(session.questions), 0), 0
    for wave in _waves(session):
        routed += len(wave)
        shown(routed)
        lacks = lacking_analyses(replace(session, questions=wave))
        if not any(lack.rows for lack in lacks):
            continue
        crew = Crew(session, lacks, more=True)
        try:
            crew.analyse(lacks)
        finally:
            crew.keep_timeline()
    write_routes(session.folder, session.plan, session.questions)


def look(session: Session) -> Questions:
    """Route as far as the rows in the store allow; returns the questions that are not routed."""
    routed = 0
    try:
        for wave in _waves(session):
            routed += len(wave)
    except MissingRowError:
        pass
    return session.questions[routed:]


def _waves(session: Session) -> Iterator[Questions]:
    """The questions of each wave, whose routes are known then; its rows must be there before the next."""
    walk, start = Walk(session.plan, session.questions, session.store), 0
    while lookups := list(islice(walk, size(session.plan.config))):
        for question, route in lookups:
            session.routes.add(question.key, route.agents)
        yield session.questions[start : start + len(lookups)]
        start += len(lookups)
        walk.update()
