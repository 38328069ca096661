"""A run file into frozen agents: models, templates and engines are checked, and specs made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from orch_local.config.answers import AnswerSchema
from orch_local.config.blocks import AgentConfig, AnswerConfig, MergeConfig
from orch_local.config.model_configs import is_shipped, load_model_config
from orch_local.config.run_files import RunConfig
from orch_local.engines.base import EngineSettings
from orch_local.engines.catalogue import knows
from orch_local.engines.fake_table import check_agents, read_table
from orch_local.engines.registry import engine_version
from orch_local.errors import ConfigError, InputError, ModelError
from orch_local.models.folders import ModelFolder, open_model_folder
from orch_local.placement.hardware_notes import lacks_bfloat16, lacks_kernels
from orch_local.plan.execution import engine_settings, execution_content, model_facts
from orch_local.plan.plans import MERGE, AgentPlan, Thinking
from orch_local.prompts.answer_forms import answer_form
from orch_local.prompts.arrival import ChatNeeds, arrive
from orch_local.prompts.chat_template import PINNED_DATE
from orch_local.prompts.template import Template, builtin_text, load_template, parse_template
from orch_local.prompts.thoughts import Tags
from orch_local.prompts.tokenizer import open_tokenizer
from orch_local.records import LABELS
from orch_local.store.store import Spec
from orch_local.util.gpus import gpus

SPEC_FORMAT = 3
"""Raised when this code starts to make other prompts or rows from the same settings."""


def plan_agents(config: RunConfig) -> tuple[tuple[AgentPlan, ...], AgentPlan | None]:
    """Check every model and template of a run and freeze its agents.

    Raises
    ------
    ConfigError, ModelError, PromptError
        Whatever can be found before a model is loaded.
    """
    if config.engine.table is not None:
        check_agents(read_table(config.engine.table), [*(agent.name for agent in config.agents), MERGE])
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


def _notes(settings: EngineSettings) -> tuple[str, ...]:
    note = "its answers come from a table (`engine.name: fake`), no model is asked"
    return (note,) if settings.name == "fake" else ()


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
        tokenizer = open_tokenizer(folder.path)
        asked = ChatNeeds(agent.thinking, bool(template.system), is_shipped(agent.model))
        arrival = arrive(tokenizer, model, asked)
        model = model.model_copy(update={"system_role": arrival.system_role})
    _check_architecture(folder, config.engine.name)
    settings = engine_settings(model, folder, config.engine)
    _check_gpu(settings, agent.name)
    answer = _answer_config(agent, config)
    thinking = _thinking(agent, arrival.tags)
    _check_budget(agent, answer, settings)
    facts = model_facts(folder)
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
        **execution_content(settings, facts),
        # The table of the fake engine names agents; what a model answers does not depend on a name.
        **({"agent": agent.name} if settings.name == "fake" else {}),
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
        notes=(*arrival.notes, *_notes(settings)),
        spec=spec.digest,
        spec_content=content,
    )


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


def _panel_rules(merge: MergeConfig) -> dict[str, str]:
    return {"names": merge.names, "candidates": merge.candidates}
