"""Run files and model configs: YAML into validated, frozen models; unknown keys are refused.

A path in a file is relative to the folder of that file. Every message names the file and the key.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from orch_local.config.model_search import (
    find_folder,
    find_in_caches,
    hub_id_of,
    is_folder,
    is_hub_id,
    model_folders,
    models_root,
    snapshot_of,
    with_home,
)
from orch_local.config.yaml_files import nearest, parse, read_yaml
from orch_local.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]
EngineName = Literal["vllm", "transformers"]
Grammar = Literal["guidance", "outlines", "xgrammar"]
Switch = Literal["auto", "on", "off"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_switch(value: Any) -> Any:
    """What PyYAML makes of `on` and `off`, back into words."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class BenchmarkConfig(_Model):
    """Which questions are asked, from local files only."""

    name: Literal["mmlu", "mmlu_pro", "gsm8k", "arc", "jsonl"] = Field(
        description="Column layout of the files; `jsonl` is the project's own format."
    )
    path: Path = Field(description="File or folder: parquet, arrow (save_to_disk), JSONL or a hub copy.")
    split: str = "test"
    limit: int | None = Field(
        default=None, ge=1, description="Ask the first N questions only (after the shuffle)."
    )
    per_category: int | None = Field(
        default=None,
        ge=1,
        description="Ask the first N questions of each category only (after the shuffle, before the limit).",
    )
    categories: Annotated[tuple[str, ...] | None, BeforeValidator(_as_list)] = None
    shuffle_seed: int | None = Field(
        default=None, ge=0, description="Fixed shuffle; none keeps the order of the file."
    )
    few_shot: int = Field(
        default=0, ge=0, le=32, description="Solved examples of the same category before each question."
    )
    few_shot_split: str | None = Field(
        default=None, description="Split the examples come from; none takes the benchmark's usual one."
    )
    skip_bad_rows: bool = Field(
        default=False, description="Record and count bad rows instead of refusing the file."
    )
    cluster: str | None = Field(
        default=None,
        min_length=1,
        description="Field of `meta` that questions of one source share (a passage, a template); intervals "
        "then allow for it.",
    )


class AnswerConfig(_Model):
    """Fields and bounds of the constrained JSON answer; its schema is made in `config/answers.py`."""

    reasoning_chars: int = Field(
        default=1000, ge=0, le=8000, description="Bound of `reasoning`; 0 leaves the field out."
    )
    eliminated: bool | None = Field(
        default=None,
        description="Whether the answer has a list `eliminated` of labels; none: for role `eliminate` only.",
    )
    confidence: bool = Field(
        default=True,
        description="Whether the answer has a `confidence`: the probability in per cent that it is right.",
    )
    charset: Literal["auto", "ascii", "unicode"] = Field(
        default="auto",
        description="Characters allowed in strings. `auto`: ASCII, and all of Unicode where the question has "
        "letters outside ASCII. `unicode` makes larger grammars and budgets.",
    )


class AgentConfig(_Model):
    """A model plus a role plus decoding."""

    name: Name
    model: str = Field(
        min_length=1,
        description="Name of a model config or of a folder in ORCH_MODELS_DIR, id of a hub repository whose "
        "files are here, or a path to a model config or model folder.",
    )
    role: Literal["solve", "eliminate", "verify"] = "solve"
    prompt: Path | None = Field(
        default=None, description="A prompt template of your own instead of the role's."
    )
    mode: Literal["analyse", "direct"] = Field(
        default="analyse", description="`direct` writes no analysis; it only scores the choices in one step."
    )
    thinking: bool = Field(default=False, description="Let a reasoning model think before the answer.")
    thinking_tokens: int = Field(default=4096, ge=16, description="Bound of the thought.")
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="A budget smaller than the computed one; rows it cuts are `truncated`.",
    )
    answer: AnswerConfig | None = Field(default=None, description="Instead of the run's answer block.")


class MergeConfig(_Model):
    """How a panel becomes one decision."""

    policy: Literal["agent", "majority", "confidence", "probability"] = "agent"
    model: str | None = Field(
        default=None, min_length=1, description="Model of the merge agent; needed by policy `agent`."
    )
    prompt: Path | None = None
    when: Literal["always", "disagreement"] = "always"
    candidates: Literal["all", "nominated"] = Field(
        default="all",
        description="What the merge agent may answer: any choice, or those the panel nominated.",
    )
    names: Literal["hidden", "shown"] = "hidden"
    quorum: int = Field(
        default=1, ge=1, description="Usable analyses needed; below it the question is unscored."
    )
    thinking: bool = False
    thinking_tokens: int = Field(default=4096, ge=16)
    max_tokens: int | None = Field(default=None, ge=1)
    answer: AnswerConfig = AnswerConfig(eliminated=False)

    @model_validator(mode="after")
    def _agent_needs_model(self) -> MergeConfig:
        if self.policy == "agent" and self.model is None:
            raise ValueError("policy 'agent' needs a `model` for the merge agent")
        return self


class EngineConfig(_Model):
    """Which engine executes the agents, and how."""

    name: EngineName = "vllm"
    device: Device = "auto"
    grammar: Grammar = Field(
        default="guidance",
        description="What executes the grammar inside vLLM; the transformers engine uses outlines.",
    )
    models_at_once: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Most worker processes side by side; none lets the placement choose.",
    )
    models_per_gpu: int = Field(
        default=1, ge=1, le=4, description="Most small models that may share one GPU, each with its memory."
    )
    fast: bool = Field(default=False, description="Give the promise of equal bytes up for speed.")
    prefix_cache: Annotated[Switch, BeforeValidator(_as_switch)] = Field(
        default="auto",
        description="Whether vLLM keeps what it has read of prompts for those that begin alike. `auto`: only "
        "where a check of this model on this machine, kept in the store, found the same bytes with it.",
    )
    stall_timeout_s: float = Field(
        default=900.0, gt=0, le=1e7, description="A worker silent for so long is stopped and replaced."
    )
    load_timeout_s: float = Field(
        default=3600.0, gt=0, le=1e7, description="A worker that loads its model for so long is stopped."
    )
    recheck_rows: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="Most rows that each worker generates again in other batches, as evidence for the level; "
        "none takes 8 on a CPU and 64 on a GPU.",
    )
    recheck_share: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Share of a worker's time that these rows may take; 2 (on a GPU 16) are generated again "
        "in any case.",
    )

    @model_validator(mode="after")
    def _cache_is_of_vllm(self) -> EngineConfig:
        if self.prefix_cache == "on" and self.name != "vllm":
            raise ValueError(f"`prefix_cache: on` needs `name: vllm`; {self.name} has no prefix cache")
        return self


def _as_lines(value: Any) -> Any:
    return [line for line in value.split("\n") if line.strip()] if isinstance(value, str) else value


def _quoted(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f'put it in quotes, as "{value}"')
    return value


class _Form(NamedTuple):
    """What a text must look like, as a pattern, and in words for those who wrote it otherwise."""

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


class SlurmConfig(_Model):
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
    extra: Annotated[tuple[_Line, ...], BeforeValidator(_as_list)] = Field(
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


class RouterWeights(_Model):
    """What the router's score is made of."""

    accuracy: float = Field(default=1.0, ge=0, le=1e6)
    latency: float = Field(default=0.0, ge=0, le=1e6)
    cost: float = Field(default=0.0, ge=0, le=1e6)


class RouterConfig(_Model):
    """Which agents are asked about which question; see docs/routing.md."""

    mode: Literal["online", "calibrated", "delayed"] = Field(
        description="`online` learns from wave to wave, `delayed` from feedback that comes some questions "
        "later, `calibrated` does not learn: its state is a file."
    )
    k: int | None = Field(default=None, ge=1, description="Agents for each question.")
    budget: float | None = Field(
        default=None, gt=0, le=1e15, description="Instead of k: most expected cost of a question's analyses."
    )
    alpha: float = Field(default=0.1, gt=0, le=1, description="Weight of the newest signal in an average.")
    weights: RouterWeights = RouterWeights()
    wave: int = Field(default=200, ge=1, description="Questions that share one state (online).")
    delay: int = Field(default=200, ge=1, description="Feedback of a question comes so much later (delayed).")
    state: Path | None = Field(
        default=None,
        description="State to begin with, made by `orch-local calibrate`; needed where mode is calibrated.",
    )
    warm_up: int = Field(
        default=10,
        ge=0,
        description="So often must each agent have come back, asked in turn, before scores decide.",
    )
    category_min: int = Field(
        default=10, ge=1, description="Signals below which a category's average gives way to the overall one."
    )
    explore_every: int = Field(
        default=0,
        ge=0,
        description="One question of so many gives its last seat to an agent of low score; 0: none.",
    )
    prior: float = Field(default=0.5, ge=0, le=1, description="Accuracy of an agent before its first signal.")
    profile: Path | None = Field(
        default=None,
        description="Seconds and costs, measured by `orch-local profile`; none counts tokens instead.",
    )

    @model_validator(mode="after")
    def _one_size(self) -> RouterConfig:
        if (self.k is None) == (self.budget is None):
            raise ValueError("give either `k` or `budget`")
        if self.mode == "calibrated" and self.state is None:
            raise ValueError("mode 'calibrated' needs a `state`: make one with `orch-local calibrate`")
        return self


_TAKEN = frozenset({"merge", "majority", "ORCH", "oracle"})


class RunConfig(_Model):
    """One run file."""

    benchmark: BenchmarkConfig
    agents: tuple[AgentConfig, ...] = Field(min_length=1)
    merge: MergeConfig
    router: RouterConfig | None = Field(default=None, description="None asks every agent every question.")
    answer: AnswerConfig = AnswerConfig()
    engine: EngineConfig = EngineConfig()
    slurm: SlurmConfig = SlurmConfig()

    @model_validator(mode="after")
    def _names_and_quorum(self) -> RunConfig:
        names = [agent.name for agent in self.agents]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two agents are named {twice[0]!r}; give each agent a name of its own")
        taken = sorted(set(names) & _TAKEN)
        if taken:
            raise ValueError(f"an agent cannot be named {taken[0]!r}: results have another meaning for it")
        if self.merge.quorum > len(names):
            raise ValueError(f"quorum {self.merge.quorum} is more than the {len(names)} agents")
        if self.router and self.router.budget and self.merge.quorum > 1:
            raise ValueError("a `router.budget` may leave one agent, so `merge.quorum` must be 1")
        asked = self.router.k if self.router and self.router.k else self.merge.quorum
        if not self.merge.quorum <= asked <= len(names):
            raise ValueError(
                f"router.k is {asked}: it must be at least the quorum ({self.merge.quorum}) and at most the "
                f"number of agents ({len(names)})"
            )
        return self


class ModelConfig(_Model):
    """One flat file of `model_configs/`: where a model is, what it needs, how vLLM loads it."""

    name: Name
    hub_id: str = Field(default="", description="Where the weights come from, as owner/name on the hub.")
    path: Path | None = Field(
        default=None,
        description="Local folder; none looks for it in ORCH_MODELS_DIR by hub_id, then by name, then in the "
        "hub's cache.",
    )
    licence: str = ""
    parameters_b: float | None = Field(
        default=None, gt=0, description="Parameters in 10^9, all experts counted."
    )
    memory_gib: float | None = Field(default=None, gt=0, description="GPU memory of the weights alone.")
    think_open: str | None = Field(default=None, description="Tag that opens a thought, e.g. <think>.")
    think_close: str | None = Field(
        default=None,
        description="All that stands between a thought and the answer, e.g. </think> and two line breaks.",
    )
    chat_template_kwargs: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="Passed to the chat template, e.g. enable_thinking."
    )
    thinking_template_kwargs: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="Instead of chat_template_kwargs where the agent thinks."
    )
    system_role: bool | None = Field(
        default=None,
        description="Whether the system text has a turn of its own; none looks whether the chat template "
        "writes it.",
    )
    answer_prefix: str = Field(
        default="",
        description="Text before an answer without a thought, e.g. a channel header.",
    )
    dtype: DType = "auto"
    quantization: str | None = None
    max_model_len: int | None = Field(default=None, ge=16)
    best_level: Literal["bitwise", "verified"] | None = Field(
        default=None, description="The level to expect on a GPU, as far as it is known."
    )
    tested: str = Field(
        default="", description="Who has tried whether its bytes stay the same in another batch."
    )
    tensor_parallel_size: int | None = Field(
        default=None,
        ge=1,
        description="GPUs that share each layer; none takes the number by which a row costs least.",
    )
    pipeline_parallel_size: int = Field(default=1, ge=1)
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    kv_cache_dtype: str = "auto"
    max_num_seqs: int = Field(default=256, ge=1)
    cpu_kv_cache_gib: float = Field(default=1.0, gt=0, description="KV cache on a CPU.")
    vllm_args: dict[str, Any] = Field(
        default_factory=dict, description="Any further keyword arguments of vllm.EngineArgs."
    )
    sources: tuple[str, ...] = Field(default=(), description="Where the facts of this file were read.")
    notes: str = ""

    def template_options(self, *, thinking: bool) -> dict[str, bool | int | float | str]:
        """Keyword arguments for the chat template."""
        return dict(self.thinking_template_kwargs if thinking else self.chat_template_kwargs)


def load_run(path: Path, overrides: dict[str, Any] | None = None) -> RunConfig:
    """Read a run file; ``overrides`` are dotted keys from the command line, e.g. ``benchmark.limit``.

    Raises
    ------
    ConfigError
        Naming the file and the key.
    """
    values = read_yaml(path)
    if values.get("slurm", {}) is None:
        del values["slurm"]  # the block is there, and all its lines are comments
    for dotted, value in (overrides or {}).items():
        *parents, last = dotted.split(".")
        target = values
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError(f"`{parent}` must be a block of settings", where=str(path))
        target[last] = value
    return _absolute_paths(parse(RunConfig, values, str(path)), path.parent)


def _absolute_paths(config: RunConfig, base: Path) -> RunConfig:
    def absolute(path: Path | None) -> Path | None:
        return None if path is None else Path(os.path.abspath(base / with_home(path)))  # noqa: PTH100 - keeps symlinks

    def model(name: str | None) -> str | None:
        if name is None or not _is_path(name):
            return name
        place = absolute(Path(name))
        return name if is_hub_id(name) and not os.path.lexists(str(place)) else str(place)

    agents = tuple(
        agent.model_copy(update={"prompt": absolute(agent.prompt), "model": model(agent.model)})
        for agent in config.agents
    )
    merge = config.merge.model_copy(
        update={"prompt": absolute(config.merge.prompt), "model": model(config.merge.model)}
    )
    benchmark = config.benchmark.model_copy(update={"path": absolute(config.benchmark.path)})
    router = config.router and config.router.model_copy(
        update={"state": absolute(config.router.state), "profile": absolute(config.router.profile)}
    )
    blocks = {"agents": agents, "merge": merge, "benchmark": benchmark, "router": router}
    return config.model_copy(update=blocks)


def _is_path(name: str) -> bool:
    return "/" in name or name.startswith((".", "~")) or name.endswith((".yaml", ".yml"))


def config_folders() -> list[Path]:
    """Folders searched for model configs: ORCH_MODEL_CONFIGS, ./model_configs, the shipped ones."""
    named = os.environ.get("ORCH_MODEL_CONFIGS")
    folders = [Path(named)] if named else []
    folders += [Path.cwd() / "model_configs", *_shipped_folders()]
    return list(dict.fromkeys(folder for folder in folders if folder.is_dir()))


def _shipped_folders() -> list[Path]:
    package = Path(__file__).resolve().parents[1]
    return [package / "model_configs", package.parent / "model_configs"]


def load_model_config(name: str) -> ModelConfig:
    """The model config that a run file names; see :func:`find_model`.

    The returned ``path`` is absolute. A model folder without a config gets all defaults.

    Raises
    ------
    ConfigError
        If nothing of that name is found, or the file is not valid.
    ModelError
        If a hub cache has several snapshots of the model and does not say which is meant.
    """
    found = find_model(name)
    if not is_folder(found):
        return _read_model_config(found)
    path = found.resolve()
    hub_id = hub_id_of(path)
    own = os.path.basename(os.path.abspath(found))  # noqa: PTH100, PTH119 - that of a link, not of its target
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", hub_id.split("/")[-1] or own)
    return ModelConfig(name=safe.lstrip("._-")[:64] or "model", hub_id=hub_id, path=path)


def find_model(name: str) -> Path:
    """The model config file or the model folder that a name stands for.

    That is, in this order: the name of a config file; the path of a config file, of a model folder, or of a
    repository in a hub cache; the ``hub_id`` of a config, or its last part; the name of a folder in
    ORCH_MODELS_DIR; the id of a repository in a hub cache.

    Raises
    ------
    ConfigError
        If nothing of that name is found.
    ModelError
        If a hub cache has several snapshots of the model and does not say which is meant.
    """
    path = with_home(Path(name))
    known = model_config_files()
    # A bare name means a config first: a folder that happens to lie here must not take its place.
    if name in known:
        return known[name]
    if is_folder(path):
        return snapshot_of(path.resolve()) or path
    if _is_path(name) and (not is_hub_id(name) or path.exists()):
        return path
    found = _by_hub_id(name, known) or find_folder(name)
    if found is None:
        hint = _how_to_name(name, [*known, *dict(model_folders())])
        raise ConfigError(f"no model config and no model folder is named {name!r}", hint=hint)
    return found


def _how_to_name(name: str, known: Sequence[str]) -> str:
    listed = "`orch-local models` lists the names; the path of a model folder will do as well"
    close = nearest(name, known).strip(" ()")
    if close.startswith("did"):
        return f"{close} {listed}"
    fetch = f"`orch-local fetch --model {name} --to DIR --allow-network` on a connected machine fetches it"
    return f"{listed}; {fetch}" if is_hub_id(name) else listed


def _by_hub_id(name: str, known: Mapping[str, Path]) -> Path | None:
    """The config of a repository of the hub, by its id or the last part of that."""
    for file in known.values():
        try:
            hub_id = str(read_yaml(file).get("hub_id", ""))
        except ConfigError:
            continue  # who names that file itself is told
        if hub_id and name in (hub_id, hub_id.split("/")[-1]):
            return file
    return None


def is_shipped(name: str) -> bool:
    """Whether a name of a model stands for a config that came with orch-local."""
    return find_model(name).resolve().parent in _shipped_folders()


def model_config_files() -> dict[str, Path]:
    """All model configs by name (the name of the file), those of earlier folders first."""
    found: dict[str, Path] = {}
    for folder in config_folders():
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return found


def _read_model_config(file: Path) -> ModelConfig:
    config = parse(ModelConfig, read_yaml(file), str(file))
    return config.model_copy(update={"path": _model_path(config, file)})


def _model_path(config: ModelConfig, file: Path) -> Path:
    """Where the weights should be; whether they are there is for `models.py` to say."""
    if config.path is not None:
        path = Path(os.path.abspath(file.parent / with_home(config.path)))  # noqa: PTH100 - keeps symlinks
        return snapshot_of(path) or path
    named = models_root() / config.name
    if not config.hub_id:
        return named
    places = (models_root() / config.hub_id, models_root() / config.hub_id.split("/")[-1], named)
    return next(filter(is_folder, places), None) or find_in_caches(config.hub_id) or named
