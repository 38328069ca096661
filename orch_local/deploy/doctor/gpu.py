"""NVIDIA's driver, what it was made for, and what of its GPUs is free, as nvidia-smi and files say.

Minimum drivers: docs.nvidia.com/deploy/cuda-compatibility, "Minor Version Compatibility", and the release
notes of the CUDA toolkits for the full numbers. Within a major version of CUDA the minimum holds for all of
its releases. Below it only the package `cuda-compat` helps, on data-centre GPUs ("Forward Compatibility").
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from orch_local.deploy.doctor.checks import Finding, green, red, unchecked, yellow
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.tools import ask, one_line, read
from orch_local.deploy.doctor.vendors import makers

LEAST_DRIVER = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580, 65, 6)}
"""On Linux, by major version of CUDA."""
SMI_S = 15.0
_FIELDS = ("name", "memory.total", "memory.free", "driver_version", "uuid", "mig.mode.current")
_ASK_ADMIN = (
    "ask the administrator of the machine; in a container, see that the driver of the host is mounted"
)


class GpuReading(NamedTuple):
    """One GPU; memory in GiB, 0 where it is not known."""

    name: str
    total_gib: float
    free_gib: float
    driver: str
    uuid: str = ""
    sliced: bool = False


class Sight(NamedTuple):
    """What is to be seen of GPUs."""

    cards: tuple[GpuReading, ...] = ()
    problem: str = ""
    """Why nvidia-smi tells nothing."""
    missing: bool = True
    """There is no nvidia-smi."""
    nodes: tuple[str, ...] = ()
    """Device files."""
    users: tuple[str, ...] = ()
    """Processes that hold memory of a GPU now, in words."""
    makers: tuple[str, ...] = ()
    """Who made the GPUs on the PCI bus, where nvidia-smi tells nothing."""

    @property
    def hangs(self) -> bool:
        """Whether nvidia-smi does not come back."""
        return "did not answer" in self.problem


class GpuDemand(NamedTuple):
    """What the run makes of GPUs."""

    device: str = "auto"
    """As the run file has it."""
    engine: str = "vllm"
    share: float = 0.9
    """The most of a GPU's memory that a model takes."""


@cache
def sight() -> Sight:
    """What is to be seen from here."""
    nodes = tuple(sorted(file.name for file in Path("/dev").glob("nvidia[0-9]*")))
    fields: Sequence[str] = _FIELDS
    answer = ask(_query(fields), SMI_S)
    if answer.problem and not answer.missing and "did not answer" not in answer.problem:
        fields = _FIELDS[:-1]  # an old driver refuses the whole query for the one field that it does not know
        answer = ask(_query(fields), SMI_S)
    if answer.problem:
        return Sight(problem=answer.problem, missing=answer.missing, nodes=nodes, makers=makers())
    cards = tuple(card for line in answer.out.splitlines() if (card := _card(line, len(fields))))
    users = ask(
        ["nvidia-smi", "--query-compute-apps=pid,used_memory,process_name", "--format=csv,noheader"], SMI_S
    )
    return Sight(
        cards, "", False, nodes, tuple(_user(line) for line in users.out.splitlines() if "," in line)
    )


def _query(fields: Sequence[str]) -> list[str]:
    return ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]


def _card(line: str, count: int) -> GpuReading | None:
    values = [value.strip() for value in line.rsplit(",", count - 1)]
    if len(values) != count:
        return None
    total, free = (float(value) / 1024 if value.isdigit() else 0.0 for value in values[1:3])
    return GpuReading(one_line(values[0], 60), total, free, values[3], values[4], values[5:] == ["Enabled"])


def _user(line: str) -> str:
    """A process that computes: its number, memory, and what its program is called, without the path."""
    pid, memory, name = (part.strip() for part in f"{line},,".split(",", 2))
    name = name.removesuffix(",,").removesuffix(",")
    return f"{one_line(Path(name).name, 40) or 'a program'} ({pid}) {memory}"


def examine(inspection: Inspection) -> Iterator[Finding]:
    """Ask nvidia-smi, and compare the driver with the CUDA that torch was built for."""
    inspection.step("gpu-driver", "asking nvidia-smi", 4 * SMI_S, _ASK_ADMIN)
    seen, wanted = sight(), _wanted(inspection)
    yield judge_driver(seen, wanted)
    driver = seen.cards[0].driver if seen.cards else _driver_of_kernel()
    yield judge_cuda(driver, torch_cuda(), has_compat=_has_compat())
    yield judge_slices(seen, os.environ.get("CUDA_VISIBLE_DEVICES"))
    yield judge_memory(
        seen._replace(cards=visible(seen.cards, os.environ.get("CUDA_VISIBLE_DEVICES"))), wanted
    )


def _wanted(inspection: Inspection) -> GpuDemand:
    if inspection.subject is None:
        return GpuDemand()
    engine = inspection.subject.config.engine
    try:
        shares = [model.gpu_memory_utilization for model in inspection.subject.models().values()]
    except Exception:  # noqa: BLE001 - the check of the models reports it
        shares = []
    return GpuDemand(engine.device, engine.name, max(shares, default=0.9))


def torch_cuda() -> str | None:
    """The CUDA version that torch was built for, from its files."""
    try:
        from orch_local.plan.fingerprint import torch_cuda as built_for

        return built_for()
    except Exception:  # noqa: BLE001 - another package is broken, which other checks tell
        return None


def _driver_of_kernel() -> str:
    """The driver's version as the kernel module states it; empty where there is none."""
    found = re.search(r"Module\s+(\d[\d.]+)", read(Path("/proc/driver/nvidia/version")))
    return found[1] if found else ""


def _has_compat() -> bool:
    """Whether NVIDIA's package for newer CUDA on older drivers is in the way of libraries."""
    places = [*filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":")), "/usr/local/cuda/compat"]
    return any("compat" in place and any(Path(place).glob("libcuda.so*")) for place in places)


def visible(cards: Sequence[GpuReading], names: str | None) -> tuple[GpuReading, ...]:
    """The cards that CUDA_VISIBLE_DEVICES leaves, by number or by the beginning of their UUID."""
    if names is None or names.startswith("MIG-"):
        return tuple(cards)
    wanted = [name.strip() for name in names.split(",")]
    return tuple(
        card
        for number, card in enumerate(cards)
        if str(number) in wanted or any(name and card.uuid.startswith(name) for name in wanted)
    )


def judge_driver(seen: Sight, wanted: GpuDemand) -> Finding:
    """Whether there is a driver that answers."""
    check, needed = "gpu-driver", wanted.device == "cuda"
    if seen.cards:
        names = [card.name for card in seen.cards]
        named = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
        return green(check, f"{named}, driver {seen.cards[0].driver}")
    if seen.missing and seen.nodes:
        text = f"nvidia-smi is missing, but there is /dev/{seen.nodes[0]}"
        advice = "install the driver's utilities; in a container, NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        return yellow(check, f"{text}: memory cannot be planned, and `device: auto` takes the CPU", advice)
    if seen.missing and "NVIDIA" in seen.makers:
        text = "there is an NVIDIA GPU, but neither nvidia-smi nor /dev/nvidia*: its driver is not installed"
        return (red if needed else yellow)(check, text, f"install the driver; {_ASK_ADMIN}")
    if seen.missing and seen.makers:
        text = f"the GPU of this machine is by {' and '.join(seen.makers)}: only NVIDIA's are used"
        advice = "take the CPU environment, or a machine with an NVIDIA GPU"
        return red(check, text, advice) if needed else unchecked(check, f"{text}, so the run is for the CPU")
    if seen.missing:
        return unchecked(check, "there is no NVIDIA GPU in sight (no nvidia-smi, no /dev/nvidia*)")
    text = seen.problem or "nvidia-smi lists no GPU"
    if needed or (wanted.device == "auto" and seen.nodes):
        return red(check, text, _ASK_ADMIN)
    return yellow(check, text, f"nothing, if the run is for a CPU; else {_ASK_ADMIN}")


def judge_cuda(driver: str, cuda: str | None, *, has_compat: bool = False) -> Finding:
    """Whether the driver is new enough for the CUDA that torch was built for."""
    check = "driver-for-cuda"
    if cuda is None:
        return unchecked(check, "torch is a CPU build, or not installed")
    if not driver:
        return unchecked(check, f"torch is built for CUDA {cuda}; there is no driver")
    least = LEAST_DRIVER.get(int(cuda.split(".")[0]))
    if least is None:
        return unchecked(
            check, f"which driver CUDA {cuda} needs is not in this version's list; this is {driver}"
        )
    wanted = ".".join(f"{part:02d}" if place else f"{part}" for place, part in enumerate(least))
    if _numbers(driver) >= least:
        return green(check, f"driver {driver} runs CUDA {cuda} (it needs {wanted} or newer)")
    text = f"driver {driver} is too old for CUDA {cuda} of torch: it needs {wanted} or newer"
    if has_compat:
        return yellow(
            check, f"{text}; the package cuda-compat is there", "see `gpu-computes`, which tries it"
        )
    return red(
        check,
        text,
        "update the driver; on data-centre GPUs the package cuda-compat with "
        "VLLM_ENABLE_CUDA_COMPATIBILITY=1 will do as well, or a build of vLLM for CUDA 12 (README, "
        '"On a GPU box")',
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def judge_slices(seen: Sight, visible: str | None) -> Finding:
    """Whether GPUs are cut into slices, whose memory is then not known."""
    check = "gpu-slices"
    if not seen.cards:
        return unchecked(check, "no GPU is listed")
    if not any(card.sliced for card in seen.cards):
        return green(check, "none")
    if visible is not None and visible.startswith("MIG-"):
        return yellow(
            check,
            "the run has a slice of a GPU; its memory is not checked before a model is loaded",
            "compare `orch-local plan` with the size of the slice (nvidia-smi -L)",
        )
    return yellow(
        check,
        "a GPU is cut into slices (MIG), but is planned as a whole",
        "set CUDA_VISIBLE_DEVICES to the name of one slice, MIG-..., as `nvidia-smi -L` lists it",
    )


def judge_memory(seen: Sight, wanted: GpuDemand) -> Finding:
    """Whether others hold memory that the run is going to ask for."""
    check = "gpu-in-use"
    known = [card for card in seen.cards if card.total_gib]
    if not known:
        return unchecked(check, "the memory of GPUs is not told" if seen.cards else "no GPU is listed")
    users = f" ({', '.join(seen.users[:4])})" if seen.users else ""
    least = min(card.free_gib / card.total_gib for card in known)
    words = f"{100 * least:.0f} % of the memory is free where least is{users}"
    if least >= wanted.share or wanted.device == "cpu":
        return green(check, words)
    advice = (
        "end those processes, name another GPU in CUDA_VISIBLE_DEVICES, or lower `gpu_memory_utilization`"
    )
    full = f"{words}; a model asks for {100 * wanted.share:.0f} %"
    # vLLM refuses to start where less is free than it is to take; transformers takes what it needs.
    return red(check, full, advice) if wanted.engine == "vllm" else yellow(check, full, advice)
