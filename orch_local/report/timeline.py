"""What was planned, and what really happened, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orch_local.placement.replicas import Replica
from orch_local.report.console import print_paragraph, print_table, table
from orch_local.report.formatting import counted, percent
from orch_local.report.gantt import Bar, bars_of, draw, duration
from orch_local.report.safe import safe, visible
from orch_local.results.timeline import Span, Timeline, Timelines


def print_timelines(console: Console, found: Timelines) -> None:
    """Print each execution of a run: planned above real on one scale, then the figures."""
    for number, timeline in enumerate(found.read, 1):
        _print_timeline(console, timeline, f"Execution {number} of {len(found.read)}")
    if found.damaged:
        names = ", ".join(file.name for file in found.damaged)
        print_paragraph(console, visible(f"{counted(len(found.damaged), 'file')} cannot be read: {names}"))


def _print_timeline(console: Console, timeline: Timeline, title: str) -> None:
    part = f"shard {timeline.shard}, " if timeline.shard else ""
    console.print(safe(f"{title}: {part}{timeline.began} on {timeline.host}", "bold"), soft_wrap=True)
    console.print()
    planned, real = timeline.planned.seconds, timeline.seconds
    bars = {
        f"planned, {duration(planned)}": bars_of(timeline.planned),
        f"real, {duration(real)}": [_bar(stint, timeline) for stint in timeline.stints],
    }
    agents = list(dict.fromkeys(bar.agent for some in bars.values() for bar in some))
    for line in draw(console, bars, agents, timeline.planned):
        console.print(line, soft_wrap=True)
    console.print()
    if timeline.stints:
        print_table(console, "Seconds, planned and real", _stints(console, timeline))
        print_paragraph(console, _idle_in_words(timeline))
        print_paragraph(console, _again_in_words(timeline))


def _bar(stint: Span, timeline: Timeline) -> Bar:
    lanes = range(timeline.planned.lanes) if len(stint.devices) > 1 else (stint.lane,)
    slots = tuple((device, lane) for device in stint.devices for lane in lanes)
    loaded = stint.end_s if stint.loaded_s is None else stint.loaded_s
    return Bar(stint.agent, stint.number, stint.of, slots, stint.start_s, loaded, stint.end_s)


def _stints(console: Console, timeline: Timeline) -> Table:
    heads = ["part", "rows", "load", "real", "generate", "real", "ratio", "again"]
    made = table(console, "agent", heads)
    planned = {(one.agent, one.number): one for one in timeline.planned.replicas}
    for stint in timeline.stints:
        cells = _cells(stint, planned.get((stint.agent, stint.number)))
        made.add_row(safe(stint.agent), *map(Text, cells))
    return made


def _cells(stint: Span, plan: Replica | None) -> Sequence[str]:
    """Planned and real seconds of loading and generating, how much longer the latter was, and rechecks."""
    load, work = (plan.loaded_s - plan.start_s, plan.end_s - plan.loaded_s) if plan else (None, None)
    real_load = real_work = None
    if stint.loaded_s is not None:
        real_load, real_work = stint.loaded_s - stint.start_s, stint.end_s - stint.loaded_s
    ratio = f"{real_work / work:.2f}" if work and real_work is not None else "-"
    seconds = (_seconds(value) for value in (load, real_load, work, real_work))
    return [f"{stint.number}/{stint.of}", f"{stint.rows:,}", *seconds, ratio, _seconds(stint.recheck_s)]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _again_in_words(timeline: Timeline) -> str:
    rows = sum(stint.rechecked for stint in timeline.stints)
    return f"again: real seconds of generating in which rows were generated again ({counted(rows, 'row')})."


def _idle_in_words(timeline: Timeline) -> str:
    idle = timeline.idle()
    word = "GPU" if timeline.planned.machine.kind == "cuda" else "worker"
    shares = ", ".join(f"{word} {device} {percent(share)}" for device, share in idle.items())
    return f"Without a model on it: {shares} of the time."
