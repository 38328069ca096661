"""A run as an Inspect log, written by inspect_ai itself; `inspect view` opens it.

A sample is a question: its messages are what the merge agent read and wrote, its transcript has a span for
each agent with the whole call, its scores are those of ORCH, of each agent and of the majority vote. What
is unscored has a score of the kind that inspect_ai leaves out of its metrics (``Score.unscored``), with the
reason; an agent that was not asked has none.

inspect_ai takes a log as a whole. So that memory has a bound, a long run is written as several logs.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orch_local.errors import InputError
from orch_local.export.cases import ExportedQuestion, FinishedRun, SystemAnswer
from orch_local.export.folders import file_name, file_names
from orch_local.export.tallies import Tally
from orch_local.plan.plans import MERGE
from orch_local.records import Usage
from orch_local.results.tables import MAJORITY, ORCH

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalMetric, EvalResults, EvalSample, EvalScore, EvalSpec, EvalStats
    from inspect_ai.model import ModelConfig

    from orch_local.export.inspect_samples import Cast

CALLS_PER_LOG = 75_000
"""Most generations in one log. Each takes some 30 kB of memory, so a log takes up to 2.5 GB."""
_METRICS = [{"name": "inspect_ai/accuracy"}, {"name": "inspect_ai/stderr"}]


def write(run: FinishedRun, out: Path) -> None:
    """Write the log, or the logs.

    Raises
    ------
    InputError
        If inspect_ai is not installed.
    """
    try:
        from inspect_ai.log import write_eval_log
    except ImportError as error:
        message = f"this format is written by inspect_ai, which cannot be imported ({error})"
        raise InputError(message, hint="pip install inspect_ai") from None
    cases, part = run.cases(), 0
    most = max(1, CALLS_PER_LOG // len(run.plan.workers))
    while batch := list(islice(cases, most)):
        part += 1
        log = _Log(run, part)
        write_eval_log(log.of(batch), out / log.file_name)


class _Log:
    """One log in the making."""

    def __init__(self, run: FinishedRun, part: int) -> None:
        from orch_local.export.inspect_samples import Cast

        plan = run.plan
        self._run = run
        self._part = part
        roles = [*plan.names, *([MERGE] if plan.merger else [])]
        models = {
            role: f"{worker.settings.name}/{worker.model.name}"
            for role, worker in zip(roles, plan.workers, strict=True)
        }
        self._cast: Cast = Cast(models, run.times[0])
        self._scorers = file_names([ORCH, *plan.names, MAJORITY])
        self._tallies: dict[str, Tally] = {name: Tally() for name in self._scorers}
        self._usage: dict[str, Usage] = defaultdict(Usage)

    @property
    def file_name(self) -> str:
        """As inspect_ai names its logs: time, task, id."""
        stamp = self._run.times[0].strftime("%Y-%m-%dT%H-%M-%S+00-00")
        return f"{stamp}_{file_name(self._run.task)}_{self._id}.eval"

    @property
    def _id(self) -> str:
        return f"{self._run.digest[:16]}p{self._part}"

    def of(self, batch: list[ExportedQuestion]) -> EvalLog:
        """The log of these questions."""
        from inspect_ai.log import EvalLog, EvalPlan, EvalPlanStep

        samples = [self._sample(case) for case in batch]
        return EvalLog(
            status="success",
            eval=self._spec(len(samples)),
            plan=EvalPlan(name="ORCH", steps=[EvalPlanStep(solver="orch_local", params=self._rules())]),
            results=self._results(len(samples)),
            stats=self._stats(),
            samples=samples,
        )

    def _sample(self, case: ExportedQuestion) -> EvalSample:
        from orch_local.export.inspect_samples import make_sample

        agents = [case.agent(name) for name in self._run.plan.names]
        of_systems = [case.orch(), *agents, case.majority()]
        answers: dict[str, SystemAnswer] = {
            name: one for name, one in zip(self._scorers, of_systems, strict=True) if one is not None
        }
        for name, one in answers.items():
            self._tallies[name].add(one)
        for role, call in case.calls.items():
            self._usage[role] += call.analysis.usage
        return make_sample(case, answers, self._cast)

    def _rules(self) -> dict[str, Any]:
        merge = self._run.plan.config.merge
        return merge.model_dump(mode="json", include={"policy", "when", "candidates", "names", "quorum"})

    def _spec(self, count: int) -> EvalSpec:
        from inspect_ai.log import EvalConfig, EvalDataset, EvalSpec

        run, plan = self._run, self._run.plan
        return EvalSpec(
            eval_id=self._id,
            run_id=run.digest[:22],
            task_id=self._id,
            created=run.times[0].isoformat(),
            task=run.task,
            solver="orch_local",
            dataset=EvalDataset(name=run.task, samples=count),
            model=self._cast.models.get(MERGE, f"orch-local/{plan.config.merge.policy}"),
            model_roles=self._roles(),
            config=EvalConfig(epochs=1),
            packages={"orch_local": plan.version},
            metadata={"digest": run.digest, "part": self._part, "questions": plan.questions.count},
            scorers=[{"name": name, "metrics": _METRICS} for name in self._scorers],
        )

    def _roles(self) -> dict[str, ModelConfig | list[ModelConfig]]:
        from inspect_ai.model import GenerateConfig, ModelConfig

        greedy = GenerateConfig(temperature=0.0)
        return {role: ModelConfig(model=model, config=greedy) for role, model in self._cast.models.items()}

    def _results(self, count: int) -> EvalResults:
        from inspect_ai.log import EvalResults

        scores = [_eval_score(name, tally) for name, tally in self._tallies.items()]
        return EvalResults(total_samples=count, completed_samples=count, scores=scores)

    def _stats(self) -> EvalStats:
        from inspect_ai.log import EvalStats

        from orch_local.export.inspect_samples import model_usage, usage_by_model

        began, ended = self._run.times
        return EvalStats(
            started_at=began.isoformat(),
            completed_at=ended.isoformat(),
            model_usage=usage_by_model(self._usage, self._cast),
            role_usage={role: model_usage(usage) for role, usage in self._usage.items()},
        )


def _eval_score(name: str, tally: Tally) -> EvalScore:
    from inspect_ai.log import EvalMetric, EvalScore

    values = {"accuracy": tally.accuracy, "stderr": tally.stderr}
    metrics: dict[str, EvalMetric] = {
        metric: EvalMetric(name=metric, value=value) for metric, value in values.items() if value is not None
    }
    return EvalScore(
        name=name,
        scorer=name,
        scored_samples=tally.scored,
        unscored_samples=tally.unscored.total(),
        metrics=metrics,
        metadata={"unscored": dict(sorted(tally.unscored.items()))},
    )
