"""The model folders: complete, safe to load, and with a tokenizer and a chat template that work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orch_local.deploy.doctor.checks import Finding, green, red, unchecked
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.tools import one_line, size

if TYPE_CHECKING:
    from orch_local.config.model_configs import ModelConfig
    from orch_local.errors import OrchError

_SECONDS = 60.0
_DISK = "is it on a network disk that hangs? else have the folder copied again"


def examine(inspection: Inspection) -> Iterator[Finding]:
    """Open the folder of each model of the run."""
    inspection.step("model-folder", "reading the run file")
    if inspection.subject is None:
        yield unchecked("model-folder", "the run file cannot be read")
        yield unchecked("model-tokenizer", "the run file cannot be read")
        return
    from orch_local.config.model_configs import load_model_config
    from orch_local.errors import OrchError

    for name in dict.fromkeys(inspection.subject.model_names.values()):
        inspection.step("model-folder", f"opening the model {Path(name).stem}", _SECONDS, _DISK)
        try:
            config = load_model_config(name)
        except OrchError as error:
            yield broken("model-folder", error, Path(name).stem)
            yield unchecked("model-tokenizer", "there is no model config", about=Path(name).stem)
            continue
        yield from _model(inspection, config, engine=inspection.subject.config.engine.name)


def broken(check: str, error: OrchError, about: str) -> Finding:
    """An error of ours as a finding."""
    where = f"{error.where}: " if error.where else ""
    return red(check, f"{where}{one_line(error.message)}", error.hint or "put a good copy there", about)


def _model(inspection: Inspection, config: ModelConfig, engine: str) -> Iterator[Finding]:
    from orch_local.engines.catalogue import knows
    from orch_local.errors import OrchError
    from orch_local.models.folders import open_model_folder

    try:
        folder = open_model_folder(config)
    except OrchError as error:
        yield broken("model-folder", error, config.name)
        yield unchecked("model-tokenizer", "the model folder cannot be used", about=config.name)
        return
    files = len(folder.weights)
    text = f"{folder.architecture}, {size(folder.weight_bytes)} in {files} file{'' if files == 1 else 's'}"
    if knows(engine, folder.architecture, str(folder.config.get("model_type"))):
        yield green("model-folder", text, config.name)
    else:
        advice = "update the engine, or use another model"
        yield red("model-folder", f"{text}; {engine} does not know this kind of model", advice, config.name)
    inspection.step("model-tokenizer", f"rendering a prompt for {config.name}", _SECONDS, _DISK)
    try:
        yield green("model-tokenizer", _prompt(config, folder.path), config.name)
    except OrchError as error:
        yield broken("model-tokenizer", error, config.name)


def _prompt(config: ModelConfig, folder: Path) -> str:
    """Render a short chat; says how many tokens it has, and what happens to its system turn."""
    from orch_local.prompts.arrival import system_turn
    from orch_local.prompts.template import Message
    from orch_local.prompts.tokenizer import PromptTokenizer

    tokenizer = PromptTokenizer(folder)
    options = config.template_options(thinking=False)
    has_turn, note = system_turn(tokenizer, options, config.system_role)
    turns = [Message("system", "Answer.")] if has_turn else []
    ids = tokenizer.encode([tokenizer.chat([*turns, Message("user", "1 + 1?")], options)])
    text = f"a short prompt has {len(ids)} tokens, an answer ends with {tokenizer.eos_id}"
    return f"{text}; {note}" if note else text
