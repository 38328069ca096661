"""The embedded default: a synthetic benchmark and four tiny trained models, so that a run needs no download.

`benchmark.py` makes the questions, `scripts/train_demo.py` made the models; `demo.yaml` is the run file.
"""

from __future__ import annotations

from pathlib import Path

from orch_local.demo.benchmark import write_jsonl
from orch_local.store.store import atomic_write

RUN_FILE = Path(__file__).parent / "demo.yaml"
QUESTIONS = 1000

EXPLANATION = (
    "Three tiny language models (0.7 million parameters each, trained for this demo) answer the same "
    "questions through real constrained decoding. Each was taught three kinds of question and guesses at "
    "the rest. A fourth, the merge agent, reads their analyses without their names and decides.",
    "If the merge works, ORCH stands well above every single agent and above the majority vote, close to the "
    "oracle, which always picks an agent that is right. These agents know what they know: each is confident "
    "at home only, so a vote weighted by confidence would do as well here. Larger models are less honest.",
)
"""Printed before the demo, a paragraph each."""


def demo_overrides(folder: Path, limit: int, engine: str) -> dict[str, object]:
    """Write the held-out questions into ``folder`` and give the settings of the run that depend on it.

    Raises
    ------
    StoreError
        If the folder cannot be written.
    """
    questions = folder / "benchmark.jsonl"
    with atomic_write(questions) as temporary:
        write_jsonl(temporary, "test", QUESTIONS, seed=0)
    return {"benchmark.path": str(questions), "benchmark.limit": min(limit, QUESTIONS), "engine.name": engine}
