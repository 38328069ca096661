"""Drive the CUDA build of vLLM to its configuration for a machine that is not here.

    STUB_GPUS=... LD_LIBRARY_PATH=STUBS python driving.py MACHINE ROOT

prints a line of JSON for each case of ``cases.py`` on that machine: what this project passes, and what vLLM
makes of it. vLLM is imported once; each case runs in a fork, because vLLM keeps much of what it has found out
of a machine and a model.
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
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cases import CASES, Case
from families import FAMILIES, write_folder
from machines import MACHINES, Machine

from orch_local.config.blocks import EngineConfig
from orch_local.config.model_configs import ModelConfig
from orch_local.engines.base import EngineSettings
from orch_local.engines.registry import determinism, environment, obstacles
from orch_local.engines.vllm.arguments import engine_arguments
from orch_local.engines.vllm.loading import check_arguments
from orch_local.models.folders import open_model_folder
from orch_local.plan.execution import engine_settings

LONGEST = 4096
"""Tokens of the longest row of the run, as in `golden_plans.py`."""
_FEW = {"num_hidden_layers": 8}
"""Enough for a layer of each kind."""
_CHOICES = ("fp8_linear", "kernel", "fp8_backend", "mxfp4_backend", "unquantized_backend")
"""Attributes under which vLLM's methods of layers keep what they have chosen."""
_FOR_WANT_OF_A_DRIVER = "Failed to set DeepGEMM PDL"
_MOST_SHOWN = 300
"""Characters of a warning or refusal."""


def main(arguments: list[str]) -> None:
    """Run the cases of one machine."""
    machine, root = arguments
    os.environ.update(VLLM_LOGGING_LEVEL="WARNING", VLLM_LOGGING_STREAM="ext://sys.stderr")
    _imitate(MACHINES[machine])
    for case in CASES[machine]:
        child = os.fork()
        if not child:
            _print(Path(root), case)
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"{case} on {machine} died")


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


def _print(root: Path, case: Case) -> None:
    """Print one case and leave."""
    code = 1
    try:
        folder = root / case.model if (root / case.model).exists() else write_folder(root, case.model)
        print(json.dumps({**case._asdict(), **_facts(folder, case)}), flush=True)
        code = 0
    except Exception:  # noqa: BLE001 - a fork must not run on in the parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _facts(folder: Path, case: Case) -> dict[str, Any]:
    config = ModelConfig(
        name=case.model,
        path=folder,
        tensor_parallel_size=case.gpus,
        vllm_args=FAMILIES[case.model].vllm_args,
    )
    engine = EngineConfig(device="cuda", fast=case.fast)
    settings = replace(engine_settings(config, open_model_folder(config), engine), longest=LONGEST)
    variables = environment(settings)
    facts = {
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "batch_invariant": determinism(settings)["batch_invariant"],
        "VLLM_BATCH_INVARIANT": variables["VLLM_BATCH_INVARIANT"],
        "obstacles": list(obstacles(settings)),
        "torch_has_kernels": _has_kernels(),
    }
    # As a worker has them; what is said above is said by a parent, which has not.
    os.environ.update(variables | {"VLLM_LOGGING_LEVEL": "WARNING"})
    with _warnings() as told:
        try:
            facts |= _configured(settings, case.model)
        except Exception as error:  # noqa: BLE001 - what vLLM refuses is what we want to know
            facts["refused"] = _one_line(f"{type(error).__name__}: {error}")
    return facts | {"warnings": list(dict.fromkeys(told))}


def _has_kernels() -> bool:
    """Whether torch is built for this GPU: for its major version, and its minor one or an earlier."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    built = [divmod(int(name.removeprefix("sm_")), 10) for name in torch._C._cuda_getArchFlags().split()]
    return any(one == major and other <= minor for one, other in built)


def _configured(settings: EngineSettings, model: str) -> dict[str, Any]:
    """What vLLM makes of the settings."""
    from vllm.config import StructuredOutputsConfig
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext

    arguments = engine_arguments(settings)
    check_arguments(settings, {item.name for item in dataclasses.fields(EngineArgs)})
    grammar = StructuredOutputsConfig(backend=settings.grammar)
    arguments["hf_overrides"] = {"text_config": _FEW} if "vision_config" in FAMILIES[model].config else _FEW
    config = EngineArgs(**arguments, structured_outputs_config=grammar).create_engine_config(
        UsageContext.ENGINE_CONTEXT
    )
    current_platform.check_if_supports_dtype(config.model_config.dtype)  # as each worker of vLLM does
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
        **_built(config),
    }


def _built(config: Any) -> dict[str, list[str]]:
    """What the layers of the model are computed with, as they choose when they are made; without weights."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.network_utils import get_open_port

    # Layers make streams, and a few tensors on "the current device", even where no weight is to have a place.
    torch.cuda.Stream = torch.cuda.Event = SimpleNamespace
    torch.cuda.current_device = lambda: torch.device("meta")
    config.parallel_config.tensor_parallel_size = config.parallel_config.world_size = 1
    torch.set_default_dtype(config.model_config.dtype)
    with set_current_vllm_config(config):
        init_distributed_environment(1, 0, f"tcp://127.0.0.1:{get_open_port()}", 0, "gloo")
        initialize_model_parallel(1)
        with torch.device("meta"):
            layers = list(initialize_model(vllm_config=config).modules())
    backends = {layer.get_attn_backend().get_name() for layer in layers if hasattr(layer, "get_attn_backend")}
    methods = {kernel for layer in layers for kernel in _kernels(getattr(layer, "quant_method", None))}
    return {"attention": sorted(backends), "kernels": sorted(methods)}


def _kernels(method: Any) -> Iterator[str]:
    """The method of a layer, and which kernel or backend it has found."""
    if method is None or isinstance(method, tuple):
        return
    parts = (getattr(method, name, None) for name in _CHOICES)
    found = [
        part.value if isinstance(part, Enum) else type(part).__name__ for part in parts if part is not None
    ]
    yield " ".join([type(method).__name__, *found])


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What vLLM logs as a warning or worse; it sets its handlers anew, so none of ours would stay."""
    told: list[str] = []
    make = logging.getLogRecordFactory()

    def noted(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = make(*arguments, **named)
        if record.levelno >= logging.WARNING and record.name.startswith("vllm"):
            text = _one_line(record.getMessage())
            told.extend([] if text.startswith(_FOR_WANT_OF_A_DRIVER) else [text])
        return record

    logging.setLogRecordFactory(noted)
    try:
        yield told
    finally:
        logging.setLogRecordFactory(make)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_MOST_SHOWN]


if __name__ == "__main__":
    main(sys.argv[1:])
