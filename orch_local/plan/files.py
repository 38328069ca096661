"""Plans as files: `run.json` of a run folder, written before the first model is loaded and never edited."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orch_local.errors import StoreError
from orch_local.plan.places import reduced, restored
from orch_local.plan.plans import Plan
from orch_local.records import digest
from orch_local.store.store import RunFolder, read_json, write_json

_MOST_FIELDS = 5


def write_plan(folder: RunFolder, plan: Plan) -> None:
    """Write ``run.json`` with a SHA-256 of its content, and beside it the paths of files on this machine.

    A store beside the run is named from the run folder. How a site starts its jobs is no part of a run and
    stays out.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    values = plan.model_dump(mode="json", exclude={"config": {"slurm"}})
    beside = Path("..") / plan.store.name
    # Both resolved, as `load_plan` does it: the path to the run may go through links.
    if (folder.root / beside).resolve() == plan.store.resolve():
        values["store"] = str(beside)  # run and store may then be moved or copied together
    values, paths = reduced(values)
    write_json(folder.places, paths)
    write_json(folder.plan, {**values, "sha256": _seal(values)})


def load_plan(folder: RunFolder) -> Plan:
    """The frozen plan of a run folder.

    Raises
    ------
    StoreError
        If it is missing, was edited, or was written by a version that this one cannot read.
    """
    values = read_json(folder.plan)
    hint = "run with the version that made it, or choose another --out"
    if not isinstance(values, dict):
        raise StoreError("is not a plan", where=str(folder.plan), hint=hint)
    seal = values.pop("sha256", None)
    values.pop("standing", None)  # earlier versions wrote the level of the finished run here
    try:
        plan = Plan.model_validate(restored(values, _places(folder)))
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, one["loc"])) for one in error.errors()[:_MOST_FIELDS])
        message = f"is not a plan of this version; it differs in: {fields}"
        raise StoreError(message, where=str(folder.plan), hint=hint) from None
    if seal != _seal(values):
        message = "was edited after it was written: its SHA-256 is not the one in it"
        hint = "put the old file back, or delete it and run the same command again: rows are kept"
        raise StoreError(message, where=str(folder.plan), hint=hint)
    return plan.model_copy(update={"store": (folder.root / plan.store).resolve()})


def _places(folder: RunFolder) -> Mapping[str, object]:
    """The paths of a run; none where its folder came from another machine without them."""
    if not folder.places.exists():
        return {}
    places = read_json(folder.places)
    return places if isinstance(places, dict) else {}


def _seal(values: Mapping[str, Any]) -> str:
    """Digest of a plan as it was frozen."""
    return digest(dict(values))
