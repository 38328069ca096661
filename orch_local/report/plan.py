"""The plan of a run on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orch_local.config.blocks import RouterConfig
from orch_local.placement.estimates import width
from orch_local.placement.hardware_notes import Shared, hardware_notes
from orch_local.plan.plans import AgentPlan, Plan
from orch_local.report.console import print_paragraph, print_table, table
from orch_local.report.formatting import counted
from orch_local.report.gantt import duration, machine_in_words, print_placement
from orch_local.report.questions import print_golds
from orch_local.report.safe import safe, visible
from orch_local.router.routing import block
from orch_local.run.forecast import AgentForecast, Forecast


def print_forecast(console: Console, forecast: Forecast, *, prompts: bool) -> None:
    """Print models, tokens, memory and time; the first prompt of every agent where ``prompts``."""
    plan = forecast.planned.plan
    benchmark = plan.config.benchmark
    bad = f", {plan.questions.bad_rows:,} bad rows skipped" if plan.questions.bad_rows else ""
    asked = f"{plan.questions.count:,} questions of {benchmark.name} ({benchmark.split}){bad}"
    print_paragraph(console, f"{asked}; {len(plan.agents)} agents; merge policy {plan.config.merge.policy}.")
    print_golds(console, forecast.golds, plan)
    if not forecast.here:
        machine = machine_in_words(forecast.placement.machine)
        print_paragraph(console, f"Placed on {machine}; all else, with the specs, is of this machine.")
    print_table(console, "Models", _models(console, forecast))
    if forecast.here:
        _print_dtypes(console, forecast)
        _print_caches(console, plan)
        print_obstacles(console, plan)
    print_notes(console, plan)
    print_table(console, f"Tokens (prompts of {forecast.sample} questions)", _tokens(console, forecast))
    print_table(console, "Need (rough)", _needs(console, forecast))
    print_placement(console, forecast.placement)
    for note in hardware_notes(forecast.placement.machine, _shared(forecast)):
        print_paragraph(console, visible(note))
    if plan.config.router:
        print_paragraph(console, _router_sentences(plan, plan.config.router))
    print_paragraph(console, "All times are estimates, give or take a factor of 3.")
    for agent in forecast.agents if prompts else ():
        console.print(Text(f"First prompt of {agent.plan.name}", "bold"))
        console.print(safe(agent.first_prompt, newlines=True), soft_wrap=True)
        console.print()


def _shared(forecast: Forecast) -> list[Shared]:
    """How many GPUs share each layer of the models."""
    return [Shared(one.plan.name, one.plan.settings.tensor_parallel) for one in forecast.agents]


def _router_sentences(plan: Plan, router: RouterConfig) -> str:
    """What the router does, and what it means for the times."""
    size = f"{router.k} of {len(plan.agents)}" if router.k else "as many agents as the budget allows"
    asks = f"A router asks {size} for each question ({router.mode})."
    wave = block(router)
    if wave is None:
        return f"{asks} Its state is frozen, so all questions go at once; these times share rows alike."
    waves = -(-plan.questions.count // wave)
    return (
        f"{asks} It learns in {counted(waves, 'wave')} of {wave:,}, and each loads the models that it asks: "
        f"the times above have the loads of one wave, and the rows of all."
    )


def print_notes(console: Console, plan: Plan) -> None:
    """Print what was decided about the prompts of which agents; nothing where nothing was."""
    agents: dict[str, list[str]] = {}
    for agent in plan.workers:
        for note in agent.notes:
            agents.setdefault(note, []).append(agent.name)
    for note, names in agents.items():
        print_paragraph(console, visible(f"{', '.join(names)}: {note}."))


def print_obstacles(console: Console, plan: Plan) -> None:
    """Print which models do not promise the same bytes again, and why; nothing where all do."""
    models: dict[tuple[str, ...], list[str]] = {}
    for agent in plan.workers:
        models.setdefault(agent.obstacles, []).append(agent.name)
    for reasons, names in models.items():
        if reasons:
            text = f"{', '.join(names)}: the same bytes are likely but not promised: {'; '.join(reasons)}."
            print_paragraph(console, visible(f"{text} This run can reach the level verified, not bitwise."))


def _print_dtypes(console: Console, forecast: Forecast) -> None:
    """Print why models have the dtypes that they have, where another one was possible."""
    models: dict[str, list[str]] = {}
    for agent in forecast.agents:
        if agent.dtype_reason:
            text = f"{agent.plan.settings.dtype}, {agent.dtype_reason}"
            models.setdefault(text, []).append(agent.plan.name)
    for text, names in models.items():
        print_paragraph(console, visible(f"{', '.join(names)}: {text}."))


def _print_caches(console: Console, plan: Plan) -> None:
    """Print whose prefix cache is on or off, and why; nothing where that is no choice."""
    agents: dict[str, list[str]] = {}
    for agent in plan.workers:
        if agent.cache_reason and "prefix_caching" in agent.environment:
            on = "on" if agent.environment["prefix_caching"] else "off"
            agents.setdefault(f"{on} ({agent.cache_reason})", []).append(agent.name)
    for text, names in agents.items():
        whose = "" if len(names) == len(plan.workers) else f" of {', '.join(names)}"
        print_paragraph(console, visible(f"Prefix cache{whose}: {text}."))


def _best_level(agent: AgentPlan) -> str:
    """The strongest level that a run can reach with this model."""
    if agent.settings.name == "fake":
        return "rules"
    return "verified" if agent.obstacles else "bitwise"


def _models(console: Console, forecast: Forecast) -> Table:
    rows = table(console, "agent", ["model", "architecture", "engine", "device", "dtype", "level", "spec"])
    for agent in forecast.agents:
        settings = agent.plan.settings
        values = (
            agent.plan.model.name,
            agent.folder.architecture,
            settings.name,
            settings.device,
            settings.dtype,
            _best_level(agent.plan) if forecast.here else "not looked at",
        )
        rows.add_row(safe(agent.plan.name), *map(safe, values), Text(agent.plan.spec[:8]))
    return rows


def _tokens(console: Console, forecast: Forecast) -> Table:
    rows = table(console, "agent", ["shortest", "median", "longest", "answer up to", "context", "too long"])
    for agent in forecast.agents:
        context = agent.plan.settings.loaded_len
        values = (agent.shortest, agent.median, agent.longest, agent.budget, context, agent.too_long)
        rows.add_row(safe(agent.plan.name), *(Text(f"{value:,}") for value in values))
    return rows


def _needs(console: Console, forecast: Forecast) -> Table:
    memory = ["memory GiB"] if forecast.placement.machine.kind == "cpu" else ["GiB a GPU", "GPUs"]
    rows = table(console, "agent", ["weights GiB", *memory, "rows at once", "load", "generate"])
    for agent in forecast.agents:
        rows.add_row(safe(agent.plan.name), *map(Text, _need_cells(agent)))
    return rows


def _need_cells(agent: AgentForecast) -> list[str]:
    weights = agent.folder.weight_bytes / 2**30
    times = (duration(agent.need.load_s), duration(agent.need.generate_s))
    settings = agent.plan.settings
    gpus = [f"{width(settings)}"] if settings.device == "cuda" else []
    memory = f"{agent.need.memory_gib:.1f}"
    return [f"{weights:.2f}", memory, *gpus, f"{agent.need.sequences:,}", *times]
