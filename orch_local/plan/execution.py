"""What computes the rows of an agent: files of the model, settings of the engine, environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orch_local.config.blocks import EngineConfig
from orch_local.config.model_configs import ModelConfig
from orch_local.engines.base import EngineSettings
from orch_local.engines.fake_table import read_table
from orch_local.models.folders import ModelFolder, digests, open_model_folder
from orch_local.placement.estimates import LoadedModel, best_tensor_parallel
from orch_local.placement.machine import machine
from orch_local.plan.dtypes import checkpoint_dtype, choose_dtype
from orch_local.plan.fingerprint import fingerprint, installed
from orch_local.plan.plans import AgentPlan
from orch_local.store.store import Spec
from orch_local.util.gpus import gpus
from orch_local.util.host import cpu_cores

_DEFAULT_CONTEXT = 32768


def resolve_device(engine: EngineConfig) -> str:
    """``cpu`` or ``cuda`` for ``auto``: a GPU is used where there is one and the installed engine can."""
    if engine.name == "fake":
        return "cpu"
    if engine.device != "auto":
        return engine.device
    cpu_build = installed("vllm") is None if engine.name == "vllm" else "+cpu" in (installed("torch") or "")
    return "cuda" if gpus() and not cpu_build else "cpu"


def with_prefix_cache(agent: AgentPlan) -> AgentPlan:
    """The agent with its prefix cache on; its rows have another spec."""
    settings = replace(agent.settings, prefix_cache=True)
    content = agent.spec_content | execution_content(settings, agent.spec_content["model"])
    spec = Spec.of(content).digest
    return agent.model_copy(update={"settings": settings, "spec": spec, "spec_content": content})


def execution_spec(content: Mapping[str, Any]) -> Spec:
    """What computes the rows of a spec, whatever is asked: files of the model, engine and environment.

    Parameters
    ----------
    content:
        Of a spec, or the facts of :func:`execution_facts`.
    """
    return Spec.of({"kind": "execution", **{name: content[name] for name in _EXECUTION}})


def execution_facts(model: ModelConfig, engine: EngineConfig) -> tuple[EngineSettings, dict[str, Any]]:
    """The settings that a run would load a model with, and what of its specs that decides.

    Raises
    ------
    ModelError, EngineError
        If the model or the engine cannot be used.
    """
    folder = open_model_folder(model)
    settings = engine_settings(model, folder, engine)
    return settings, execution_content(settings, model_facts(folder))


_EXECUTION = ("model", "engine", "environment")


def execution_content(settings: EngineSettings, model: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": model, "engine": _engine_spec(settings), "environment": fingerprint(settings)}


def model_facts(folder: ModelFolder) -> dict[str, Any]:
    return {"architecture": folder.architecture, "files": digests(folder)}


def engine_settings(model: ModelConfig, folder: ModelFolder, engine: EngineConfig) -> EngineSettings:
    names = (
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "quantization",
        "max_num_seqs",
        "gpu_memory_utilization",
        "kv_cache_dtype",
        "cpu_kv_cache_gib",
        "vllm_args",
    )
    device = resolve_device(engine)
    many = engine.fast and device == "cpu"
    settings = EngineSettings(
        name=engine.name,
        model_path=folder.path,
        device=device,
        grammar=engine.grammar if engine.name == "vllm" else "outlines",
        dtype=checkpoint_dtype(folder),
        max_model_len=model.max_model_len or min(folder.context, _DEFAULT_CONTEXT),
        args={name: getattr(model, name) for name in names} | _table_arguments(engine),
        threads=max(1, cpu_cores() // (engine.models_at_once or 1)) if many else 1,
        fast=engine.fast,
        prefix_cache={"on": True, "off": False, "auto": None}[engine.prefix_cache],
    )
    settings = choose_dtype(model, settings, folder).settings
    return settings if model.tensor_parallel_size else _with_gpus(settings, model, folder)


def _table_arguments(engine: EngineConfig) -> dict[str, str]:
    """What the fake engine needs to know of its table; nothing for engines of models."""
    if engine.table is None:
        return {}
    return {"table": str(engine.table), "table_sha256": read_table(engine.table).sha256}


def _with_gpus(settings: EngineSettings, model: ModelConfig, folder: ModelFolder) -> EngineSettings:
    """The settings, with the model over the GPUs of this machine that it is to take."""
    here = machine(settings.device, settings.threads)
    size = best_tensor_parallel(LoadedModel(model, settings, folder), here)
    return replace(settings, args={**settings.args, "tensor_parallel_size": size})


def _engine_spec(settings: EngineSettings) -> dict[str, Any]:
    # Batch and memory sizes must not change a byte, so they are no part of a spec (where they can, the batch
    # size is in the environment); and the transformers engine has no such arguments.
    sizes = ("max_num_seqs", "gpu_memory_utilization", "cpu_kv_cache_gib")
    named = settings.args if settings.name == "vllm" else {}
    return {
        "name": settings.name,
        "grammar": settings.grammar,
        "fast": settings.fast,
        "max_model_len": settings.max_model_len,
        "args": {name: value for name, value in named.items() if name not in sizes},
        # So that the difference is listed under the plan and not under the machine.
        **({"prefix_cache": True} if settings.prefix_cache else {}),
        **({"table": settings.args["table_sha256"]} if settings.name == "fake" else {}),
    }
