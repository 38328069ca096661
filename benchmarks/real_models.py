"""Real small models on real questions: what single answers, analyses, votes and the merge agent come to.

    python scripts/real_models.py smollm2-135m qwen-coder-0.5b qwen-coder-1.5b
    python benchmarks/real_models.py --questions DIR --models DIR --out DIR [--only NAME ...]
    python benchmarks/real_models_page.py DIR > docs/real-models.md

The folder of questions holds `arc/test.jsonl` (ARC-Challenge, in the columns of `allenai/ai2_arc`) and
`gsm8k/test.jsonl` (in the columns of `openai/gsm8k`); neither is part of this repository. Prompts were tried
on a third of ARC's test questions (`is_held_out` says which); the study asks from the other two thirds.
Each run of the study is made in turn, and one that was interrupted goes on: on two CPU cores the whole takes
hours.
`letters` is no run: it scores the letters of ARC's choices in one forward pass a question, which is the
baseline for single answers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from orch_local.benchmarks.loading import load_questions
from orch_local.config.blocks import BenchmarkConfig
from orch_local.records import Question

SMALL, MIDDLE, LARGE = "smollm2-135m", "qwen-coder-0.5b", "qwen-coder-1.5b"
ENGINE = {"name": "vllm", "device": "cpu", "models_at_once": 1}
ARC = {"name": "arc", "split": "test", "shuffle_seed": 0, "skip_bad_rows": True, "limit": 200}
GSM8K = {"name": "gsm8k", "split": "test", "shuffle_seed": 0, "skip_bad_rows": True, "few_shot": 2}
LETTER_REQUEST = "Answer with the letter of the right choice and nothing else."
VOTE = {"policy": "majority"}
MERGE = {"policy": "agent", "model": MIDDLE, "answer": {"reasoning_chars": 600, "eliminated": False}}


def analysing(name: str, model: str, role: str) -> dict[str, Any]:
    return {"name": name, "model": model, "role": role}


def single_shot(name: str, model: str) -> dict[str, Any]:
    return {"name": name, "model": model, "mode": "direct"}


SINGLES = [single_shot("smol-single", SMALL), single_shot("coder-single", MIDDLE)]
STUDY: dict[str, dict[str, Any]] = {
    "arc-single": {
        "benchmark": {**ARC, "path": "arc-held-out"},
        "agents": SINGLES,
        "merge": VOTE,
    },
    "arc-reversed": {
        "benchmark": {**ARC, "path": "arc-reversed"},
        "agents": SINGLES,
        "merge": VOTE,
    },
    "arc-panel": {
        "benchmark": {**ARC, "path": "arc-held-out"},
        "agents": [
            analysing("smol", SMALL, "solve"),
            analysing("coder", MIDDLE, "solve"),
            analysing("eliminator", MIDDLE, "eliminate"),
        ],
        "merge": MERGE,
        "answer": {"reasoning_chars": 600},
    },
    "gsm8k-single": {
        "benchmark": {**GSM8K, "path": "gsm8k", "limit": 100},
        "agents": SINGLES,
        "merge": VOTE,
    },
    "gsm8k-panel": {
        "benchmark": {**GSM8K, "path": "gsm8k", "limit": 100},
        "agents": [
            analysing("smol", SMALL, "solve"),
            analysing("coder", MIDDLE, "solve"),
            analysing("verifier", MIDDLE, "verify"),
        ],
        "merge": MERGE,
        "answer": {"reasoning_chars": 1200},
    },
    "arc-large": {
        "benchmark": {**ARC, "path": "arc-held-out", "limit": 100},
        "agents": [single_shot("large-single", LARGE), analysing("large", LARGE, "solve")],
        "merge": VOTE,
        "answer": {"reasoning_chars": 600},
    },
}
"""The runs by name. Models are named by their folders; the path of the questions is below their folder."""


def write_run_files(questions: Path, out: Path, models: Path) -> None:
    """Write the run files and model configs into ``out``."""
    (out / "model_configs").mkdir(parents=True, exist_ok=True)
    for name in (SMALL, MIDDLE, LARGE):
        config = {"name": name, "path": str(models / name), "max_model_len": 4096, "max_num_seqs": 32}
        (out / "model_configs" / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for name, run in STUDY.items():
        benchmark = {**run["benchmark"], "path": str(questions / run["benchmark"]["path"])}
        text = yaml.safe_dump({**run, "benchmark": benchmark, "engine": ENGINE}, sort_keys=False)
        (out / f"{name}.yaml").write_text(text, encoding="utf-8")


def write_questions(questions: Path) -> None:
    """Write ARC's held-out questions, and those that are asked with their choices in the opposite order."""
    lines = (questions / "arc" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if is_held_out(row["id"])]
    _write(questions / "arc-held-out", rows)
    texts = {question.text for question in asked_of_arc(questions)}
    _write(questions / "arc-reversed", [_reversed(row) for row in rows if row["question"].strip() in texts])


def _write(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def asked_of_arc(questions: Path) -> Sequence[Question]:
    """The questions of ARC that the study asks."""
    return load_questions(
        BenchmarkConfig.model_validate({**ARC, "path": questions / "arc-held-out"})
    ).questions


def is_held_out(arc_id: str) -> bool:
    """Whether a question of ARC's test split was kept from the work on prompts."""
    return int(hashlib.sha256(arc_id.encode()).hexdigest(), 16) % 3 != 0


def _reversed(row: dict[str, Any]) -> dict[str, Any]:
    labels, texts = row["choices"]["label"], row["choices"]["text"]
    answer = labels[::-1][labels.index(row["answerKey"])]
    return {**row, "answerKey": answer, "choices": {"label": labels, "text": texts[::-1]}}


def score_letters(questions: Path, out: Path, models: Path) -> None:
    """Write the letter that each model finds most probable after a plain chat prompt, by question id."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked = asked_of_arc(questions)
    (out / "letters").mkdir(exist_ok=True)
    torch.set_num_threads(1)
    for name in (SMALL, MIDDLE):
        tokenizer = AutoTokenizer.from_pretrained(models / name)
        model = AutoModelForCausalLM.from_pretrained(models / name, dtype=torch.float32).eval()
        found = {}
        for question in asked:
            lines = [
                f"{label}) {text}" for label, text in zip(question.labels, question.choices, strict=True)
            ]
            prompt = [question.text, "", *lines, "", LETTER_REQUEST]
            chat = [{"role": "user", "content": "\n".join(prompt)}]
            text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
            with torch.inference_mode():
                scores = model(ids, logits_to_keep=1).logits[0, -1]
            letters = [tokenizer(label, add_special_tokens=False).input_ids[-1] for label in question.labels]
            found[question.id] = question.labels[int(scores[letters].argmax())]
        (out / "letters" / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--questions", type=Path, default=Path("questions"))
    parser.add_argument("--models", type=Path, default=Path("models"), help="made by scripts/real_models.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=[*STUDY, "letters"])
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    write_run_files(arguments.questions.resolve(), out, arguments.models.resolve())
    write_questions(arguments.questions)
    for name in arguments.only or [*STUDY, "letters"]:
        if name == "letters":
            score_letters(arguments.questions, out, arguments.models)
            continue
        command = [sys.executable, "-m", "orch_local", "run", f"{name}.yaml", "--out", f"runs/{name}"]
        code = subprocess.run(command, cwd=out, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
