"""Blocks of a run file, as frozen models that refuse unknown keys; `slurm` has a module of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Device = Literal["auto", "cpu", "cuda"]
EngineName = Literal["vllm", "transformers", "fake"]
Grammar = Literal["guidance", "outlines", "xgrammar"]
Switch = Literal["auto", "on", "off"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Block(BaseModel):
    """A block of settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def as_list(value: Any) -> Any:
    """A single text as a list of it, for keys that take one or several."""
    return [value] if isinstance(value, str) else value


def _as_switch(value: Any) -> Any:
    """What PyYAML makes of `on` and `off`, back into words."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class BenchmarkConfig(Block):
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
    categories: Annotated[tuple[str, ...] | None, BeforeValidator(as_list)] = None
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


class AnswerConfig(Block):
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


class AgentConfig(Block):
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


class MergeConfig(Block):
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


class EngineConfig(Block):
    """Which engine executes the agents, and how."""

    name: EngineName = Field(
        default="vllm", description="`fake` answers from a `table` and loads no model: to try a run file."
    )
    table: Path | None = Field(
        default=None,
        exclude_if=lambda table: table is None,
        description="JSON Lines file that the fake engine answers from; needed by `name: fake` alone.",
    )
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

    @model_validator(mode="after")
    def _table_is_of_fake(self) -> EngineConfig:
        if self.name == "fake" and self.table is None:
            raise ValueError("`name: fake` needs a `table`, the file it answers from; an empty one will do")
        if self.name == "fake" and self.device == "cuda":
            raise ValueError("`name: fake` computes nothing: take out `device: cuda`")
        if self.name != "fake" and self.table is not None:
            raise ValueError(f"`table` is for `name: fake`; {self.name} answers with a model")
        return self


class RouterWeights(Block):
    """What the router's score is made of."""

    accuracy: float = Field(default=1.0, ge=0, le=1e6)
    latency: float = Field(default=0.0, ge=0, le=1e6)
    cost: float = Field(default=0.0, ge=0, le=1e6)


class RouterConfig(Block):
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
