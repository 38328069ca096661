"""The sample panel of a plan: it looks like the rows that a run would write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from running import Cli, write_run_file

from orch_local.config.run_files import load_run
from orch_local.run.forecast import forecast
from orch_local.run.planning import plan_run


def sample_panel(run_values: dict[str, Any], tmp_path: Path) -> list[dict[str, Any]]:
    """The lines of the panel in the first prompt of the merge agent."""
    planned = plan_run(load_run(write_run_file(tmp_path, run_values)), tmp_path / "store")
    prompt = forecast(planned).agents[-1].first_prompt
    return [json.loads(line) for line in prompt.splitlines() if line.startswith('{"agent":')]


@pytest.mark.parametrize("numeric", [False, True])
def test_a_sample_analysis_has_the_fields_of_its_form(
    run_values: dict[str, Any], tmp_path: Path, numeric: bool
) -> None:
    if numeric:
        row = {"question": "Sum?", "answer": 42}
        (tmp_path / "questions.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    run_values["agents"][0]["answer"] = {"reasoning_chars": 30, "eliminated": True}
    run_values["agents"][1]["answer"] = {"reasoning_chars": 0, "eliminated": False, "confidence": True}
    full, short, direct = sample_panel(run_values, tmp_path)
    eliminated = set() if numeric else {"eliminated"}
    assert set(full) == {"agent", "reasoning", "answer", "confidence"} | eliminated
    assert set(short) == {"agent", "answer", "confidence"}
    assert set(direct) == {"agent", "answer"}
    assert full["answer"] not in full.get("eliminated", [])


def test_per_category_can_be_given_on_the_command_line(
    run_values: dict[str, Any], tmp_path: Path, cli: Cli
) -> None:
    rows = [{"question": f"Q{n}?", "answer": n, "category": f"c{n % 3}"} for n in range(9)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    file = write_run_file(tmp_path, run_values)
    assert cli("plan", file, "--per-category", 2).out.startswith("6 questions of jsonl")
    assert cli("plan", file, "--per-category", 0).code == 2
