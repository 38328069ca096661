"""Which models the installed engines know, read from their sources: an import would take torch along."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_CATALOGUES: dict[str, list[tuple[str, str]]] = {
    "fake": [],
    "transformers": [("transformers", "models/auto/auto_mappings.py")],
    # vLLM runs what only transformers knows through its Transformers backend.
    "vllm": [("vllm", "model_executor/models/registry.py"), ("transformers", "models/auto/auto_mappings.py")],
}


def knows(engine: str, architecture: str, model_type: str) -> bool:
    """Whether an engine knows a model; ``True`` where its catalogue is not found: loading will tell."""
    texts = [text for library, file in _CATALOGUES[engine] if (text := _source(library, file)) is not None]
    return not texts or any(f'"{name}"' in text for name in (architecture, model_type) for text in texts)


def _source(library: str, file: str) -> str | None:
    found = importlib.util.find_spec(library)
    folders = (found.submodule_search_locations or []) if found else []
    paths = (Path(folder) / file for folder in folders)
    return next((path.read_text(encoding="utf-8") for path in paths if path.is_file()), None)
