"""The SHA-256 of the weights against what they should be: a flipped bit loads without an error.

Hashing 100 GB takes minutes, so digests are remembered (`orch_local.models.folders.digests`). What is not
remembered and large is hashed only if asked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orch_local.deploy.doctor.checks import Finding, green, red, unchecked
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.models import broken
from orch_local.deploy.doctor.tools import duration, size

if TYPE_CHECKING:
    from orch_local.config.model_configs import ModelConfig
    from orch_local.deploy.doctor.subject import Subject
    from orch_local.models.folders import ModelFolder

AT_ONCE_BYTES = 2**30
"""So much is hashed without being asked for."""
_BYTES_A_SECOND = 400e6
_SLOWEST = 20e6
_MOST_NAMED = 3


class Expected(NamedTuple):
    """SHA-256 by file name, and who says so."""

    source: str
    files: Mapping[str, str]


def examine(inspection: Inspection) -> Iterator[Finding]:
    """Hash the models of the run, and compare."""
    inspection.step("model-digests", "looking which weights are hashed already", 60)
    if inspection.subject is None:
        yield unchecked("model-digests", "the run file cannot be read")
        return
    from orch_local.errors import OrchError
    from orch_local.models.folders import digests, open_model_folder

    seen: set[Path] = set()
    for agent, config in _usable(inspection.subject):
        try:
            folder = open_model_folder(config)
            if folder.path in seen:
                continue
            seen.add(folder.path)
            missing = folder.weight_bytes if inspection.request.fresh else bytes_to_hash([folder.path])
            if not inspection.request.fresh and (why := too_long_to_hash(missing)):
                yield unchecked("model-digests", why, "--fresh hashes them now", config.name)
                continue
            inspection.step("model-digests", f"hashing {config.name}", 60 + missing / _SLOWEST)
            began = time.monotonic()
            found = digests(folder, fresh=inspection.request.fresh)
            took = time.monotonic() - began
            how = f"hashed in {duration(took)}" if missing else "remembered from before"
            yield judge(found, _expected(inspection.subject, agent, folder), how, config.name)
        except OrchError as error:
            yield broken("model-digests", error, config.name)
        except OSError as error:
            text = f"cannot be read: {error.strerror or error}"
            yield red("model-digests", text, "check the disk; have the file copied again", config.name)


def _usable(subject: Subject) -> Iterator[tuple[str, ModelConfig]]:
    """Models whose config and folder are in order; of the others `model-folder` tells."""
    from orch_local.config.model_configs import load_model_config
    from orch_local.errors import OrchError
    from orch_local.models.folders import open_model_folder

    for agent, name in subject.model_names.items():
        try:
            config = load_model_config(name)
            open_model_folder(config)
        except OrchError:
            continue
        yield agent, config


def bytes_to_hash(folders: Sequence[Path]) -> int:
    """How much of model folders no digest is remembered of."""
    from orch_local.models.folders import not_remembered

    files = [file for folder in dict.fromkeys(folders) for file in folder.glob("*.safetensors")]
    return sum(file.stat().st_size for file in not_remembered(files))


def too_long_to_hash(missing: int) -> str:
    """Why so many bytes are not hashed unasked; empty where they are."""
    if missing <= AT_ONCE_BYTES:
        return ""
    took = duration(missing / _BYTES_A_SECOND)
    return f"{size(missing)} of weights were not hashed yet, which takes about {took}"


def _expected(subject: Subject, agent: str, folder: ModelFolder) -> list[Expected]:
    """What the frozen plan of the run says, and the record of the fetched folder."""
    from orch_local.errors import OrchError

    found = []
    try:
        plan = subject.frozen
    except OrchError:  # the check of the plan reports it
        plan = None
    for worker in plan.workers if plan else ():
        files = worker.spec_content.get("model", {}).get("files")
        if worker.name == agent and isinstance(files, Mapping):
            found.append(Expected("the plan of the run", files))
    return found + _fetched(folder.path)


def _fetched(model: Path) -> list[Expected]:
    try:
        from orch_local.deploy.fetch.record import read_record
    except ImportError:  # not part of this installation
        return []
    item = read_record(model.parent.parent).get(f"{model.parent.name}/{model.name}")
    return [Expected("fetched.json", {file.path: file.sha256 for file in item.files})] if item else []


def judge(found: Mapping[str, str], expected: Sequence[Expected], how: str, about: str) -> Finding:
    """Whether the files are those that they should be."""
    for source, known in expected:
        wrong = sorted(name for name in found if name in known and known[name] != found[name])
        gone = sorted(name for name in known if name.endswith(".safetensors") and name not in found)
        if wrong or gone:
            named = ", ".join([*wrong, *(f"{name} (missing)" for name in gone)][:_MOST_NAMED])
            text = f"not as in {source}: {named}"
            return red("model-digests", text, "have the files copied again, or fetched anew", about)
    files = f"{len(found)} files, {how}"
    if not expected:
        return green("model-digests", f"{files}; nothing to compare them with yet", about)
    return green("model-digests", f"{files}: as in {' and '.join(one.source for one in expected)}", about)
