"""The level of a run is never more than was shown of every one of its agents."""

from __future__ import annotations

import itertools
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from two_runs import agent, plan

from orch_local.errors import StoreError
from orch_local.plan.files import load_plan, write_plan
from orch_local.plan.plans import Plan
from orch_local.records import Level, LevelAssessment
from orch_local.results import levels
from orch_local.results.levels import assess, record_level
from orch_local.store.evidence import Evidence, keep_evidence
from orch_local.store.store import RunFolder, Store, read_json, write_json

MATCHED = Evidence("worker", 8, 8, 8, "a", ())
ALSO_MATCHED = Evidence("verify", 32, 32, 32, "b", ())
ON_GPU = Evidence("worker", 16, 16, 16, "e", (), head_size=128, attention="FLASH_ATTN")
DIFFERED = Evidence("verify", 8, 7, 8, "c", ("k",))
NONE_CAME = Evidence("verify", 2, 0, 0, "d", ("k", "l"))
FOUND = ((), (MATCHED,), (MATCHED, ALSO_MATCHED), (MATCHED, DIFFERED), (NONE_CAME,))


@dataclass(frozen=True)
class Case:
    """How one agent stands."""

    invariant: bool
    evidence: tuple[Evidence, ...]

    @property
    def level(self) -> Level:
        """What this agent alone allows, by counting."""
        if not self.evidence or any(one.same < one.rows for one in self.evidence):
            return Level.RULES
        return Level.BITWISE if self.invariant else Level.VERIFIED


CASES = [Case(invariant, evidence) for invariant in (True, False) for evidence in FOUND]
STRENGTH = {Level.RULES: 0, Level.VERIFIED: 1, Level.BITWISE: 2}


def made(root: Path, cases: dict[str, Case]) -> Plan:
    """A plan whose agents stand so."""
    store = Store(root / "store")
    agents = []
    for name, case in cases.items():
        kind: Any = "merge" if name == "merge" else "analysis"
        agents.append(agent(name, {"environment": {"batch_invariant": case.invariant}}, kind))
        for one in case.evidence:
            keep_evidence(store, agents[-1].spec, one)
    *members, last = agents
    merger = last if last.kind == "merge" else None
    found = plan(members if merger else agents, merger)
    return found.model_copy(update={"store": store.root})


@pytest.mark.parametrize(("one", "other"), list(itertools.product(CASES, repeat=2)))
def test_the_weakest_decides(tmp_path: Path, one: Case, other: Case) -> None:
    assessment = assess(made(tmp_path, {"quant": one, "merge": other}))
    assert assessment.level == min(one.level, other.level, key=lambda level: STRENGTH[level])
    every = (*one.evidence, *other.evidence)
    assert assessment.generated_again == sum(each.rows for each in every)
    assert assessment.same == sum(each.same for each in every)
    # A reason for each agent that keeps the level down, and for no other.
    told = [reason.split(":")[0] for reason in assessment.reasons]
    expected = [name for name, case in (("quant", one), ("merge", other)) if case.level is not Level.BITWISE]
    assert told == expected


@settings(max_examples=25, deadline=None)
@given(st.permutations(["a", "b", "c", "d"]), st.lists(st.sampled_from(CASES), min_size=4, max_size=4))
def test_the_order_of_agents_does_not_matter(order: list[str], cases: list[Case]) -> None:
    by_name = dict(zip("abcd", cases, strict=True))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first = assess(made(Path(one), by_name))
        second = assess(made(Path(other), {name: by_name[name] for name in order}))
    assert (first.level, first.generated_again, first.same) == (
        second.level,
        second.generated_again,
        second.same,
    )
    assert sorted(first.reasons) == sorted(second.reasons)


def test_what_is_said_of_each_agent(tmp_path: Path) -> None:
    cases = {
        "quant": Case(True, (MATCHED, DIFFERED)),
        "chrono": Case(True, ()),
        "verbal": Case(False, (MATCHED,)),
        "merge": Case(True, (MATCHED,)),
    }
    assert assess(made(tmp_path, cases)).reasons == (
        "quant: 1 of 16 rows generated again differed",
        "chrono: no row was generated again (`orch-local verify` does that)",
        "verbal: its engine is not set up to be batch-invariant",
    )


@pytest.mark.parametrize(
    ("facts", "declared"),
    [
        ({"device": "cuda", "vllm": "0.32.0"}, True),
        ({"device": "cpu", "vllm": "0.32.0"}, False),
        ({"device": "cuda", "transformers": "5.19.0"}, False),
    ],
)
def test_what_vllm_declares_on_a_gpu_is_called_so_until_rows_are_generated_again(
    tmp_path: Path, facts: dict[str, str], declared: bool
) -> None:
    one = agent("quant", {"environment": {"batch_invariant": True, **facts}})
    before = plan([one], None).model_copy(update={"store": tmp_path / "store"})
    assessment = assess(before)
    assert (assessment.level, assessment.declared) == (Level.RULES, declared)
    assert ("declared by vLLM, not measured" in assessment.reasons[0]) is declared
    keep_evidence(Store(before.store), one.spec, ON_GPU)
    after = assess(before)
    assert (after.level, after.reasons, after.declared) == (Level.BITWISE, (), declared)


def recorded(folder: RunFolder) -> LevelAssessment:
    """What ``level.json`` says."""
    values = read_json(folder.level)
    return LevelAssessment(**{**values, "level": Level(values["level"]), "reasons": tuple(values["reasons"])})


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[6], CASES[3]])
def test_it_is_recorded_in_a_file_of_its_own(tmp_path: Path, case: Case) -> None:
    folder, before = RunFolder(tmp_path / "run"), made(tmp_path, {"quant": case})
    write_plan(folder, before)
    frozen = folder.plan.read_bytes()
    assessment = record_level(folder, load_plan(folder))
    assert assessment.level == case.level
    assert recorded(folder) == assessment == assess(before)
    # Recorded once more after a mismatch, it is lower.
    keep_evidence(Store(before.store), before.agents[0].spec, NONE_CAME)
    assert record_level(folder, before).level is Level.RULES
    assert recorded(folder) == assess(before) != assessment
    assert folder.plan.read_bytes() == frozen


@pytest.mark.parametrize("whole", [(), (MATCHED, ALSO_MATCHED)])
def test_damaged_evidence_is_level_rules_and_named(tmp_path: Path, whole: tuple[Evidence, ...]) -> None:
    folder, before = RunFolder(tmp_path / "run"), made(tmp_path, {"quant": Case(True, (DIFFERED,))})
    write_plan(folder, before)
    store, spec = Store(before.store), before.agents[0].spec
    (file,) = store.evidence(spec).iterdir()
    file.write_text(file.read_text().replace('"same": 7', '"same": 8'))
    for one in whole:
        keep_evidence(store, spec, one)
    assessment = record_level(folder, before)
    assert assessment.level is Level.RULES
    assert assessment.reasons == (f"quant: evidence is damaged, delete {file} and verify again",)
    # What is whole is counted, what is damaged is not.
    assert assessment.generated_again == assessment.same == sum(one.rows for one in whole)
    assert recorded(folder) == assessment
    # As told: with the file gone, the level is what the rest shows.
    file.unlink()
    assert record_level(folder, before).level == Case(True, whole).level


def test_metrics_state_the_same_level_and_keep_their_numbers(tmp_path: Path) -> None:
    folder, before = RunFolder(tmp_path / "run"), made(tmp_path, {"quant": CASES[1]})
    write_plan(folder, before)
    write_json(folder.metrics, {"digest": "d" * 64, "standing": {"level": "rules"}, "questions": 3})
    assessment = record_level(folder, before)
    expected = {"digest": "d" * 64, "standing": json.loads(json.dumps(asdict(assessment))), "questions": 3}
    assert read_json(folder.metrics) == expected
    assert list(read_json(folder.metrics)) == list(expected)
    assert expected["standing"]["level"] == "bitwise"
    keep_evidence(Store(before.store), before.agents[0].spec, NONE_CAME)
    record_level(folder, before)
    assert read_json(folder.metrics)["standing"]["level"] == "rules"


@pytest.mark.parametrize("text", [None, "[1]", "null", "{", ""])
def test_metrics_that_are_no_object_stay_as_they_are(tmp_path: Path, text: str | None) -> None:
    folder, before = RunFolder(tmp_path / "run"), made(tmp_path, {"quant": CASES[1]})
    write_plan(folder, before)
    if text is not None:
        folder.metrics.write_text(text)
    assessment = record_level(folder, before)
    assert recorded(folder) == assessment == assess(before)
    assert folder.metrics.exists() == (text is not None)
    assert text is None or folder.metrics.read_text() == text


@pytest.mark.parametrize("refused", ["write_json"])
def test_an_archive_that_cannot_be_written_has_its_level_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def refuse(*arguments: object) -> None:
        raise StoreError("cannot be written: Read-only file system")

    folder, before = RunFolder(tmp_path / "run"), made(tmp_path, {"quant": CASES[1]})
    write_plan(folder, before)
    write_json(folder.metrics, {"digest": "d" * 64})
    monkeypatch.setattr(levels, refused, refuse)
    assert record_level(folder, before) == assess(before)
    assert read_json(folder.metrics) == {"digest": "d" * 64}
