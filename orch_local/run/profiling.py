"""Measures a profile: what a row of each agent takes on this machine, with the real engine in a real worker.

Each agent writes its rows in one worker. After a warm-up some rows are alone in the engine: their seconds
and tokens give the latency model

    seconds = base_s + prompt_s * prompt + generated_s * generated

by non-negative least squares (Lawson & Hanson 1974, Solving Least Squares Problems; ``scipy.optimize.nnls``).
The other rows are in the engine together, as in a run: they give the device-seconds of a token.

All of it happens in a temporary folder with a store of its own. The merge agent is measured over the panels
that the agents have just written.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from orch_local.config.run_files import RunConfig
from orch_local.errors import EngineError, InputError
from orch_local.placement.estimates import width
from orch_local.plan.plans import AgentPlan, Plan
from orch_local.plan.profiles import AgentProfile, Profile
from orch_local.records import Analysis, Usage, canonical_json
from orch_local.router.routes import Routes
from orch_local.run.context import Display, RunContext, StopRequest
from orch_local.run.conversation import Patience
from orch_local.run.missing import MissingRows, WantedMerges, missing_analyses
from orch_local.run.preparation import prepare
from orch_local.run.stats import Timing
from orch_local.run.supervisor import Supervisor, WorkerOptions
from orch_local.run.worker_slots import WorkerSlot
from orch_local.store.questions import Questions
from orch_local.store.store import RunFolder, write_json
from orch_local.util.gpus import gpu_names

ROWS = 64
WARM_UP = 2
"""Rows that are generated first and not measured: kernels are compiled on them."""
MOST_ALONE = 16
LEAST_ROWS = WARM_UP + 4
"""Fewer leave nothing to fit."""


class Sample(NamedTuple):
    """Tokens and wall seconds of one row that was alone in the engine."""

    usage: Usage
    seconds: float


class Latency(NamedTuple):
    """Seconds of a request alone: ``base_s + prompt_s * prompt + generated_s * generated``."""

    base_s: float
    prompt_s: float
    generated_s: float


class Parts(NamedTuple):
    """Which rows (question keys) are generated how."""

    warm_up: Sequence[str]
    alone: Sequence[str]
    together: Sequence[str]

    def batches(self) -> list[Sequence[str]]:
        """What is in the engine at one time, in order."""
        return [*([key] for key in (*self.warm_up, *self.alone)), self.together]


def profile(config: RunConfig, rows: int, display: Display, stop: StopRequest) -> Profile:
    """Measure every agent of a run file, and its merge agent where it has enough to merge.

    Parameters
    ----------
    rows:
        Questions to ask, the first of those that the run file names.

    Raises
    ------
    InputError
        If the run file cannot be used, or has too few questions.
    EngineError
        If an engine fails, or an agent finishes no row.
    KeyboardInterrupt
        If ``stop`` asked to finish early.
    """
    if rows < LEAST_ROWS:
        hint = f"take {LEAST_ROWS} or more"
        raise InputError(f"{rows} rows are too few to measure", where="--rows", hint=hint)
    with _scratch() as root:
        folder = RunFolder(root / "run")
        plan = prepare(_limited(config, rows), folder, root / "store")
        context = RunContext.of(folder, display, stop)
        routes = Routes(len(plan.agents))
        missing = missing_analyses(context, context.questions, routes)
        _refuse_few(missing[0], plan)
        measured = {one.agent.name: _measure(context, one) for one in missing}
        merges = WantedMerges(context, routes).missing(plan.merger) if plan.merger else None
        if merges and len(merges.rows) >= LEAST_ROWS:
            measured[merges.agent.name] = _measure(context, merges)
    return Profile(measured=f"{_now()} on {_machine(plan.agents[0])}", agents=measured)


def write_profile(path: Path, profile: Profile) -> None:
    """Write a profile as JSON.

    Raises
    ------
    StoreError
        If the file cannot be written.
    """
    write_json(path, profile.model_dump(mode="json"))


def fit_latency(samples: Sequence[Sample]) -> Latency:
    """The coefficients, none negative, that explain the seconds best.

    A kind of token whose number is the same in all samples cannot be told from what every request takes, so
    its part stands in ``base_s``.

    Parameters
    ----------
    samples:
        At least one.
    """
    from scipy.optimize import nnls

    tokens = np.array([(1, s.usage.prompt, s.usage.generated) for s in samples], dtype=float)
    seconds = np.array([s.seconds for s in samples])
    varies = np.ptp(tokens, axis=0) > 0
    varies[0] = True
    largest = np.where(varies, tokens.max(axis=0), 1.0)  # columns of like size are solved more exactly
    found, _ = nnls((tokens / largest)[:, varies], seconds)
    coefficients = np.zeros(3)
    coefficients[varies] = found / largest[varies]
    return Latency(*map(float, coefficients))


def device_seconds(seconds: float, devices: int, usages: Sequence[Usage]) -> float:
    """Device-seconds of a token, prompt or generated, in a full batch; 0 without tokens."""
    tokens = sum(usage.prompt + usage.generated for usage in usages)
    return devices * seconds / tokens if tokens else 0.0


def parted(lengths: Mapping[str, int]) -> Parts:
    """Divide the rows; those that run alone are spread over all lengths, so that a slope can be seen.

    Parameters
    ----------
    lengths:
        Question key -> length of the question, in whatever unit; at least ``LEAST_ROWS`` of them.
    """
    count = min(MOST_ALONE, (len(lengths) - WARM_UP) // 2)
    by_length = sorted(lengths, key=lambda key: (lengths[key], key))
    alone = [by_length[place] for place in np.linspace(0, len(by_length) - 1, count).round().astype(int)]
    others = [key for key in lengths if key not in alone]
    return Parts(others[:WARM_UP], alone, others[WARM_UP:])


def _limited(config: RunConfig, rows: int) -> RunConfig:
    """The run file with the first of its questions alone, all of which are asked of every agent."""
    limit = min(rows, config.benchmark.limit or rows)
    benchmark = config.benchmark.model_copy(update={"limit": limit})
    return config.model_copy(update={"benchmark": benchmark, "router": None})


def _refuse_few(missing: MissingRows, plan: Plan) -> None:
    if len(missing.rows) < LEAST_ROWS:
        raise InputError(
            f"there are too few questions to measure: {len(missing.rows)}, and {LEAST_ROWS} are needed",
            where=str(plan.config.benchmark.path),
            hint="name more questions in the run file",
        )


@contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder, which stays only where an engine failed: its logs tell why."""
    root = Path(tempfile.mkdtemp(prefix="orch-profile-"))
    stays = False
    try:
        yield root
    except EngineError:
        stays = True
        raise
    finally:
        if not stays:
            shutil.rmtree(root, ignore_errors=True)


class _Run(NamedTuple):
    """What one agent's worker came to."""

    rows: Mapping[str, Analysis]
    """By question key."""
    timing: Timing
    log: Path


def _measure(context: RunContext, missing: MissingRows) -> AgentProfile:
    agent, parts = missing.agent, parted(_lengths(context.questions, missing))
    run = _generate(context, missing, parts.batches())
    alone, together = _finished(run.rows, parts.alone), _finished(run.rows, parts.together)
    if not alone or not together:
        outcomes = ", ".join(sorted({str(row.outcome) for row in run.rows.values()}))
        raise _unmeasured(agent, f"too few of its rows were generated (outcomes: {outcomes})", run.log)
    before = sum(run.rows[key].seconds for key in (*parts.warm_up, *parts.alone))
    # No row is in the engine for longer than its batch; for very short ones the clock is coarse.
    seconds = max(run.timing.generate_s - before, *(row.seconds for row in together))
    devices = width(agent.settings)
    return AgentProfile(
        spec=agent.spec,
        device=_device(agent),
        devices=devices,
        rows=len(alone) + len(together),
        load_s=run.timing.load_s,
        device_s=device_seconds(seconds, devices, [row.usage for row in together]),
        **fit_latency([Sample(row.usage, row.seconds) for row in alone])._asdict(),
    )


def _generate(context: RunContext, missing: MissingRows, batches: Sequence[Sequence[str]]) -> _Run:
    """Let one worker generate the rows of an agent."""
    agent, patience = missing.agent, Patience.of(context.plan.config.engine)
    supervisor = Supervisor(context.folder, agent, context.store, WorkerOptions(patience, _slot(agent)))
    progress = context.display.stage(agent.name, len(missing.rows), 0)
    if context.stop.asked:
        raise KeyboardInterrupt
    with context.stop.covering([supervisor]):
        timing = supervisor.run(missing.rows, progress, batches)
    if context.stop.asked:
        raise KeyboardInterrupt
    if timing.deaths:
        raise _unmeasured(agent, "its worker died", supervisor.log)
    stored = context.store.read(agent.spec)
    return _Run({key: stored[row] for key, row in missing.rows.items()}, timing, supervisor.log)


def _lengths(questions: Questions, missing: MissingRows) -> dict[str, int]:
    """The length of each question that is asked, with its choices and examples."""
    asked = set(missing.rows)
    return {one.key: len(canonical_json(one.to_row())) for one in questions if one.key in asked}


def _finished(rows: Mapping[str, Analysis], keys: Sequence[str]) -> list[Analysis]:
    """Those that an engine has generated, whatever was made of the text."""
    return [rows[key] for key in keys if rows[key].usage.generated and rows[key].seconds]


def _unmeasured(agent: AgentPlan, why: str, log: Path) -> EngineError:
    return EngineError(f"agent {agent.name!r} cannot be measured: {why}", hint=f"see {log}")


def _slot(agent: AgentPlan) -> WorkerSlot:
    """The first devices of this machine, alone."""
    names = gpu_names() if agent.settings.device == "cuda" else ()
    return WorkerSlot(gpus=",".join(names[: width(agent.settings)]) if names else None)


def _device(agent: AgentPlan) -> str:
    """What one worker computes on, in words."""
    if agent.settings.device == "cpu":
        return f"cpu, {agent.settings.threads} thread{'s' * (agent.settings.threads > 1)}"
    return str(agent.environment.get("gpu") or "cuda")


def _machine(agent: AgentPlan) -> str:
    if agent.settings.device == "cpu":
        return f"a machine of {os.cpu_count()} cores, {platform.machine()}"
    return f"a machine of {len(gpu_names()) or 1} x {_device(agent)}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
