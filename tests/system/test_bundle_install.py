"""Installing a bundle: whole files, only below its folder, and only if it is the right one."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny_bundles import (
    FILES,
    PROJECT_PINS,
    make_bundle,
    make_key,
    make_wheel,
    project_wheels,
    target_here,
    tree,
    wheel_files,
)
from typer.testing import CliRunner

from orch_local.cli import bundle_install
from orch_local.deploy.bundle import environment, installing, placing, receiving, standalone, target
from orch_local.deploy.bundle.arguments import run
from orch_local.deploy.bundle.checking import BundleFaults, open_bundle
from orch_local.deploy.bundle.describing import harmless
from orch_local.deploy.bundle.environment import pinned_lines
from orch_local.deploy.bundle.installing import Installation, InstallOutput
from orch_local.deploy.bundle.manifest import Content
from orch_local.deploy.bundle.placing import Survey
from orch_local.deploy.bundle.signature import Signers, sign
from orch_local.errors import OrchError
from orch_local.util.paths import MANIFEST, SIGNATURE

needs_keys = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
_MANAGED = Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle in parts, without wheels."""
    make_bundle(tmp_path / "bundle", FILES, 1000)
    return tmp_path / "bundle"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the target, in which nothing may happen."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "config.json").write_bytes(b"precious")
    before = tree(folder)
    yield folder
    assert tree(folder) == before


class Said(list[str]):
    """What an installation said."""

    @property
    def output(self) -> InstallOutput:
        """Where an installation writes."""
        return InstallOutput(self.append, lambda _path, _size: None)


def install(bundle: Path, to: Path, **options: Any) -> Said:
    """Install, and tell what was said."""
    said = Said()
    values = {"signers": None, "python": sys.executable, **options}
    installing.install(Installation(bundle, to, **values), said.output)
    return said


def refused(bundle: Path, to: Path, **options: Any) -> str:
    """The error, as it is printed."""
    with pytest.raises(OrchError) as caught:
        install(bundle, to, **options)
    assert caught.value.hint or caught.value.where
    return str(caught.value)


def installed(to: Path) -> dict[str, bytes]:
    """The files of an installation, without its manifest."""
    return {path: content for path, content in tree(to).items() if path not in (MANIFEST, SIGNATURE)}


# Files


@pytest.mark.parametrize("part_size", [None, 1, 999, 10**6])
def test_every_file_is_there_and_plain(tmp_path: Path, part_size: int | None) -> None:
    manifest = make_bundle(tmp_path / "bundle", FILES, part_size if part_size != 1 else 50)
    for file in (tmp_path / "bundle").rglob("*"):
        if file.is_file():
            file.chmod(0o6777)
    to = tmp_path / "a" / "b"
    install(tmp_path / "bundle", to)
    assert installed(to) == FILES
    assert not any((to / path).stat().st_mode & 0o7133 for path in FILES)
    assert open_bundle(to, None).manifest.files == manifest.files
    assert receiving.verify(to, None, receiving.Shown()) == 0
    again = install(tmp_path / "bundle", to)
    assert f"writing 0 files to {to}, {len(FILES)} are there" in again


def test_a_bundle_of_files_can_be_installed_where_it_lies(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", FILES)
    before = tree(tmp_path / "bundle")
    install(tmp_path / "bundle", tmp_path / "bundle")
    assert tree(tmp_path / "bundle") == before


def test_broken_parts_are_named_and_nothing_is_written(tmp_path: Path, bundle: Path) -> None:
    (bundle / "part-00002").unlink()
    os.truncate(bundle / "part-00003", 10)
    content = (bundle / "part-00005").read_bytes()
    (bundle / "part-00005").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    printed = refused(bundle, tmp_path / "to")
    assert "part-00002, part-00003, part-00005" in printed
    assert not (tmp_path / "to").exists()


def test_what_is_tampered_with_after_the_check_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "check_files", lambda _bundle, _told: BundleFaults())
    for number in range(1, 8):
        bundle = tmp_path / f"bundle-{number}"
        make_bundle(bundle, FILES, 1000)
        part = bundle / f"part-{number:05}"
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
        to = tmp_path / f"to-{number}"
        assert "does not have the bytes" in refused(bundle, to)
        assert set(installed(to).items()) < set(FILES.items())  # no wrong byte under any name
        assert not (to / MANIFEST).exists()


def test_a_part_that_vanishes_after_the_check_is_an_error(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "check_files", lambda _bundle, _told: BundleFaults())
    (bundle / "part-00004").unlink()
    assert "part-00004" in refused(bundle, tmp_path / "to")


def test_a_changed_manifest_with_good_parts_is_refused(tmp_path: Path, bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    manifest["files"][0]["sha256"] = "0" * 64
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    assert "does not have the bytes" in refused(bundle, tmp_path / "to")
    manifest["files"][0]["path"], manifest["files"][0]["sha256"] = "../outside", "0" * 64
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    assert "leads out of the bundle" in refused(bundle, tmp_path / "to2")
    assert not (tmp_path / "outside").exists()


_PLANTS = ["models", "models/tiny", "models/tiny/config.json", "run-files", "benchmarks"]


@pytest.mark.parametrize("when", ["before", "after the survey"])
@pytest.mark.parametrize("plant", _PLANTS)
def test_a_link_in_the_target_is_never_followed(
    tmp_path: Path, bundle: Path, outside: Path, plant: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "to"
    (to / plant).parent.mkdir(parents=True)
    (to / plant).symlink_to(outside / "config.json" if plant.endswith(".json") else outside)
    if when == "before":
        assert "a link" in refused(bundle, to)
        return
    monkeypatch.setattr(placing, "survey", lambda *_: Survey(frozenset(), 0))
    if plant.endswith(".json"):
        install(bundle, to)  # the link itself is replaced by the file
        assert installed(to) == FILES
    else:
        assert f"{plant} is a link" in refused(bundle, to)


def test_a_link_that_leads_nowhere_or_to_itself_is_not_followed(tmp_path: Path, bundle: Path) -> None:
    for leads_to in (tmp_path / "nowhere", "models"):
        to = tmp_path / f"to-{leads_to == 'models'}"
        to.mkdir()
        (to / "models").symlink_to(leads_to)
        assert "link" in refused(bundle, to)
        assert not (tmp_path / "nowhere").exists()


def test_the_target_itself_may_be_reached_through_a_link(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "scratch")
    install(bundle, tmp_path / "link" / "to")
    assert installed(tmp_path / "scratch" / "to") == FILES


def test_what_somebody_changed_is_not_written_over(tmp_path: Path, bundle: Path) -> None:
    to = tmp_path / "to"
    install(bundle, to)
    (to / "run-files/tiny.yaml").write_text("edited here")
    assert "run-files/tiny.yaml (other bytes)" in refused(bundle, to)
    assert (to / "run-files/tiny.yaml").read_text() == "edited here"


def test_a_later_bundle_replaces_what_the_earlier_one_brought(tmp_path: Path, bundle: Path) -> None:
    install(bundle, tmp_path / "to")
    later = {**FILES, "run-files/tiny.yaml": b"agents: [later]\n", "run-files/new.yaml": b"new\n"}
    make_bundle(tmp_path / "later", later, 700)
    said = install(tmp_path / "later", tmp_path / "to")
    assert f"writing 2 files to {tmp_path / 'to'}, 4 are there" in said
    assert installed(tmp_path / "to") == later


_KILLED = """
import os, signal, sys
from pathlib import Path
from orch_local.deploy.bundle import installing, placing
from orch_local.deploy.bundle.installing import InstallOutput, Installation
calls, replace = int(sys.argv[3]), os.replace
def killed(*arguments, **names):
    global calls
    calls -= 1
    if calls < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*arguments, **names)
os.replace = killed
wanted = Installation(Path(sys.argv[1]), Path(sys.argv[2]), None, sys.executable)
installing.install(wanted, InstallOutput(lambda line: None, lambda path, size: None))
"""


def test_a_killed_installation_goes_on(tmp_path: Path, bundle: Path) -> None:
    to = tmp_path / "to"
    for calls in (0, 1, 3, len(FILES)):
        shutil.rmtree(to, ignore_errors=True)
        command = [sys.executable, "-c", _KILLED, str(bundle), str(to), str(calls)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        whole = {path: content for path, content in tree(to).items() if not placing.is_temporary(path)}
        assert len(whole) == calls
        assert set(whole.items()) <= set(FILES.items())
        assert any(map(placing.is_temporary, tree(to)))
        assert not (to / MANIFEST).exists()
        said = install(bundle, to)
        assert any(f"writing {len(FILES) - calls} files" in line for line in said)
        assert installed(to) == FILES  # and nothing half is left


def test_two_installations_do_not_mix(tmp_path: Path, bundle: Path) -> None:
    to = tmp_path / "to"
    to.mkdir()
    with placing.alone(to):
        assert "another installation" in refused(bundle, to)
    install(bundle, to)


def test_a_target_that_cannot_be_made_is_an_error(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for to in (tmp_path / "file", tmp_path / "file" / "to"):
        assert refused(bundle, to)
    assert (tmp_path / "file").read_bytes() == b""


def test_too_little_room_is_told_before_anything_is_written(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        installing.shutil, "disk_usage", lambda _path: os.terminal_size((0, 0)) and _Usage(100)
    )
    assert "are needed" in refused(bundle, tmp_path / "to")
    assert not (tmp_path / "to").exists()


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a tiny file system in memory with the options that are asked for."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if (
            shutil.which("mount") is None
            or subprocess.run(command, capture_output=True, check=False).returncode
        ):
            pytest.skip("may not mount a file system here")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


@needs_root
def test_a_full_disk_leaves_whole_files_only(
    tmp_path: Path, mounted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"models/m/{number}": os.urandom(30_000) for number in range(6)}
    make_bundle(tmp_path / "bundle", files, 50_000)
    to = mounted("size=128k")
    assert "are needed" in refused(tmp_path / "bundle", to)
    assert not tree(to)
    monkeypatch.setattr(installing.shutil, "disk_usage", lambda _path: _Usage(2**40))
    printed = refused(tmp_path / "bundle", to)
    assert "No space left" in printed and "make room" in printed
    assert installed(to).items() < files.items()
    assert len(installed(to)) in (2, 3, 4)


@needs_root
def test_a_target_that_is_read_only_is_an_error(bundle: Path, mounted: Callable[[str], Path]) -> None:
    assert "Read-only" in refused(bundle, mounted("ro,size=1m"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_target_that_may_not_be_written_is_an_error(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "to").mkdir(mode=0o555)
    assert "may you write there?" in refused(bundle, tmp_path / "to")


# Who signed


@needs_keys
def test_a_signed_bundle_is_installed_for_its_signers_alone(tmp_path: Path, bundle: Path) -> None:
    carrier, other = make_key(tmp_path, "carrier"), make_key(tmp_path, "other")
    to = tmp_path / "to"
    assert "not signed: that the bundle is whole is checked, but not who made it" in install(
        bundle, tmp_path / "to0"
    )
    assert "is not signed" in refused(bundle, to, signers=Signers(carrier.allowed))
    sign(bundle / MANIFEST, carrier.private)
    assert "nothing was said about who may sign" in refused(bundle, to)
    assert "nobody has of those who may sign" in refused(bundle, to, signers=Signers(other.allowed))
    assert "does not count" in refused(bundle, to, signers=Signers(carrier.allowed, "other@site"))
    assert "exclude each other" in refused(bundle, to, signers=Signers(carrier.allowed), unverified=True)
    assert not to.exists()
    assert "signed by carrier@site" in install(bundle, to, signers=Signers(carrier.allowed))
    assert open_bundle(to, Signers(carrier.allowed)).signer == "carrier@site"
    assert any("--unverified" in line for line in install(bundle, to, unverified=True))
    # Another one, signed by somebody else who is not trusted, with other bytes in it.
    forged = tmp_path / "forged"
    make_bundle(forged, {**FILES, "models/tiny/config.json": b"[]"}, 1000)
    sign(forged / MANIFEST, other.private)
    assert "nobody has" in refused(forged, to, signers=Signers(carrier.allowed))
    shutil.copy(bundle / SIGNATURE, forged / SIGNATURE)
    assert "was changed after it was signed" in refused(forged, to, signers=Signers(carrier.allowed))
    assert installed(to) == FILES


# Environments


def with_wheels(folder: Path, files: Mapping[str, bytes] | None = None, **values: Any) -> Path:
    """A bundle with the wheels of a tiny project."""
    content = {**FILES, **wheel_files(*project_wheels()), **(files or {})}
    make_bundle(folder, content, values.pop("part_size", None), **{"requirements": PROJECT_PINS, **values})
    return folder


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"python": "3.99"}, "it is for Python 3.99, this is"),
        ({"platform": "linux_s390x"}, "it is for linux_s390x, this is"),
        ({"glibc": "99.1"}, "it needs glibc 99.1 or later, this is"),
        ({"glibc": "2.1000"}, "it needs glibc 2.1000 or later"),
    ],
)
def test_a_bundle_for_another_machine_is_refused(tmp_path: Path, other: dict[str, str], words: str) -> None:
    bundle = with_wheels(tmp_path / "bundle", target=target_here(**other))
    assert words in refused(bundle, tmp_path / "to")
    assert not (tmp_path / "to").exists()
    install(bundle, tmp_path / "to", environment=False)  # files alone are for any machine
    assert not (tmp_path / "to" / "venv").exists()


@pytest.mark.parametrize("other", [{"implementation": "pypy"}, {"glibc": ""}, {"venv": False}])
def test_a_python_that_cannot_use_the_wheels_is_refused(other: dict[str, Any]) -> None:
    here = target.ask(sys.executable, ())
    target.check(target_here(), here)
    with pytest.raises(OrchError):
        target.check(target_here(), target.Here(**{**_fields(here), **other}))


def _fields(here: target.Here) -> dict[str, Any]:
    return {name: getattr(here, name) for name in here.__dataclass_fields__}


def test_what_is_no_python_is_refused(tmp_path: Path) -> None:
    bundle = with_wheels(tmp_path / "bundle")
    for python in ("/bin/false", "/bin/echo", str(tmp_path / "gone"), str(tmp_path), "-c"):
        assert "--python" in refused(bundle, tmp_path / "to", python=python)
    assert not (tmp_path / "to").exists()


def test_what_the_target_should_have_and_lacks_is_named(tmp_path: Path) -> None:
    excluded = ("torch-of-nobody==2.0", f"pytest=={importlib.metadata.version('pytest')}", "ruff==0.0.1")
    bundle = with_wheels(tmp_path / "bundle", excluded=excluded)
    printed = refused(bundle, tmp_path / "to")
    assert "torch-of-nobody==2.0 (missing), ruff==0.0.1 (here: " in printed and "pytest" not in printed
    assert not (tmp_path / "to").exists()


def test_a_bundle_for_cuda_without_a_driver_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bundle = with_wheels(tmp_path / "bundle", target=target_here(device="cuda"), excluded=("gone==1",))
    said = Said()
    wanted = Installation(bundle, tmp_path / "to", None, sys.executable)
    with pytest.raises(OrchError, match="gone==1"):
        installing.install(wanted, said.output)
    monkeypatch.setattr(installing.environment, "make", lambda *_, **__: None)
    monkeypatch.setattr(installing.environment, "fill", lambda *_: None)
    monkeypatch.setattr(installing.environment, "check_import", lambda *_: None)
    shutil.rmtree(bundle)
    said = install(with_wheels(bundle, target=target_here(device="cuda")), tmp_path / "to")
    assert any("no nvidia-smi" in line for line in said)


@pytest.mark.parametrize("where", ["bundle", "parts", "target"])
def test_files_that_were_put_among_the_wheels_are_refused(tmp_path: Path, where: str) -> None:
    bundle = with_wheels(tmp_path / "bundle", part_size=1000 if where == "parts" else None)
    to = tmp_path / "to"
    name, content = make_wheel("tiny-needed", "9.9", {"tiny_needed.py": "raise SystemExit('planted')"})
    folder = (to if where == "target" else bundle) / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    assert f"wheels/{name}" in refused(bundle, to)
    assert receiving.verify(bundle, None, receiving.Shown()) == (0 if where == "target" else 1)
    assert not (to / "venv").exists() and not (to / MANIFEST).exists()


@pytest.mark.parametrize(
    "path",
    ["venv/bin/python", "venv/lib/x.pth", "VENV/pyvenv.cfg", ".venv-unfinished", "wheels/.orch-local-x"],
)
def test_a_bundle_may_not_bring_files_of_the_environment(tmp_path: Path, path: str) -> None:
    bundle = with_wheels(tmp_path / "bundle", {path: b"#!/bin/sh\ntouch /hacked\n"})
    assert path in refused(bundle, tmp_path / "to")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("plant", ["link", "folder", "file"])
def test_what_lies_where_the_environment_belongs_is_left_alone(
    tmp_path: Path, outside: Path, plant: str
) -> None:
    to = tmp_path / "to"
    to.mkdir()
    if plant == "link":
        other = tmp_path / "other environment"
        other.mkdir()
        (other / "pyvenv.cfg").touch()
        (to / "venv").symlink_to(other)
    elif plant == "folder":
        shutil.copytree(outside, to / "venv")
    else:
        (to / "venv").write_bytes(b"mine")
    assert "move it away" in refused(with_wheels(tmp_path / "bundle"), to)
    assert [path.name for path in to.iterdir()] == ["venv"]


@pytest.mark.parametrize("half_made", [False, True])
def test_an_environment_of_somebody_else_is_left_alone(tmp_path: Path, half_made: bool) -> None:
    to = tmp_path / "to"
    (to / "venv").mkdir(parents=True)
    (to / "venv" / "pyvenv.cfg").write_text("mine")
    if half_made:  # of an installation that was killed before somebody made an environment there
        (to / ".venv-unfinished").touch()
    assert "came with no bundle" in refused(with_wheels(tmp_path / "bundle"), to)
    assert [path.name for path in (to / "venv").iterdir()] == ["pyvenv.cfg"]


def test_a_link_inside_of_the_environment_is_not_followed(tmp_path: Path) -> None:
    to, victim = tmp_path / "to", tmp_path / "victim"
    victim.mkdir()
    (to / "venv" / "lib" / "python3.11").mkdir(parents=True)
    for name in ("pyvenv.cfg", environment.OURS):
        (to / "venv" / name).touch()
    (to / "venv" / "lib" / "python3.11" / "site-packages").symlink_to(victim)
    assert "is a link" in refused(with_wheels(tmp_path / "bundle"), to)
    assert not list(victim.iterdir())


@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="the tests run in no environment")
def test_what_an_environment_sees_of_another_one_is_seen_from_it(tmp_path: Path) -> None:
    base = sys.executable
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        environment.make(tmp_path / name, target.ask(base, ()), with_base=True)
        environment.finished(tmp_path / name)
        base = str(tmp_path / name / "venv" / "bin" / "python")
    code = "import pytest, site; print(site.ENABLE_USER_SITE)"
    done = subprocess.run([base, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


_HASH = "--hash=sha256:" + "0" * 64


_LISTED = f"x==1 {_HASH}"


@pytest.mark.parametrize(
    "line",
    [
        *[
            "--index-url http://127.0.0.1/simple",
            "-i http://127.0.0.1/",
            "--extra-index-url=http://127.0.0.1/",
        ],
        *["-e .", "-r other.txt", "--trusted-host x", "${HOME}==1 " + _HASH, "\ufeff-i http://127.0.0.1/"],
        *[
            f"x @ http://127.0.0.1/x.whl {_HASH}",
            "x==1",
            f"x>=1 {_HASH}",
            f"./x.whl {_HASH}",
            f"x==* {_HASH}",
        ],
        *[f"{_LISTED} --config-settings a=b", f"x==1 --global-option=a {_HASH}", f"x[y]==1 {_HASH}"],
        *[f"x==1 ; a {_HASH}", f"x==1 {_HASH[:-1]}", f"{_LISTED}\r-i http://127.0.0.1/"],
        *[f"{_LISTED}\x0b-i http://127.0.0.1/", f"{_LISTED} # -i http://127.0.0.1/", f"{_LISTED}\x85-i x"],
    ],
)
def test_a_list_for_pip_has_pins_and_hashes_alone(line: str) -> None:
    with pytest.raises(OrchError, match="no pinned wheel"):
        pinned_lines(f"{line}\n{_LISTED}\n".encode(), ["x==1"])


def test_pip_gets_what_was_understood_and_never_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pinned_lines(f"# all\nx==1 \\\n    {_HASH}\n\n".encode(), ["x==1"]) == (_LISTED,)
    # For pip a comment ends with its line, whatever stands there: the next line is an option.
    hidden = f"# fine \\\n--index-url http://127.0.0.1/\n{_LISTED}\n"
    assert pinned_lines(hidden.encode(), ["x==1"]) == (_LISTED,)
    (tmp_path / "requirements.txt").write_text(hidden)
    got = []

    def record(command: list[str], _failed: str) -> None:
        got.append(Path(command[command.index("-r") + 1]).read_text())

    monkeypatch.setattr(environment, "_run", record)
    environment.fill(tmp_path, tmp_path / "wheels", [_LISTED])
    assert got == [f"{_LISTED}\n"]


def test_a_list_for_pip_is_the_one_of_the_manifest(tmp_path: Path) -> None:
    for pins in (("x==1", "y==2"), ("x==2",), ("x==1", "x==1")):
        with pytest.raises(OrchError, match="other wheels than the manifest"):
            pinned_lines(f"x==1 {_HASH}\n".encode(), pins)
    bundle = with_wheels(tmp_path / "bundle", {"requirements.txt": b"--index-url http://127.0.0.1:9/\n"})
    assert "no pinned wheel" in refused(bundle, tmp_path / "to")
    make_bundle(tmp_path / "without", FILES, requirements=("x==1",))
    assert "no list of them" in refused(tmp_path / "without", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_an_environment_is_made_filled_and_updated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One environment for several facts: making it takes seconds."""
    # Whatever the site or the user set up for pip and Python has no say.
    for name, value in {
        "INDEX_URL": "http://127.0.0.1:9/",
        "NO_INDEX": "0",
        "TARGET": str(tmp_path / "t"),
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "tiny_needed.py").write_text("raise SystemExit('from PYTHONPATH')\n")
    there = f"pytest=={importlib.metadata.version('pytest')}"
    bundle = with_wheels(tmp_path / "bundle", part_size=500, excluded=(there,))
    to = tmp_path / "to go"

    # Killed before pip is done: what is half is made again.
    with monkeypatch.context() as patch:
        patch.setattr(installing.environment, "make", lambda root, *_, **__: _half(root))
        patch.setattr(installing.environment, "fill", _stop)
        with pytest.raises(KeyboardInterrupt):
            install(bundle, to)
    assert environment.python_of(to) is None
    said = install(bundle, to)
    assert f"writing 0 files to {to}, 8 are there" in said
    assert not (to / "venv" / "half").exists()
    assert _runs(to) == "usage 7"
    seen = [str(to / "venv/bin/python"), "-I", "-c", "import pytest, sys; print(sys.prefix)"]
    printed = subprocess.run(seen, capture_output=True, text=True, check=True).stdout.strip()
    assert printed == str(to / "venv")  # and what the bundle left out is seen in it

    # Again: the same. Then an update that brings one other wheel.
    install(bundle, to)
    later = {"requirements": ("tiny-needed==2.1",), "excluded": ("orch-local==1.0", there)}
    wheel = make_wheel("tiny-needed", "2.1", {"tiny_needed.py": "VALUE = 8\n"})  # the same version
    make_bundle(tmp_path / "later", {**FILES, **wheel_files(wheel)}, 500, **later)
    install(tmp_path / "later", to)
    assert _runs(to) == "usage 8"
    assert not (tmp_path / "t").exists()
    assert receiving.verify(to, None, receiving.Shown()) == 0
    assert [path.name for path in (to / "wheels").iterdir()] == [wheel[0]]  # what was replaced is gone

    # A third one, whose wheel has a path that leads out: pip refuses it.
    wheel = make_wheel(
        "tiny-needed", "2.1", {"../../../../../escaped.py": "", "tiny_needed.py": "VALUE = 9\n"}
    )
    make_bundle(tmp_path / "evil", {**FILES, **wheel_files(wheel)}, 500, **later)
    assert "pip cannot install the wheels" in refused(tmp_path / "evil", to)
    assert not list(tmp_path.rglob("escaped.py"))


def _half(root: Path) -> None:
    (root / ".venv-unfinished").touch()
    (root / "venv").mkdir()
    (root / "venv" / environment.OURS).touch()
    (root / "venv" / "half").touch()


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def _runs(to: Path) -> str:
    program = [str(to / "venv/bin/orch-local")]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(program, capture_output=True, text=True, check=True, env=environ).stdout.strip()


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="needs pip beside the tests")
@pytest.mark.skipif(_MANAGED.exists(), reason="this Python's pip refuses to install anything")
def test_pip_that_fails_is_told_in_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The hash in the list is not the wheel's: pip refuses it.
    monkeypatch.setattr(installing.environment, "make", lambda root, *_, **__: _borrow(root))
    wheels = wheel_files(*project_wheels())
    wrong = b"orch-local==1.0 " + _HASH.encode() + b"\ntiny-needed==2.1 " + _HASH.encode() + b"\n"
    bundle = with_wheels(tmp_path / "bundle", {**wheels, "requirements.txt": wrong})
    printed = refused(bundle, tmp_path / "to")
    assert "pip cannot install the wheels" in printed
    assert "DO NOT MATCH THE HASHES" in printed
    assert installed(tmp_path / "to")["requirements.txt"] == wrong


def _borrow(root: Path) -> None:
    python = root / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)


# The command lines


def standalone_run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the code of ``install.pyz`` by a Python that sees no installed package."""
    root = Path(standalone.__file__).parents[3]
    start = "from orch_local.deploy.bundle.standalone import main; main()"
    code = f"import sys; sys.path.insert(0, {str(root)!r}); {start}"
    command = [sys.executable, "-I", "-S", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_standalone_program_needs_python_alone(tmp_path: Path, bundle: Path) -> None:
    shown = standalone_run("inspect", bundle)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "holds       5 files" in shown.stdout
    assert standalone_run("verify", bundle).returncode == 0
    done = standalone_run("install", bundle, "--to", tmp_path / "to")
    assert (done.returncode, done.stderr) == (0, "")
    assert installed(tmp_path / "to") == FILES


def test_the_standalone_modules_import_each_other_alone() -> None:
    root = Path(standalone.__file__).parents[2]
    allowed = {"orch_local.errors", "orch_local.util.paths", "orch_local.deploy.bundle"} | {
        f"orch_local.deploy.bundle.{name}" for name in standalone.MODULES
    }
    for name in (*standalone.SHARED, *(f"deploy/bundle/{name}.py" for name in standalone.MODULES)):
        for node in ast.walk(ast.parse((root / name).read_text())):
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [str(node.module)]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for module in modules:
                assert module in allowed or module.split(".")[0] in sys.stdlib_module_names, (name, module)


def test_an_old_python_can_read_the_entry_and_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path(standalone.__file__).read_text()
    ast.parse(text, feature_version=(3, 4))
    assert "from __future__" not in text
    monkeypatch.setattr(standalone.sys, "version_info", (3, 9, 2, "final", 0))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or later, and this is 3\.9\.2"):
        standalone.main()


def test_verify_names_what_to_copy_again(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "part-00002").unlink()
    os.truncate(bundle / "part-00003", 10)
    (bundle / "notes\x1b[2J.txt").write_bytes(b"")
    with pytest.raises(SystemExit, match="1"):
        run(["verify", str(bundle), "--list-missing"])
    assert capsys.readouterr().out == "part-00002\npart-00003\n"
    with pytest.raises(SystemExit, match="1"):
        run(["verify", str(bundle), "--json"])
    values = json.loads(capsys.readouterr().out)
    assert values["copy_again"] == ["part-00002", "part-00003"]
    assert (values["passed"], values["missing"], values["wrong_size"]) == (
        False,
        ["part-00002"],
        ["part-00003"],
    )
    with pytest.raises(SystemExit, match="1"):
        run(["verify", str(bundle)])
    printed = capsys.readouterr().out
    assert "part-00002: missing\n" in printed and "part-00003: of another size" in printed
    assert "notes\\x1b[2J.txt: not in the manifest; not used" in printed
    assert "\x1b" not in printed


def test_exit_codes_of_what_is_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for folder in ("gone", "file", "empty"):
        for command in (["inspect"], ["verify"], ["install", "--to", str(tmp_path / "to")]):
            with pytest.raises(SystemExit, match="2"):
                run([*command[:1], str(tmp_path / folder), *command[1:]])
            assert "is no bundle" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run(["verify", str(tmp_path), "--identity", "x"])
    assert "need --allowed-signers" in capsys.readouterr().err


def test_inspect_tells_what_there_is_in_words_that_cannot_trick(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = Content("\u05d0\u05d1 x", "models/tiny", "owner/name", "c" * 40, "e\u0301\u0301 licence")
    with_wheels(
        tmp_path / "bundle", models=(odd,), run_files=("run-files/tiny.yaml",), excluded=("torch==2.13.0",)
    )
    assert receiving.inspect(tmp_path / "bundle", None, as_json=False) == 0
    printed = capsys.readouterr().out
    assert "\\u05d0\\u05d1 x (owner/name@cccccccccccc; licence: e\\u0301\\u0301 licence)" in printed
    for words in (
        "wheels      2, ",
        "run files   run-files/tiny.yaml",
        "left out    torch==2.13.0",
        "signed      no",
    ):
        assert words in printed
    assert receiving.inspect(tmp_path / "bundle", None, as_json=True) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["signed"], values["wheels"]["count"]) == (False, 2)


def test_harmless_text_is_left_as_it_is() -> None:
    assert harmless("Modell für 東京 x.yaml") == "Modell für 東京 x.yaml"
    assert harmless("a\x1b]8;;b\x07\n\u202e\ud800\u200b") == "a\\x1b]8;;b\\x07\\n\\u202e?\\u200b".replace(
        "?", "\\ud800"
    )


def test_the_command_line_of_the_package_does_the_same(tmp_path: Path, bundle: Path) -> None:
    app = typer.Typer()
    for command in (bundle_install.inspect, bundle_install.verify, bundle_install.install):
        app.command()(command)
    runner = CliRunner()
    assert "holds       5 files" in runner.invoke(app, ["inspect", str(bundle)]).output
    assert runner.invoke(app, ["verify", str(bundle)]).exit_code == 0
    assert runner.invoke(app, ["install", str(bundle), "--to", str(tmp_path / "to")]).exit_code == 0
    assert installed(tmp_path / "to") == FILES
    (bundle / "part-00001").unlink()
    assert runner.invoke(app, ["verify", str(bundle)]).exit_code == 1
    assert runner.invoke(app, ["verify", str(tmp_path)]).exit_code == 2


def test_an_interrupt_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    def forbidden() -> int:
        raise PermissionError(13, "Permission denied", "/some/where\x1b")

    assert receiving.guarded(interrupted) == 130
    assert (
        capsys.readouterr().err == "error: interrupted; run the same command again: what is whole is kept\n"
    )
    assert receiving.guarded(forbidden) == 2
    assert capsys.readouterr().err.startswith("error: /some/where\\x1b: Permission denied\nhint: ")
