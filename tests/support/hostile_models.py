"""Model folders that attack whoever reads them."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from fuzzing import assert_clear
from tokenizer_families import make_family

from orch_local.config.model_configs import ModelConfig
from orch_local.errors import ModelError, PromptError
from orch_local.models.folders import digests, open_model_folder
from orch_local.prompts.template import Message
from orch_local.prompts.tokenizer import PromptTokenizer

CANARY = "canary-outside-of-the-folder"


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 512,
}


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(begin: object, end: object, shape: object = (2,), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


GOOD = safetensors({"a": tensor(0, 8)}, b"\1" * 8)


def good_folder(tmp_path: Path) -> Path:
    """A good model folder; beside it lies what nobody may read."""
    path = make_family("qwen3", tmp_path / "model")
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "model.safetensors").write_bytes(GOOD)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text(CANARY)
    return path


def opened(folder: Path) -> None:
    """All that is done with a folder before an engine is started."""
    found = open_model_folder(ModelConfig(name="m", path=folder))
    digests(found)
    PromptTokenizer(folder).chat([Message("user", "x")], {})


def refused(folder: Path, match: str, name: str | None) -> None:
    """The folder is refused within seconds, the file named and nothing of the outside told."""
    started = time.monotonic()
    with pytest.raises((ModelError, PromptError), match=match) as caught:
        opened(folder)
    assert time.monotonic() - started < 200
    assert caught.value.where == str(folder / name if name else folder)
    assert CANARY not in str(caught.value)
    assert_clear(caught.value)


def tokenizer_with(folder: Path, **parts: Any) -> None:
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | parts))


def replaced(text: str, by: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": text}, "content": by}
