"""Drive the CUDA build of vLLM to its configuration for a machine that is not here.

    STUB_GPUS=... LD_LIBRARY_PATH=STUBS python driving.py MACHINE ROOT MODE MODEL [MODE MODEL ...]

prints a line of JSON for each pair of a mode (``safe`` or ``fast``) and a model of ``families.py``: what this
project passes, and what vLLM makes of it. vLLM is imported once; each case runs in a fork, because vLLM keeps
much of what it has found out of a machine and a model.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from families import write_folder
from machines import MACHINES, Machine

from orch_local.config import EngineConfig, ModelConfig
from orch_local.engines import determinism, environment, obstacles
from orch_local.engines import vllm as engine
from orch_local.engines.base import EngineSettings
from orch_local.models import open_model_folder
from orch_local.plans import _settings

_LONGEST = 300


def main(arguments: list[str]) -> None:
    """Run the cases of one machine."""
    machine, root, *pairs = arguments
    os.environ.update(VLLM_LOGGING_LEVEL="WARNING", VLLM_LOGGING_STREAM="ext://sys.stderr")
    _imitate(MACHINES[machine])
    for mode, model in zip(pairs[::2], pairs[1::2], strict=True):
        child = os.fork()
        if not child:
            _case(Path(root), mode, model)
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"the case {mode} {model} on {machine} died")


def _imitate(machine: Machine) -> None:
    """Import vLLM, and answer the few questions to CUDA for which no stub of a library can stand in."""
    import torch

    properties = SimpleNamespace(
        major=machine.capability[0],
        minor=machine.capability[1],
        name=machine.name,
        total_memory=machine.gib << 30,
        multi_processor_count=132,
        is_integrated=False,
        shared_memory_per_block_optin=machine.shared_memory,
        warp_size=32,
        L2_cache_size=50 << 20,
    )
    torch.cuda.is_available = lambda: True
    torch.cuda.current_device = lambda: 0
    torch.cuda.get_device_properties = lambda device=None: properties
    torch.cuda.get_device_capability = lambda device=None: machine.capability
    torch.cuda.get_device_name = lambda device=None: machine.name
    import vllm.engine.arg_utils
    import vllm.model_executor.models.llama  # imports most of what the others import
    import vllm.model_executor.models.registry as registry
    import vllm.v1.attention.selector  # noqa: F401

    registry._run_in_subprocess = lambda function: function()  # where torch would not be the one above


def _case(root: Path, mode: str, model: str) -> None:
    """Print one case and leave."""
    code = 1
    try:
        folder = root / model if (root / model).exists() else write_folder(root, model)
        print(json.dumps({"mode": mode, "model": model, **_facts(folder, mode)}), flush=True)
        code = 0
    except Exception:  # noqa: BLE001 - a fork must not run on in the parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _facts(folder: Path, mode: str) -> dict[str, Any]:
    config = ModelConfig(name=folder.name, path=folder)
    settings = _settings(config, open_model_folder(config), EngineConfig(device="cuda", fast=mode == "fast"))
    variables = environment(settings)
    os.environ.update(variables | {"VLLM_LOGGING_LEVEL": "WARNING"})
    facts = {
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "tensor_parallel_size": settings.args["tensor_parallel_size"],
        "batch_invariant": determinism(settings)["batch_invariant"],
        "VLLM_BATCH_INVARIANT": variables["VLLM_BATCH_INVARIANT"],
        "obstacles": list(obstacles(settings)),
    }
    with _warnings() as told:
        try:
            facts |= _configured(settings)
        except Exception as error:  # noqa: BLE001 - what vLLM refuses is what we want to know
            facts["refused"] = _one_line(f"{type(error).__name__}: {error}")
    return facts | {"warnings": list(dict.fromkeys(told))}


def _configured(settings: EngineSettings) -> dict[str, Any]:
    """What vLLM makes of the settings."""
    from vllm.config import StructuredOutputsConfig
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    arguments = engine._engine_arguments(settings)
    engine._check_arguments(settings, {item.name for item in dataclasses.fields(EngineArgs)})
    grammar = StructuredOutputsConfig(backend=settings.grammar)
    config = EngineArgs(**arguments, structured_outputs_config=grammar).create_engine_config(
        UsageContext.ENGINE_CONTEXT
    )
    scheduler, compilation = config.scheduler_config, config.compilation_config
    sizes = compilation.cudagraph_capture_sizes or []
    return {
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "chunked_prefill": bool(scheduler.enable_chunked_prefill),
        "async_scheduling": bool(scheduler.async_scheduling),
        "prefix_caching": bool(config.cache_config.enable_prefix_caching),
        "compilation": compilation.mode.name,
        "cudagraphs": compilation.cudagraph_mode.name,
        "cudagraph_sizes": [len(sizes), max(sizes, default=0)],
        "executor": config.parallel_config.distributed_executor_backend,
        "quantization": config.model_config.quantization,
        "head_size": config.model_config.get_head_size(),
        "attention": _attention(config),
    }


def _attention(config: Any) -> dict[str, str]:
    """The attention backend of each kind of layer that the model has."""
    from vllm.config import set_current_vllm_config
    from vllm.v1.attention.backends.registry import MambaAttentionBackendEnum
    from vllm.v1.attention.selector import get_attn_backend, get_mamba_attn_backend

    model, cache = config.model_config, config.cache_config.cache_dtype
    text = model.hf_text_config
    kinds: dict[str, dict[str, Any]] = {"full": {}}
    if getattr(text, "sliding_window", None):
        kinds["sliding"] = {"has_sliding_window": True}
    common = {
        "use_mla": model.use_mla,
        "has_sink": model.hf_config.model_type == "gpt_oss",
        "use_mm_prefix": bool(model.is_mm_prefix_lm),
    }
    found = {}
    with set_current_vllm_config(config):
        for kind, own in kinds.items():
            found[kind] = _name(
                lambda own=own: get_attn_backend(
                    model.get_head_size(),
                    model.dtype,
                    None if cache == "auto" else cache,
                    num_heads=model.get_num_attention_heads(config.parallel_config),
                    **{name: value for name, value in {**common, **own}.items() if value},
                )
            )
        if model.is_hybrid:
            found["recurrent"] = _name(lambda: get_mamba_attn_backend(MambaAttentionBackendEnum.GDN_ATTN))
    return found


def _name(choose: Any) -> str:
    try:
        return str(choose().get_name())
    except Exception as error:  # noqa: BLE001 - the refusal is the fact
        return _one_line(f"refused: {type(error).__name__}: {error}")


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What vLLM logs as a warning or worse; it sets its handlers anew, so none of ours would stay."""
    told: list[str] = []
    make = logging.getLogRecordFactory()

    def noted(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        if record.levelno >= logging.WARNING and record.name.startswith("vllm"):
            told.append(_one_line(record.getMessage()))
        return record

    logging.setLogRecordFactory(noted)
    try:
        yield told
    finally:
        logging.setLogRecordFactory(make)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST]


if __name__ == "__main__":
    main(sys.argv[1:])
