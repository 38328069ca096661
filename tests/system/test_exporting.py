"""Exports are read back by the tools they are for: unscored is never wrong, and hostile text harmless.

Those of the tools that cannot share the environment of the tests have one of their own, at ORCH_READERS:
`scripts/setup_readers.sh` makes it. Without it their tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import routed_runs
import run_folders
import two_runs
from hypothesis import given
from hypothesis import strategies as st
from paths import SUPPORT
from run_folders import Run, analysis
from running import Silent, execute

from orch_local.errors import InputError, StoreError
from orch_local.export.cases import FinishedRun, clean
from orch_local.export.folders import file_names, json_line, new_folder
from orch_local.export.formats import export
from orch_local.plan.plans import AgentPlan
from orch_local.prompts.data import continued
from orch_local.records import Analysis, Outcome, Question, Usage, question_id
from orch_local.router.routes import read_routes
from orch_local.store.store import RunFolder

HERE = SUPPORT
READERS = os.environ.get("ORCH_READERS", "")
HOSTILE = (
    "nul \0, half \ud800, line\u2028end, \x85, <script>alert(1)</script>, \u202e, 'a'; [red]x[/red] {{ 7 }}"
)
CLEANED = HOSTILE.replace("\ud800", "\ufffd")
TEMPLATE = "[system]\nYou solve.\n[user]\n{{ question }}\n{{ choices }}\n"

needs_readers = pytest.mark.skipif(
    not READERS, reason="no other tools at ORCH_READERS (scripts/setup_readers.sh makes them)"
)


def asked(number: int) -> Question:
    """Five questions: the second hostile, the last without gold."""
    text = f"What is {number} + 4?" + (HOSTILE if number == 1 else "")
    choices = (str(number + 3), str(number + 4), HOSTILE if number == 1 else "none of these")
    category = HOSTILE if number == 1 else "sums"
    return Question(question_id(text, choices), text, choices, "B" if number < 4 else None, category)


def agent(*args: Any, **more: Any) -> AgentPlan:
    """An agent whose prompt shows all there is."""
    made = two_runs.agent(*args, **more)
    template = TEMPLATE + ("{{ panel }}\n" if made.kind == "merge" else "")
    return made.model_copy(update={"template": template})


def said(one: Question, letter: str) -> Analysis:
    """An analysis of hostile text; ``-`` did not parse."""
    if letter == "-":
        return Analysis(one.key, Outcome.INVALID, text=HOSTILE, error="no JSON", usage=Usage(9, 0, 5))
    text = json.dumps({"reasoning": HOSTILE, "answer": letter}, ensure_ascii=False)
    return analysis(one.key, letter, reasoning=HOSTILE, text=text, usage=Usage(10, 4, 7))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """quant: right, wrong, right, unusable, no gold; chrono: right, right, not asked, unusable, no gold."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folders, "question", asked)
        patch.setattr(run_folders, "agent", agent)
        made = Run.begin(tmp_path_factory.mktemp("exported"), 5)
        for name, letters in {"quant": "BAB-A", "chrono": "BBA-A"}.items():
            made.add(name, *(said(one, letter) for one, letter in zip(made.questions, letters, strict=True)))
        made.merge()
        made.decide()
        _unask(made.folder.decisions, 2, "chrono")
        yield made


def _unask(file: Path, number: int, name: str) -> None:
    """Make a decision that of a router that did not ask an agent; the majority of the others decided."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    for field in ("answers", "confidences", "outcomes", "probabilities"):
        del lines[number][field][name]
    lines[number] |= {"how": "majority", "answer": "B", "majority": "B", "confidence": None}
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def read(kind: str, folder: Path, *more: str) -> Any:
    """What a tool reads, in its own environment."""
    command = [f"{READERS}/bin/python", str(HERE / "read_exports.py"), kind, str(folder), *more]
    home = {"HOME": str(folder.parent), "NEMO_EVALUATOR_LOG_LEVEL": "ERROR"}
    done = subprocess.run(command, env={**os.environ, **home}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_case_holds_all_that_is_known_of_its_question(run: Run) -> None:
    first, hostile, routed, unusable, no_gold = FinishedRun(run.folder).cases()
    assert [turn.role for turn in first.panel["quant"].prompt] == ["system", "user"]
    assert first.panel["quant"].prompt[1].content == "What is 0 + 4?\nA) 3\nB) 4\nC) none of these"
    assert first.merge and '"reasoning":"nul' in first.merge.prompt[1].content
    assert first.orch().usage == Usage(20, 8, 14)  # of the panel; the merge agent's rows have none here
    assert hostile.question.text.endswith(CLEANED)
    assert list(routed.panel) == ["quant"] and routed.agent("chrono") is None and routed.merge is None
    quant = unusable.agent("quant")
    assert quant and (quant.correct, quant.unscored) == (None, "invalid")
    assert (unusable.orch().correct, unusable.orch().unscored) == (None, "0 of 2 analyses usable, quorum 1")
    assert (no_gold.orch().correct, no_gold.orch().unscored, no_gold.orch().answer) == (None, "no_gold", "A")


def test_of_a_routed_run_only_those_asked_are_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(run_folders, "agent", agent)
    routed = routed_runs.routed_run(tmp_path, 20, mode="online", wave=10, warm_up=4, category_min=1)
    routed_runs.Table(routed, monkeypatch)
    execute(routed.folder, Silent())
    routes = read_routes(routed.folder, routed.plan)
    cases = list(FinishedRun(routed.folder).cases())
    names = [[run_folders.NAMES[place] for place in routes.of(one.key)] for one in routed.questions]
    assert [list(case.panel) for case in cases] == names and all(len(one) == 1 for one in names)
    assert all(case.merge and case.merge.analysis.answer == case.decision.answer for case in cases)
    export(routed.folder, "lm-eval", tmp_path / "out")
    for name in run_folders.NAMES:
        (file,) = (tmp_path / "out" / name).glob("samples_*.jsonl")
        assert len(file.read_text(encoding="utf-8").splitlines()) == sum(name in one for one in names)


def test_datasets_opens_the_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    export(run.folder, "datasets", tmp_path / "out")
    rows = datasets.load_from_disk(str(tmp_path / "out"))
    first, hostile, routed, unusable, no_gold = rows.to_list()
    assert [row["id"] for row in rows] == [one.id for one in run.questions]
    assert first["agents"]["quant"]["answer"] == "B" and first["agents"]["quant"]["correct"] is True
    assert first["agents"]["quant"]["probabilities"] == [0.25, 0.5, None]
    assert first["agents"]["quant"]["generated_tokens"] == 7
    assert first["decision"]["how"] == "merge" and first["merge"]["reasoning"] == "It is B."
    assert hostile["question"].endswith(CLEANED) and hostile["choices"][2] == CLEANED
    assert hostile["agents"]["chrono"]["reasoning"] == CLEANED
    assert routed["agents"]["chrono"]["outcome"] == routed["agents"]["chrono"]["unscored"] == "not_asked"
    assert routed["agents"]["chrono"]["correct"] is None and routed["merge"]["outcome"] == "not_asked"
    assert (
        unusable["agents"]["quant"]["outcome"] == "invalid"
        and unusable["agents"]["quant"]["error"] == "no JSON"
    )
    assert unusable["agents"]["quant"]["correct"] is None and unusable["decision"]["correct"] is None
    assert unusable["decision"]["unscored"] == "0 of 2 analyses usable, quorum 1"
    assert no_gold["gold"] is None and no_gold["decision"]["correct"] is None


def test_datasets_opens_the_parquet_file(run: Run, tmp_path: Path) -> None:
    import datasets

    export(run.folder, "datasets", tmp_path / "out")
    file = str(tmp_path / "out" / "questions.parquet")
    loaded = datasets.load_dataset(
        "parquet", data_files=file, split="train", cache_dir=str(tmp_path / "cache")
    )
    whole = datasets.load_from_disk(str(tmp_path / "out"))
    assert loaded.to_list() == whole.to_list() and loaded.features == whole.features


@needs_readers
def test_lm_eval_reads_its_files(run: Run, tmp_path: Path) -> None:
    export(run.folder, "lm-eval", tmp_path / "out")
    models = read("lm-eval", tmp_path / "out")
    assert sorted(models) == ["ORCH", "chrono", "quant"]
    for model in models.values():
        assert model["same"] == [True, True, True] and all(model["hashes"])
        assert model["mean"] == pytest.approx(
            [model["written"]["acc,none"], model["written"]["acc_stderr,none"]]
        )
        assert model["model"][0] == model["model"][1] and model["task"] == "questions"
        assert model["loaded"] == [sample["acc"] for sample in model["samples"]]
        assert "|questions|" in model["table"].replace(" ", "")
    scored = {
        name: [(one["doc_id"], one["acc"]) for one in model["samples"]] for name, model in models.items()
    }
    assert scored["quant"] == [(0, 1.0), (1, 0.0), (2, 1.0)]
    assert scored["chrono"] == [(0, 1.0), (1, 1.0)]  # not asked for 2
    assert [doc for doc, _ in scored["ORCH"]] == [0, 1, 2]
    assert models["quant"]["written"]["unscored,none"] == 2
    assert models["quant"]["samples"][1]["doc"]["question"].endswith(CLEANED)


def test_lm_eval_files_keep_the_unscored_apart(run: Run, tmp_path: Path) -> None:
    export(run.folder, "lm-eval", tmp_path / "out")
    (beside,) = (tmp_path / "out" / "quant").glob("unscored_questions_*.jsonl")
    rows = [json.loads(line) for line in beside.read_text(encoding="utf-8").splitlines()]
    assert [(row["doc_id"], row["unscored"]) for row in rows] == [(3, "invalid"), (4, "no_gold")]
    assert not any("acc" in row for row in rows)


@needs_readers
def test_nemo_evaluator_reads_its_files(run: Run, tmp_path: Path) -> None:
    export(run.folder, "nemo", tmp_path / "out")
    systems = read("nemo", tmp_path / "out")
    assert sorted(systems) == ["ORCH", "chrono", "quant"]
    quant = systems["quant"]
    accuracy = quant["result"]["tasks"]["questions"]["metrics"]["accuracy"]["scores"]["accuracy"]
    assert accuracy["value"] == pytest.approx(2 / 3) and accuracy["stats"]["count"] == 3
    unscored = quant["result"]["tasks"]["questions"]["metrics"]["unscored"]["scores"]
    assert {reason: one["value"] for reason, one in unscored.items()} == {"invalid": 1, "no_gold": 1}
    assert [one["score"] for one in quant["results"]] == [1, 0, 1]
    assert [one["score"] for one in quant["unscored"]] == [None, None]
    assert len(systems["chrono"]["results"]) == 2 and len(systems["chrono"]["unscored"]) == 2
    assert f"{continued(CLEANED)}\nA) 4" in quant["results"][1]["query"]
    assert CLEANED in quant["result"]["groups"]["questions"]["groups"]


def test_nemo_records_are_those_that_runs_are_compared_by(run: Run, tmp_path: Path) -> None:
    export(run.folder, "nemo", tmp_path / "out")
    rows = [
        json.loads(line)
        for line in (tmp_path / "out" / "quant" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["reward"] for row in rows] == [1.0, 0.0, 1.0]
    assert [row["problem_idx"] for row in rows] == [int(one.id[:13], 16) for one in run.questions[:3]]
    (bundle,) = (tmp_path / "out" / "quant").glob("eval-*.json")
    values = json.loads(bundle.read_text(encoding="utf-8"))
    assert values["benchmark"]["scores"]["pass@1"]["value"] == pytest.approx(2 / 3)
    assert values["unscored"] == {"invalid": 1, "no_gold": 1} and values["n_results"] == 3


@pytest.fixture(scope="module")
def inspect_log(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An Inspect log, written and read where inspect_ai is."""
    found = read("inspect", tmp_path_factory.mktemp("inspect") / "out", str(run.folder.root))
    found["samples"].sort(key=lambda sample: sample["number"])
    return found


@needs_readers
def test_inspect_comes_to_the_same_scores(inspect_log: Any) -> None:
    assert inspect_log["task"] == "questions" and not inspect_log["header_has_samples"]
    assert len(inspect_log["bundled"]) == 1
    assert list(inspect_log["written"]) == ["ORCH", "quant", "chrono", "majority"]
    for name, written in inspect_log["written"].items():
        assert inspect_log["recomputed"][name] == pytest.approx(written)
    quant, chrono = inspect_log["written"]["quant"], inspect_log["written"]["chrono"]
    assert (quant["scored"], quant["unscored"], quant["accuracy"]) == (3, 2, pytest.approx(2 / 3))
    assert (chrono["scored"], chrono["unscored"], chrono["accuracy"]) == (2, 2, 1.0)


@needs_readers
def test_a_long_run_becomes_several_inspect_logs(inspect_log: Any) -> None:
    assert inspect_log["parts"] == [[[0, 1], 2], [[2, 3], 1], [[4], 0]]


@needs_readers
def test_inspect_shows_the_panel_and_the_merge(inspect_log: Any) -> None:
    first, hostile, routed, unusable, no_gold = inspect_log["samples"]
    assert first["spans"] == ["quant", "chrono", "merge"] and routed["spans"] == ["quant"]
    assert [call[:2] for call in first["calls"]] == [
        ["quant", "vllm/quant"],
        ["chrono", "vllm/chrono"],
        ["merge", "vllm/merge"],
    ]
    assert [role for role, _ in first["messages"]] == ["system", "user", "assistant"]
    assert json.loads(first["messages"][2][1])["reasoning"] == "It is B."
    assert first["prompts"][0][1][1].startswith("What is 0 + 4?\nA) 3")
    assert f"{continued(CLEANED)}\nA) 4" in hostile["input"]
    assert [role for role, _ in routed["messages"]] == ["user", "assistant"]
    assert unusable["calls"][0][2:] == [CLEANED, "invalid: no JSON"]
    assert no_gold["target"] == ""


@needs_readers
def test_inspect_keeps_the_unscored_unscored(inspect_log: Any) -> None:
    _, _, routed, unusable, no_gold = inspect_log["samples"]
    assert unusable["scores"]["ORCH"] == [None, None, "0 of 2 analyses usable, quorum 1"]
    assert unusable["scores"]["quant"] == [None, None, "invalid"]
    assert no_gold["scores"]["ORCH"] == [None, "A", "no_gold"]
    assert "chrono" not in routed["scores"] and routed["scores"]["quant"] == ["C", "B", None]


@needs_readers
def test_inspect_knows_what_each_role_used(inspect_log: Any) -> None:
    assert inspect_log["roles"] == {"quant": "vllm/quant", "chrono": "vllm/chrono", "merge": "vllm/merge"}
    first = inspect_log["samples"][0]["role_usage"]["quant"]
    assert first == {"input_tokens": 6, "input_tokens_cache_read": 4, "output_tokens": 7, "total_tokens": 17}
    assert inspect_log["role_usage"]["quant"]["total_tokens"] == 4 * 17 + 14
    assert inspect_log["role_usage"]["chrono"]["total_tokens"] == 3 * 17 + 14
    assert inspect_log["model_usage"]["vllm/quant"] == inspect_log["role_usage"]["quant"]


@needs_readers
def test_the_command_line_of_inspect_reads_the_log(inspect_log: Any) -> None:
    assert inspect_log["dumped"]["results"]["scores"][0]["unscored_samples"] == 2


def test_without_inspect_the_error_says_what_to_install(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    with pytest.raises(InputError) as caught:
        export(run.folder, "inspect", tmp_path / "out")
    assert caught.value.hint == "pip install inspect_ai"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        export(run.folder, "nemo", tmp_path)
    with pytest.raises(InputError, match="not an empty folder"):
        export(run.folder, "nemo", tmp_path / "mine.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert export(run.folder, "nemo", tmp_path / "out") == tmp_path / "out"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out"]


def test_an_export_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "deep" / "out") as unfinished:
            (unfinished / "half").write_text("")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list((tmp_path / "deep").iterdir()) == []


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    made = Run.begin(tmp_path, 2)
    with pytest.raises(StoreError, match="not finished"):
        export(made.folder, "nemo", tmp_path / "out")


@pytest.mark.parametrize("line", [0, 4])
def test_decisions_of_other_questions_are_refused(run: Run, tmp_path: Path, line: int) -> None:
    copied = _copied(run, tmp_path)
    lines = copied.decisions.read_text(encoding="utf-8").splitlines(keepends=True)
    del lines[line]
    copied.decisions.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(StoreError, match=f"line {line + 1} is not of the same question"):
        export(copied, "nemo", tmp_path / "out")


def test_rows_that_are_gone_are_told(run: Run, tmp_path: Path) -> None:
    copied = _copied(run, tmp_path)
    for chunk in (tmp_path / "store" / run.spec("chrono")).glob("*.jsonl"):
        chunk.unlink()
    with pytest.raises(StoreError, match="analyses of chrono are not there"):
        export(copied, "nemo", tmp_path / "out")


def _copied(run: Run, target: Path) -> RunFolder:
    import shutil

    for name in ("run", "store"):
        shutil.copytree(run.folder.root.parent / name, target / name)
    return RunFolder(target / "run")


def test_the_package_is_light() -> None:
    code = (
        "import sys, orch_local.export.formats; "
        "print(sorted({'numpy', 'pyarrow', 'datasets', 'inspect_ai', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


_texts = st.text(st.characters() | st.characters(categories=["Cs"]))


@given(_texts)
def test_cleaned_text_is_valid_and_otherwise_the_same(text: str) -> None:
    cleaned = clean({"a": [text]})["a"][0]
    cleaned.encode()
    assert clean(cleaned) == cleaned
    kept = "".join(char for char in text if not "\ud800" <= char <= "\udfff")
    assert [char for char in cleaned if char in kept and char != "\ufffd" and ord(char) < 0x10000] == [
        char for char in kept if char != "\ufffd" and ord(char) < 0x10000
    ]


@given(_texts)
def test_a_line_of_json_is_one_line_for_every_reader(text: str) -> None:
    line = json_line({"text": clean(text)}).decode("ascii")
    assert line.splitlines() == [line.rstrip("\n")] and json.loads(line) == {"text": clean(text)}


@given(st.lists(_texts | st.sampled_from(["..", "a", "A", "a-2", ".hidden", "x/y", ""]), max_size=8))
def test_file_names_are_safe_and_all_different(texts: list[str]) -> None:
    names = file_names(texts)
    assert len({name.casefold() for name in names}) == len(texts)
    assert all(Path("/base", name).parent == Path("/base") and not name.startswith(".") for name in names)
