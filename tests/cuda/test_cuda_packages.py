"""The lock as it is installed: no package writes over another, and what breaks first is imported."""

from __future__ import annotations

import csv
import os
import sys
from collections import defaultdict
from importlib import metadata

import pytest
from lab import ROOT, Lab
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.timeout(900)
_HARMLESS = ("build_backend.py",)
"""Of flashinfer-python and torch-c-dlpack-ext, each with the script that built it; nothing imports it."""
IMPORTED = ("flashinfer", "cutlass", "triton", "vllm")
"""Each was seen to break where two packages had written the same files."""


def installed() -> dict[str, metadata.Distribution]:
    """All that is installed in this environment, by name."""
    found = metadata.distributions(path=[entry for entry in sys.path if "site-packages" in entry])
    return {canonicalize_name(one.metadata["Name"]): one for one in found}


def test_all_of_the_lock_is_installed_and_in_its_version() -> None:
    lines = (ROOT / "requirements" / "cuda.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    found = {name: one.version for name, one in installed().items()}
    wrong = {name: (pin, found.get(name)) for name, pin in pins.items() if found.get(name) != pin}
    assert not wrong


def test_no_file_is_in_two_packages_with_different_content() -> None:
    owners: dict[str, dict[str, str]] = defaultdict(dict)
    for name, one in installed().items():
        for file, sha256, _ in csv.reader((one.read_text("RECORD") or "").splitlines()):
            if sha256 and "__pycache__" not in file:
                owners[os.path.normpath(file)][name] = sha256
    several = {file: names for file, names in owners.items() if len(set(names.values())) > 1}
    clashes = {file: names for file, names in several.items() if file not in _HARMLESS}
    assert len(owners) > 10_000
    assert not clashes


def test_torch_is_built_for_the_cuda_that_is_told(lab: Lab) -> None:
    done = lab.run("h100", "-c", "import torch; print(torch.version.cuda)", timeout=300)
    assert done.stdout.strip() == "13.0", done.stderr


def test_packages_import_that_break_where_files_are_mixed(lab: Lab) -> None:
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name); print(name)"
    done = lab.run("h100", "-c", code, *IMPORTED, timeout=600)
    assert done.stdout.split() == list(IMPORTED), done.stderr[-2000:]


def test_the_page_of_this_machine_names_driver_compiler_and_packages(lab: Lab) -> None:
    done = lab.run("h100", "-m", "orch_local", "doctor", "--quick", timeout=600, STUB_DRIVER="550.54.15")
    assert "driver 550.54.15 is too old for CUDA 13.0" in " ".join(done.stdout.split())
    for title in ("Packages import", "Compiler of kernels"):
        assert title in done.stdout
