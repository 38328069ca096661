"""What a run writes holds named settings alone of the environment, and no whole path of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folders import finished_run
from running import write_run_file

from orch_local.demo.settings import RUN_FILE
from orch_local.engines.base import EngineSettings
from orch_local.plan import fingerprint
from orch_local.plan.files import load_plan
from orch_local.plan.places import reduced, restored

MARK = "kHx7Qz"
LOCAL = {"places.json", "run.log", "workers"}
"""Files of a run that are for this machine alone; docs/security.md says so."""

# Keys as a plan has them, and others that a spec needs as they are.
_VALUES = st.recursive(
    st.one_of(
        st.none(), st.integers(), st.text(max_size=9), st.from_regex(r"/[a-z]{1,5}(/[a-z.]{1,5}){0,3}")
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["path", "a/b", "a~b", "spec_content", "0", ""]), inner, max_size=4),
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["config", "agents", "merger", "store", "questions"]), _VALUES))
def test_paths_go_out_of_a_plan_and_come_back(values: dict[str, Any]) -> None:
    short, places = reduced(values)
    assert restored(short, places) == values
    again, none = reduced(short)
    assert (again, none) == (short, {}) or "/" in places.values()


def test_what_a_spec_is_made_of_stays() -> None:
    content = {"agents": [{"spec_content": {"prompt": "/p/q"}, "template": "/t", "model": {"path": "/a/b"}}]}
    short, places = reduced(content)
    assert short == {
        "agents": [{"spec_content": {"prompt": "/p/q"}, "template": "/t", "model": {"path": "b"}}]
    }
    assert places == {"/agents/0/model/path": "/a/b"}


@pytest.mark.parametrize("place", ["/other/name", "relative", 7, None, ["/a/b"]])
def test_a_place_of_another_name_is_not_taken(place: object) -> None:
    assert restored({"store": "b"}, {"/store": place}) == {"store": "b"}


def test_a_run_can_be_read_without_its_places(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    before = load_plan(run.folder)
    run.folder.places.unlink()
    after = load_plan(run.folder)
    assert after.identity() == before.identity()
    assert after.store == before.store
    assert {worker.settings.model_path.is_absolute() for worker in after.workers} == {False}


SECRETS = {
    "VLLM_API_KEY": MARK,
    "VLLM_S3_TOKEN": MARK,
    "VLLM_MY_SECRET_NAME": MARK,
    "VLLM_TUNED_CONFIG_FOLDER": f"/home/{MARK}/tuned",
    "TORCHINDUCTOR_EXTRA": f"user {MARK}",
    "ONEDNN_DEFAULT_FPMATH_MODE": f"https://{MARK}@example.org",
    "HF_TOKEN": MARK,
    "AWS_SECRET_ACCESS_KEY": MARK,
    "https_proxy": f"http://me:{MARK}@proxy.example.org",
}


def test_the_fingerprint_names_settings_and_hides_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SECRETS, "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"}.items():
        monkeypatch.setenv(name, value)
    settings = EngineSettings("vllm", Path(), "cpu", "guidance", "bfloat16", 512)
    facts = fingerprint.fingerprint(settings)
    assert facts["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert facts["MKL_CBWR"] == "COMPATIBLE"
    assert str(facts["VLLM_TUNED_CONFIG_FOLDER"]).startswith("sha256:")
    assert not {"VLLM_API_KEY", "VLLM_S3_TOKEN", "VLLM_MY_SECRET_NAME"} & facts.keys()
    assert MARK not in json.dumps(facts)


def test_a_hidden_setting_still_tells_one_environment_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EngineSettings("vllm", Path(), "cpu", "guidance", "bfloat16", 512)
    seen = set()
    for folder in ("/a/tuned", "/b/tuned"):
        monkeypatch.setenv("VLLM_TUNED_CONFIG_FOLDER", folder)
        seen.add(fingerprint.fingerprint(settings)["VLLM_TUNED_CONFIG_FOLDER"])
    assert len(seen) == 2


def test_a_whole_run_tells_no_secret_and_no_path(tmp_path: Path) -> None:
    """A real run by the command line with the fake engine; then all that can be handed on."""
    home = tmp_path / f"home-{MARK}"
    questions = home / "questions"
    questions.mkdir(parents=True)
    row = {"question": "Which?", "choices": ["a", "b"], "answer": "A"}
    lines = [json.dumps(row | {"question": f"Which of the two, {number}?"}) for number in range(6)]
    (questions / "test.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (home / "table.jsonl").touch()
    models = home / "models"
    models.symlink_to(RUN_FILE.parent / "models", target_is_directory=True)
    run_file = {
        "benchmark": {"name": "jsonl", "path": str(questions)},
        "agents": [{"name": name, "model": str(models / f"{name}.yaml")} for name in ("quant", "verbal")],
        "merge": {"policy": "majority"},
        "engine": {"name": "fake", "table": str(home / "table.jsonl")},
        "answer": {"reasoning_chars": 0, "eliminated": False},
        "slurm": {"account": MARK, "setup": [f"export HF_TOKEN={MARK}"]},
    }
    file = write_run_file(home, run_file)
    run = tmp_path / "out" / "run"
    commands = (["run", str(file), "--out", str(run)], ["report", str(run)], ["replay", str(run)])
    exports = (
        ["export", str(run), "--to", to, "--out", str(tmp_path / "out" / to)]
        for to in ("lm-eval", "datasets")
    )
    environment = {**os.environ, **SECRETS, "HOME": str(home), "USER": MARK}
    for command in (*commands, *exports):
        done = subprocess.run(
            [sys.executable, "-m", "orch_local", *command],
            env=environment,
            capture_output=True,
            text=True,
            cwd=home,
        )
        assert done.returncode == 0, done.stderr
    written = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    shared = [file for file in written if not LOCAL & set(file.relative_to(tmp_path / "out").parts)]
    assert len(shared) > 12
    assert [str(file) for file in shared if MARK in file.read_bytes().decode("latin-1")] == []
    assert [str(file) for file in shared if str(tmp_path) in file.read_bytes().decode("latin-1")] == []
    assert MARK in (run / "places.json").read_text(encoding="utf-8")
