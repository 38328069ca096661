"""The files of NeMo Evaluator, a folder for each agent and for ORCH.

- ``results.jsonl``: the record of each scored question, and ``eval-*.json``, the bundle beside it: what
  ``nel compare`` and ``nel gate`` read. A record must have a number as its reward, so those that are
  unscored stand in ``unscored.jsonl``, in the same form with null, and are counted in the bundle.
- ``results.yml``: what releases up to 0.2 write and read, an ``EvaluationResult``.

A record is a ``SampleRecord`` of 0.2 as well. Sources: ``nemo_evaluator.api.api_dataclasses`` of 0.2.8;
https://docs.nvidia.com/nemo/evaluator/evaluation/result-format for the records and the bundle.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from orch_local.export.cases import ExportedQuestion, FinishedRun, SystemAnswer
from orch_local.export.folders import file_name, json_line, write_json
from orch_local.export.systems import ExportedSystem, systems
from orch_local.export.tallies import Tally
from orch_local.records import digest
from orch_local.stats import wilson

_ID_DIGITS = 13
"""Hex digits of a question's id that are its number: 52 bits, which every reader of JSON keeps exact."""


def write(run: FinishedRun, out: Path) -> None:
    """Write a folder for each agent and for ORCH."""
    with ExitStack() as files:
        writers = [files.enter_context(_Records(system)) for system in systems(run, out)]
        for case in run.cases():
            for one in writers:
                one.add(case)
    for one in writers:
        folder, bundle = one.system.folder, _bundle(run, one)
        write_json(folder / f"{bundle['run_id']}.json", bundle)
        text = yaml.safe_dump(_results(run, one), sort_keys=False)
        (folder / "results.yml").write_text(text, encoding="utf-8")


class _Records:
    """The records of one system."""

    def __init__(self, system: ExportedSystem) -> None:
        self.system = system
        self.tally = Tally()
        self.categories: dict[str, Tally] = defaultdict(Tally)
        self._scored = (system.folder / "results.jsonl").open("wb")
        self._unscored = (system.folder / "unscored.jsonl").open("wb")

    def __enter__(self) -> _Records:
        return self

    def __exit__(self, *error: object) -> None:
        self._scored.close()
        self._unscored.close()
        if not self.tally.unscored:
            Path(self._unscored.name).unlink()

    def add(self, case: ExportedQuestion) -> None:
        """Write the record of one question."""
        text = self.system.answer_to(case)
        if text is None:
            return
        self.tally.add(text)
        self.categories[case.question.category].add(text)
        file = self._unscored if text.correct is None else self._scored
        file.write(json_line(_record(case, text)))


def _record(case: ExportedQuestion, answer: SystemAnswer) -> dict[str, Any]:
    question, scored = case.question, answer.correct is not None
    return {
        "problem_idx": int(question.id[:_ID_DIGITS], 16),
        "reward": float(answer.correct) if answer.correct is not None else None,
        "repeat": 0,
        "prompt": case.question_text,
        "expected_answer": question.gold,
        "model_response": answer.text,
        "extracted_answer": answer.answer,
        "metadata": {"category": question.category, "how": str(case.decision.how)},
        "scoring_details": {"scored": scored, "unscored": answer.unscored},
        "id": question.id,
        "generation": answer.text,
        "num_generated_tokens": answer.usage.generated,
        "num_prompt_tokens": answer.usage.prompt,
        "sub_query_id": 0,
        "score": int(answer.correct) if answer.correct is not None else None,
        "score_name": "accuracy",
        "query": case.question_text,
        "answer": answer.answer,
        "ground_truth": question.gold,
    }


def _bundle(run: FinishedRun, records: _Records) -> dict[str, Any]:
    tally, ended = records.tally, run.times[1]
    categories = {
        name: {"mean_reward": one.accuracy, "n": one.scored}
        for name, one in sorted(records.categories.items())
        if one.scored
    }
    return {
        "run_id": f"eval-{ended.strftime('%Y%m%dT%H%M%SZ')}-{file_name(run.task)}",
        "config_hash": f"sha256:{digest(run.plan.identity())}",
        "sdk_version": f"orch-local {run.plan.version}",
        "timestamp": ended.isoformat(),
        "config": {"benchmark": run.task, "model": records.system.name, "repeats": 1},
        "benchmark": {
            "name": run.task,
            "samples": tally.scored,
            "repeats": 1,
            "scores": _scores(tally),
            "categories": categories,
        },
        "n_results": tally.scored,
        "unscored": dict(sorted(tally.unscored.items())),
    }


def _scores(tally: Tally) -> dict[str, Any]:
    interval = wilson(tally.correct, tally.scored)
    if interval is None:
        return {}
    accuracy = {"value": tally.accuracy, "ci_lower": interval.low, "ci_upper": interval.high}
    return {"pass@1": accuracy}


def _results(run: FinishedRun, records: _Records) -> dict[str, Any]:
    groups = {
        name: {"metrics": _metrics(one)} for name, one in sorted(records.categories.items()) if one.scored
    }
    system = records.system
    return {
        "git_hash": None,
        "command": "orch-local run",
        "config": {
            "params": {"limit_samples": run.plan.config.benchmark.limit, "temperature": 0.0},
            "type": run.task,
        },
        "target": {"api_endpoint": {"model_id": system.name, "type": "chat"}},
        "results": {
            "tasks": {run.task: {"metrics": _metrics(records.tally)}},
            "groups": {run.task: {"groups": groups, "metrics": _metrics(records.tally)}},
        },
    }


def _metrics(tally: Tally) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    if tally.scored:
        metrics["accuracy"] = {"scores": {"accuracy": {"value": tally.accuracy, "stats": _stats(tally)}}}
    if tally.unscored:
        counts = sorted(tally.unscored.items())
        scores = {reason: {"value": count, "stats": {"count": tally.asked}} for reason, count in counts}
        metrics["unscored"] = {"scores": scores}
    return metrics


def _stats(tally: Tally) -> dict[str, Any]:
    """Of numbers that are 0 or 1, so that the sum of squares is the sum."""
    variance = tally.variance or 0.0
    return {
        "count": tally.scored,
        "sum": tally.correct,
        "sum_squared": tally.correct,
        "min": int(tally.correct == tally.scored),
        "max": int(tally.correct > 0),
        "mean": tally.accuracy,
        "variance": variance,
        "stddev": variance**0.5,
        "stderr": tally.stderr,
    }
