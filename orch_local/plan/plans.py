"""The frozen plan of a run: a run file, checked against models and questions, with its specs.

A plan is everything that a worker needs; it is written to ``run.json`` before the first model is loaded,
and workers read that file, never the run file again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from orch_local.config.answers import AnswerSchema
from orch_local.config.blocks import AgentConfig, AnswerConfig, EngineConfig, MergeConfig
from orch_local.config.model_configs import ModelConfig, is_shipped, load_model_config
from orch_local.config.run_files import RunConfig
from orch_local.engines.base import EngineSettings
from orch_local.engines.catalogue import knows
from orch_local.engines.registry import engine_version, obstacles
from orch_local.errors import ConfigError, InputError, ModelError, StoreError
from orch_local.models.folders import ModelFolder, digests, open_model_folder
from orch_local.placement.estimates import LoadedModel, best_tensor_parallel
from orch_local.placement.hardware_notes import lacks_bfloat16, lacks_kernels
from orch_local.plan.differences import Change, changes
from orch_local.plan.dtypes import checkpoint_dtype, choose
from orch_local.plan.fingerprint import Fact, fingerprint, installed
from orch_local.plan.places import reduced, restored
from orch_local.plan.profiles import Profile
from orch_local.prompts.arrival import Asked, arrive
from orch_local.prompts.chat_template import PINNED_DATE
from orch_local.prompts.template import Template, answer_form, builtin_text, load_template, parse_template
from orch_local.prompts.thoughts import Tags
from orch_local.prompts.tokenizer import PromptTokenizer
from orch_local.records import LABELS, digest
from orch_local.store.store import RunFolder, Spec, read_json, write_json
from orch_local.util.devices import cpu_cores, gpus, machine

SPEC_FORMAT = 3
"""Raised when this code starts to make other prompts or rows from the same settings."""

_DEFAULT_CONTEXT = 32768
_MOST_FIELDS = 5
MERGE = "merge"
"""Name of the merge agent in plans, costs and logs; no agent may have it."""


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True
    )


class Thinking(_Frozen):
    """How a reasoning model thinks before its answer."""

    tokens: int
    open: str
    close: str


class AgentPlan(_Frozen):
    """One agent (or the merge agent), with everything its worker needs."""

    name: str
    kind: Literal["analysis", "merge"]
    model: ModelConfig
    settings: EngineSettings
    template: str
    answer: AnswerConfig
    thinking: Thinking | None
    max_tokens: int | None
    notes: tuple[str, ...] = ()
    """What was decided about its prompts, in words for the user; no part of the identity."""
    cache_reason: str = ""
    """Why its prefix cache is on or off, where that is a choice; no part of the identity."""
    spec: str
    spec_content: dict[str, Any]

    @property
    def parsed_template(self) -> Template:
        """The prompt template, parsed."""
        return parse_template(self.template, f"template of {self.name}")

    @property
    def full_spec(self) -> Spec:
        """The spec with its content."""
        return Spec(self.spec_content, self.spec)

    @property
    def engine_key(self) -> str:
        """The same for agents whose engines load alike, however they are asked: see `run/compile_cache.py`.

        What is compiled depends on the model, the arguments and the environment of the engine, and on the
        context that it is loaded for.
        """
        facts = {name: self.spec_content[name] for name in ("model", "engine", "environment")}
        return digest({**facts, "loaded_len": self.settings.loaded_len})[:32]

    @property
    def environment(self) -> dict[str, Fact]:
        """The environment of its engine, see :mod:`orch_local.plan.fingerprint`, when the plan was made."""
        return dict(self.spec_content["environment"])

    @property
    def engine(self) -> str:
        """Equal for agents of a plan that one loaded model can serve, whatever their prompts and answers."""
        return digest({**asdict(self.settings), "model_path": str(self.settings.model_path), "longest": None})

    @property
    def obstacles(self) -> tuple[str, ...]:
        """Why its bytes are not promised, by the environment of this process; empty where they are."""
        return obstacles(self.settings)


class QuestionsPlan(_Frozen):
    """Which questions a run asks."""

    count: int
    bad_rows: int
    digest: str
    categories: int = 0
    """Categories that could be asked before `per_category` and `limit`; 0 in plans of earlier versions."""


class TokensPerRow(_Frozen):
    """What a row of an agent costs, on average over a sample of the questions."""

    prompt: float
    generated: float
    """Not measured: an answer is taken to use half of its bound."""


class RouterPlan(_Frozen):
    """The files that a router needs, as they were when the plan was made."""

    start: dict[str, Any] | None = None
    """State to begin with; see :class:`orch_local.router.routing.RouterState`."""
    profile: Profile | None = None


class Plan(_Frozen):
    """Everything a run is made of."""

    version: str
    config: RunConfig
    agents: tuple[AgentPlan, ...]
    merger: AgentPlan | None
    router: RouterPlan | None = None
    questions: QuestionsPlan
    store: Path
    environment: dict[str, Fact]
    """What is common to the environments of all workers."""
    tokens: dict[str, TokensPerRow] = {}
    """By agent; what the placement is made from. No part of the identity."""

    @property
    def names(self) -> tuple[str, ...]:
        """Agent names in order."""
        return tuple(agent.name for agent in self.agents)

    @property
    def workers(self) -> tuple[AgentPlan, ...]:
        """The agents and, behind them, the merge agent."""
        return (*self.agents, self.merger) if self.merger else self.agents

    def identity(self) -> dict[str, str]:
        """What makes two plans the same run, by field.

        Paths are no part of it, and batch sizes only where bytes depend on them.
        """
        fields = {"questions": self.questions.digest, "agents": ", ".join(self.names)}
        fields |= {f"agent {agent.name}": agent.spec for agent in self.agents}
        rules = self.config.merge.model_dump(include={"policy", "when", "candidates", "names", "quorum"})
        fields |= {f"merge.{name}": str(value) for name, value in rules.items()}
        if self.config.router:
            rules = self.config.router.model_dump(mode="json", exclude={"state", "profile"})
            fields |= {f"router.{name}": str(value) for name, value in rules.items()}
            fields["router files"] = digest(self.router.model_dump(mode="json")) if self.router else ""
        return fields | ({"merge agent": self.merger.spec} if self.merger else {})


def write_plan(folder: RunFolder, plan: Plan) -> None:
    """Write ``run.json``, with a SHA-256 of its content, and beside it where the files lie on this machine.

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
        If there is none, it was edited, or it was written by a version that this one cannot read.
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


class PlanChanges(NamedTuple):
    """What differs between two plans."""

    plan: list[Change]
    """Questions, agents, prompts, weights, rules: another run."""
    environment: list[Change]
    """Libraries, device and what else can change bytes: the same run elsewhere."""


def plan_changes(before: Plan, now: Plan) -> PlanChanges:
    """What differs between two plans; both lists are empty where :meth:`Plan.identity` is the same.

    A change of environment that all workers share is told once, as ``environment.torch``, any other for its
    worker, as ``agent quant: environment.torch``. Fields of a worker that one plan does not have are not
    listed, ``agents`` or ``merge.policy`` tells of it.
    """
    found = changes(_run_fields(before), _run_fields(now))
    old, new = _by_name(before), _by_name(now)
    places: dict[str, list[Change]] = {}
    for name in (name for name in old if name in new):
        differing = changes(old[name].spec_content, new[name].spec_content)
        free = _machine_chooses_dtype(old[name], new[name])
        places[name] = [one for one in differing if _is_of_environment(one, free)]
        found += _told_for(name, [one for one in differing if not _is_of_environment(one, free)])
    environment = [
        one for one in next(iter(places.values()), []) if all(one in place for place in places.values())
    ]
    everywhere = set(map(str, environment))
    for name, place in places.items():
        environment += _told_for(name, [one for one in place if str(one) not in everywhere])
    return PlanChanges(found, environment)


def _run_fields(plan: Plan) -> dict[str, Any]:
    """What of the identity of a plan is no worker's own."""
    return {name: value for name, value in plan.identity().items() if name not in _by_name(plan)}


def _by_name(plan: Plan) -> dict[str, AgentPlan]:
    """The workers, by the names that they have in the identity of a plan."""
    names = [f"agent {agent.name}" for agent in plan.agents] + ["merge agent"]
    return dict(zip(names, plan.workers, strict=False))


def _is_of_environment(change: Change, machine_chooses_dtype: bool) -> bool:
    """Whether a field of a spec is told by the machine, and not by the run file, the model and its config."""
    if change.field == "environment.dtype":
        return machine_chooses_dtype
    return change.field.startswith("environment.")


def _machine_chooses_dtype(*workers: AgentPlan) -> bool:
    """Whether another dtype may be due to another machine; see :mod:`orch_local.plan.dtypes`."""
    named = any(worker.model.dtype != "auto" for worker in workers)
    return not named and any(worker.settings.device == "cpu" for worker in workers)


def _told_for(worker: str, found: list[Change]) -> list[Change]:
    return [change._replace(field=f"{worker}: {change.field}") for change in found]


def plan_agents(config: RunConfig) -> tuple[tuple[AgentPlan, ...], AgentPlan | None]:
    """Check every model and template of a run and freeze its agents.

    Raises
    ------
    ConfigError, ModelError, PromptError
        Whatever can be told before a model is loaded.
    """
    agents = tuple(_plan_agent(agent, config) for agent in config.agents)
    _refuse_twins(agents)
    merge = config.merge
    if merge.policy != "agent" or merge.model is None:
        return agents, None
    as_agent = AgentConfig(
        name=MERGE,
        model=merge.model,
        thinking=merge.thinking,
        thinking_tokens=merge.thinking_tokens,
        max_tokens=merge.max_tokens,
        answer=merge.answer,
    )
    template = load_template(merge.prompt) if merge.prompt else parse_template(builtin_text("merge"), "merge")
    return agents, _freeze(as_agent, "merge", template, config)


def resolve_device(engine: EngineConfig) -> str:
    """``cpu`` or ``cuda`` for ``auto``: a GPU is used where there is one and the installed engine can."""
    if engine.device != "auto":
        return engine.device
    cpu_build = installed("vllm") is None if engine.name == "vllm" else "+cpu" in (installed("torch") or "")
    return "cuda" if gpus() and not cpu_build else "cpu"


def _refuse_twins(agents: Sequence[AgentPlan]) -> None:
    """Agents that differ in name only would always give the same answer."""
    names: dict[str, str] = {}
    for agent in agents:
        if agent.spec in names:
            raise ConfigError(
                f"agents {names[agent.spec]!r} and {agent.name!r} are the same in all but their names",
                hint="give one of them another model, role or prompt",
            )
        names[agent.spec] = agent.name


def _plan_agent(agent: AgentConfig, config: RunConfig) -> AgentPlan:
    name = "direct" if agent.mode == "direct" else agent.role
    template = load_template(agent.prompt) if agent.prompt else parse_template(builtin_text(name), name)
    return _freeze(agent, "analysis", template, config)


def _freeze(
    agent: AgentConfig, kind: Literal["analysis", "merge"], template: Template, config: RunConfig
) -> AgentPlan:
    with _about(agent):
        model = load_model_config(agent.model)
        folder = open_model_folder(model)
        tokenizer = PromptTokenizer(folder.path)
        asked = Asked(agent.thinking, bool(template.system), is_shipped(agent.model))
        arrival = arrive(tokenizer, model, asked)
        model = model.model_copy(update={"system_role": arrival.system_role})
    _check_architecture(folder, config.engine.name)
    settings = _settings(model, folder, config.engine)
    _check_gpu(settings, agent.name)
    answer = _answer_config(agent, config)
    thinking = _thinking(agent, arrival.tags)
    _check_budget(agent, answer, settings)
    facts = _model_facts(folder)
    content = {
        "format": SPEC_FORMAT,
        "kind": kind,
        "model": facts,
        "prompt": template.text,
        "answer_form": answer_form(AnswerSchema(LABELS, answer)),
        "chat": {
            "options": model.template_options(thinking=agent.thinking),
            "system_role": arrival.system_role,
            "content": "parts" if tokenizer.takes_parts else "text",
            "answer_prefix": model.answer_prefix,
            "date": PINNED_DATE.date().isoformat(),
        },
        "answer": answer.model_dump(),
        "decoding": {
            "temperature": 0,
            "max_tokens": agent.max_tokens,
            "thinking": thinking.model_dump() if thinking else None,
        },
        "panel": _panel_rules(config.merge) if kind == "merge" else None,
        **_execution(settings, facts),
    }
    spec = Spec.of(content)
    return AgentPlan(
        name=agent.name,
        kind=kind,
        model=model,
        settings=settings,
        template=template.text,
        answer=answer,
        thinking=thinking,
        max_tokens=agent.max_tokens,
        notes=arrival.notes,
        spec=spec.digest,
        spec_content=content,
    )


def with_prefix_cache(agent: AgentPlan) -> AgentPlan:
    """The agent with its prefix cache on; its rows have another spec."""
    settings = replace(agent.settings, prefix_cache=True)
    content = agent.spec_content | _execution(settings, agent.spec_content["model"])
    spec = Spec.of(content).digest
    return agent.model_copy(update={"settings": settings, "spec": spec, "spec_content": content})


def execution(content: Mapping[str, Any]) -> Spec:
    """What computes the rows of a spec, whatever is asked: files of the model, engine and environment.

    Parameters
    ----------
    content:
        Of a spec, or the facts of :func:`execution_facts`.
    """
    return Spec.of({"kind": "execution", **{name: content[name] for name in _EXECUTION}})


def execution_facts(model: ModelConfig, engine: EngineConfig) -> tuple[EngineSettings, dict[str, Any]]:
    """The settings that a run would load a model with, and what of its specs that decides.

    Raises
    ------
    ModelError, EngineError
        If the model or the engine cannot be used.
    """
    folder = open_model_folder(model)
    settings = _settings(model, folder, engine)
    return settings, _execution(settings, _model_facts(folder))


_EXECUTION = ("model", "engine", "environment")


def _execution(settings: EngineSettings, model: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": model, "engine": _engine_spec(settings), "environment": fingerprint(settings)}


def _model_facts(folder: ModelFolder) -> dict[str, Any]:
    return {"architecture": folder.architecture, "files": digests(folder)}


@contextmanager
def _about(agent: AgentConfig) -> Iterator[None]:
    """Say in a message whose model it is about."""
    try:
        yield
    except InputError as error:
        error.where = f"{error.where} (agent {agent.name!r})" if error.where else f"agent {agent.name!r}"
        raise


def _check_architecture(folder: ModelFolder, engine: str) -> None:
    model_type = str(folder.config.get("model_type"))
    if knows(engine, folder.architecture, model_type):
        return
    raise ModelError(
        f"{engine} {engine_version(engine)} does not know {folder.architecture} ({model_type})",
        where=str(folder.path / "config.json"),
        hint="update the engine, or use another model",
    )


def _check_gpu(settings: EngineSettings, agent: str) -> None:
    """Refuse what vLLM refuses when it loads, or what fails at the first kernel."""
    if settings.device != "cuda" or settings.name != "vllm":
        return
    for gpu in gpus()[:1]:
        if lacks_kernels(gpu.capability):
            raise ConfigError(
                f"{gpu.name} is too old for CUDA 13, for which vLLM is built: compute capability below 7.5",
                where=f"agent {agent!r}",
                hint="use a GPU from Turing (T4) on, or set `engine.device: cpu`",
            )
        if settings.dtype == "bfloat16" and lacks_bfloat16(gpu.capability):
            raise ConfigError(
                f"{gpu.name} does not compute in bfloat16, the dtype of its model",
                where=f"agent {agent!r}",
                hint="set `dtype: float16` in its model config, and look at the first rows: some models that "
                "were trained in bfloat16 overflow in it",
            )


def _answer_config(agent: AgentConfig, config: RunConfig) -> AnswerConfig:
    answer = agent.answer or config.answer
    if agent.mode == "direct":
        return AnswerConfig(reasoning_chars=0, eliminated=False, confidence=False, charset=answer.charset)
    if answer.eliminated is None:
        return answer.model_copy(update={"eliminated": agent.role == "eliminate"})
    return answer


def _thinking(agent: AgentConfig, tags: Tags | None) -> Thinking | None:
    return tags and Thinking(tokens=agent.thinking_tokens, open=tags.open, close=tags.close)


def _check_budget(agent: AgentConfig, answer: AnswerConfig, settings: EngineSettings) -> None:
    budget = agent.max_tokens or AnswerSchema(LABELS, answer).enough_tokens
    thought = agent.thinking_tokens if agent.thinking else 0
    block = "merge.answer" if agent.name == MERGE else "answer"
    if budget + thought >= settings.max_model_len:
        raise ConfigError(
            f"agent {agent.name!r}: the answer alone may need {budget + thought} tokens, "
            f"but max_model_len is {settings.max_model_len}",
            hint=f"lower `{block}.reasoning_chars` or `thinking_tokens`, or raise `max_model_len`",
        )


def _settings(model: ModelConfig, folder: ModelFolder, engine: EngineConfig) -> EngineSettings:
    names = (
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "quantization",
        "max_num_seqs",
        "gpu_memory_utilization",
        "kv_cache_dtype",
        "cpu_kv_cache_gib",
        "vllm_args",
    )
    device = resolve_device(engine)
    many = engine.fast and device == "cpu"
    settings = EngineSettings(
        name=engine.name,
        model_path=folder.path,
        device=device,
        grammar=engine.grammar if engine.name == "vllm" else "outlines",
        dtype=checkpoint_dtype(folder),
        max_model_len=model.max_model_len or min(folder.context, _DEFAULT_CONTEXT),
        args={name: getattr(model, name) for name in names},
        threads=max(1, cpu_cores() // (engine.models_at_once or 1)) if many else 1,
        fast=engine.fast,
        prefix_cache={"on": True, "off": False, "auto": None}[engine.prefix_cache],
    )
    settings = choose(model, settings, folder).settings
    return settings if model.tensor_parallel_size else _with_gpus(settings, model, folder)


def _with_gpus(settings: EngineSettings, model: ModelConfig, folder: ModelFolder) -> EngineSettings:
    """The settings, with the model over the GPUs of this machine that it is to take."""
    here = machine(settings.device, settings.threads)
    size = best_tensor_parallel(LoadedModel(model, settings, folder), here)
    return replace(settings, args={**settings.args, "tensor_parallel_size": size})


def _engine_spec(settings: EngineSettings) -> dict[str, Any]:
    # Batch and memory sizes must not change a byte, so they are no part of a spec (where they can, the batch
    # size is in the environment); and the transformers engine knows none of the arguments.
    sizes = ("max_num_seqs", "gpu_memory_utilization", "cpu_kv_cache_gib")
    named = settings.args if settings.name == "vllm" else {}
    return {
        "name": settings.name,
        "grammar": settings.grammar,
        "fast": settings.fast,
        "max_model_len": settings.max_model_len,
        "args": {name: value for name, value in named.items() if name not in sizes},
        # So that a plan is told to differ, and not its machine.
        **({"prefix_cache": True} if settings.prefix_cache else {}),
    }


def _panel_rules(merge: MergeConfig) -> dict[str, str]:
    return {"names": merge.names, "candidates": merge.candidates}
