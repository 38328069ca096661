"""Where programs run as if on a machine with GPUs: libraries and a program that stand in for NVIDIA's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from machines import MACHINES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_LIBRARIES = {"libcuda.c": "libcuda.so.1", "libnvidia_ml.c": "libnvidia-ml.so.1"}
_FORGOTTEN = (
    "CUDA_VISIBLE_DEVICES",
    "VLLM_BATCH_INVARIANT",
    "ORCH_MODELS_DIR",
    # Without byte code each process compiles vLLM's sources anew: 20 s of CPU for an import instead of 10.
    "PYTHONDONTWRITEBYTECODE",
)


@dataclass(frozen=True)
class Lab:
    """The built stubs, and a folder for what vLLM keeps."""

    stubs: Path
    cache: Path

    @classmethod
    def build(cls, folder: Path) -> Lab:
        """Compile the stubs into ``folder``."""
        stubs = folder / "stubs"
        stubs.mkdir()
        for source, library in _LIBRARIES.items():
            command = ["cc", "-shared", "-fPIC", "-o", str(stubs / library), str(HERE / "stubs" / source)]
            subprocess.run(command, check=True)
        shutil.copy(HERE / "stubs" / "nvidia-smi", stubs)
        return cls(stubs, folder / "cache")

    def environment(self, machine: str, **more: str) -> dict[str, str]:
        """Variables under which a program believes to be on that machine."""
        kept = {name: value for name, value in os.environ.items() if name not in _FORGOTTEN}
        return {
            **kept,
            "STUB_GPUS": MACHINES[machine].stub,
            "LD_LIBRARY_PATH": str(self.stubs),
            "PATH": f"{self.stubs}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support"), str(HERE)]),
            "XDG_CACHE_HOME": str(self.cache),
            "VLLM_CACHE_ROOT": str(self.cache / "vllm"),
            "TRITON_CACHE_DIR": str(self.cache / "triton"),
            # Else each import of its kernels compiles them in the background, for a GPU that is not here.
            "HUMMING_DISABLE_PARALLEL_BUILD": "1",
            **more,
        }

    def run(
        self, machine: str, *arguments: object, timeout: float, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run this Python on that machine."""
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=self.environment(machine, **more),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
