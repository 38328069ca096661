"""A pinned profile: what a row of each agent takes, measured once by `orch-local profile`.

The router's latency and cost signals are computed from it and from token counts, never from a live clock,
so that a run decides the same again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orch_local.errors import ConfigError
from orch_local.records import Usage
from orch_local.store.store import read_json


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AgentProfile(_Frozen):
    """One agent on one device. Seconds are wall seconds."""

    spec: str = Field(description="Spec that was measured; told for information, a profile may be reused.")
    device: str
    devices: int = Field(default=1, ge=1, description="Devices that the model is spread over.")
    rows: int = Field(ge=1, description="Rows that were measured.")
    load_s: float = Field(ge=0)
    base_s: float = Field(ge=0, description="A request alone: seconds = base_s + prompt_s * prompt tokens")
    prompt_s: float = Field(ge=0)
    generated_s: float = Field(ge=0, description="+ generated_s * generated tokens.")
    device_s: float = Field(
        ge=0, description="All requests at once: device-seconds of a token, prompt or generated."
    )

    def latency(self, usage: Usage) -> float:
        """Seconds that a request with these tokens takes alone."""
        return self.base_s + self.prompt_s * usage.prompt + self.generated_s * usage.generated

    def cost(self, usage: Usage) -> float:
        """Device-seconds of these tokens in a full batch."""
        return self.device_s * (usage.prompt + usage.generated)


class Profile(_Frozen):
    """All agents of a run file, and the merge agent."""

    format: int = Field(default=1, ge=1, le=1)
    measured: str = Field(description="When, ISO 8601, and on what machine, in words.")
    agents: Mapping[str, AgentProfile]


def load_profile(path: Path) -> Profile:
    """Read a profile.

    Raises
    ------
    ConfigError
        If the file is missing, or is not a profile.
    """
    hint = "measure one with `orch-local profile`"
    try:
        return Profile.model_validate(read_json(path, hint))
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, one["loc"])) for one in error.errors()[:5])
        raise ConfigError(f"is no profile: {fields}", where=str(path), hint=hint) from None
