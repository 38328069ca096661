"""A run file into the plan of a run, with its questions, without loading a model; and where its models go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from orch_local import __version__
from orch_local.benchmarks.loading import BadRow, load_questions
from orch_local.config.run_files import RunConfig
from orch_local.merge.merging import Panel, merge_task
from orch_local.models.folders import open_model_folder
from orch_local.placement.estimates import LoadedModel, best_tensor_parallel, cpu_fitting_tokens
from orch_local.placement.machine import Machine, machine
from orch_local.placement.placing import place
from orch_local.placement.replicas import Loaded, Placement
from orch_local.plan.dtypes import choose_dtype
from orch_local.plan.fingerprint import common
from orch_local.plan.freezing import plan_agents
from orch_local.plan.needs import jobs
from orch_local.plan.plans import AgentPlan, Plan, QuestionsPlan, TokensPerRow
from orch_local.plan.prefix_cache import Known, decided
from orch_local.prompts.tasks import Task, analysis_task
from orch_local.prompts.tokenizer import open_tokenizer
from orch_local.records import Analysis, Outcome, Question
from orch_local.router.states import plan_router
from orch_local.run.generating import PromptWriter
from orch_local.run.longest import Asking, depends_on_length, longest_request, panel_tokens
from orch_local.store.questions import questions_digest

SAMPLE = 200
"""Prompts that are tokenized to know the lengths of all."""
TYPICAL_SHARE = 0.5
"""How much of its bound an answer is taken to use."""
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class SampledPrompts:
    """A sample of one agent's prompts."""

    lengths: Sequence[int]
    """Tokens of each prompt."""
    needed: Sequence[int]
    """Tokens of each prompt with its longest answer."""
    budget: int
    """Most tokens an answer can have, a thought included."""
    first_prompt: str


class PlannedRun(NamedTuple):
    """A plan with its questions, not written anywhere yet."""

    plan: Plan
    questions: Sequence[Question]
    bad_rows: list[BadRow]
    samples: Mapping[str, SampledPrompts] = {}
    """By agent."""


def plan_run(config: RunConfig, store: Path, begun: Plan | None = None) -> PlannedRun:
    """Check a run file against models and questions; nothing is written.

    Parameters
    ----------
    begun:
        The plan of the run that is continued: what was chosen for it by what the store held stays.

    Raises
    ------
    InputError
        Whatever of the input cannot be used.
    """
    agents, merger = plan_agents(config)
    known = Known.of(store, begun)
    agents = tuple(decided(agent, config.engine, known) for agent in agents)
    merger = merger and decided(merger, config.engine, known)
    questions, bad_rows, categories = load_questions(config.benchmark)
    router = plan_router(config.router, agents, questions) if config.router else None
    frozen = QuestionsPlan(
        count=len(questions),
        bad_rows=len(bad_rows),
        digest=questions_digest(questions),
        categories=categories,
    )
    plan = Plan(
        version=__version__,
        config=config,
        agents=agents,
        merger=merger,
        router=router,
        questions=frozen,
        store=store,
        environment=common([agent.environment for agent in (*agents, *([merger] if merger else []))]),
    )
    plan = _sized(plan, questions)
    sample = _sample_of(questions)
    samples = {agent.name: _sampled_prompts(agent, plan, sample) for agent in plan.workers}
    tokens = {name: _tokens_per_row(prompts) for name, prompts in samples.items()}
    return PlannedRun(plan.model_copy(update={"tokens": tokens}), questions, bad_rows, samples)


def _sized(plan: Plan, questions: Sequence[Question]) -> Plan:
    """The plan, its engines loaded for no longer context than the run needs, where that saves memory."""
    sized = _alike({agent.name: _with_longest(agent, plan, questions) for agent in plan.workers})
    agents = tuple(sized[agent.name] for agent in plan.agents)
    return plan.model_copy(update={"agents": agents, "merger": plan.merger and sized[plan.merger.name]})


def _alike(agents: Mapping[str, AgentPlan]) -> dict[str, AgentPlan]:
    """Agents by name; those that one loaded model can serve have it loaded for the longest request of all."""
    lengths: dict[str, list[int | None]] = {}
    for agent in agents.values():
        lengths.setdefault(agent.engine, []).append(agent.settings.longest)
    longest = {
        engine: None if None in found else max(filter(None, found)) for engine, found in lengths.items()
    }
    return {
        name: agent.model_copy(update={"settings": replace(agent.settings, longest=longest[agent.engine])})
        for name, agent in agents.items()
    }


def _with_longest(agent: AgentPlan, plan: Plan, questions: Sequence[Question]) -> AgentPlan:
    model = LoadedModel(agent.model, agent.settings, open_model_folder(agent.model))
    if not questions or not _shorter_saves(model):
        return agent
    members = sorted(plan.agents, key=lambda one: -one.answer.reasoning_chars)[: asked_at_most(plan)]
    more = panel_tokens(questions, members) if agent.kind == "merge" else 0
    writer = PromptWriter(agent, open_tokenizer(agent.settings.model_path))
    asking = Asking(writer, lambda question: _task(agent, plan, question), more)
    settings = replace(agent.settings, longest=longest_request(asking, questions))
    return agent.model_copy(update={"settings": settings})


def _shorter_saves(model: LoadedModel) -> bool:
    """Whether a shorter context saves memory: on a GPU, and on a CPU whose cache does not hold the whole."""
    settings = model.settings
    if settings.name != "vllm" or depends_on_length(model.folder.text_config):
        return False
    return settings.device == "cuda" or cpu_fitting_tokens(model) < settings.max_model_len


def check(plan: Plan, questions: Sequence[Question], machine: Machine | None = None) -> None:
    """Make sure that every model fits a machine (none: this one) and every prompt can be rendered.

    Raises
    ------
    InputError
        If a model needs more memory than there is, or a template refuses a shape of question.
    """
    placed(plan, machine or machine_for(plan))
    for agent in plan.workers:
        writer = PromptWriter(agent, open_tokenizer(agent.settings.model_path))
        for question in _one_of_each_shape(questions):
            writer.prompt(_task(agent, plan, question))


def machine_for(plan: Plan) -> Machine:
    """What of this machine a plan may use."""
    settings = plan.agents[0].settings
    return machine(settings.device, settings.threads)


def placed(
    plan: Plan, machine: Machine, rows: Mapping[str, int] | None = None, loaded: Loaded | None = None
) -> Placement:
    """The placement of a run of which so many rows are missing; all of them where none are given.

    ``loaded`` are engines that workers of an earlier part of the run have loaded.

    Raises
    ------
    InputError
        If a model fits on no device of the machine.
    """
    analyses, merge = jobs(plan, rows_in_all(plan) if rows is None else rows, machine)
    engine = plan.config.engine
    return place(machine, analyses, merge, engine.models_at_once, engine.models_per_gpu, loaded)


def asked_at_most(plan: Plan) -> int:
    """How many agents a question is put to, at most."""
    return (plan.config.router and plan.config.router.k) or len(plan.agents)


def rows_in_all(plan: Plan) -> dict[str, int]:
    """Rows of each worker; of a router's choice nothing is known yet, so its agents share alike."""
    count = plan.questions.count
    each = -(-count * asked_at_most(plan) // len(plan.agents))
    return {agent.name: each if agent.kind == "analysis" else count for agent in plan.workers}


def on_machine(planned: PlannedRun, machine: Machine) -> PlannedRun:
    """The plan as a machine of GPUs would run it, for a forecast; its specs stay those of here."""

    def moved(agent: AgentPlan) -> AgentPlan:
        folder = open_model_folder(agent.model)
        # Another dtype may have been chosen for the CPU here.
        settings = choose_dtype(
            agent.model, replace(agent.settings, device="cuda", threads=1), folder
        ).settings
        if agent.model.tensor_parallel_size is None:
            model = LoadedModel(agent.model, settings, folder)
            size = best_tensor_parallel(model, machine)
            settings = replace(settings, args={**settings.args, "tensor_parallel_size": size})
        return agent.model_copy(update={"settings": settings})

    plan = planned.plan
    merger = moved(plan.merger) if plan.merger else None
    agents = tuple(moved(agent) for agent in plan.agents)
    there = plan.model_copy(update={"agents": agents, "merger": merger})
    return planned._replace(plan=_sized(there, planned.questions))


def _one_of_each_shape(questions: Sequence[Question]) -> list[Question]:
    """A question of every number of choices and of examples: templates may branch on these."""
    shapes: dict[tuple[int, int], Question] = {}
    for question in questions:
        shapes.setdefault((len(question.choices), len(question.examples)), question)
    return list(shapes.values())


def _sample_of(questions: Sequence[Question]) -> Sequence[Question]:
    return questions[:: max(1, len(questions) // SAMPLE)][:SAMPLE]


def _sampled_prompts(agent: AgentPlan, plan: Plan, sample: Sequence[Question]) -> SampledPrompts:
    writer = PromptWriter(agent, open_tokenizer(agent.settings.model_path))
    tasks = [_task(agent, plan, question) for question in sample]
    prompts = [writer.prompt(task) for task in tasks]
    thought = agent.thinking.tokens if agent.thinking else 0
    return SampledPrompts(
        lengths=[len(prompt) for prompt in prompts],
        needed=[writer.needed(task, prompt) for task, prompt in zip(tasks, prompts, strict=True)],
        budget=max(writer.budget(task) for task in tasks) + thought,
        first_prompt=writer.text(tasks[0]),
    )


def _tokens_per_row(prompts: SampledPrompts) -> TokensPerRow:
    return TokensPerRow(
        prompt=round(mean(prompts.lengths), 1),
        generated=round(prompts.budget * TYPICAL_SHARE / CHARACTERS_PER_TOKEN, 1),
    )


def _task(agent: AgentPlan, plan: Plan, question: Question) -> Task:
    if agent.kind == "analysis":
        return analysis_task(question, agent.answer)
    members = plan.agents[: asked_at_most(plan)]
    panel = Panel(
        tuple(member.name for member in members), tuple(_typical_analysis(one, question) for one in members)
    )
    return merge_task(question, panel, plan.config.merge)


def _typical_analysis(agent: AgentPlan, question: Question) -> Analysis:
    """A stand-in of typical length for an analysis that is not written yet, with the fields of its form."""
    form, labels = agent.answer, question.labels
    characters = round(form.reasoning_chars * TYPICAL_SHARE)
    return Analysis(
        question.key,
        Outcome.OK,
        answer=labels[:1] or "0",
        confidence=50 if form.confidence else None,
        reasoning=("word " * (characters // 5 + 1))[:characters],
        eliminated=tuple(labels[(len(labels) + 1) // 2 :]) if form.eliminated else (),
    )
