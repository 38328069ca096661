"""Engines behind one small protocol; see `base.py`.

The modules of the engines import vLLM and torch inside functions only, so all but :func:`open_engine` may
be called in the parent process.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from orch_local.engines import transformers, vllm
from orch_local.engines.base import Engine, EngineSettings

_MODULES: dict[str, ModuleType] = {"vllm": vllm, "transformers": transformers}


def open_engine(settings: EngineSettings) -> Engine:
    """Load the model of ``settings`` in the engine it names.

    Raises
    ------
    EngineError
        If the engine is not installed or cannot load the model.
    """
    if settings.name == "vllm":
        return vllm.VllmEngine(settings)
    return transformers.TransformersEngine(settings)


def environment(settings: EngineSettings) -> dict[str, str]:
    """Environment variables a worker must be started with."""
    return dict(_MODULES[settings.name].environment(settings))


def determinism(settings: EngineSettings) -> Mapping[str, Any]:
    """Facts about the engine's set-up that decide whether bytes depend on the batch; part of the spec."""
    return dict(_MODULES[settings.name].determinism(settings))


def engine_version(name: str) -> str:
    """Version of the engine's library.

    Raises
    ------
    EngineError
        If it is not installed.
    """
    return str(_MODULES[name].version())
