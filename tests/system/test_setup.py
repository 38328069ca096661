"""The set-up script, part by part: its functions run on a machine that is made of a few files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from paths import ROOT

SCRIPT = (ROOT / "scripts" / "setup_env.sh").read_text(encoding="utf-8")
CALL = 'main "$@"\n'


def called(tmp_path: Path, function: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Call one function of the script, in an environment that ``variables`` describe."""
    assert SCRIPT.endswith(CALL)
    body = SCRIPT.removesuffix(CALL).replace("/sys/bus/pci/devices", str(tmp_path / "pci"))
    script = tmp_path / "scripts" / "setup_env.sh"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"{body}\n{function}\n", encoding="utf-8")
    environment = {**os.environ, "ORCH_VENV": str(tmp_path / "venv"), **variables}
    return subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, timeout=600)


def program(tmp_path: Path, name: str, text: str) -> str:
    """Write a program; returns a PATH on which it is the first of that name."""
    file = tmp_path / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    file.chmod(0o755)
    return f"{file.parent}:{os.environ['PATH']}"


def card(tmp_path: Path, vendor: str, kind: str = "0x030000") -> None:
    """A device on the PCI bus."""
    folder = tmp_path / "pci" / f"0000:{len(list(tmp_path.glob('pci/*')))}"
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "class").write_text(f"{kind}\n")


@pytest.mark.parametrize(
    ("vendor", "told"),
    [
        ("0x1002", "an AMD GPU is here: orch-local uses NVIDIA GPUs alone"),
        ("0x8086", "a GPU of Intel is here: orch-local uses NVIDIA GPUs alone"),
        ("0x10de", "an NVIDIA GPU is here, but nvidia-smi lists none"),
        ("0x1a03", ""),
    ],
)
def test_a_gpu_that_is_not_used_is_named(tmp_path: Path, vendor: str, told: str) -> None:
    card(tmp_path, "0x8086", "0x020000")  # a network card
    card(tmp_path, vendor)
    path = program(tmp_path, "nvidia-smi", "exit 9")
    done = called(tmp_path, 'find_device; echo "device $device"', PATH=path, ORCH_DEVICE="auto")
    assert done.returncode == 0, done.stderr
    assert "device cpu" in done.stdout
    assert (told in done.stdout) if told else ("GPU" not in done.stdout)


@pytest.mark.parametrize(
    ("driver", "old"),
    [("550.54.15", True), ("580.65.05", True), ("580.65.06", False), ("580.100.1", False), ("", False)],
)
def test_an_old_driver_is_told_before_anything_is_installed(tmp_path: Path, driver: str, old: bool) -> None:
    path = program(tmp_path, "nvidia-smi", f"echo '{driver}'")
    done = called(tmp_path, "find_device", PATH=path, ORCH_DEVICE="cuda")
    assert done.returncode == 0, done.stderr
    assert ("is too old for CUDA 13" in done.stdout) is old


@pytest.mark.parametrize(("built", "code"), [("2.13.0+cu130 13.0", 0), ("2.13.0+cpu none", 5)])
def test_a_torch_without_cuda_is_refused_and_taken_off(tmp_path: Path, built: str, code: int) -> None:
    uninstall = f"touch {tmp_path}/off"
    program(tmp_path, "python", f'case "$*" in *uninstall*) {uninstall} ;; *) echo "{built}" ;; esac')
    (tmp_path / "venv").mkdir()
    (tmp_path / "bin").rename(tmp_path / "venv" / "bin")
    done = called(tmp_path, "check_torch_for_cuda")
    assert done.returncode == code
    assert (tmp_path / "off").exists() is bool(code)
    assert ("gave torch 2.13.0+cpu, a build without CUDA" in done.stderr) is bool(code)


def test_missing_headers_and_compilers_are_told_with_the_package(tmp_path: Path) -> None:
    program(tmp_path, "python", 'case "$*" in *Python.h*) exit 1 ;; *) echo 3.12 ;; esac')
    (tmp_path / "venv").mkdir()
    (tmp_path / "bin").rename(tmp_path / "venv" / "bin")
    path = program(tmp_path, "gcc", "")
    done = called(tmp_path, "check_compiler", PATH=path)
    assert done.returncode == 6
    assert "python3.12-dev" in done.stderr
    none = called(tmp_path, "command() { return 1; }; check_compiler")
    assert none.returncode == 6
    assert "sudo apt install gcc" in none.stderr
