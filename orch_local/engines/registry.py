"""Engines behind one small protocol; see `base.py`.

The modules of the engines import vLLM and torch inside functions only, so all but :func:`open_engine` may
be called in the parent process.
"""

from __future__ import annotations

from contextlib import suppress
from types import ModuleType

from orch_local.engines import fake, transformers, vllm
from orch_local.engines.base import Engine, EngineSettings

_MODULES: dict[str, ModuleType] = {"vllm": vllm, "transformers": transformers, "fake": fake}


def open_engine(settings: EngineSettings) -> Engine:
    """Load the model of ``settings`` in the engine it names.

    Raises
    ------
    EngineError
        If the engine is not installed or cannot load the model.
    """
    if settings.name == "vllm":
        return vllm.VllmEngine(settings)
    if settings.name == "fake":
        return fake.open_table_engine(settings)
    return transformers.TransformersEngine(settings)


def import_engine(name: str) -> None:
    """Import the libraries of an engine, which takes seconds to minutes, before its settings are known.

    What cannot be imported shows when the engine is opened.
    """
    with suppress(Exception):
        _MODULES[name].warm_up()


def environment(settings: EngineSettings) -> dict[str, str]:
    """Environment variables a worker must be started with."""
    return dict(_MODULES[settings.name].environment(settings))


def determinism(settings: EngineSettings) -> dict[str, str | int | bool]:
    """Facts about the engine's set-up that can change bytes; part of the spec."""
    return dict(_MODULES[settings.name].determinism(settings))


def obstacles(settings: EngineSettings) -> tuple[str, ...]:
    """Why the same bytes in any batch are not promised, in words for the user; empty where they are."""
    return tuple(_MODULES[settings.name].obstacles(settings))


def step_tokens(settings: EngineSettings) -> int:
    """The most tokens of one step of the engine."""
    return vllm.step_tokens(settings) if settings.name == "vllm" else settings.step_tokens


def libraries(settings: EngineSettings) -> dict[str, str]:
    """Versions of the engine's library and of what executes the grammar.

    Raises
    ------
    EngineError
        If one of them is not installed.
    """
    return dict(_MODULES[settings.name].libraries(settings))


def engine_version(name: str) -> str:
    """Version of the engine's library.

    Raises
    ------
    EngineError
        If it is not installed.
    """
    return str(_MODULES[name].version())
