"""Which worker holds which device and when, drawn as bars: one row for each device, or for each lane of it.

Loading is drawn lighter than generating. A bar carries the longest of its labels that fits: agent and
replica, the agent, or a letter that is explained below the chart.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from orch_local.placement.machine import Machine
from orch_local.placement.replicas import Placement, Slot
from orch_local.report.console import is_plain, print_paragraph
from orch_local.report.formatting import counted
from orch_local.report.safe import visible

_STYLES = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_yellow")
_MERGE_STYLE = "bright_red"
_LETTERS = string.ascii_lowercase + string.ascii_uppercase
_MOST_ROWS = 40
_LEAST_WIDTH = 20
_TICKS = 6
_UNITS = ((5400.0, 3600, "h"), (240.0, 60, "min"), (0.0, 1, "s"))
_STEPS = tuple(base * 10.0**power for power in range(-2, 6) for base in (1, 2, 5))


@dataclass(frozen=True, slots=True)
class Bar:
    """A replica, planned or real."""

    agent: str
    number: int
    of: int
    slots: tuple[Slot, ...]
    start_s: float
    loaded_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class _Brush:
    """What characters a chart is drawn with."""

    load: str
    work: str
    tick: str
    axis: str


_BLOCKS = _Brush(load="░", work="█", tick="┴", axis="─")
_ASCII = _Brush(load=".", work="=", tick="+", axis="-")


@dataclass(frozen=True, slots=True)
class Scale:
    """Seconds to columns."""

    seconds: float
    width: int

    def column(self, moment: float) -> int:
        """The column at which a moment falls."""
        return min(self.width, round(moment / self.seconds * self.width)) if self.seconds else 0


def print_placement(console: Console, placement: Placement) -> None:
    """Print a plan as a chart, with what its signs mean."""
    bars = bars_of(placement)
    agents = list(dict.fromkeys(bar.agent for bar in bars))
    for line in draw(console, {"": bars}, agents, placement):
        console.print(line, soft_wrap=True)
    console.print()
    print_paragraph(console, _in_words(placement))


def bars_of(placement: Placement) -> list[Bar]:
    """The replicas of a plan as bars."""
    return [
        Bar(one.agent, one.number, one.of, placement.slots(one), one.start_s, one.loaded_s, one.end_s)
        for one in placement.replicas
    ]


def draw(
    console: Console, parts: Mapping[str, Sequence[Bar]], agents: Sequence[str], placement: Placement
) -> Iterator[Text]:
    """Draw several sets of bars below each other on one scale, then the scale and the letters used.

    Parameters
    ----------
    parts:
        Bars by heading.
    agents:
        In the order of their colours and letters.
    placement:
        Says what the devices are, and who merges.
    """
    slots = sorted({slot for bars in parts.values() for bar in bars for slot in bar.slots})
    names = _names(placement.machine, slots)
    margin = max((cell_len(name) for name in names.values()), default=0) + 2
    seconds = max((bar.end_s for bars in parts.values() for bar in bars), default=0.0)
    scale = Scale(seconds, max(_LEAST_WIDTH, console.width - margin - 1))
    painter = _Painter(_ASCII if is_plain(console) else _BLOCKS, scale, agents, placement.merge)
    for heading, bars in parts.items():
        if heading:
            yield Text(heading, "bold")
        for slot in slots[:_MOST_ROWS]:
            own = [bar for bar in bars if slot in bar.slots]
            yield Text(names[slot].ljust(margin)).append_text(painter.row(own))
    yield from painter.axis(margin)
    yield from painter.key(console.width)
    if len(slots) > _MOST_ROWS:
        yield Text(f"({len(slots) - _MOST_ROWS:,} further rows are left out)")


def duration(seconds: float) -> str:
    """Seconds in words, as rough as an estimate is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def machine_in_words(machine: Machine) -> str:
    """What a machine offers."""
    if machine.kind == "cpu":
        workers = counted(machine.devices, "worker")
        return f"a CPU with cores for {workers} and {machine.memory_gib:.0f} GiB free"
    memory = f" of {machine.memory_gib:.0f} GiB" if machine.memory_gib else ""
    name = f" ({visible(machine.name)})" if machine.name else ""
    return f"{counted(machine.devices, 'GPU')}{memory}{name}"


def _names(machine: Machine, slots: Sequence[Slot]) -> dict[Slot, str]:
    word = "GPU" if machine.kind == "cuda" else "worker"
    shared = {device for device, lane in slots if lane}
    return {
        (device, lane): f"{word} {device}{_LETTERS[lane] if device in shared else ''}"
        for device, lane in slots
    }


def _in_words(placement: Placement) -> str:
    loads = counted(sum(one.loaded_s > one.start_s for one in placement.replicas), "load")
    words = [f"{loads} on {machine_in_words(placement.machine)}; about {duration(placement.seconds)} in all."]
    if any(one.follows for one in placement.replicas):
        words.append("The merge agent merges each panel as soon as it is complete.")
    shared = [one for one in placement.replicas if one.lane]
    if shared:
        words.append(f"Up to {placement.lanes} models share a GPU.")
    return " ".join(words)


@dataclass(slots=True)
class _Painter:
    brush: _Brush
    scale: Scale
    agents: Sequence[str]
    merge: str | None

    def row(self, bars: Sequence[Bar]) -> Text:
        """The bars of one row; one too short for a column is left out where another begins there."""
        line = Text()
        for bar in sorted(bars, key=lambda bar: bar.start_s):
            begin, end = self.scale.column(bar.start_s), self.scale.column(bar.end_s)
            end = min(self.scale.width, max(end, begin + 1))
            begin = max(begin, len(line))
            if end <= begin:
                continue
            line.append(" " * (begin - len(line)))
            least = begin + (end - begin > 1 and bar.loaded_s > bar.start_s)
            loaded = min(max(self.scale.column(bar.loaded_s), least), end)
            line.append(self._painted(bar, loaded - begin, end - loaded), self._style(bar.agent))
        return line

    def _painted(self, bar: Bar, load: int, work: int) -> str:
        cells = self.brush.load * load + self.brush.work * work
        room = work if work >= load else load + work
        fitting = (text for text in self._labels(bar) if cell_len(text) == len(text) <= room - 4)
        label = next((f" {text} " for text in fitting), "")
        if not label and room > 1:
            label = self._letter(bar.agent)
        offset = len(cells) - room + (room - len(label)) // 2
        return cells[:offset] + label + cells[offset + len(label) :]

    def _labels(self, bar: Bar) -> list[str]:
        name = visible(bar.agent)
        if bar.of == 1:
            return [name]
        part = f"{bar.number}/{bar.of}"
        return [f"{name} {part}", f"{self._letter(bar.agent)} {part}"]

    def _letter(self, agent: str) -> str:
        return _LETTERS[self.agents.index(agent) % len(_LETTERS)]

    def _style(self, agent: str) -> str:
        return _MERGE_STYLE if agent == self.merge else _STYLES[self.agents.index(agent) % len(_STYLES)]

    def axis(self, margin: int) -> Iterator[Text]:
        """Two lines: the ticks, and their figures."""
        unit, name, step = _ticks(self.scale.seconds)
        line, figures = [self.brush.axis] * (self.scale.width + 1), Text(" " * margin)
        moment = 0.0
        while moment <= self.scale.seconds:
            column = self.scale.column(moment)
            line[column] = self.brush.tick
            figure = f"{moment / unit:g}" + (f" {name}" if moment == 0 else "")
            begin = margin + column
            if begin >= len(figures) and begin + len(figure) <= margin + self.scale.width + 1:
                figures.append(" " * (begin - len(figures)) + figure)
            moment += step
        yield Text(" " * margin + "".join(line), "dim")
        yield figures

    def key(self, width: int) -> Iterator[Text]:
        """What the signs and letters mean."""
        parts = [f"{self.brush.load * 2} loads", f"{self.brush.work * 2} generates"]
        parts += [f"{self._letter(agent)} {visible(agent)}" for agent in self.agents]
        line = parts[0]
        for part in parts[1:]:
            if cell_len(line) + cell_len(part) + 3 > width:
                yield Text(line, "dim")
                line = part
            else:
                line = f"{line}   {part}"
        yield Text(line, "dim")


def _ticks(seconds: float) -> tuple[int, str, float]:
    """Seconds of a unit, its name, and the seconds between two ticks."""
    unit, name = next((unit, name) for least, unit, name in _UNITS if seconds >= least)
    step = next((step for step in _STEPS if seconds / unit / step <= _TICKS), _STEPS[-1])
    return unit, name, step * unit
