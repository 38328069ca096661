"""Reads exports with the code of the tools they are for; runs in the environment of ORCH_READERS.

Prints what was read as JSON: ``read_exports.py lm-eval|nemo FOLDER``; ``read_exports.py inspect FOLDER RUN``
writes the export as well, since that needs inspect_ai too.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any


def read_inspect(folder: Path, run: str) -> Any:
    """The header and the samples of the only log, and what inspect_ai itself makes of their scores."""
    from inspect_ai.log import bundle_log_dir, list_eval_logs, read_eval_log, recompute_metrics

    from orch_local.export.formats import export
    from orch_local.store.store import RunFolder

    export(RunFolder(Path(run)), "inspect", folder)
    (info,) = list_eval_logs(str(folder))
    header = read_eval_log(info, header_only=True)
    log = read_eval_log(info, resolve_attachments=True)
    written = _inspect_scores(log)
    recompute_metrics(log)
    with tempfile.TemporaryDirectory() as made, contextlib.redirect_stdout(io.StringIO()):
        bundle_log_dir(str(folder), str(Path(made) / "bundle"))
        bundled = [file.name for file in Path(made).rglob("*.eval")]
    return {
        "task": info.task,
        "header_has_samples": header.samples is not None,
        "roles": {role: one.model for role, one in header.eval.model_roles.items()},
        "role_usage": _dump(header.stats.role_usage),
        "model_usage": _dump(header.stats.model_usage),
        "written": written,
        "recomputed": _inspect_scores(log),
        "samples": [_inspect_sample(sample) for sample in log.samples],
        "bundled": bundled,
        "parts": _inspect_parts(run, folder.with_name("parts")),
        "dumped": _inspect_command("log", "dump", "--header-only", info.name),
    }


def _inspect_parts(run: str, folder: Path) -> list[list[Any]]:
    """Questions and scores of ORCH in each log, where no more than two questions fit one."""
    from inspect_ai.log import list_eval_logs, read_eval_log

    from orch_local.export import inspect_log
    from orch_local.export.formats import export
    from orch_local.store.store import RunFolder

    inspect_log.CALLS_PER_LOG = 6
    export(RunFolder(Path(run)), "inspect", folder)
    logs = [read_eval_log(info) for info in list_eval_logs(str(folder), descending=False)]
    numbers = [sorted(one.metadata["number"] for one in log.samples) for log in logs]
    return sorted([numbers[i], log.results.scores[0].scored_samples] for i, log in enumerate(logs))


def _inspect_command(*arguments: str) -> Any:
    """What the command line of inspect_ai prints, in this process: a new one takes ten seconds to start."""
    from click.testing import CliRunner
    from inspect_ai._cli.main import inspect

    done = CliRunner().invoke(inspect, arguments, catch_exceptions=False)
    return json.loads(done.stdout)


def _inspect_scores(log: Any) -> dict[str, Any]:
    return {
        one.name: {
            "scored": one.scored_samples,
            "unscored": one.unscored_samples,
            **{name: metric.value for name, metric in one.metrics.items()},
        }
        for one in log.results.scores
    }


def _inspect_sample(sample: Any) -> dict[str, Any]:
    calls = [event for event in sample.events if event.event == "model"]
    spans = [event.name for event in sample.events if event.event == "span_begin"]
    return {
        "number": sample.metadata["number"],
        "id": sample.id,
        "input": sample.input,
        "target": sample.target,
        "messages": [[message.role, message.text] for message in sample.messages],
        "scores": {name: _inspect_score(score) for name, score in sample.scores.items()},
        "spans": spans,
        "calls": [[call.role, call.model, call.output.completion, call.error] for call in calls],
        "prompts": [[[message.role, message.text] for message in call.input] for call in calls],
        "role_usage": _dump(sample.role_usage),
    }


def _inspect_score(score: Any) -> list[Any]:
    unscored = isinstance(score.value, float) and math.isnan(score.value)
    return [None if unscored else score.value, score.answer, score.reason]


def _dump(usage: Any) -> dict[str, Any]:
    return {name: one.model_dump(exclude_none=True) for name, one in usage.items()}


def read_lm_eval(folder: Path) -> Any:
    """By model: its table, its samples, and whether lm_eval would have written the same."""
    from lm_eval.utils import get_results_filenames, get_sample_results_filenames

    files = [str(file) for file in folder.rglob("*") if file.is_file()]
    samples = {Path(file).parent.name: Path(file) for file in get_sample_results_filenames(files)}
    results = {Path(file).parent.name: Path(file) for file in get_results_filenames(files)}
    return {name: _lm_eval_model(samples[name], results[name]) for name in results}


def _lm_eval_model(samples_file: Path, results_file: Path) -> Any:
    from datasets import load_dataset
    from lm_eval.utils import get_file_task_name, make_table, sanitize_model_name

    results = json.loads(results_file.read_text(encoding="utf-8"))
    lines = samples_file.read_text(encoding="utf-8").splitlines()
    samples = [json.loads(line) for line in lines]
    task = get_file_task_name(samples_file.name)
    acc = [sample["acc"] for sample in samples]
    with tempfile.TemporaryDirectory() as cache:
        loaded = load_dataset("json", data_files=str(samples_file), split="train", cache_dir=cache)
        rows = loaded.to_list()
    return {
        "table": make_table(results),
        "task": task,
        "mean": [statistics.mean(acc), statistics.stdev(acc) / math.sqrt(len(acc))],
        "written": results["results"][task],
        "samples": samples,
        "loaded": [row["acc"] for row in rows],
        "same": _lm_eval_would_write(samples, results, task),
        "model": [sanitize_model_name(results["model_name"]), samples_file.parent.name],
        "hashes": [_lm_eval_hashes(sample) for sample in samples],
    }


def _lm_eval_hashes(sample: dict[str, Any]) -> bool:
    from lm_eval.utils import handle_non_serializable, hash_string

    doc = json.dumps(sample["doc"], indent=2, default=handle_non_serializable, ensure_ascii=False)
    texts = (doc, sample["arguments"]["gen_args_0"]["arg_0"], sample["target"])
    return [hash_string(text) for text in texts] == [
        sample[name] for name in ("doc_hash", "prompt_hash", "target_hash")
    ]


def _lm_eval_would_write(samples: list[dict[str, Any]], results: dict[str, Any], task: str) -> list[bool]:
    """Gives its own writer what an evaluation would have given it."""
    from lm_eval.loggers import EvaluationTracker

    with tempfile.TemporaryDirectory() as made:
        tracker = EvaluationTracker(output_path=made)
        args = results["config"]["model_args"] | {"model": results["model_name"]}
        tracker.general_config_tracker.log_experiment_args("orch-local", args, None, None, False)
        raw = [
            {**sample, "arguments": [tuple(one.values()) for one in sample["arguments"].values()]}
            for sample in samples
        ]
        tracker.save_results_aggregated(results={"results": results["results"]}, samples={task: raw})
        tracker.save_results_samples(task, raw)
        (lines,) = Path(made).rglob("samples_*.jsonl")
        (whole,) = Path(made).rglob("results_*.json")
        theirs = json.loads(whole.read_text(encoding="utf-8"))
        again = [json.loads(line) for line in lines.read_text(encoding="utf-8").split("\n") if line]
    return [
        again == samples,
        theirs["task_hashes"] == results["task_hashes"],
        all(theirs[name] == results[name] for name in ("model_name", "model_source", "model_name_sanitized")),
    ]


def read_nemo(folder: Path) -> Any:
    """By system: its result, its records, and those unscored, through the types of NeMo Evaluator."""
    import yaml
    from nemo_evaluator.api.api_dataclasses import (
        EvaluationConfig,
        EvaluationResult,
        EvaluationTarget,
        SampleRecord,
    )

    found = {}
    for file in sorted(folder.glob("*/results.yml")):
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        EvaluationConfig.model_validate(values["config"])
        EvaluationTarget.model_validate(values["target"])
        result = EvaluationResult.model_validate(values["results"])
        records = {
            name: [SampleRecord.model_validate_json(line) for line in _lines(file.with_name(f"{name}.jsonl"))]
            for name in ("results", "unscored")
        }
        found[file.parent.name] = {
            "result": result.model_dump(exclude_none=True),
            **{name: [one.model_dump() for one in rows] for name, rows in records.items()},
        }
    return found


def _lines(file: Path) -> list[str]:
    # As `nel compare` reads them: split at whatever Unicode takes for the end of a line.
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


if __name__ == "__main__":
    readers: dict[str, Any] = {"inspect": read_inspect, "lm-eval": read_lm_eval, "nemo": read_nemo}
    print(json.dumps(readers[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])), flush=True)
