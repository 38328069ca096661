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
        f"real, {duration(real)}": [_bar(span, timeline) for span in timeline.spans],
    }
    agents = list(dict.fromkeys(bar.agent for some in bars.values() for bar in some))
    for line in draw(console, bars, agents, timeline.planned):
        console.print(line, soft_wrap=True)
    console.print()
    if timeline.spans:
        print_table(console, "Seconds, planned and real", _spans(console, timeline))
        print_paragraph(console, _idle_in_words(timeline))
        print_paragraph(console, _again_in_words(timeline))


def _bar(span: Span, timeline: Timeline) -> Bar:
    lanes = range(timeline.planned.lanes) if len(span.devices) > 1 else (span.lane,)
    slots = tuple((device, lane) for device in span.devices for lane in lanes)
    loaded = span.end_s if span.loaded_s is None else span.loaded_s
    return Bar(span.agent, span.number, span.of, slots, span.start_s, loaded, span.end_s)


def _spans(console: Console, timeline: Timeline) -> Table:
    heads = ["part", "rows", "load", "real", "generate", "real", "ratio", "again"]
    made = table(console, "agent", heads)
    planned = {(one.agent, one.number): one for one in timeline.planned.replicas}
    for span in timeline.spans:
        cells = _cells(span, planned.get((span.agent, span.number)))
        made.add_row(safe(span.agent), *map(Text, cells))
    return made


def _cells(span: Span, plan: Replica | None) -> Sequence[str]:
    """Planned and real seconds of loading and generating, how much longer the latter was, and rechecks."""
    load, work = (plan.loaded_s - plan.start_s, plan.end_s - plan.loaded_s) if plan else (None, None)
    real_load = real_work = None
    if span.loaded_s is not None:
        real_load, real_work = span.loaded_s - span.start_s, span.end_s - span.loaded_s
    ratio = f"{real_work / work:.2f}" if work and real_work is not None else "-"
    seconds = (_seconds(value) for value in (load, real_load, work, real_work))
    return [f"{span.number}/{span.of}", f"{span.rows:,}", *seconds, ratio, _seconds(span.recheck_s)]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _again_in_words(timeline: Timeline) -> str:
    rows = sum(span.rechecked for span in timeline.spans)
    return f"again: real seconds of generating in which rows were generated again ({counted(rows, 'row')})."


def _idle_in_words(timeline: Timeline) -> str:
    idle = timeline.idle()
    word = "GPU" if timeline.planned.machine.kind == "cuda" else "worker"
    shares = ", ".join(f"{word} {device} {percent(share)}" for device, share in idle.items())
    return f"Without a model on it: {shares} of the time."
