"""The doctor on machines where something is broken: a package, a driver, a run file, a model, a disk."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from running import write_run_file

from orch_local.cli.doctor import doctor
from orch_local.deploy.doctor import gpu, lanes, printing
from orch_local.deploy.doctor.checks import CHECKS, DoctorReport, Finding, Severity
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.parts import PARTS
from orch_local.deploy.doctor.request import DoctorRequest
from orch_local.deploy.doctor.tools import ask
from orch_local.errors import InputError

GPU = "NVIDIA H100 80GB HBM3, 81559, {free}, 580.95.05, GPU-1, Disabled"


def looked(request: DoctorRequest, *parts: str) -> dict[str, list[Finding]]:
    """The findings of some parts, by check."""
    page = lanes.examine(request, parts=[parts])
    found: dict[str, list[Finding]] = {}
    for one in page.findings:
        found.setdefault(one.id, []).append(one)
    return found


def seen(request: DoctorRequest, *parts: str) -> dict[str, list[Finding]]:
    """The same in this process, which has imported all that it takes."""
    found: dict[str, list[Finding]] = {}
    inspection = Inspection(request)
    for part in parts:
        module = importlib.import_module(f"orch_local.deploy.doctor.{PARTS[part].module}")
        for one in module.examine(inspection):
            found.setdefault(one.id, []).append(one)
    return found


@pytest.fixture(autouse=True)
def _nothing_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither digests, nor what nvidia-smi said."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    gpu.sight.cache_clear()


def levels(found: dict[str, list[Finding]], check: str) -> list[str]:
    return [one.level.value for one in found[check]]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a package of that name and code in the way of the real one."""

    def package(name: str, code: str) -> None:
        folder = tmp_path / "broken" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(code, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))

    return package


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a shell script in the place of nvidia-smi, before all else on the PATH."""

    def smi(script: str) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return smi


def is_gone(pid: str) -> bool:
    """Whether a killed process ends, also where nobody waits for it. The kernel takes a moment to end it."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        try:
            state = Path("/proc", pid.strip(), "stat").read_text()
        except OSError:
            return True
        if state.rpartition(")")[2].split()[0] in "ZX":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise RuntimeError('operator torchvision::nms\\ndoes not exist')", "RuntimeError: operator torch"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import os; os._exit(3)", "died by code 3 while importing torch"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "died by SIGSEGV while importing torch"),
    ],
)
def test_a_broken_torch_is_one_finding(package: Callable[[str, str], None], code: str, told: str) -> None:
    package("torch", code)
    found = looked(DoctorRequest(), "engine", "limits")
    assert levels(found, "torch-import") == ["red"]
    assert told in found["torch-import"][0].fact
    assert levels(found, "engine-import") == ["not checked"]
    assert levels(found, "core-files") != ["not checked"], "what comes behind goes on"


def test_a_torch_that_hangs_is_left_behind(
    package: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    package("torch", f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    monkeypatch.setattr(lanes, "MOST_S", 20.0)
    began = time.monotonic()
    found = looked(DoctorRequest(), "engine", "clock")
    assert time.monotonic() - began < 200
    assert levels(found, "clock-monotonic") == ["green"]
    assert "nothing came back within 20 s while importing torch" in found["torch-import"][0].fact
    assert is_gone(pid.read_text()), "the process is not left running"


def test_a_broken_package_is_named_and_the_rest_of_the_page_comes(
    package: Callable[[str, str], None],
) -> None:
    package("numpy", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    found = looked(DoctorRequest(quick=True), "python", "imports", "clock")
    assert "SIGSEGV while importing numpy" in found["packages-import"][0].fact
    assert levels(found, "python-version") == ["green"]
    assert levels(found, "clock-monotonic") == ["green"]


def test_without_pydantic_and_rich_there_is_still_a_page(package: Callable[[str, str], None]) -> None:
    """Typer needs pydantic, so this is the other way in; nothing of ours may need either."""
    for name in ("pydantic", "rich", "torch"):
        package(name, "raise ImportError('broken\\nin two lines')")
    command = [sys.executable, "-m", "orch_local.deploy.doctor", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("This machine cannot do the demo:")
    assert "red: Run file: cannot be looked at: ImportError: broken in two lines" in done.stdout
    assert re.search(r"red: Packages import: .*pydantic.*rich", done.stdout)
    assert "green: Monotonic clock" in done.stdout
    assert "green: Free space: run folder" in done.stdout


def test_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "CHILD", ("/no/such/python",))
    found = looked(DoctorRequest(), "limits")
    assert levels(found, "processes") == ["red"]
    assert levels(found, "open-files") == ["not checked"]


def test_noise_on_standard_output_is_no_finding(package: Callable[[str, str], None]) -> None:
    package(
        "yaml", "print('{\"done\": \"engine\"}'); import os; os.write(1, b'[1]\\n'); raise ImportError('no')"
    )
    package("torch", "raise ImportError('no')")
    found = looked(DoctorRequest(), "run", "engine")
    assert levels(found, "run-file") == ["red"]
    assert levels(found, "torch-import") == ["red"]


def test_without_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = looked(DoctorRequest(), "gpu")
    assert levels(found, "gpu-slices") == ["not checked"]
    assert (
        "no NVIDIA GPU" in found["gpu-driver"][0].fact
        or "nvidia-smi is missing" in found["gpu-driver"][0].fact
    )


def test_gpus_are_read(smi: Callable[[str], None]) -> None:
    line = GPU.format(free="12000")
    smi(f'case "$1" in *compute-apps*) echo "77, 60000 MiB, /home/ann/run, er.py";; *) echo "{line}";; esac')
    found = looked(DoctorRequest(), "gpu", "run")
    assert found["gpu-driver"][0].fact == "1 x NVIDIA H100 80GB HBM3, driver 580.95.05"
    assert levels(found, "gpu-in-use") == ["red"]
    assert "run, er.py (77) 60000 MiB" in found["gpu-in-use"][0].fact
    assert "/home/ann" not in str(found)
    assert levels(found, "gpu-slices") == ["green"]


def test_an_old_driver_does_not_know_of_slices(smi: Callable[[str], None]) -> None:
    line = "Tesla V100, 16160, 16000, 470.57.02, GPU-5"
    smi(f'case "$1" in *mig*) echo "not a valid field"; exit 2;; *) echo "{line}";; esac')
    assert gpu.sight().cards == (
        gpu.GpuReading("Tesla V100", 16160 / 1024, 16000 / 1024, "470.57.02", "GPU-5"),
    )


def test_an_nvidia_smi_that_fails_says_why(smi: Callable[[str], None]) -> None:
    smi('echo "Failed to initialize NVML: Driver/library version mismatch"; exit 18')
    found = looked(DoctorRequest(), "gpu")
    assert levels(found, "gpu-driver")[0] in ("red", "yellow")
    assert "Driver/library version mismatch" in found["gpu-driver"][0].fact


def test_an_nvidia_smi_that_hangs_is_left_behind(smi: Callable[[str], None], tmp_path: Path) -> None:
    """Its child holds the pipes open, as a script's does."""
    pid = tmp_path / "pid"
    smi(f"sleep 600 & echo $! > {pid}; sleep 600")
    began = time.monotonic()
    assert ask(["nvidia-smi"], 1).problem == "nvidia-smi did not answer within 1 s"
    assert time.monotonic() - began < 200
    assert is_gone(pid.read_text())
    found = gpu.judge_driver(
        gpu.Sight(problem="nvidia-smi did not answer within 15 s", missing=False), gpu.GpuDemand()
    )
    assert found.level is Severity.YELLOW


def test_a_run_file_with_an_error_is_one_red_finding(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("benchmark: {name: mmlu\nagents: [", encoding="utf-8")
    found = seen(DoctorRequest(str(file), quick=True), *lanes.LANES[1][:-1])
    assert levels(found, "run-file") == ["red"]
    assert [one.id for every in found.values() for one in every if one.level is Severity.RED] == ["run-file"]
    for check in ("questions", "plan", "placement", "model-folder", "model-digests", "device"):
        assert levels(found, check) == ["not checked"]
    assert levels(found, "python-version") == ["green"]
    assert len(found["disk-space"]) == 4


@pytest.fixture
def small(tmp_path: Path, run_values: dict[str, object], models_dir: Path) -> Path:
    """A run file over models of its own."""
    shutil.copytree(models_dir, tmp_path / "models")
    text = json.dumps(run_values).replace(str(models_dir), str(tmp_path / "models"))
    return write_run_file(tmp_path, json.loads(text))


RUN = ("run", "models", "placement", "questions", "digests")


def test_a_run_that_can_be_done(small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = seen(DoctorRequest(str(small)), *RUN)
    told = {one.level for check in found.values() for one in check if one.id != "device"}
    assert told == {Severity.GREEN}, found
    assert len(found["model-folder"]) == 4
    assert "12 questions" in found["questions"][0].fact
    assert "nothing to compare them with" in found["model-digests"][0].fact


def test_a_changed_byte_of_the_weights_is_found(
    small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from orch_local.config.run_files import load_run
    from orch_local.run.preparation import prepare
    from orch_local.store.store import RunFolder

    folder = RunFolder(tmp_path / "out")
    prepare(load_run(small), folder, tmp_path / "store")
    request = DoctorRequest(str(small), str(folder.root), str(tmp_path / "store"))
    found = seen(request, "questions", "digests")
    assert levels(found, "plan") == ["green"]
    assert "as in the plan of the run" in found["model-digests"][0].fact
    weights = tmp_path / "models" / "second" / "model.safetensors"
    whole = bytearray(weights.read_bytes())
    whole[-1] ^= 1
    weights.write_bytes(whole)
    found = seen(request, "questions", "digests")
    assert levels(found, "model-digests") == ["green", "red", "green", "green"]
    assert "not as in the plan of the run: model.safetensors" in found["model-digests"][1].fact
    assert levels(found, "plan") == ["red"]


def test_a_byte_that_changed_behind_the_back_of_the_file_system_is_found_afresh(
    small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The memory of digests goes by times; --fresh does not."""
    seen(DoctorRequest(str(small)), "digests")
    memory = tmp_path / "cache" / "orch-local" / "digests.json"
    values = json.loads(memory.read_text())
    one = next(key for key in values if "first/model.safetensors" in key)
    memory.write_text(json.dumps(values | {one: "0" * 64}))
    from orch_local.deploy.fetch.record import Fetched, FetchedFile, add_to_record

    name, file = "first", tmp_path / "models" / "first" / "model.safetensors"
    entry = FetchedFile("model.safetensors", file.stat().st_size, values[one])
    add_to_record(tmp_path, Fetched("model", name, "a/b", "0" * 40, "mit", gated=False, files=(entry,)))
    assert levels(seen(DoctorRequest(str(small)), "digests"), "model-digests")[0] == "red"
    found = seen(DoctorRequest(str(small), fresh=True), "digests")
    assert levels(found, "model-digests")[0] == "green"
    assert "as in fetched.json" in found["model-digests"][0].fact


@pytest.mark.parametrize("damage", ["gone", "header", "tokenizer", "template"])
def test_a_model_that_cannot_be_used(small: Path, tmp_path: Path, damage: str) -> None:
    model = tmp_path / "models" / "first"
    if damage == "gone":
        shutil.rmtree(model)
    elif damage == "header":
        (model / "model.safetensors").write_bytes(b"\xff" * 64)
    elif damage == "tokenizer":
        (model / "tokenizer.json").write_text("{}", encoding="utf-8")
    else:
        config = json.loads((model / "tokenizer_config.json").read_text())
        (model / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "{% endif %}"}))
    found = seen(DoctorRequest(str(small)), *RUN)
    check = "model-folder" if damage in ("gone", "header") else "model-tokenizer"
    assert levels(found, check) == ["red", "green", "green", "green"]
    assert levels(found, "placement")[0] == ("not checked" if check == "model-folder" else "green")
    assert levels(found, "run-file") == ["green"]


def test_weights_too_large_to_hash_unasked(
    small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file with a hole in it has the size of a large model, and takes no room."""
    file, size = tmp_path / "models" / "first" / "model.safetensors", 2 * 2**30
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with file.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + size)
    began = time.monotonic()
    found = seen(DoctorRequest(str(small)), "questions", "digests")
    assert levels(found, "plan") == ["not checked"]
    assert levels(found, "model-digests") == ["not checked", "green", "green", "green"]
    assert "2.0 GiB of weights were not hashed yet" in found["model-digests"][0].fact
    assert time.monotonic() - began < 200


def test_rows_that_cannot_be_asked(small: Path, tmp_path: Path) -> None:
    with (tmp_path / "questions.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("{}\n")
    found = seen(DoctorRequest(str(small)), "questions")
    assert levels(found, "questions") == ["red"]
    values = yaml.safe_load(small.read_text())
    values["benchmark"]["skip_bad_rows"] = True
    small.write_text(yaml.safe_dump(values), encoding="utf-8")
    found = seen(DoctorRequest(str(small)), "questions")
    assert levels(found, "questions") == ["yellow"]


def test_a_model_that_fits_nowhere(small: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(small.read_text())
    model = {"name": "huge", "path": str(tmp_path / "models" / "first"), "cpu_kv_cache_gib": 1e6}
    (tmp_path / "huge.yaml").write_text(yaml.safe_dump(model), encoding="utf-8")
    values["agents"][0]["model"] = str(tmp_path / "huge.yaml")
    values["engine"]["device"] = "cpu"
    small.write_text(yaml.safe_dump(values), encoding="utf-8")
    found = seen(DoctorRequest(str(small)), "placement")
    assert levels(found, "placement") == ["red"]
    assert "GiB" in found["placement"][0].fact


def test_a_run_that_gives_equal_bytes_up(small: Path) -> None:
    values = yaml.safe_load(small.read_text())
    values["engine"] |= {"fast": True, "device": "cpu"}
    small.write_text(yaml.safe_dump(values), encoding="utf-8")
    found = seen(DoctorRequest(str(small)), "placement")
    assert levels(found, "batch-invariance") == ["yellow"]
    assert "`fast` gives equal bytes up" in found["batch-invariance"][0].fact


def test_nothing_is_left_behind_in_the_folders_of_a_run(small: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "runs" / "one"
    found = seen(DoctorRequest(str(small), str(out)), "disks")
    assert levels(found, "file-writing") == ["green"] * 4
    assert sorted(tmp_path.rglob("*")) == before


def test_a_read_only_disk(small: Path) -> None:
    """/proc takes no files from anybody."""
    found = seen(DoctorRequest(str(small), out="/proc/runs/x"), "disks")
    assert {one.about: one.level.value for one in found["file-writing"]}["run folder"] == "red"


def command(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the doctor as a program."""
    whole = [sys.executable, "-m", "orch_local.deploy.doctor", *arguments]
    return subprocess.run(whole, env=env, capture_output=True, text=True, timeout=600, check=False)


def test_the_whole_page_as_json(tmp_path: Path, small: Path) -> None:
    env = {
        **os.environ,
        "HF_TOKEN": "hf_secretsecret",
        "http_proxy": "http://me:pass@there",
        "HF_HUB_OFFLINE": "0",
    }
    env |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = command(str(small), "--quick", "--json", env=env)
    page = json.loads(done.stdout)
    assert done.stderr == ""
    assert (done.returncode == 1) == (page["counts"]["red"] > 0) == (not page["can_run"])
    assert {one["id"] for one in page["findings"]} == set(CHECKS)
    assert page["run"] == "run.yaml"
    found = {one["id"]: one for one in page["findings"]}
    assert found["hub-token"]["level"] == "yellow"
    assert found["offline-variables"]["fact"].startswith("HF_HUB_OFFLINE=0 in your shell")
    for hidden in ("hf_secretsecret", "me:pass", str(tmp_path)):
        assert hidden not in done.stdout


@pytest.mark.parametrize(
    "request_",
    [
        DoctorRequest("no-such.yaml"),
        DoctorRequest("."),
        DoctorRequest(out=__file__),
        DoctorRequest(store=__file__),
    ],
)
def test_input_that_is_no_question_to_a_machine(request_: DoctorRequest) -> None:
    with pytest.raises(InputError) as raised:
        printing.print_report(request_, as_json=False)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(("level", "code"), [("red", 1), ("yellow", 0), ("green", 0), ("not checked", 0)])
@pytest.mark.parametrize("as_json", [False, True])
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], level: str, code: int, as_json: bool
) -> None:
    page = DoctorReport.of("demo", [Finding("plan", Severity(level), "a fact", "")])
    monkeypatch.setattr(printing, "examine", lambda *_: page)
    assert printing.print_report(DoctorRequest(), as_json=as_json) == code
    assert "a fact" in capsys.readouterr().out


def test_the_command_has_the_options_of_the_other_way_in() -> None:
    import inspect

    from orch_local.deploy.doctor.__main__ import _parser

    other = {action.dest for action in _parser()._actions} - {"help"}
    assert set(inspect.signature(doctor).parameters) == other


def test_a_bad_command_line_is_code_2() -> None:
    assert command("no-such.yaml").returncode == 2
    assert "error: no-such.yaml: no such file" in command("no-such.yaml").stderr
