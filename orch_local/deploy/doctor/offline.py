"""Variables, proxies and tokens of the environment that concern a network; few values are ever shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from orch_local.deploy.doctor.checks import Finding, green, yellow
from orch_local.deploy.doctor.inspection import Inspection
from orch_local.deploy.doctor.tools import one_line, read
from orch_local.util.offline import SILENCE

_TELLING = (
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "VLLM_NO_USAGE_STATS",
    "DO_NOT_TRACK",
)
"""Those whose other value means that something is wanted of a network; they are shown."""
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy")
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
FOLDERS = (
    "ORCH_MODELS_DIR",
    "ORCH_MODEL_CONFIGS",
    "HF_HOME",
    "HF_HUB_CACHE",
    "XDG_CACHE_HOME",
    "VLLM_CACHE_ROOT",
)
_OURS = ("ORCH_MODELS_DIR", "ORCH_MODEL_CONFIGS")


def examine(inspection: Inspection) -> Iterator[Finding]:
    """Look at the environment that a run would be started with."""
    env = os.environ
    yield judge_variables(dict(inspection.request.silence), SILENCE)
    yield judge_proxies(env)
    yield judge_token(env, has_file=_has_token_file(env))
    yield judge_folders({name: env[name] for name in FOLDERS if env.get(name)}, _is_folder)


def set_by_user() -> tuple[tuple[str, str], ...]:
    """The variables that this process was started with: by now all are set by us."""
    pairs = (line.partition("=") for line in read(Path("/proc/self/environ")).split("\0"))
    return tuple((name, value) for name, _, value in pairs if name in SILENCE)


def _has_token_file(env: Mapping[str, str]) -> bool:
    with suppress(OSError, RuntimeError):
        home = Path(env.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        return (home.expanduser() / "token").is_file()
    return False


def _is_folder(text: str) -> bool:
    with suppress(OSError, RuntimeError):
        return Path(text).expanduser().is_dir()
    return False


def judge_variables(env: Mapping[str, str], silent: Mapping[str, str]) -> Finding:
    """Whether the variables that silence libraries are set: in processes of ours they always are."""
    against = [
        f"{name}={one_line(env[name], 20)}"
        for name in _TELLING
        if env.get(name, silent[name]) != silent[name]
    ]
    if against:
        text = f"{', '.join(against)} in your shell; a run sets what keeps libraries silent"
        return yellow("offline-variables", text, "unset them, so that other programs are silent, too")
    there = f"; {len(env)} were set before" if env else ""
    return green("offline-variables", f"a run sets all {len(silent)} of them itself{there}")


def judge_proxies(env: Mapping[str, str]) -> Finding:
    """Proxies are of no use to a run; their values may hold passwords and are not shown."""
    found = [name for name in (*PROXIES, *map(str.upper, PROXIES)) if env.get(name)]
    if not found:
        return green("proxies", "none are set")
    return green("proxies", f"set, and not used by a run: {', '.join(found)}")


def judge_token(env: Mapping[str, str], *, has_file: bool = False) -> Finding:
    """A token of a hub is needed to fetch gated models, and nowhere else."""
    found = [name for name in TOKENS if env.get(name)]
    if found:
        advice = f"unset {' '.join(found)} where nothing is fetched"
        return yellow("hub-token", f"{', '.join(found)} is set; no run needs it", advice)
    if has_file:
        advice = "remove the file `token` in the hub's cache where nothing is fetched"
        return yellow("hub-token", "a token of the hub is saved in its cache; no run needs it", advice)
    return green("hub-token", "none")


def judge_folders(folders: Mapping[str, str], is_folder: Callable[[str], bool]) -> Finding:
    """Folders that variables name."""
    missing = [name for name in folders if name in _OURS and not is_folder(folders[name])]
    if missing:
        advice = "correct the variable, or unset it"
        return yellow("hub-folders", f"{', '.join(missing)} names no folder", advice)
    named = ", ".join(f"{name}={one_line(value, 80)}" for name, value in folders.items())
    return green("hub-folders", named or "no variable names a folder for models or caches")
