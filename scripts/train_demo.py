"""Train the four tiny models of the embedded demo from nothing, and score them.

Takes about 18 CPU-minutes (quant 5.7, chrono 3.4, verbal 4.8, merge 3.8 on an AMD EPYC server with AVX2),
two models at a time: 10 to 15 minutes on two idle cores, measured 25 on two busy ones. The committed
weights are what the default seed gives; a second run on the same machine gave them again bit for bit.
Another processor may round differently: then expect the same accuracy, not the same bytes.

    python scripts/train_demo.py --out runs/demo            # all four
    python scripts/train_demo.py --out runs/demo --only quant

The specialists are trained on the benchmark's train split.  They then answer questions of the dev split, and
the merge model learns from those panels.  The test split is scored once, at the very end.
"""

# ruff: noqa: E402 (the paths and settings come before the imports that need them)

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy
import tokenizers
import torch
import transformers
from demo_training import calibration, merging, specialists
from demo_training.merging import Panel, finish_merge, merge_answers, start_merge
from demo_training.networks import ARCHITECTURES, build_network
from demo_training.rollout import generate, replies_of
from demo_training.scoring import print_scores, scores
from demo_training.specialists import train_specialist
from demo_training.texts import SPECIALISTS, question_block
from demo_training.tokens import build_tokenizer, save_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from orch_local.demo.benchmark import Problem, problems

WATCHED, MERGE_QUESTIONS, TEST_QUESTIONS = 540, 1260, 1350


def prepare(seed: int) -> None:
    """One thread and a fixed seed, so that a run can be repeated on the same machine."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.disable_progress_bar()


def save(model: PreTrainedModel, folder: Path) -> None:
    """Save the weights in bfloat16, with the tokenizer and the generation settings."""
    tokenizer = build_tokenizer()
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def load(folder: Path) -> PreTrainedModel:
    """A saved model in float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def make_specialist(role: str, out: Path, seed: int) -> float:
    """Train, calibrate and save one specialist; the CPU seconds it took."""
    started = time.process_time()
    prepare(seed)
    tokenizer = build_tokenizer()
    model = build_network(role, tokenizer)
    train_specialist(role, model, tokenizer, seed)
    save(model, out / role)
    model = load(out / role)  # calibrate what bfloat16 has left of it
    calibration.calibrate(role, model, tokenizer, seed)
    save(model, out / role)
    return time.process_time() - started


def watched_questions() -> list[Problem]:
    """Questions of the dev split that only watch the merge model."""
    return list(problems("dev", WATCHED, seed=2))


def merge_questions() -> list[Problem]:
    """Other questions of the dev split, which the merge model learns from."""
    reserved = {problem.key for problem in watched_questions()}
    return [problem for problem in problems("dev", MERGE_QUESTIONS, seed=3) if problem.key not in reserved]


def answer(role: str, out: Path, asked: list[Problem]) -> list[str]:
    """The saved specialist's answers to some questions."""
    prepare(0)
    tokenizer = AutoTokenizer.from_pretrained(out / role)
    return generate(load(out / role), tokenizer, [question_block(problem) for problem in asked])


def panels_of(pool: ProcessPoolExecutor, out: Path, asked: list[Problem]) -> list[Panel]:
    """The answers of all specialists to some questions."""
    texts = list(pool.map(answer, SPECIALISTS, [out] * 3, [asked] * 3))
    columns = [replies_of(answers, asked) for answers in texts]
    return [
        Panel(problem, replies) for problem, replies in zip(asked, zip(*columns, strict=True), strict=True)
    ]


def make_merge_start(out: Path, seed: int) -> float:
    """Train the merge model as far as it needs no specialist; the CPU seconds it took."""
    started = time.process_time()
    prepare(seed)
    tokenizer = build_tokenizer()
    model = build_network("merge", tokenizer)
    start_merge(model, tokenizer, seed)
    save(model, out / "merge")
    return time.process_time() - started


def make_merge(pool: ProcessPoolExecutor, out: Path, seed: int) -> None:
    """Train the merge model to its end, on panels of the saved specialists."""
    prepare(seed)
    tokenizer = build_tokenizer()
    model = load(out / "merge")
    asked, watched = merge_questions(), watched_questions()
    panels = panels_of(pool, out, asked + watched)
    finish_merge(model, tokenizer, panels[: len(asked)], panels[len(asked) : len(asked) + 180], seed)
    save(model, out / "merge")


def make(role: str, out: Path, seed: int) -> float:
    """The part of a model's training that needs no other model; the CPU seconds it took."""
    return make_merge_start(out, seed) if role == "merge" else make_specialist(role, out, seed)


def score(pool: ProcessPoolExecutor, out: Path, split: str) -> dict[str, object]:
    """Score the four saved models on a split."""
    asked = watched_questions() if split == "dev" else list(problems("test", TEST_QUESTIONS))
    panels = panels_of(pool, out, asked)
    merged = merge_answers(load(out / "merge"), AutoTokenizer.from_pretrained(out / "merge"), panels)
    result = scores(panels, merged)
    print_scores(split, result)
    return result


def settings(seed: int) -> dict[str, object]:
    """What a run depends on."""
    return {
        "seed": seed,
        "architectures": ARCHITECTURES,
        "steps": {
            "look_up": specialists.LOOKUP_STEPS,
            "specialist": specialists.STEPS,
            "confidence": calibration.STEPS,
            "merge_imagined": merging.IMAGINED_STEPS,
            "merge": merging.STEPS,
        },
        "batch": {"specialist": specialists.BATCH, "merge": merging.BATCH},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "numpy": numpy.__version__,
        },
    }


def main() -> None:
    """Read the options, train what was asked for, score it and write training.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the four models and training.json"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only", choices=sorted(ARCHITECTURES), help="train this model alone (merge needs the others)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes at the same time, one thread each")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    started = time.time()
    record = settings(options.seed)
    roles = [role for role in ARCHITECTURES if options.only in (None, role)]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        count = len(roles)
        seconds = pool.map(make, roles, [out] * count, [options.seed] * count)
        cpu = dict(zip(roles, seconds, strict=True))
        if options.only in (None, "merge"):
            begun = time.process_time()
            make_merge(pool, out, options.seed)
            cpu["merge"] += time.process_time() - begun
            record["seconds"] = round(time.time() - started)
            record["dev"] = score(pool, out, "dev")
            record["test"] = score(pool, out, "test")
    record["cpu_seconds"] = {role: round(seconds) for role, seconds in cpu.items()}
    print(f"\n{round(time.time() - started)} seconds, CPU seconds by model: {record['cpu_seconds']}")
    if options.only is None:
        (out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
