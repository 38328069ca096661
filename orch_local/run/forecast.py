"""What a run will ask and need, worked out without loading a model: the content of `orch-local plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from orch_local import __version__
from orch_local.benchmarks.gold_checks import GoldFacts, gold_facts
from orch_local.benchmarks.loading import BadRow, load_questions
from orch_local.config.run_files import RunConfig
from orch_local.merge.merging import Panel, merge_task
from orch_local.models.folders import ModelFolder, open_model_folder
from orch_local.placement.estimates import LoadedModel, Need, best_tensor_parallel, cpu_fitting_tokens
from orch_local.placement.machine import Machine, machine
from orch_local.placement.placing import place
from orch_local.placement.replicas import Loaded, Placement
from orch_local.plan.dtypes import choose
from orch_local.plan.fingerprint import common
from orch_local.plan.freezing import plan_agents
from orch_local.plan.needs import jobs, need_of
from orch_local.plan.plans import AgentPlan, Plan, QuestionsPlan, TokensPerRow
from orch_local.plan.prefix_cache import Known, decided
from orch_local.prompts.tasks import Task, analysis_task
from orch_local.prompts.tokenizer import PromptTokenizer
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


class Draft(NamedTuple):
    """A plan with its questions, not written anywhere yet."""

    plan: Plan
    questions: Sequence[Question]
    bad_rows: list[BadRow]


def draft(config: RunConfig, store: Path, begun: Plan | None = None) -> Draft:
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
    sample = _sampled(questions)
    tokens = {agent.name: _tokens_per_row(_asked(agent, plan, sample)) for agent in plan.workers}
    return Draft(plan.model_copy(update={"tokens": tokens}), questions, bad_rows)


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
    scribe = PromptWriter(agent, PromptTokenizer(agent.settings.model_path))
    asking = Asking(scribe, lambda question: _task(agent, plan, question), more)
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
        scribe = PromptWriter(agent, PromptTokenizer(agent.settings.model_path))
        for question in _one_of_each_shape(questions):
            scribe.prompt(_task(agent, plan, question))


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
    analyses, merge = jobs(plan, _rows_in_all(plan) if rows is None else rows, machine)
    engine = plan.config.engine
    return place(machine, analyses, merge, engine.models_at_once, engine.models_per_gpu, loaded)


def asked_at_most(plan: Plan) -> int:
    """How many agents a question is put to, at most."""
    return (plan.config.router and plan.config.router.k) or len(plan.agents)


def _rows_in_all(plan: Plan) -> dict[str, int]:
    """Rows of each worker; of a router's choice nothing is known yet, so its agents share alike."""
    count = plan.questions.count
    each = -(-count * asked_at_most(plan) // len(plan.agents))
    return {agent.name: each if agent.kind == "analysis" else count for agent in plan.workers}


def elsewhere(draft: Draft, machine: Machine) -> Draft:
    """The draft as a machine of GPUs would run it, for :func:`outline`; its specs stay those of here."""

    def moved(agent: AgentPlan) -> AgentPlan:
        folder = open_model_folder(agent.model)
        # Another dtype may have been chosen for the CPU here.
        settings = choose(agent.model, replace(agent.settings, device="cuda", threads=1), folder).settings
        if agent.model.tensor_parallel_size is None:
            model = LoadedModel(agent.model, settings, folder)
            size = best_tensor_parallel(model, machine)
            settings = replace(settings, args={**settings.args, "tensor_parallel_size": size})
        return agent.model_copy(update={"settings": settings})

    plan = draft.plan
    merger = moved(plan.merger) if plan.merger else None
    agents = tuple(moved(agent) for agent in plan.agents)
    there = plan.model_copy(update={"agents": agents, "merger": merger})
    return draft._replace(plan=_sized(there, draft.questions))


def _one_of_each_shape(questions: Sequence[Question]) -> list[Question]:
    """A question of every number of choices and of examples: templates may branch on these."""
    shapes: dict[tuple[int, int], Question] = {}
    for question in questions:
        shapes.setdefault((len(question.choices), len(question.examples)), question)
    return list(shapes.values())


@dataclass(frozen=True, slots=True)
class _Asked:
    """A sample of one agent's prompts."""

    lengths: Sequence[int]
    """Tokens of each prompt."""
    needed: Sequence[int]
    """Tokens of each prompt with its longest answer."""
    budget: int
    """Most tokens an answer can have, a thought included."""
    first_prompt: str


def _sampled(questions: Sequence[Question]) -> Sequence[Question]:
    return questions[:: max(1, len(questions) // SAMPLE)][:SAMPLE]


def _asked(agent: AgentPlan, plan: Plan, sample: Sequence[Question]) -> _Asked:
    scribe = PromptWriter(agent, PromptTokenizer(agent.settings.model_path))
    tasks = [_task(agent, plan, question) for question in sample]
    prompts = [scribe.prompt(task) for task in tasks]
    thought = agent.thinking.tokens if agent.thinking else 0
    return _Asked(
        lengths=[len(prompt) for prompt in prompts],
        needed=[scribe.needed(task, prompt) for task, prompt in zip(tasks, prompts, strict=True)],
        budget=max(scribe.budget(task) for task in tasks) + thought,
        first_prompt=scribe.text(tasks[0]),
    )


def _tokens_per_row(asked: _Asked) -> TokensPerRow:
    return TokensPerRow(
        prompt=round(mean(asked.lengths), 1),
        generated=round(asked.budget * TYPICAL_SHARE / CHARACTERS_PER_TOKEN, 1),
    )


@dataclass(frozen=True, slots=True)
class AgentOutline:
    """One agent of a plan."""

    plan: AgentPlan
    folder: ModelFolder
    shortest: int
    """Prompt tokens over the sample."""
    median: int
    longest: int
    budget: int
    """Most tokens an answer can have, a thought included."""
    too_long: int
    """Prompts of the sample that do not fit the context with their answer."""
    need: Need
    dtype_reason: str
    """Why it has its dtype here, to be read behind that; empty where nothing else came into question."""
    first_prompt: str


@dataclass(frozen=True, slots=True)
class Outline:
    """The content of `orch-local plan`."""

    draft: Draft
    agents: tuple[AgentOutline, ...]
    """The agents and, behind them, the merge agent."""
    sample: int
    placement: Placement
    here: bool
    """Whether it is for this machine."""
    golds: GoldFacts


def outline(draft: Draft, machine: Machine | None = None) -> Outline:
    """Render a sample of the prompts, estimate memory and time of every agent, place them on a machine.

    Without a ``machine`` it is this one; for another, ``draft`` comes from :func:`elsewhere`.

    Raises
    ------
    InputError
        If a model fits on no device of the machine.
    """
    sample = _sampled(draft.questions)
    there = machine or machine_for(draft.plan)
    agents = tuple(_outline_agent(agent, draft.plan, sample, there) for agent in draft.plan.workers)
    placement, golds = placed(draft.plan, there), gold_facts(draft.questions)
    return Outline(draft, agents, len(sample), placement, machine is None, golds)


def _outline_agent(
    agent: AgentPlan, plan: Plan, sample: Sequence[Question], machine: Machine
) -> AgentOutline:
    asked, folder = _asked(agent, plan, sample), open_model_folder(agent.model)
    return AgentOutline(
        plan=agent,
        folder=folder,
        shortest=min(asked.lengths),
        median=round(median(asked.lengths)),
        longest=max(asked.lengths),
        budget=asked.budget,
        too_long=sum(tokens > agent.settings.max_model_len for tokens in asked.needed),
        need=need_of(agent, plan, _rows_in_all(plan)[agent.name], machine),
        dtype_reason=choose(agent.model, agent.settings, folder).reason,
        first_prompt=asked.first_prompt,
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
