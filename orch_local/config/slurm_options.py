"""The block `slurm` of a run file: what `orch-local submit` asks of SLURM, and what it refuses to pass on."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from orch_local.config.blocks import Block, as_list


def _as_lines(value: Any) -> Any:
    return [line for line in value.split("\n") if line.strip()] if isinstance(value, str) else value


def _quoted(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f'put it in quotes, as "{value}"')
    return value


class _Form(NamedTuple):
    """What a text must look like, as a pattern, and in words for error messages."""

    pattern: str
    words: str

    def check(self, text: str) -> str:
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(self.words)
        return text

    def schema(self) -> WithJsonSchema:
        return WithJsonSchema({"type": "string", "pattern": f"^({self.pattern})$"})


# sbatch reads the lines `#SBATCH ...` like a shell: quotes, backslashes, spaces and # would mean something.
_WORD = _Form(
    r"[!$-&(-\[\]-~]{1,256}", 'write one word without blanks, quotes, "#" and backslashes, e.g. gpu'
)
_LINE = _Form(
    r"[^\x00-\x1f\x7f\x85\u2028\u2029]{1,4000}",
    "write one line of at most 4,000 characters for each entry, without control characters",
)
_TIME = _Form(
    r"[0-9]{1,6}(:[0-5][0-9]){0,2}|[0-9]{1,3}-[0-9]{1,2}(:[0-5][0-9]){0,2}",
    'write minutes ("90"), hours ("4:00:00") or days and hours ("1-12"); minutes and seconds end at 59',
)
_MEM = _Form("[0-9]{1,12}[KMGT]?", 'write a whole number and K, M, G or T, e.g. "64G"')
_SbatchValue = Annotated[str, BeforeValidator(_quoted), AfterValidator(_WORD.check), _WORD.schema()]
_Line = Annotated[str, AfterValidator(_LINE.check), _LINE.schema()]
_Time = Annotated[str, BeforeValidator(_quoted), AfterValidator(_TIME.check), _TIME.schema()]
_Mem = Annotated[str, BeforeValidator(_quoted), AfterValidator(_MEM.check), _MEM.schema()]
_OURS = frozenset(
    "--array --chdir --dependency --error --job-name --kill-on-invalid-dep --no-requeue --open-mode --output "
    "--parsable --requeue --signal --wrap -D -J -a -d -e -o".split()
)


def _words(option: str) -> list[str]:
    try:
        return shlex.split(option)
    except ValueError:
        raise ValueError(f"{option!r} has quotes that do not close") from None


class SlurmConfig(Block):
    """What `orch-local submit` asks of SLURM; see docs/slurm.md."""

    account: _SbatchValue | None = None
    partition: _SbatchValue | None = None
    qos: _SbatchValue | None = None
    constraint: _SbatchValue | None = None
    gres: _SbatchValue | None = Field(default=None, description="For each task of the array, e.g. gpu:1.")
    time: _Time | None = Field(
        default=None,
        description="Time limit of each job, in quotes: minutes, or h:mm:ss, or days-hours.",
    )
    cpus_per_task: int | None = Field(default=None, ge=1)
    mem: _Mem | None = Field(default=None, description="Memory of a node, e.g. 64G.")
    array_limit: int | None = Field(default=None, ge=1, description="Tasks that run at once (`--array %K`).")
    score_partition: _SbatchValue | None = Field(
        default=None, description="Partition of the scoring job, which needs no GPU."
    )
    score_mem: _Mem | None = Field(default=None, description="Memory of the scoring job, e.g. 8G.")
    setup: Annotated[tuple[_Line, ...], BeforeValidator(_as_lines)] = Field(
        default=(), description="Lines of shell that run first on the node, e.g. `module load cuda`."
    )
    extra: Annotated[tuple[_Line, ...], BeforeValidator(as_list)] = Field(
        default=(), description="Further options of sbatch, e.g. --exclusive."
    )
    stop_before_s: int = Field(
        default=120, ge=1, le=65535, description="Stop so long before the time limit, and requeue."
    )
    attempts: int = Field(default=10, ge=1, description="So often is a shard started at most.")
    stage_to: _Line | None = Field(
        default=None, description="Folder on the node's own disk that weights are copied to first."
    )

    @field_validator("extra")
    @classmethod
    def _are_options(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        for option in options:
            name = re.match(r"--[a-z][a-z0-9-]*|-[A-Za-z]", option)
            if name is None:
                raise ValueError(f"{option!r} is no option of sbatch; write it as --name=value")
            if name[0] in _OURS:
                raise ValueError(f"{name[0]} is set by orch-local itself")
            further = [word for word in _words(option)[1:] if re.match(r"-[A-Za-z-]", word)]
            if further:
                raise ValueError(f"write one option for each entry: {further[0]} begins another")
        return options

    @model_validator(mode="after")
    def _time_to_work(self) -> SlurmConfig:
        if self.time_s is not None and self.time_s <= self.stop_before_s:
            raise ValueError("`time` must be longer than `stop_before_s`, or no task would get to work")
        return self

    @property
    def time_s(self) -> int | None:
        """The time limit in seconds, as SLURM reads it; ``None`` where it is the partition's."""
        if self.time is None:
            return None
        days, dash, rest = self.time.rpartition("-")
        parts = [int(part) for part in rest.split(":")]
        if dash:  # days-hours[:minutes[:seconds]]
            hours, minutes, seconds = (*parts, 0, 0)[:3]
        elif len(parts) < 3:  # minutes[:seconds]
            hours, (minutes, seconds) = 0, (*parts, 0)[:2]
        else:
            hours, minutes, seconds = parts
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
