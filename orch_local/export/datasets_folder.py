"""A folder for ``datasets.load_from_disk``, a row a question; ``questions.parquet`` has the same rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orch_local.export.cases import Call, ExportedQuestion, FinishedRun, SystemAnswer
from orch_local.records import Analysis
from orch_local.results.scoring import NOT_ASKED

if TYPE_CHECKING:
    from datasets import Features

_BATCH = 1000
PARQUET = "questions.parquet"


def write(run: FinishedRun, out: Path) -> None:
    """Write the folder; rows pass through in batches, and nothing is cached elsewhere."""
    # Deferred: it takes seconds to load.
    from datasets import Dataset
    from datasets.arrow_writer import ArrowWriter

    rows = out.with_name("rows.arrow")  # `out` is a folder in a scratch folder
    names = run.plan.names
    with ArrowWriter(path=str(rows), features=_features(names), writer_batch_size=_BATCH) as writer:
        for case in run.cases():
            writer.write(_row(case, names))
        writer.finalize()
    dataset = Dataset.from_file(str(rows))
    with _quiet():
        dataset.save_to_disk(str(out))
        dataset.to_parquet(str(out / PARQUET))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of ``datasets``, which is set for the whole process."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _features(names: tuple[str, ...]) -> Features:
    from datasets import Features, List, Value

    text, number, share = Value("string"), Value("int64"), Value("float64")
    answer = {"answer": text, "correct": Value("bool"), "confidence": number, "probability": share}
    call = {
        "outcome": text,
        "reasoning": text,
        "eliminated": List(text),
        "probabilities": List(share),
        "thought": text,
        "text": text,
        "error": text,
        "prompt_tokens": number,
        "cached_tokens": number,
        "generated_tokens": number,
        "seconds": share,
    }
    return Features(
        {
            "id": text,
            "question": text,
            "choices": List(text),
            "gold": text,
            "category": text,
            "cluster": text,
            "meta": text,
            "examples": List({"question": text, "choices": List(text), "answer": text}),
            "agents": {name: {**answer, "unscored": text, **call} for name in names},
            "decision": {**answer, "how": text, "unscored": text, "majority": text},
            "merge": {"answer": text, "confidence": number, **call},
        }
    )


def _row(case: ExportedQuestion, names: tuple[str, ...]) -> dict[str, Any]:
    question, decision = case.question, case.decision
    examples = [
        {"question": one.text, "choices": list(one.choices), "answer": one.answer}
        for one in question.examples
    ]
    return {
        "id": question.id,
        "question": question.text,
        "choices": list(question.choices),
        "gold": question.gold,
        "category": question.category,
        "cluster": decision.cluster or None,
        # As JSON: its fields differ from row to row.
        "meta": json.dumps(dict(question.meta), ensure_ascii=False),
        "examples": examples,
        "agents": {name: _agent(case, name) for name in names},
        "decision": _decision(case),
        "merge": _merge(case),
    }


def _agent(case: ExportedQuestion, name: str) -> dict[str, Any]:
    answer, call = case.agent(name), case.panel.get(name)
    own = {
        "confidence": case.decision.confidences.get(name),
        "probability": case.decision.probabilities.get(name),
    }
    return {**_answer(answer), **own, **_call(case, call)}


def _decision(case: ExportedQuestion) -> dict[str, Any]:
    decision = case.decision
    return {
        **_answer(case.orch()),
        "confidence": decision.confidence,
        "probability": decision.probability,
        "how": str(decision.how),
        "majority": decision.majority,
    }


def _merge(case: ExportedQuestion) -> dict[str, Any]:
    analysis = case.merge.analysis if case.merge else None
    answer = {"answer": analysis and analysis.answer, "confidence": analysis and analysis.confidence}
    return {**answer, **_call(case, case.merge)}


def _answer(answer: SystemAnswer | None) -> dict[str, Any]:
    if answer is None:
        return {"answer": None, "correct": None, "unscored": NOT_ASKED}
    return {"answer": answer.answer, "correct": answer.correct, "unscored": answer.unscored or None}


_NO_CALL = dict.fromkeys(
    "reasoning eliminated probabilities thought text error "
    "prompt_tokens cached_tokens generated_tokens seconds".split()
) | {"outcome": NOT_ASKED}


def _call(case: ExportedQuestion, call: Call | None) -> dict[str, Any]:
    if call is None:
        return _NO_CALL
    row = call.analysis
    return {
        "outcome": str(row.outcome),
        "reasoning": row.reasoning,
        "eliminated": list(row.eliminated),
        "probabilities": _probabilities(case, row),
        "thought": row.thought,
        "text": row.text,
        "error": row.error,
        "prompt_tokens": row.usage.prompt,
        "cached_tokens": row.usage.cached,
        "generated_tokens": row.usage.generated,
        "seconds": row.seconds,
    }


def _probabilities(case: ExportedQuestion, row: Analysis) -> list[float | None] | None:
    """In the order of the labels."""
    if not row.probabilities:
        return None
    return [row.probabilities.get(label) for label in case.question.labels]
