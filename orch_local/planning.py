"""What a run will ask and need, worked out without loading a model: the content of `orch-local plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from orch_local import __version__
from orch_local.benchmarks import BadRow, load_questions
from orch_local.config import RunConfig
from orch_local.fingerprint import common
from orch_local.generating import Scribe
from orch_local.merging import Panel, merge_task
from orch_local.models import ModelFolder, open_model_folder
from orch_local.placement import Load, Need, check_memory, check_together, need
from orch_local.plans import AgentPlan, Plan, QuestionsPlan, plan_agents
from orch_local.prompts.tokenizer import PromptTokenizer
from orch_local.questions import questions_digest
from orch_local.records import Analysis, Outcome, Question
from orch_local.tasks import Task, analysis_task

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


def draft(config: RunConfig, store: Path) -> Draft:
    """Check a run file against models and questions; nothing is written.

    Raises
    ------
    InputError
        Whatever of the input cannot be used.
    """
    agents, merger = plan_agents(config)
    questions, bad_rows = load_questions(config.benchmark)
    frozen = QuestionsPlan(count=len(questions), bad_rows=len(bad_rows), digest=questions_digest(questions))
    plan = Plan(
        version=__version__,
        config=config,
        agents=agents,
        merger=merger,
        questions=frozen,
        store=store,
        environment=common([agent.environment for agent in (*agents, *([merger] if merger else []))]),
    )
    return Draft(plan, questions, bad_rows)


def check(plan: Plan, questions: Sequence[Question]) -> None:
    """Make sure that every model fits this machine and every prompt can be rendered.

    Raises
    ------
    InputError
        If a model needs more memory than there is, or a template refuses a shape of question.
    """
    needs = [check_memory(agent, open_model_folder(agent.model)) for agent in plan.workers]
    check_together(
        plan.agents, needs[: len(plan.agents)], min(plan.config.engine.models_at_once, len(plan.agents))
    )
    for agent in plan.workers:
        scribe = Scribe(agent, PromptTokenizer(agent.settings.model_path))
        for question in _one_of_each_shape(questions):
            scribe.prompt(_task(agent, plan, question))


def _one_of_each_shape(questions: Sequence[Question]) -> list[Question]:
    """A question of every number of choices, with and without examples: templates may branch on these."""
    shapes: dict[tuple[int, bool], Question] = {}
    for question in questions:
        shapes.setdefault((len(question.choices), bool(question.examples)), question)
    return list(shapes.values())


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
    first_prompt: str


@dataclass(frozen=True, slots=True)
class Outline:
    """The content of `orch-local plan`."""

    draft: Draft
    agents: tuple[AgentOutline, ...]
    """The agents and, behind them, the merge agent."""
    sample: int

    @property
    def seconds(self) -> float:
        """Rough time of the run, one model after another, shared by the workers side by side."""
        plan = self.draft.plan
        times = [agent.need.load_s + agent.need.generate_s for agent in self.agents]
        analyses, merge = times[: len(plan.agents)], times[len(plan.agents) :]
        # Agents share the workers; the merge agent comes behind them, alone.
        return sum(analyses) / min(plan.config.engine.models_at_once, len(analyses)) + sum(merge)


def outline(draft: Draft) -> Outline:
    """Render a sample of the prompts and estimate memory and time of every agent."""
    step = max(1, len(draft.questions) // SAMPLE)
    sample = draft.questions[::step][:SAMPLE]
    agents = tuple(_outline_agent(agent, draft, sample) for agent in draft.plan.workers)
    return Outline(draft, agents, len(sample))


def _outline_agent(agent: AgentPlan, draft: Draft, sample: Sequence[Question]) -> AgentOutline:
    scribe = Scribe(agent, PromptTokenizer(agent.settings.model_path))
    tasks = [_task(agent, draft.plan, question) for question in sample]
    prompts = [scribe.prompt(task) for task in tasks]
    lengths = [len(prompt) for prompt in prompts]
    needed = [scribe.needed(task, prompt) for task, prompt in zip(tasks, prompts, strict=True)]
    rows = len(draft.questions)
    answer = max(scribe.budget(task) for task in tasks)
    budget = answer + (agent.thinking.tokens if agent.thinking else 0)
    typical = budget * TYPICAL_SHARE / CHARACTERS_PER_TOKEN
    load = Load(rows, rows * sum(lengths) // len(lengths), round(rows * typical))
    folder = open_model_folder(agent.model)
    return AgentOutline(
        plan=agent,
        folder=folder,
        shortest=min(lengths),
        median=round(median(lengths)),
        longest=max(lengths),
        budget=budget,
        too_long=sum(tokens > agent.settings.max_model_len for tokens in needed),
        need=need(agent, folder, load),
        first_prompt=scribe.text(tasks[0]),
    )


def _task(agent: AgentPlan, plan: Plan, question: Question) -> Task:
    if agent.kind == "analysis":
        return analysis_task(question, agent.answer)
    panel = Panel(plan.names, tuple(_typical_analysis(member, question) for member in plan.agents))
    return merge_task(question, panel, plan.config.merge)


def _typical_analysis(agent: AgentPlan, question: Question) -> Analysis:
    """A stand-in of typical length for an analysis that is not written yet."""
    characters = round(agent.answer.reasoning_chars * TYPICAL_SHARE)
    text = ("word " * (characters // 5 + 1))[:characters]
    answer = question.labels[:1] or "0"
    return Analysis(question.key, Outcome.OK, answer=answer, confidence=50, reasoning=text)
