"""The page of `orch-local --help`, made without typer, which takes nine times as long to load as Python."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path

_ABOUT = "Many analyses, one merge: several local models answer, a merge agent decides. Everything offline."
COMMANDS = {
    "run": "Run, or continue, what a run file describes.",
    "plan": "Check a run file, show what it needs and what would run where; loads no model.",
    "demo": "Run four tiny trained models on a synthetic benchmark.",
    "show": "Print one question's whole story, or the timeline of the run.",
    "verify": "Check a run's files, generate rows again in other batches, compare bytes.",
    "replay": "Recompute every decision from the stored rows, without an engine.",
    "diff": "Say what differs between two runs: plans, then answers.",
    "report": "Write report.html (one file, no network), report.md and report.json; print the summary.",
    "compare": "Say which of several runs is best, on the questions that they have in common.",
    "ablate": "Fewer agents, other votes, other merges, a router: over a finished run's panel",
    "export": "Write a finished run in the form of lm-eval, Inspect, NeMo Evaluator or datasets",
    "power": "Say, before a run, how many questions show a difference, and how small a difference shows.",
    "profile": "Measure once how long each agent takes, for the router's latency and cost",
    "calibrate": "Learn a router's state from a finished run over a calibration split; needs no engine.",
    "submit": "Submit a run to SLURM; again: just what is missing (docs/slurm.md).",
    "status": "Show how far a run is.",
    "prepare": "Make the plan of a run, or check the one there is: the first job of `submit`.",
    "shard": "Generate the rows of one shard: an array task of `submit`, or by hand.",
    "score": "Decide and score from the stored rows; loads no model.",
    "doctor": "Say whether this machine can do a run.",
    "fetch": "Download models and benchmarks from the hub; see docs/fetch.md.",
    "models": "List the model configs, or check the folders of some of them.",
    "schema": "Print the JSON schema of run files, for editors.",
    "bundle": "Everything for a machine without a network, in one folder.",
}
"""By name, in the order of the page: of each command's help the first sentence, or as much as fits."""
_LEAST_COLUMNS, _MOST_COLUMNS = 50, 78
"""Of a page, as typer has it."""


def front_page() -> str:
    """The page, in the form that typer would give it."""
    columns = max(min(shutil.get_terminal_size().columns - 2, _MOST_COLUMNS), _LEAST_COLUMNS)
    usage = f"Usage: {_program()} "
    widest = max(map(len, COMMANDS))
    return "\n".join(
        [
            textwrap.fill(
                "[OPTIONS] COMMAND [ARGS]...",
                columns,
                initial_indent=usage,
                subsequent_indent=" " * len(usage),
            ),
            "",
            textwrap.fill(_ABOUT, columns, initial_indent="  ", subsequent_indent="  "),
            "",
            "Options:",
            "  -h, --help  Show this message and exit.",
            "",
            "Commands:",
            *(
                f"  {name:{widest}}  {_shortened(text, columns - 6 - widest)}"
                for name, text in COMMANDS.items()
            ),
            "",
        ]
    )


def _program() -> str:
    """How the user called us."""
    name = Path(sys.argv[0]).name
    return "python -m orch_local" if name == "__main__.py" else name


def _shortened(text: str, most: int) -> str:
    """The first sentence, or as many of its words as fit, with three dots; without a full stop all."""
    words = text.split()
    for count, word in enumerate(words, 1):
        if len(" ".join(words[:count])) > most:
            break
        if word.endswith("."):
            return " ".join(words[:count])
    while len(" ".join(words)) + 3 > most:
        words.pop()
    return " ".join(words) + "..."
