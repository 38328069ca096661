"""Where models lie on this machine: folders in ORCH_MODELS_DIR, and caches of the hub's own tools.

Such a cache holds ``models--OWNER--NAME`` for each repository, with its files under ``blobs``, links to them
under ``snapshots/COMMIT``, and the commit of each branch in a file under ``refs``.
Source: huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from orch_local.errors import ModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_REPOSITORY = re.compile(r"models--([A-Za-z0-9][A-Za-z0-9._-]*?)--([A-Za-z0-9][A-Za-z0-9._-]*)")
_LONGEST_REF = 200
_MOST_NAMED = 5


def is_folder(path: Path) -> bool:
    """Whether a folder is there; false for a name that no folder can have, or that may not be looked at."""
    try:
        return path.is_dir()
    except OSError:
        return False


def with_home(path: Path) -> Path:
    """The path with a leading ``~`` resolved; that of an unknown user stays, and is then not found."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def models_root() -> Path:
    """ORCH_MODELS_DIR, or ``models`` in the current folder."""
    return with_home(Path(os.environ.get("ORCH_MODELS_DIR", "models"))).absolute()


def is_hub_id(name: str) -> bool:
    """Whether a name has the form OWNER/NAME; the path of a file or folder may have it, too."""
    return _HUB_ID.fullmatch(name) is not None and not name.endswith((".yaml", ".yml"))


def hub_id_of(folder: Path) -> str:
    """OWNER/NAME of a repository in a hub cache, or of one of its snapshots; empty for any other folder."""
    repository = folder.parent.parent if folder.parent.name == "snapshots" else folder
    match = _REPOSITORY.fullmatch(repository.name)
    return f"{match[1]}/{match[2]}" if match else ""


def find_folder(name: str) -> Path | None:
    """The model folder in ORCH_MODELS_DIR of that name (``NAME``, ``OWNER/NAME``); of an id, also in a cache.

    Raises
    ------
    ModelError
        If the hub cache has several snapshots of it and does not say which is meant.
    """
    place = models_root() / name
    if _is_model(place):
        return place
    return find_in_caches(name) if is_hub_id(name) else None


def find_in_caches(hub_id: str) -> Path | None:
    """The snapshot of a repository in one of the hub caches; ``None`` where there is none.

    Raises
    ------
    ModelError
        If there are several and the cache does not say which is meant.
    """
    name = f"models--{hub_id.replace('/', '--')}"
    found = (snapshot_of(cache / name) for cache in _caches() if is_folder(cache / name))
    return next(filter(None, found), None)


def snapshot_of(repository: Path) -> Path | None:
    """The snapshot of a repository in a hub cache: the one of ``refs/main``, or else the only one.

    Raises
    ------
    ModelError
        If there are several and ``refs/main`` names none of them.
    """
    snapshots = repository / "snapshots"
    names = (
        sorted(entry.name for entry in snapshots.iterdir() if is_folder(entry))
        if is_folder(snapshots)
        else []
    )
    main = _ref(repository / "refs" / "main")
    if main in names:
        return snapshots / main
    if len(names) > 1:
        listed = ", ".join(names[:_MOST_NAMED]) + (" ..." if len(names) > _MOST_NAMED else "")
        raise ModelError(
            f"holds {len(names)} snapshots, and refs/main names none of them: {listed}",
            where=str(repository),
            hint=f"name one by its path, e.g. {snapshots / names[0]}",
        )
    return snapshots / names[0] if names else None


def model_folders() -> Iterator[tuple[str, Path]]:
    """All model folders in ORCH_MODELS_DIR and in the hub caches, by the name that a run file may call them.

    A repository of several snapshots is listed under its own path.
    """
    root = models_root()
    for entry in _sorted_folders(root):
        if _is_model(entry):
            yield entry.name, entry
        elif not hub_id_of(entry):
            yield from ((f"{entry.name}/{one.name}", one) for one in _sorted_folders(entry) if _is_model(one))
    for cache in _caches():
        for repository in _sorted_folders(cache):
            if hub_id := hub_id_of(repository):
                yield from ((hub_id, place) for place in _places(repository))


def _places(repository: Path) -> Iterator[Path]:
    try:
        place = snapshot_of(repository)
    except ModelError:
        yield repository
    else:
        if place is not None and _is_model(place):
            yield place


def _is_model(folder: Path) -> bool:
    try:
        return (folder / "config.json").is_file()
    except OSError:
        return False


def _caches() -> Iterator[Path]:
    """ORCH_MODELS_DIR where it is a cache or holds one, then where the hub's own tools have theirs."""
    root = models_root()
    home = with_home(Path(os.environ.get("HF_HOME") or "~/.cache/huggingface"))
    own = with_home(Path(os.environ.get("HF_HUB_CACHE") or home / "hub"))
    yield from dict.fromkeys((root, root / "hub", own.absolute()))


def _ref(file: Path) -> str:
    """The commit in a file of ``refs``; empty where there is none."""
    try:
        if not file.is_file():
            return ""
        with file.open("rb") as stream:
            return stream.read(_LONGEST_REF).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _sorted_folders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if is_folder(entry))
    except OSError:
        return []


def is_path(name: str) -> bool:
    """Whether the name of a model is written as a path."""
    return "/" in name or name.startswith((".", "~")) or name.endswith((".yaml", ".yml"))
