"""The environment of an engine: what can change a byte is in it, what cannot is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orch_local.engines.base import EngineSettings
from orch_local.engines.registry import environment
from orch_local.plan import fingerprint
from orch_local.plan.fingerprint import common
from orch_local.util import gpus as gpus_module
from orch_local.util import host
from orch_local.util.gpus import Gpu, gpus

H100 = "NVIDIA H100 80GB HBM3, 81559, 580.65.06, 9.0, GPU-1111-aa"
A100 = "NVIDIA A100-SXM4-40GB, 40960, 580.65.06, 8.0, GPU-2222-bb"
GB10 = "NVIDIA GB10, [N/A], 580.95.05, 12.1, GPU-3333-cc"


def settings(name: str = "vllm", device: str = "cpu", **more: Any) -> EngineSettings:
    return EngineSettings(name, Path(), device, "guidance", "bfloat16", 512, **more)


def facts(name: str = "vllm", device: str = "cpu", **more: Any) -> dict[str, Any]:
    return fingerprint.fingerprint(settings(name, device, **more))


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No facts of this machine from an earlier test, and none of its variables."""
    for name in ("CUDA_VISIBLE_DEVICES", "VLLM_BATCH_INVARIANT"):
        monkeypatch.delenv(name, raising=False)
    gpus_module._installed_gpus.cache_clear()
    host.cpu_kind.cache_clear()
    yield
    gpus_module._installed_gpus.cache_clear()
    host.cpu_kind.cache_clear()


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A stand-in for nvidia-smi that prints lines, and may be too old for a field."""

    def smi(*lines: str, refuses: str = "", fails: bool = False) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        refusal = f'case "$1" in *{refuses}*) echo "not a valid field"; exit 2;; esac' if refuses else ""
        printed = "\n".join(f"echo '{line}'" for line in lines)
        program.write_text(f"#!/bin/sh\n{refusal}\n{printed}\nexit {int(fails)}\n", encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent))

    return smi


@pytest.mark.child
def test_a_gpu_is_read_from_nvidia_smi(smi: Callable[..., None]) -> None:
    smi(H100, GB10)
    assert gpus() == (
        Gpu("NVIDIA H100 80GB HBM3", 81559 / 1024, "580.65.06", (9, 0), "GPU-1111-aa"),
        Gpu("NVIDIA GB10", 0.0, "580.95.05", (12, 1), "GPU-3333-cc"),
    )


@pytest.mark.child
def test_an_old_driver_does_not_tell_the_capability(smi: Callable[..., None]) -> None:
    smi("Tesla V100, 16160, 470.57.02, GPU-5", refuses="compute_cap")
    assert gpus() == (Gpu("Tesla V100", 16160 / 1024, "470.57.02", None, "GPU-5"),)
    assert facts(device="cuda")["compute_capability"] is None


@pytest.mark.parametrize(
    "line", ["", "No devices were found", "a, b", "NVIDIA-SMI has failed because it couldn't communicate"]
)
@pytest.mark.child
def test_what_is_no_gpu_is_none(smi: Callable[..., None], line: str) -> None:
    smi(line)
    assert gpus() == ()


@pytest.mark.child
def test_a_failing_nvidia_smi_is_no_gpu(smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    smi(H100, fails=True)
    assert gpus() == ()
    gpus_module._installed_gpus.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    assert gpus() == ()


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["H100", "A100", "GB10"]),
        ("0", ["H100"]),
        ("2,0", ["GB10", "H100"]),
        (" 1 , 2 ", ["A100", "GB10"]),
        ("GPU-2222", ["A100"]),
        ("GPU-3333-cc,0", ["GB10", "H100"]),
        ("", []),
        ("-1", []),
        ("1,-1,0", ["A100"]),
        ("7", []),
        ("0,NoDevFiles", ["H100"]),
        ("MIG-1a2b", ["H100", "A100", "GB10"]),
    ],
)
@pytest.mark.child
def test_the_visible_gpus_are_meant(
    smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str]
) -> None:
    smi(H100, A100, GB10)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [name for gpu in gpus() for name in ("H100", "A100", "GB10") if name in gpu.name] == names


@pytest.mark.child
def test_a_run_on_a_gpu_names_those_it_is_spread_over(smi: Callable[..., None]) -> None:
    smi(H100, H100, A100)
    one = facts(device="cuda")
    assert (one["gpu"], one["compute_capability"], one["driver"]) == (
        "NVIDIA H100 80GB HBM3",
        "9.0",
        "580.65.06",
    )
    two = facts(device="cuda", args={"tensor_parallel_size": 2})
    assert two == one
    three = facts(device="cuda", args={"pipeline_parallel_size": 3})
    assert three["gpu"] == "NVIDIA H100 80GB HBM3, NVIDIA A100-SXM4-40GB"


@pytest.mark.child
def test_only_the_device_that_computes_matters(
    smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    smi(H100)
    on_gpu, on_cpu = facts(device="cuda"), facts(device="cpu")
    gpus_module._installed_gpus.cache_clear()
    smi(A100)
    monkeypatch.setattr(fingerprint, "cpu_kind", lambda: "another CPU")
    assert facts(device="cpu") == {**on_cpu, "cpu": "another CPU"}
    assert facts(device="cuda")["gpu"] != on_gpu["gpu"]
    assert "cpu" not in on_gpu
    assert not {"gpu", "driver", "compute_capability"} & set(on_cpu)


X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu MHz\t\t: {mhz}
flags\t\t: fpu sse2 {flags} hypervisor
bugs\t\t: spectre_v1

processor\t: 1
vendor_id\t: GenuineIntel
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd sve bf16\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"


@pytest.fixture
def cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    def cpu(text: str | None, l2: str | None = "2048K") -> str:
        for name, content in (("_CPUINFO", text), ("_L2_SIZE", l2)):
            file = tmp_path / name
            file.unlink(missing_ok=True)
            if content is not None:
                file.write_text(content, encoding="utf-8")
            monkeypatch.setattr(host, name, file)
        monkeypatch.setattr("platform.machine", lambda: "arch")
        host.cpu_kind.cache_clear()
        return host.cpu_kind()

    return cpu


def test_a_cpu_is_its_maker_its_cache_and_its_instruction_sets(cpu: Callable[..., str]) -> None:
    plain = cpu(X86.format(mhz="2000", flags="avx2 fma avx512_bf16 amx_tile avx"))
    assert plain == "arch GenuineIntel L2=2048K amx_tile avx avx2 avx512_bf16 fma"
    assert cpu(X86.format(mhz="3141", flags="fma avx amx_tile avx2 avx512_bf16")) == plain
    assert cpu(X86.format(mhz="2000", flags="avx2 fma")) != plain
    assert cpu(X86.format(mhz="2000", flags="avx2 fma"), "512K\n") == "arch GenuineIntel L2=512K avx2 fma"


def test_an_arm_cpu_tells_all_its_features(cpu: Callable[..., str]) -> None:
    assert cpu(ARM) == "arch 0x41 0xd40 L2=2048K asimd bf16 fp sve"


def test_a_cpu_that_tells_nothing_is_its_architecture(cpu: Callable[..., str]) -> None:
    assert cpu(None, None) == "arch"
    assert cpu("processor : 0\n", None) == "arch"


@pytest.mark.parametrize("name", ["vllm", "transformers"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_fingerprint_is_flat_and_survives_json(name: str, device: str) -> None:
    found = facts(name, device)
    assert json.loads(json.dumps(found)) == found
    assert not [value for value in found.values() if isinstance(value, (dict, list))]
    assert {name, "torch", "tokenizers", "cuda", "device", "dtype", "attention"} <= set(found)
    assert found["dtype"] == "bfloat16"
    assert found == facts(name, device)


def test_a_worker_finds_the_same_as_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    for name in ("vllm", "transformers"):
        for device in ("cpu", "cuda"):
            planned = facts(name, device)
            with monkeypatch.context() as worker:
                for variable, value in environment(settings(name, device)).items():
                    worker.setenv(variable, value)
                assert facts(name, device) == planned


CPU_VARIABLES = ["ONEDNN_MAX_CPU_ISA", "DNNL_DEFAULT_FPMATH_MODE", "MKL_CBWR", "ATEN_CPU_CAPABILITY"]
CUDA_VARIABLES = ["NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLASLT_WORKSPACE_SIZE"]
CUDA_VARIABLES += ["NCCL_ALGO", "TRITON_F32_DEFAULT", "CUDNN_FORCE_SOMETHING"]
ANY_VARIABLES = ["PYTORCH_TUNABLEOP_ENABLED", "TORCHINDUCTOR_MAX_AUTOTUNE"]
VLLM_VARIABLES = [
    "VLLM_CPU_ATTN_SPLIT_KV",
    "VLLM_FLOAT32_MATMUL_PRECISION",
    # Not in vLLM's own compile key, yet it changes kernels; and LOGITS are no log.
    "VLLM_TUNED_CONFIG_FOLDER",
    "VLLM_SPARSE_INDEXER_MAX_LOGITS_MB",
    "VLLM_OF_A_VERSION_TO_COME",
]


@pytest.mark.parametrize(
    ("variables", "name", "device", "counts"),
    [
        (CPU_VARIABLES, "vllm", "cpu", True),
        (CPU_VARIABLES, "vllm", "cuda", False),
        (CUDA_VARIABLES, "transformers", "cuda", True),
        (CUDA_VARIABLES, "transformers", "cpu", False),
        (ANY_VARIABLES, "transformers", "cpu", True),
        (VLLM_VARIABLES, "vllm", "cuda", True),
        (VLLM_VARIABLES, "vllm", "cpu", True),
        (VLLM_VARIABLES, "transformers", "cuda", False),
    ],
)
def test_a_variable_counts_where_it_reaches_numerics(
    monkeypatch: pytest.MonkeyPatch, variables: list[str], name: str, device: str, counts: bool
) -> None:
    for variable in variables:
        plain = facts(name, device)
        with monkeypatch.context() as set_for_now:
            set_for_now.setenv(variable, "1")
            assert facts(name, device) == (plain | {variable: "1"} if counts else plain), variable


@pytest.mark.parametrize(
    "variable",
    [
        "VLLM_LOGGING_LEVEL",
        "VLLM_LOGGING_CONFIG_PATH",
        "VLLM_LOG_STATS_INTERVAL",
        "VLLM_CACHE_ROOT",
        "VLLM_ASSETS_CACHE",
        "VLLM_HOST_IP",
        "VLLM_PORT",
        "VLLM_API_KEY",
        "VLLM_NO_USAGE_STATS",
        "VLLM_CPU_KVCACHE_SPACE",
        "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS",
        "ONEDNN_VERBOSE",
        "MKL_VERBOSE",
        "PYTORCH_CUDA_ALLOC_CONF",
        "PYTORCH_BUILD_NUMBER",
        "CUBLAS_VERSION",
        "CUBLAS_LOGINFO_DBG",
        "TORCHINDUCTOR_CACHE_DIR",
        "TRITON_CACHE_DIR",
        "FLASHINFER_WORKSPACE_BASE",
        "HOME",
        "OMP_NUM_THREADS",
        "TORCHDYNAMO_DISABLE",
    ],
)
def test_a_variable_that_cannot_change_a_byte_does_not_count(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """The last two would, but the worker of a CPU run gets values of our own."""
    devices_of = ("cpu",) if variable in ("OMP_NUM_THREADS", "TORCHDYNAMO_DISABLE") else ("cpu", "cuda")
    for device in devices_of:
        plain = facts(device=device)
        with monkeypatch.context() as set_for_now:
            set_for_now.setenv(variable, "/some/where")
            assert facts(device=device) == plain


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("cuda: Optional[str] = '13.0'\n", "13.0"),
        ('__version__ = "2.9"\ncuda = "12.8"\n', "12.8"),
        ("cuda: Optional[str] = None\nhip = '6.4'\n", None),
        ("cuda_of_something = '1.0'\n", None),
        (None, None),
    ],
)
def test_the_cuda_of_torch_is_read_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, version: str | None
) -> None:
    if text is not None:
        (tmp_path / "version.py").write_text(text, encoding="utf-8")
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: spec)
    assert fingerprint.torch_cuda() == version
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert fingerprint.torch_cuda() is None


def test_a_changed_library_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = facts()
    monkeypatch.setattr(fingerprint, "installed", lambda name: f"{name} of tomorrow")
    assert {name for name in plain if facts()[name] != plain[name]} == {"torch", "transformers", "tokenizers"}


def test_common_is_what_all_have() -> None:
    one: dict[str, fingerprint.Fact] = {"torch": "2", "dtype": "float32", "cuda": None}
    assert common([one]) == one
    assert common([one, {"torch": "2", "dtype": "bfloat16"}]) == {"torch": "2"}


def test_cudnn_and_nccl_of_the_build_in_use_are_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"nvidia-cudnn-cu12": "9.1", "nvidia-cudnn-cu13": "9.20", "nvidia-nccl-cu13": "2.29"}
    monkeypatch.setattr(fingerprint, "installed", lambda name: versions.get(name, "1"))
    monkeypatch.setattr(fingerprint, "torch_cuda", lambda: "13.0")
    alone = fingerprint.fingerprint(settings("vllm", "cuda"))
    assert alone["nvidia-cudnn-cu13"] == "9.20"
    assert not {"nvidia-cudnn-cu12", "nvidia-nccl-cu13"} & set(alone)
    two = replace(settings("vllm", "cuda"), args={"tensor_parallel_size": 2})
    assert fingerprint.fingerprint(two)["nvidia-nccl-cu13"] == "2.29"
    assert not [name for name in facts("vllm", "cpu") if name.startswith("nvidia")]
