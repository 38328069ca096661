"""Where the compiled kernels of an engine lie: a folder for each key and host, filled by one load alone.

The key is :attr:`orch_local.plan.plans.AgentPlan.engine_key`: agents whose engines load alike share a folder,
whatever they are asked and in whichever role.

vLLM jobs that start together have corrupted the cache that they share (vllm-project/vllm issues 18851 and
24601): each reads what the other is still writing. Here no two keys share a folder, nor two hosts, for the
home may be the same on all of them; and until a key was loaded once, its loads go one after another.

FlashInfer's cache stays where it is: it locks each of its builds itself, and an air-gapped machine may have
kernels in there that were put there by hand.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import platformdirs

from orch_local.util.locks import held

log = logging.getLogger(__name__)

_FOLDERS = {"VLLM_CACHE_ROOT": "vllm", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""DeepGEMM's kernels and FlashInfer's tuning go below vLLM's root of themselves."""
_LOCK, _LOADED = "orch-local-loading.lock", "orch-local-loaded"
_TELL_SECONDS = 30.0


def variables(key: str) -> dict[str, str]:
    """Variables that a worker on a GPU is to be started with; what the user has set himself stays."""
    folder = _folder(key)
    return {name: os.environ.get(name) or str(folder / part) for name, part in _FOLDERS.items()}


@contextmanager
def first_alone(key: str, alive: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Load a model in this block: alone, until a load of ``key`` has succeeded on this host; then freely.

    ``alive`` is called every few seconds while waiting. To be used in the worker, which was started with
    :func:`variables`. What a load that failed or was killed left in the folder is removed by the next one.
    """
    folder = _folder(key)
    root = Path(os.environ.get("VLLM_CACHE_ROOT") or folder / "vllm").expanduser()
    ours = root == folder / "vllm"
    # Where the user has one folder for all keys, the loads of all wait for each other.
    place = folder if ours else root
    loaded = place / f"{_LOADED}-{_host()}-{key}"
    with ExitStack() as lock:
        if not loaded.exists() and _hold(lock, place, alive):
            if loaded.exists():
                lock.close()
            elif ours:
                _clear(place)
        yield
        with suppress(OSError):  # the next load waits in vain, that is all
            loaded.touch()


def _hold(lock: ExitStack, place: Path, alive: Callable[[], None]) -> bool:
    """Take the lock of a folder; returns False where that is not possible, as on some network disks."""
    told = 0.0

    def waiting(seconds: float) -> None:
        nonlocal told
        alive()
        if seconds - told >= _TELL_SECONDS:
            told = seconds
            log.warning("another worker is filling %s; waiting for it, %.0f s so far", place, seconds)

    try:
        place.mkdir(parents=True, exist_ok=True)
        lock.enter_context(held(place / _LOCK, waiting))
    except OSError as error:
        log.warning("%s cannot be locked (%s); loading without waiting for others", place, error)
        return False
    return True


def _clear(place: Path) -> None:
    """Remove half-written kernels."""
    for part in _FOLDERS.values():
        shutil.rmtree(place / part, ignore_errors=True)


def _folder(key: str) -> Path:
    """The folder of a key on this host, in the user's cache or, where that is read-only, a temporary one."""
    below = Path("compile") / key / _host()
    folder = Path(platformdirs.user_cache_dir("orch-local")) / below
    return folder if _is_writable(folder) else _temporary() / below


def _host() -> str:
    return re.sub(r"[^\w.-]", "-", platform.node()) or "host"


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _temporary() -> Path:
    """A folder of this user alone: what lies in it is executed."""
    folder = Path(tempfile.gettempdir()) / f"orch-local-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.stat()
        trusted = not folder.is_symlink() and state.st_uid == os.getuid() and not state.st_mode & 0o022
        if trusted:
            return folder
    return Path(tempfile.mkdtemp(prefix="orch-local-"))
