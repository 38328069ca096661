"""The digest of one run under every circumstance that must not matter: ``python benchmarks/digests.py``.

Runs the demo's agents (trained models, real vLLM, the real command line) on some of the demo's questions,
each time with a store of its own, and prints a Markdown table of digests. A second digest of one dtype is a
broken promise, and exit code 1; ``--fast`` promises nothing. About 70 s a line on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from orch_local.demo.benchmark import write_jsonl
from orch_local.demo.settings import RUN_FILE

AGENTS = ("quant", "chrono", "verbal")


class Case(NamedTuple):
    """One way of running the same questions."""

    name: str
    model: Mapping[str, Any]
    engine: Mapping[str, Any]
    same: str
    """Cases with the same word here must come to the same digest."""


CASES = (
    Case("all at once, one worker", {}, {"models_at_once": 1}, "float32"),
    Case("all at once, two workers side by side", {}, {"models_at_once": 2}, "float32"),
    Case("64 at a time", {"max_num_seqs": 64}, {"models_at_once": 2}, "float32"),
    Case("7 at a time", {"max_num_seqs": 7}, {"models_at_once": 2}, "float32"),
    Case("1 at a time", {"max_num_seqs": 1}, {"models_at_once": 2}, "float32"),
    Case("bfloat16, all at once", {"dtype": "bfloat16"}, {"models_at_once": 2}, "bfloat16"),
    Case(
        "bfloat16, 7 at a time", {"dtype": "bfloat16", "max_num_seqs": 7}, {"models_at_once": 2}, "bfloat16"
    ),
    Case(
        "bfloat16, 1 at a time", {"dtype": "bfloat16", "max_num_seqs": 1}, {"models_at_once": 2}, "bfloat16"
    ),
    Case("--fast", {}, {"models_at_once": 1, "fast": True}, "not promised"),
)


def write_inputs(folder: Path, case: Case, questions: int) -> Path:
    """The demo's run file with the models and the engine of this case."""
    source = RUN_FILE.parent
    folder.mkdir(parents=True)
    for name in ("models", "prompts"):
        shutil.copytree(source / name, folder / name)
    for name in (*AGENTS, "merge"):
        file = folder / "models" / f"{name}.yaml"
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | dict(case.model)))
    write_jsonl(folder / "benchmark.jsonl", "test", questions, seed=0)
    values = yaml.safe_load(RUN_FILE.read_text())
    values["engine"] = {"name": "vllm", **case.engine}
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return folder / "run.yaml"


def run(folder: Path, case: Case, questions: int) -> tuple[dict[str, Any], float]:
    """Metrics of one case, and its seconds."""
    run_file = write_inputs(folder, case, questions)
    command = [sys.executable, "-m", "orch_local", "run", str(run_file), "--out", str(folder / "out" / "run")]
    started = time.monotonic()
    subprocess.run([*command, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    return json.loads((folder / "out" / "run" / "metrics.json").read_text()), time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=300)
    options = parser.parse_args()
    print(f"`python benchmarks/digests.py --questions {options.questions}`\n")
    print("| run | digest | level | rows generated again, same | seconds |\n| --- | --- | --- | --- | --- |")
    digests: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, case in enumerate(CASES):
            result, seconds = run(Path(scratch) / str(number), case, options.questions)
            standing = result["standing"]
            digests.setdefault(case.same, set()).add(result["digest"])
            again = f"{standing['same']} of {standing['generated_again']}"
            cells = case.name, f"`{result['digest'][:16]}`", standing["level"], again, f"{seconds:.0f}"
            print(f"| {' | '.join(cells)} |", flush=True)
    broken = [name for name, found in digests.items() if len(found) > 1]
    print(f"\n{'BROKEN: ' + ', '.join(broken) if broken else 'Every promise was kept.'}")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
