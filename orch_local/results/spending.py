"""What a run cost: tokens by agent, and device time split by what it went into.

Device time is read from the timelines, one for each execution of the run or of a shard, and they are summed.
An execution holds each of its devices from its beginning until its last worker ends. A second on a device is
the load's or the generation's of the worker that sits there; of several that share a device each gets an
equal part; without any the device idles. So load, generate, merge and idle add up to what was held.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from orch_local.plan.plans import Plan
from orch_local.records import Usage
from orch_local.results.scoring import Cost
from orch_local.results.summary import CostSummary, Spending
from orch_local.results.timeline import Span, Timeline

_NO_COST = Cost(rows=0, generated_now=0, usage=Usage(), load_s=0.0, generate_s=0.0)
_HOUR = 3600.0


def _seconds() -> defaultdict[str, float]:
    return defaultdict(float)


@dataclass(slots=True)
class DeviceTime:
    """Device-seconds of some executions, and the rows generated in them."""

    load: defaultdict[str, float] = field(default_factory=_seconds)
    """By agent, as are the next two."""
    generate: defaultdict[str, float] = field(default_factory=_seconds)
    rows: Counter[str] = field(default_factory=Counter)
    """Rows that workers took up which came to generate; one that was stopped may have left some of them."""
    idle: float = 0.0

    @property
    def held(self) -> float:
        """All of it."""
        return _total(self.load) + _total(self.generate) + self.idle


def device_time(timelines: Iterable[Timeline]) -> DeviceTime:
    """What the executions of a run took, summed."""
    time = DeviceTime()
    for timeline in timelines:
        devices = {device for one in timeline.planned.replicas for device in one.devices}
        devices |= {device for span in timeline.spans for device in span.devices}
        for device in sorted(devices):
            _add_device(time, timeline.seconds, [one for one in timeline.spans if device in one.devices])
        for span in timeline.spans:
            time.rows[span.agent] += span.rows if span.loaded_s is not None else 0
    return time


def _add_device(time: DeviceTime, end: float, spans: Sequence[Span]) -> None:
    """Split the time of one device, from moment to moment at which something changes there."""
    moments = {0.0, end}
    for one in spans:
        moments |= {one.start_s, _loaded(one), one.end_s}
    for begin, until in pairwise(sorted(moments)):
        there = [one for one in spans if one.start_s <= begin < one.end_s]
        if not there:
            time.idle += until - begin
        for one in there:
            spent = time.load if begin < _loaded(one) else time.generate
            spent[one.agent] += (until - begin) / len(there)


def _loaded(span: Span) -> float:
    """When it began to generate; one that never did has only loaded."""
    return span.end_s if span.loaded_s is None else span.loaded_s


def _total(seconds: Mapping[str, float]) -> float:
    return float(sum(seconds.values()))


def spending(plan: Plan, costs: Mapping[str, Cost], timelines: Sequence[Timeline], correct: int) -> Spending:
    """What a run cost.

    Parameters
    ----------
    costs:
        By agent, as in ``metrics.json``. Tokens are those of all rows, whenever they were generated.
    correct:
        Right answers of ORCH.
    """
    time = device_time(timelines)
    agents = tuple(_cost(one.name, costs.get(one.name, _NO_COST), time) for one in plan.workers)
    merger = plan.merger.name if plan.merger else None
    merge = float(time.generate[merger]) if merger else 0.0
    complete = all(time.rows[one.name] >= one.rows for one in agents) and any(one.rows for one in agents)
    return Spending(
        device=timelines[-1].planned.machine.kind if timelines else plan.agents[0].settings.device,
        agents=agents,
        load_s=_total(time.load),
        generate_s=_total(time.generate) - merge,
        merge_s=merge,
        idle_s=time.idle,
        correct_per_device_hour=correct / (time.held / _HOUR) if complete and time.held else None,
    )


def _cost(name: str, cost: Cost, time: DeviceTime) -> CostSummary:
    """The last execution knows of its own rows alone, and a score of shards of none."""
    return CostSummary(
        name=name,
        rows=cost.rows,
        generated_now=max(cost.generated_now, min(cost.rows, time.rows[name])),
        prompt_tokens=cost.usage.prompt,
        cached_tokens=cost.usage.cached,
        generated_tokens=cost.usage.generated,
        load_s=float(time.load[name]),
        generate_s=float(time.generate[name]),
    )
