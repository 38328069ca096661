"""Two workers side by side against one, on a CPU.

    python benchmarks/workers.py [--questions 300] [--rounds 3]

Runs the demo's three agents and its merge agent (trained models, real vLLM, the real command line), each time
with a store of its own: in each round once with one worker at a time and once with two, in turns. Prints the
wall seconds as a Markdown table, with what the workers spent on loading and on generating, and their ratio.
All digests must be equal; else exit code 1.

Four workers with one after another are four turns; with two at once they are three, since the merge agent
comes after the others: without any other cost the ratio would be 4 / 3.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from digests import Case, run

CASES = (
    Case("one", {}, {"models_at_once": 1}, "float32"),
    Case("two", {}, {"models_at_once": 2}, "float32"),
)


class Measured(NamedTuple):
    """One run of one case."""

    wall_s: float
    load_s: float
    """Of all workers together, as is the next."""
    generate_s: float
    digest: str
    busy: float
    """Processes that were running when it began, by the average of the last minute."""


def measure(folder: Path, case: Case, questions: int) -> Measured:
    """Run a case once."""
    busy = os.getloadavg()[0]
    result, seconds = run(folder, case, questions)
    costs: list[dict[str, Any]] = list(result["cost"].values())
    load_s, generate_s = (sum(cost[name] for cost in costs) for name in ("load_s", "generate_s"))
    return Measured(seconds, load_s, generate_s, result["digest"], busy)


def summary(of_one: list[float], of_two: list[float]) -> str:
    """Median of the rounds' ratios, and their range."""
    ratios = [one / two for one, two in zip(of_one, of_two, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    """Measure, print the table, and compare the digests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"`python benchmarks/workers.py --questions {options.questions} --rounds {options.rounds}`\n")
    print("| round | workers at once | wall s | loading s | generating s | load average before | digest |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    found: dict[str, list[Measured]] = {case.name: [] for case in CASES}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(options.rounds):
            # The order changes, so that neither case always comes second.
            for case in CASES if number % 2 == 0 else CASES[::-1]:
                one = measure(Path(scratch) / f"{number}-{case.name}", case, options.questions)
                found[case.name].append(one)
                seconds = (f"{value:.1f}" for value in (one.wall_s, one.load_s, one.generate_s, one.busy))
                cells = str(number + 1), case.name, *seconds, f"`{one.digest[:16]}`"
                print(f"| {' | '.join(cells)} |", flush=True)
    one, two = found["one"], found["two"]
    print("\nOne worker at a time against two, median of the rounds and range:\n")
    print(f"- wall seconds: {summary([m.wall_s for m in one], [m.wall_s for m in two])}")
    print(f"- loading, all workers: {summary([m.load_s for m in one], [m.load_s for m in two])}")
    print(f"- generating, all workers: {summary([m.generate_s for m in one], [m.generate_s for m in two])}")
    digests = {m.digest for m in (*one, *two)}
    print(f"\n{'BROKEN: the digests differ.' if len(digests) > 1 else 'All digests are equal.'}")
    sys.exit(len(digests) > 1)


if __name__ == "__main__":
    main()
