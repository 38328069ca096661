"""The section on cost: device time by use, tokens by agent, and which worker held which device and when."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from orch_local.placement.replicas import Slot
from orch_local.report.gantt import Bar, bars_of, duration
from orch_local.report.page.base import body
from orch_local.report.page.plots import stroke
from orch_local.report.page.wording import name, percent
from orch_local.results.summary import Spending, Summary
from orch_local.results.timeline import Span, Timeline

MOST_CHARTS = 6
MOST_LANES = 32
MOST_BARS = 200
"""In one lane."""
_LETTERS = string.ascii_uppercase + string.ascii_lowercase


@dataclass(frozen=True, slots=True)
class Use:
    """A piece of the bar of device time; shares of the whole."""

    kind: str
    label: str
    seconds: float
    begin: float
    share: float


@dataclass(frozen=True, slots=True)
class Key:
    """How an agent is drawn."""

    agent: str
    letter: str
    ink: str


@dataclass(frozen=True, slots=True)
class LaneBar:
    """A replica in a lane, in shares of the whole time."""

    begin: float
    loaded: float
    end: float
    letter: str
    ink: str
    words: str

    @property
    def middle(self) -> float:
        """Where its letter stands."""
        return (self.loaded + self.end) / 2


@dataclass(frozen=True, slots=True)
class Lane:
    """A device, or a lane of it."""

    name: str
    words: str
    bars: tuple[LaneBar, ...]


@dataclass(frozen=True, slots=True)
class LaneChart:
    """All that was planned, or all that really happened."""

    label: str
    lanes: tuple[Lane, ...]


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """A replica in numbers."""

    agent: str
    part: str
    rows: int
    values: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """One execution."""

    title: str
    words: str
    seconds: float
    parts: tuple[LaneChart, ...]
    keys: tuple[Key, ...]
    rows: tuple[ReplicaRow, ...]


def cost(summary: Summary, timelines: Sequence[Timeline]) -> Markup:
    """What the run cost, and when."""
    longest = sorted(sorted(timelines, key=lambda one: -one.seconds)[:MOST_CHARTS], key=lambda one: one.began)
    device = "GPU" if summary.spending.device == "cuda" else "core"
    uses = _uses(summary.spending)
    return body(
        "cost.html.j2",
        spending=summary.spending,
        parts=uses,
        total=sum(use.seconds for use in uses),
        device=device,
        unit=f"{device}-seconds",
        charts=[_chart(one, number, len(timelines)) for number, one in enumerate(longest, 1)],
        more_charts=len(timelines) - len(longest),
    )


def _uses(spending: Spending) -> list[Use]:
    found = [
        ("use-load", "loading models", spending.load_s),
        ("use-generate", "analyses", spending.generate_s),
        ("use-merge", "merging", spending.merge_s),
        ("use-idle", "idle", spending.idle_s),
    ]
    total, begin, uses = sum(seconds for *_, seconds in found), 0.0, []
    for kind, label, seconds in found:
        if seconds > 0:
            uses.append(Use(kind, label, seconds, begin / total, seconds / total))
            begin += seconds
    return uses


def _chart(timeline: Timeline, number: int, of: int) -> Chart:
    bars = {"planned": bars_of(timeline.planned), "real": [_bar(one, timeline) for one in timeline.spans]}
    agents = list(dict.fromkeys(bar.agent for some in bars.values() for bar in some))
    keys = {agent: _key(agent, at) for at, agent in enumerate(agents)}
    seconds = max((bar.end_s for some in bars.values() for bar in some), default=0.0)
    slots = sorted({slot for some in bars.values() for bar in some for slot in bar.slots})[:MOST_LANES]
    word = "GPU" if timeline.planned.machine.kind == "cuda" else "worker"
    known = list(timeline.idle().items())[:MOST_LANES]
    idle = ", ".join(f"{word} {device} {percent(share)}" for device, share in known)
    lengths = {"planned": timeline.planned.seconds, "real": timeline.seconds}
    shard = f", shard {name(timeline.shard)}" if timeline.shard else ""
    began = f"Began {name(timeline.began)}"  # on which host, `show --timeline` tells: pages are handed on
    return Chart(
        "Timeline" if of == 1 else f"Timeline {number} of {of}{shard}",
        f"{began}: planned {duration(lengths['planned'])}, really {duration(lengths['real'])}. "
        f"Without a model on it: {idle or 'nothing'} of the time.",
        seconds,
        tuple(
            LaneChart(f"{what}, {duration(lengths[what])}", tuple(_lanes(some, slots, keys, (word, seconds))))
            for what, some in bars.items()
        ),
        tuple(keys.values()),
        tuple(_rows(timeline)),
    )


def _key(agent: str, number: int) -> Key:
    return Key(agent, _LETTERS[number % len(_LETTERS)], stroke(number).ink)


def _bar(span: Span, timeline: Timeline) -> Bar:
    lanes = range(timeline.planned.lanes) if len(span.devices) > 1 else (span.lane,)
    slots = tuple((device, lane) for device in span.devices for lane in lanes)
    loaded = span.end_s if span.loaded_s is None else span.loaded_s
    return Bar(span.agent, span.number, span.of, slots, span.start_s, loaded, span.end_s)


def _lanes(
    bars: Sequence[Bar], slots: Sequence[Slot], keys: Mapping[str, Key], scale: tuple[str, float]
) -> Iterator[Lane]:
    word, seconds = scale
    shared = {device for device, lane in slots if lane}
    for device, lane in slots:
        own = [bar for bar in bars if (device, lane) in bar.slots][:MOST_BARS]
        called = f"{word} {device}{string.ascii_lowercase[lane % 26] if device in shared else ''}"
        blocks = tuple(_block(bar, keys[bar.agent], seconds or 1.0) for bar in own)
        yield Lane(called, f"{called}: {'; '.join(block.words for block in blocks) or 'nothing'}", blocks)


def _block(bar: Bar, key: Key, seconds: float) -> LaneBar:
    part = f" part {bar.number} of {bar.of}" if bar.of > 1 else ""
    words = f"{name(bar.agent)}{part} from {bar.start_s:.1f}, loaded {bar.loaded_s:.1f}, to {bar.end_s:.1f} s"
    begin, loaded, end = (moment / seconds for moment in (bar.start_s, bar.loaded_s, bar.end_s))
    return LaneBar(begin, loaded, end, key.letter, key.ink, words)


def _rows(timeline: Timeline) -> Iterator[ReplicaRow]:
    planned = {(one.agent, one.number): one for one in timeline.planned.replicas}
    for span in timeline.spans[: MOST_LANES * 4]:
        plan = planned.get((span.agent, span.number))
        load, work = (plan.loaded_s - plan.start_s, plan.end_s - plan.loaded_s) if plan else (None, None)
        real_load = real_work = None
        if span.loaded_s is not None:
            real_load, real_work = span.loaded_s - span.start_s, span.end_s - span.loaded_s
        values = (load, real_load, work, real_work)
        yield ReplicaRow(span.agent, f"{span.number}/{span.of}", span.rows, values)
