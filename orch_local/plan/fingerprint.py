"""The environment of an engine: everything outside of a run file and a model that can change bytes.

Of the environment variables just those that ``_VARIABLES`` names enter it, and so a manifest: a plain setting
as it is, any other value (a path, an address, a list) as a digest, by which it can be compared and not read.
One that is named like a secret never does.

It is part of every spec, and cheap: nothing of torch or vLLM is imported. A worker takes it again and
compares it with the plan's; it must do so before it loads an engine, since vLLM sets variables of its own.

Not in it, because it cannot be known without loading: libraries that replace those of the packages
(LD_PRELOAD, LD_LIBRARY_PATH, a patched installation).
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path

from orch_local.engines.base import EngineSettings
from orch_local.engines.registry import determinism, environment, libraries
from orch_local.records import digest
from orch_local.util.gpus import gpus
from orch_local.util.host import cpu_kind

Fact = str | int | bool | None

_VARIABLES = {
    "cpu": r"ATEN_\w+|ONEDNN_\w+|DNNL_\w+|MKL_\w+|OPENBLAS_\w+|OMP_(DYNAMIC|SCHEDULE|THREAD_LIMIT)"
    r"|KMP_\w*REDUCTION|GLIBC_TUNABLES",
    "cuda": r"CUBLAS\w+|CUDNN_\w+|NVIDIA_TF32_OVERRIDE|TORCH_(ALLOW_TF32|BLAS|CUBLAS|CUDNN|LINALG)\w+"
    r"|TRITON_\w+|FLASHINFER_\w+|FLASH_ATTENTION_\w+"
    r"|NCCL_(ALGO|PROTO|NTHREADS|M(IN|AX)_(NCHANNELS|CTAS)|NVLS_ENABLE|COLLNET_ENABLE)",
    "any": r"PYTORCH_\w+|TORCHINDUCTOR_\w+|TORCHDYNAMO_\w+|TORCH_COMPILE\w*",
    "vllm": r"VLLM_\w+",
    "transformers": r"USE_HUB_KERNELS",
}
"""Variables that reach the numerics of a device or an engine, by the prefixes that their libraries read."""

_PLAIN = re.compile(r"[A-Za-z0-9_.,:+-]{0,24}")
"""A number, a switch, a name or a few of them."""

_SECRET = re.compile(r"(\w+_)?(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSPHRASE|CREDENTIALS?|AUTH)(_\w+)?")

_HARMLESS = re.compile(
    # What is printed, and where files lie. LOG as a word: VLLM_SPARSE_INDEXER_MAX_LOGITS_MB cuts sums.
    r"\w+_(VERBOSE|LOG|LOGGING|LOGINFO|LOGDEST|LOGERR|LOGWARN|DEBUG|TRACE|TIMEOUT)(_\w+)?|\w+_LOGS"
    r"|\w+_(VERSION|BUILD_NUMBER|HOME|CACHE_DIR|CACHE_PATH|CACHE_ROOT|CONFIG_ROOT|WORKSPACE_BASE|PORT|API_KEY)"
    # How memory is taken, and in how many processes is compiled; PyTorch's containers name their build.
    r"|PYTORCH_\w*(ALLOC_CONF|MEMORY_CACHING|NVML_BASED_CUDA_CHECK)|TORCHINDUCTOR_COMPILE_THREADS"
    r"|(ONEDNN|DNNL)_(JIT_DUMP|JIT_PROFILE|PRIMITIVE_CACHE_CAPACITY)"
    # Of vLLM (vllm/envs.py): reports, servers, pictures and sound, how processes start and talk. Some that
    # vLLM leaves out of its compile key are not here, as VLLM_TUNED_CONFIG_FOLDER: it changes the kernels.
    r"|VLLM_(NO_USAGE_STATS|DO_NOT_TRACK|USAGE_\w+|SERVER_DEV_MODE|GC_DEBUG|RINGBUFFER_\w+|NVTX_\w+|(\w+_)?IP)"
    r"|VLLM_(MEDIA|IMAGE|VIDEO|AUDIO|ASSETS|HTTP|RPC|MQ|MOONCAKE|NIXL|P2P|LORA|GPT_OSS|TOOL)_\w+"
    r"|VLLM_(ENABLE_V1_MULTIPROCESSING|WORKER_MULTIPROC_METHOD|CPU_KVCACHE_SPACE|XGRAMMAR_CACHE_MB)"
    r"|VLLM_(V1_USE_OUTLINES_CACHE|DISABLE_COMPILE_CACHE|COMPILE_CACHE_SAVE_FORMAT|KEEP_ALIVE_ON_ENGINE_DEATH)"
)


def fingerprint(settings: EngineSettings) -> dict[str, Fact]:
    """The environment in which an engine with these settings runs here, flat and JSON-able.

    For a run on a GPU the CPU does not matter, and the other way round.

    Raises
    ------
    EngineError
        If the engine is not installed.
    """
    return {
        **libraries(settings),
        **{name: installed(name) for name in ("torch", "transformers", "tokenizers")},
        "cuda": torch_cuda(),
        "device": settings.device,
        **({"cpu": cpu_kind()} if settings.device == "cpu" else _gpu_facts(settings)),
        "dtype": settings.dtype,
        **determinism(settings),
        **_variables(settings),
    }


def common(environments: Sequence[Mapping[str, Fact]]) -> dict[str, Fact]:
    """The facts in which all environments agree."""
    first, *others = environments
    return {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in others)
    }


def _gpu_facts(settings: EngineSettings) -> dict[str, Fact]:
    """The GPUs that the model is spread over; ``None`` where no GPU is visible, as on a login node."""
    parallel = (settings.args.get(f"{kind}_parallel_size") or 1 for kind in ("tensor", "pipeline"))
    used = gpus()[: int(next(parallel)) * int(next(parallel))]
    capabilities = (f"{gpu.capability[0]}.{gpu.capability[1]}" for gpu in used if gpu.capability)
    facts: dict[str, Fact] = {
        "gpu": _listed(gpu.name for gpu in used),
        "compute_capability": _listed(capabilities),
        "driver": _listed(gpu.driver for gpu in used if gpu.driver),
    }
    names = _cuda_libraries((torch_cuda() or "").partition(".")[0], together=settings.tensor_parallel > 1)
    return facts | {name: found for name in names if (found := installed(name))}


def _cuda_libraries(major: str, *, together: bool) -> Iterator[str]:
    """Distributions that bring or build kernels and can be replaced without torch, for that CUDA version.

    Those of another version may be installed as well, and are not used. NCCL adds up what GPUs computed.
    """
    yield from (
        "triton",
        "flashinfer-python",
        "nvidia-cublas",
        f"nvidia-cublas-cu{major}",
        f"nvidia-cudnn-cu{major}",
    )
    if together:
        yield f"nvidia-nccl-cu{major}"


def _listed(values: Iterable[str]) -> str | None:
    """Each value once, in order; ``None`` where there is none."""
    return ", ".join(dict.fromkeys(values)) or None


def _variables(settings: EngineSettings) -> dict[str, Fact]:
    """The user's variables that reach numerics; those that a worker is started with are not the user's."""
    kinds = (settings.device, "any", settings.name)
    pattern = re.compile("|".join(_VARIABLES[kind] for kind in kinds if kind in _VARIABLES))
    fixed = environment(settings)
    return {
        name: value if _PLAIN.fullmatch(value) else f"sha256:{digest(value)[:16]}"
        for name, value in sorted(os.environ.items())
        if pattern.fullmatch(name)
        and name not in fixed
        and not _HARMLESS.fullmatch(name)
        and not _SECRET.fullmatch(name)
    }


def torch_cuda() -> str | None:
    """The CUDA version that torch was built for, from the text of ``torch/version.py``."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    try:
        text = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    built = re.search(r"""^cuda\b[^=\n]*=\s*['"]([\d.]+)['"]""", text, re.MULTILINE)
    return built[1] if built else None


@cache  # reading a package's metadata takes a millisecond
def installed(distribution: str) -> str | None:
    """Version of a distribution; ``None`` where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
