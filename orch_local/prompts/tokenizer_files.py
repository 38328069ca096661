"""The small files of a model folder that a tokenizer is made of, read with care."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from orch_local.errors import ModelError
from orch_local.models.opening import read_json, read_text

LONGEST_MESSAGE = 500
_LONGEST_TEMPLATE = 2**20
DOWNLOAD = "fetch the complete model folder again (`orch-local fetch`), tokenizer files included"


def read(path: Path) -> str:
    try:
        return read_text(path)
    except FileNotFoundError:
        message = f"the model folder has no {path.name}"
        raise ModelError(message, where=str(path.parent), hint=DOWNLOAD) from None


def json_file(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except FileNotFoundError:
        return {}
    return value if isinstance(value, dict) else {}


def added_by(config: Mapping[str, Any], folder: Path) -> list[AddedToken]:
    """Tokens and flags that the config states besides ``tokenizer.json``; transformers obeys them, too."""
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    try:
        entries = sorted(config.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0]))
        return [
            AddedToken(token["content"], **{k: token[k] for k in flags if k in token}) for _, token in entries
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        where = str(folder / "tokenizer_config.json")
        message = f"`added_tokens_decoder` cannot be read: {error!r}"
        raise ModelError(message, where=where, hint=DOWNLOAD) from None


def special_names(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The texts of bos, eos, pad and unk, which chat templates use."""
    names = {}
    for source in (json_file(folder / "special_tokens_map.json"), config):
        for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
            value = source.get(name)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str) and not re.search("[\ud800-\udfff]", value):
                names[name] = value
    return names


def chat_template(folder: Path, config: Mapping[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    if file.exists():
        return read(file)
    value = json_file(folder / "chat_template.json").get("chat_template", config.get("chat_template"))
    if isinstance(value, list):
        named = [entry for entry in value if isinstance(entry, dict) and entry.get("name") == "default"]
        value = named[-1].get("template") if named else None
    if not isinstance(value, str) or not value.strip():
        raise ModelError(
            "the model folder has no chat template",
            where=str(folder),
            hint="use an instruction-tuned model, or add a `chat_template.jinja` file",
        )
    if len(value) > _LONGEST_TEMPLATE:
        raise ModelError(
            f"has a chat template of {len(value):,} characters, where {_LONGEST_TEMPLATE:,} are the most",
            where=str(folder),
            hint="add a `chat_template.jinja` file that you trust",
        )
    return value
