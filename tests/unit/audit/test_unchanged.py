"""Machine and model files that are no longer those of a plan are told, one by one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from run_folders import worker

from orch_local.errors import EngineError, ModelError
from orch_local.plan import unchanged
from orch_local.plan.fingerprint import Fact
from orch_local.plan.plans import AgentPlan
from orch_local.plan.unchanged import changed_files, check_unchanged, environment_changes


@pytest.fixture
def here() -> dict[str, Fact]:
    """What this machine is said to be."""
    return {"batch_invariant": True}


@pytest.fixture
def agent(tmp_path: Path, here: dict[str, Fact], monkeypatch: pytest.MonkeyPatch) -> AgentPlan:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(unchanged, "fingerprint", lambda settings: here)
    return worker(tmp_path, "quant")


def test_what_is_as_planned_passes(agent: AgentPlan) -> None:
    assert environment_changes(agent) == []
    assert changed_files(agent) == changed_files(agent, fresh=True) == []
    check_unchanged(agent)


def test_the_real_environment_is_asked(agent: AgentPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert {"torch", "cpu", "device"} <= {one.field for one in environment_changes(agent)}


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("batch_invariant", False, "batch_invariant: True -> False"),
        ("torch", "2.14.0", "torch: (absent) -> 2.14.0"),
    ],
)
def test_one_field_of_the_environment(
    agent: AgentPlan, here: dict[str, Fact], field: str, value: Fact, told: str
) -> None:
    here[field] = value
    assert [str(one) for one in environment_changes(agent)] == [told]
    with pytest.raises(EngineError, match=re.escape(told)) as caught:
        check_unchanged(agent)
    assert "--accept-new-environment" in caught.value.hint


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_one_file_that_is_another(agent: AgentPlan, name: str, fresh: bool) -> None:
    folder = agent.settings.model_path
    (folder / name).write_text('{"a": 1}')
    assert changed_files(agent, fresh=fresh) == [name]
    with pytest.raises(EngineError, match=f"{name} is not the file that was planned with") as caught:
        check_unchanged(agent)
    assert caught.value.where == str(folder)


def test_a_model_that_cannot_be_used_at_all(agent: AgentPlan) -> None:
    (agent.settings.model_path / "model.safetensors").unlink()
    with pytest.raises(ModelError):
        changed_files(agent)
