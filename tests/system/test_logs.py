"""No question stands in a log, neither as text nor as token ids: not of a run, nor where an engine dies.

Logs are what people send around when they ask for help.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from running import Cli
from secrets_in_logs import SECRET, leaks, secret_ids
from soak import MODELS, write_inputs


def test_a_leak_is_found() -> None:
    assert leaks("a prompt: quokka", [])
    assert leaks("prompt_token_ids=[1, 5, 6, 7, 8, 9]", [5, 6, 7, 8])
    assert leaks("5,6,7,8", [4, 5, 6, 7, 8])
    assert not leaks("5, 6, 7 and 55, 6, 7, 8", [5, 6, 7, 8])


def write_secret_inputs(folder: Path) -> None:
    """One agent, and questions that are nobody's business; one of them cannot be used."""
    write_inputs(folder, 6)
    config = yaml.safe_load((folder / "run.yaml").read_text())
    config |= {"agents": config["agents"][:1], "merge": {"policy": "majority"}}
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    file = folder / "questions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["question"] = f"{SECRET}: {row['question']}"
        row["choices"][0] = f"{SECRET} {row['choices'][0]}"
    rows.append({"question": SECRET, "choices": ["yes"], "answer": "B"})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


DEATHS = ("engine", "killed", "raised")


def test_our_logs_hold_no_question_whatever_the_workers_die_of(cli: Cli, tmp_path: Path) -> None:
    write_secret_inputs(tmp_path)
    rows = [{"fail": how, "once": how, "message": f"so it {how}"} for how in DEATHS]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = cli("run", "run.yaml", "--skip-bad-rows", "--out", "runs/one")
    assert done.code == 0, done.err
    assert all((tmp_path / how).exists() for how in DEATHS)
    log = (tmp_path / "runs" / "one" / "run.log").read_text()
    workers = "".join(each.read_text() for each in tmp_path.rglob("workers/*.log"))
    assert log.count("the worker of quant died (") == 3
    assert "RuntimeError: so it raised" in workers
    assert not leaks(log + workers + done.out + done.err, secret_ids(MODELS / "quant"))
