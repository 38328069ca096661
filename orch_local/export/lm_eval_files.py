"""The layout of lm-evaluation-harness: ``<model>/samples_<task>_<date>.jsonl`` and ``results_<date>.json``.

Source: ``EvaluationTracker`` and ``result_schema.SampleResult`` of lm_eval 0.4.13, which also says how the
hashes are made. Its samples cannot be unscored: each has a number for each metric. So those stand in
``unscored_<task>_<date>.jsonl`` beside, which no reader of lm_eval takes for samples, and are counted as a
metric of the results.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from orch_local.export.cases import ExportedQuestion, FinishedRun, SystemAnswer
from orch_local.export.folders import json_line, write_json
from orch_local.export.systems import ExportedSystem, systems
from orch_local.export.tallies import Tally

_GREEDY = {"do_sample": False, "temperature": 0.0}
_INVALID = "[invalid]"
"""What filters of lm_eval give where they find no answer."""


def write(run: FinishedRun, out: Path) -> None:
    """Write a model folder for each agent and for ORCH."""
    task = re.sub(r"\W", "_", run.task, flags=re.ASCII) or "_"
    date = run.times[1].replace(tzinfo=None).isoformat().replace(":", "-")
    with ExitStack() as files:
        writers = [files.enter_context(_Model(system, task, date)) for system in systems(run, out)]
        for case in run.cases():
            doc = _doc(case)
            for one in writers:
                one.add(case, doc)
    for one in writers:
        write_json(one.system.folder / f"results_{date}.json", _results(run, task, one))


class _Model:
    """The samples of one system."""

    def __init__(self, system: ExportedSystem, task: str, date: str) -> None:
        self.system = system
        self.tally = Tally()
        self.hashes = hashlib.sha256()
        self._samples = (system.folder / f"samples_{task}_{date}.jsonl").open("wb")
        self._unscored = (system.folder / f"unscored_{task}_{date}.jsonl").open("wb")

    def __enter__(self) -> _Model:
        return self

    def __exit__(self, *error: object) -> None:
        self._samples.close()
        self._unscored.close()
        if not self.tally.unscored:
            Path(self._unscored.name).unlink()

    def add(self, case: ExportedQuestion, doc: dict[str, Any]) -> None:
        """Write the sample of one question."""
        text = self.system.answer_to(case)
        if text is None:
            return
        self.tally.add(text)
        sample = _sample(case, text, doc)
        if text.correct is None:
            self._unscored.write(json_line({**sample, "metrics": [], "unscored": text.unscored}))
            return
        for name in ("doc_hash", "prompt_hash", "target_hash"):
            self.hashes.update(sample[name].encode())
        self._samples.write(json_line({**sample, "acc": float(text.correct)}))


def _doc(case: ExportedQuestion) -> dict[str, Any]:
    question = case.question
    return {
        "id": question.id,
        "question": question.text,
        "choices": list(question.choices),
        "answer": question.gold,
        "category": question.category,
    }


def _sample(case: ExportedQuestion, answer: SystemAnswer, doc: dict[str, Any]) -> dict[str, Any]:
    turns = answer.call.prompt if answer.call else ()
    prompt = "\n\n".join(turn.content for turn in turns) or case.question_text
    target = case.decision.gold or ""
    return {
        "doc_id": case.number,
        "doc": doc,
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": _GREEDY}},
        "resps": [[answer.text]],
        "filtered_resps": [_INVALID if answer.answer is None else answer.answer],
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": _sha256(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _sha256(prompt),
        "target_hash": _sha256(target),
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _results(run: FinishedRun, task: str, model: _Model) -> dict[str, Any]:
    tally, system = model.tally, model.system
    began, ended = run.times
    shots = run.plan.config.benchmark.few_shot
    limit = run.plan.config.benchmark.limit
    return {
        "results": {task: {"name": task, "alias": task, "sample_len": tally.scored, **_metrics(tally)}},
        "group_subtasks": {task: []},
        "configs": {task: {"task": task, "output_type": "generate_until", "num_fewshot": shots}},
        "versions": {task: 0},
        "n-shot": {task: shots},
        "higher_is_better": {task: {"acc": True, "unscored": False}},
        "n-samples": {task: {"original": run.plan.questions.count, "effective": tally.scored}},
        "config": {"model": "orch-local", "model_args": {"model": system.model}, "limit": limit},
        "unscored": {task: dict(sorted(tally.unscored.items()))},
        "orch_local": {"version": run.plan.version, "digest": run.digest},
        "git_hash": None,
        "date": began.timestamp(),
        "task_hashes": {task: model.hashes.hexdigest()},
        "model_source": "orch-local",
        "model_name": system.name,
        "model_name_sanitized": system.folder.name,
        "total_evaluation_time_seconds": str((ended - began).total_seconds()),
    }


def _metrics(tally: Tally) -> dict[str, Any]:
    metrics: dict[str, Any] = {"unscored,none": tally.unscored.total()}
    if tally.accuracy is not None:
        stderr = "N/A" if tally.stderr is None else tally.stderr
        metrics |= {"acc,none": tally.accuracy, "acc_stderr,none": stderr}
    return metrics
