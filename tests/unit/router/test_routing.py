"""A route follows from what came back before it, by formulas checked here by hand, and from nothing else."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.config.blocks import RouterConfig, RouterWeights
from orch_local.router.averages import OVERALL, Ema, RouterState, Signal
from orch_local.router.routing import Phase, Route, Router, RoutingCase, block, horizon, learn, simulate

QUICK = settings(max_examples=25, deadline=None)
RIGHT, WRONG = Signal(True, 10.0, 10.0), Signal(False, 10.0, 10.0)


def config(**values: Any) -> RouterConfig:
    """Online, one agent, no warm-up, categories at once, unless told otherwise."""
    size = {} if "budget" in values else {"k": 1}
    if values.get("mode") == "calibrated":
        values["state"] = "router.json"
    return RouterConfig(**({"mode": "online", "wave": 1, "warm_up": 0, "category_min": 1} | size | values))


def weights(accuracy: float = 1.0, latency: float = 0.0, cost: float = 0.0) -> RouterWeights:
    return RouterWeights(accuracy=accuracy, latency=latency, cost=cost)


def key_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:16]


def taught(settings: RouterConfig, *questions: tuple[str, Sequence[Signal | None]]) -> Router:
    """A router to which these came back."""
    router = Router(settings, len(questions[0][1]))
    for category, signals in questions:
        router.observe(category, signals)
    return router


def frozen(settings: RouterConfig, *questions: tuple[str, Sequence[Signal | None]]) -> Router:
    """A router that learnt these and is frozen."""
    state = taught(settings, *questions).state
    calibrated = settings.model_copy(update={"mode": "calibrated"})
    return Router(calibrated, state.agents, state)


# What hypothesis draws

AMOUNTS = (None, 0.0, 1.0, 1.0, 2.0, 7.25, 1 / 3, 1e6)
CATEGORIES = ("a", "b", "", "\ud800", "\x00", "é", "e\u0301", "__class__")
SEED = st.integers(0, 2**32)


def signals_of(draw: random.Random, agents: int) -> tuple[Signal, ...]:
    amounts = draw.choices(AMOUNTS, k=2 * agents)
    rights = draw.choices((None, True, False), k=agents)
    return tuple(map(Signal, rights, amounts[:agents], amounts[agents:]))


def panel_of(draw: random.Random, agents: int, questions: int) -> list[RoutingCase]:
    """From a seed: hypothesis needs ten times as long to draw every signal by itself."""
    return [
        RoutingCase(f"{draw.getrandbits(64):016x}", draw.choice(CATEGORIES), signals_of(draw, agents))
        for _ in range(questions)
    ]


@st.composite
def panels(draw: st.DrawFn) -> list[RoutingCase]:
    return panel_of(random.Random(draw(SEED)), draw(st.integers(1, 5)), draw(st.integers(1, 25)))


@st.composite
def configs(
    draw: st.DrawFn, agents: int, mode: str | None = None, by_count: bool | None = None
) -> RouterConfig:
    by_count = draw(st.booleans()) if by_count is None else by_count
    return config(
        mode=mode or draw(st.sampled_from(["online", "delayed", "calibrated"])),
        k=draw(st.integers(1, agents)) if by_count else None,
        budget=None if by_count else draw(st.floats(0.01, 1e6)),
        alpha=draw(st.sampled_from([0.01, 0.1, 0.35, 0.5, 1.0])),
        weights=draw(st.builds(weights, *[st.sampled_from([0.0, 0.3, 1.0, 7.0])] * 3)),
        wave=draw(st.integers(1, 6)),
        delay=draw(st.integers(1, 6)),
        warm_up=draw(st.integers(0, 3)),
        category_min=draw(st.integers(1, 4)),
        explore_every=draw(st.integers(0, 3)),
        prior=draw(st.sampled_from([0.0, 0.5, 1.0])),
    )


def drawn(
    data: st.DataObject, mode: str | None = None, by_count: bool | None = None
) -> tuple[RouterConfig, list[RoutingCase], RouterState | None]:
    cases = data.draw(panels())
    settings = data.draw(configs(len(cases[0].signals), mode, by_count))
    lessons = panel_of(random.Random(data.draw(SEED)), len(cases[0].signals), data.draw(st.integers(0, 6)))
    return settings, cases, learn(settings, lessons) if lessons else None


# The averages


def test_the_average_moves_by_alpha_towards_the_signal() -> None:
    average = Ema(0, 0.5).updated(0.1, 1.0)
    assert average == (1, pytest.approx(0.55, abs=1e-15))  # 0.9 * 0.5 + 0.1 * 1
    average = average.updated(0.1, 1.0)
    assert average == (2, pytest.approx(0.595, abs=1e-15))  # 0.9 * 0.55 + 0.1
    assert average.updated(0.1, 0.0) == (3, pytest.approx(0.5355, abs=1e-15))  # 0.9 * 0.595


def test_without_a_prior_the_average_begins_with_the_first_signal() -> None:
    assert Ema().updated(0.25, 8.0) == (1, 8.0)
    assert Ema().updated(0.25, 8.0).updated(0.25, 16.0) == (2, 10.0)  # 0.75 * 8 + 0.25 * 16


@given(st.floats(0, 1e12), st.floats(0.001, 1))
def test_the_first_signal_is_taken_to_the_last_bit(signal: float, alpha: float) -> None:
    assert Ema().updated(alpha, signal).value == signal


def test_no_signal_changes_no_average() -> None:
    assert Ema(3, 0.25).updated(0.1, None) == (3, 0.25)
    assert Ema().updated(0.1, None) == (0, None)


@given(st.lists(st.booleans(), max_size=50), st.floats(0.001, 1), st.floats(0, 1))
def test_an_average_stays_between_the_extremes(signals: list[bool], alpha: float, prior: float) -> None:
    average = Ema(0, prior)
    for signal in signals:
        average = average.updated(alpha, float(signal))
    assert average.value is not None and 0 <= average.value <= 1 and average.n == len(signals)


def test_alpha_of_one_remembers_the_newest_signal_only() -> None:
    router = taught(config(alpha=1), ("a", [RIGHT]), ("a", [WRONG]))
    assert router.route(key_of(0), "a").estimates[0].accuracy == 0


# The score


def test_the_score_is_the_weighted_sum_with_latency_and_cost_as_shares_of_the_largest() -> None:
    settings = config(alpha=0.5, weights=weights(2.0, 0.4, 0.3))
    router = taught(settings, ("a", [Signal(True, 4.0, 30.0), Signal(False, 8.0, 10.0)]))
    first, second = router.route(key_of(0), "a").estimates
    assert first == pytest.approx((0.75, 4.0, 30.0, 2 * 0.75 - 0.4 * 4 / 8 - 0.3 * 30 / 30))  # = 1.0
    assert second == pytest.approx((0.25, 8.0, 10.0, 2 * 0.25 - 0.4 * 8 / 8 - 0.3 * 10 / 30))  # = 0.0
    assert (first.score, second.score) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-15))


@pytest.mark.parametrize(
    ("by", "wins"),
    [(weights(1, 0, 0), 0), (weights(0, 1, 0), 1), (weights(0, 0, 1), 2), (weights(0, 0, 0), 0)],
)
def test_each_weight_alone_prefers_the_agent_that_is_best_in_it(by: RouterWeights, wins: int) -> None:
    signals = [Signal(True, 9.0, 9.0), Signal(False, 1.0, 9.0), Signal(False, 9.0, 1.0)]
    assert taught(config(weights=by), ("a", signals)).route(key_of(0), "a").agents == (wins,)


def test_without_seconds_and_costs_their_share_is_none_rather_than_a_division_by_zero() -> None:
    router = taught(
        config(weights=weights(1, 1, 1)), ("a", [Signal(True, 0.0, None), Signal(None, 0.0, None)])
    )
    assert [one.score for one in router.route(key_of(0), "a").estimates] == pytest.approx([0.55, 0.5])


def test_before_any_signal_every_agent_has_the_prior() -> None:
    estimates = Router(config(prior=0.3), 3).route(key_of(0), "a").estimates
    assert estimates == ((0.3, 0.0, 0.0, 0.3),) * 3


def test_without_gold_accuracy_stays_at_the_prior_and_the_rest_decides() -> None:
    settings = config(weights=weights(1, 0, 0.5))
    router = taught(settings, *[("a", [Signal(None, 5.0, 5.0), Signal(None, 5.0, 4.0)])] * 20)
    route = router.route(key_of(0), "a")
    assert [one.accuracy for one in route.estimates] == [0.5, 0.5]
    assert route.agents == (1,)


# Categories and their back-off


def test_a_category_counts_by_itself_once_it_has_enough_signals() -> None:
    settings = config(alpha=0.5, category_min=2)
    router = taught(settings, ("a", [RIGHT]), ("b", [WRONG]))
    # Over all: 0.5 -> 0.75 -> 0.375. In "b", one signal is not enough.
    assert router.route(key_of(0), "b").estimates[0].accuracy == 0.375
    router.observe("a", [RIGHT])
    router.observe("b", [WRONG])
    # "b" began at the 0.75 of then: -> 0.375 -> 0.1875; over all 0.6875 -> 0.34375, which still serves
    # a category that nothing is known of.
    assert router.route(key_of(0), "b").estimates[0].accuracy == 0.1875
    assert router.route(key_of(0), "new").estimates[0].accuracy == 0.34375


def test_the_back_off_is_of_each_agent_and_signal_by_itself() -> None:
    settings = config(alpha=0.5, category_min=2)
    router = taught(settings, ("a", [Signal(True, 8.0, 8.0), RIGHT]), ("b", [Signal(None, 4.0, None), None]))
    router.observe("b", [Signal(None, 4.0, None), None])
    first, second = router.route(key_of(0), "b").estimates
    assert first[:3] == (0.75, 4.0, 8.0)  # accuracy and cost over all, latency of "b"
    assert second[:3] == (0.75, 10.0, 10.0)


def test_asking_about_a_category_teaches_nothing() -> None:
    router = taught(config(mode="online"), ("a", [RIGHT, WRONG]))
    before = router.state.to_dict()["tracks"]
    router.route(key_of(0), "never seen")
    assert router.state.to_dict()["tracks"] == before


def test_a_category_without_a_name_is_the_overall_one_and_counted_once() -> None:
    state = taught(config(), (OVERALL, [RIGHT])).state
    assert list(state.tracks) == [OVERALL]
    assert state.tracks[OVERALL][0].accuracy.n == 1


# Who is asked


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.data())
def test_the_best_are_asked_and_of_equals_the_first(scores: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(scores)))
    signals = [Signal(None, None, float(score)) for score in scores]
    router = taught(config(k=k, weights=weights(0, 0, 1)), ("a", signals))
    expected = sorted(sorted(range(len(scores)), key=lambda agent: scores[agent])[:k])  # sorted() is stable
    assert router.route(key_of(0), "a").agents == tuple(expected)


@QUICK
@given(st.data())
def test_with_a_count_so_many_are_asked_each_once_in_agent_order(data: st.DataObject) -> None:
    settings, cases, start = drawn(data, by_count=True)
    for route in simulate(settings, cases, start):
        assert len(route.agents) == settings.k
        assert list(route.agents) == sorted(set(route.agents))


@QUICK
@given(st.data())
def test_a_budget_is_kept_except_for_the_single_best(data: st.DataObject) -> None:
    settings, cases, start = drawn(data, by_count=False)
    assert settings.budget
    for route in simulate(settings, cases, start):
        assert len(route.agents) >= 1
        if route.phase is Phase.WARM_UP:
            assert len(route.agents) == 1
            continue
        spent = sum(route.estimates[agent].cost for agent in route.agents)
        alone = route.phase is Phase.SCORE and len(route.agents) == 1
        assert alone or spent <= settings.budget * (1 + 1e-12)
        if alone:
            assert route.estimates[route.agents[0]].score == max(one.score for one in route.estimates)


@pytest.mark.parametrize(
    ("budget", "asked"),
    [(1.0, (2,)), (40.0, (2,)), (45.0, (0, 2)), (50.0, (1, 2)), (55.0, (0, 1, 2)), (9e9, (0, 1, 2))],
)
def test_a_budget_takes_the_best_that_still_fit(budget: float, asked: tuple[int, ...]) -> None:
    # By score 2 (dearest, asked in any case), then 1, then 0: where 1 does not fit, 0 may.
    signals = [Signal(False, 1.0, 5.0), Signal(None, 1.0, 10.0), Signal(True, 1.0, 40.0)]
    assert taught(config(budget=budget), ("a", signals)).route(key_of(0), "a").agents == asked


@QUICK
@given(st.data())
def test_the_order_of_the_agents_matters_for_ties_only(data: st.DataObject) -> None:
    agents = data.draw(st.integers(1, 5))
    order = data.draw(st.permutations(range(agents)))
    draw = random.Random(data.draw(SEED))  # random reals: no ties
    cases = [
        RoutingCase(
            key_of(i),
            "ab"[i % 2],
            tuple(Signal(draw.random() < 0.5, draw.random(), draw.random()) for _ in order),
        )
        for i in range(20)
    ]
    settings = data.draw(configs(agents)).model_copy(
        update={"warm_up": 0, "explore_every": 0, "weights": weights(1.0, 0.9, 0.8)}
    )
    start = learn(settings, cases[:3])
    turned = [RoutingCase(case.key, case.category, tuple(case.signals[i] for i in order)) for case in cases]
    for one, other in zip(
        simulate(settings, cases[3:], start),
        simulate(settings, turned[3:], learn(settings, turned[:3])),
        strict=True,
    ):
        assert {order[agent] for agent in other.agents} == set(one.agents)
        assert tuple(one.estimates[i] for i in order) == other.estimates


# Warm-up


@pytest.mark.parametrize(("agents", "k", "times"), [(3, 1, 4), (3, 2, 4), (5, 3, 7), (4, 4, 2), (1, 1, 3)])
def test_warm_up_asks_the_agents_in_turn_until_all_came_back_so_often(
    agents: int, k: int, times: int
) -> None:
    cases = [RoutingCase(key_of(i), "a", (WRONG,) * (agents - 1) + (RIGHT,)) for i in range(100)]
    routes = list(simulate(config(k=k, warm_up=times), cases))
    warm = [route for route in routes if route.phase is Phase.WARM_UP]
    assert routes[: len(warm)] == warm
    assert len(warm) == -(-agents * times // k)  # rounded up
    seats = [agent for route in warm for agent in route.agents]
    turn = [place % agents for place in range(len(seats))]
    assert [sorted(seats[i : i + k]) for i in range(0, len(seats), k)] == [
        sorted(turn[i : i + k]) for i in range(0, len(turn), k)
    ]
    assert min(Counter(seats)[agent] for agent in range(agents)) == times
    assert all(agents - 1 in route.agents for route in routes[len(warm) :])


@pytest.mark.parametrize("mode", ["online", "delayed"])
def test_warm_up_lasts_until_something_came_back(mode: str) -> None:
    """Else the rest of the first wave would be asked of the first agent, of which nothing is known either."""
    cases = [RoutingCase(key_of(i), "a", (WRONG, RIGHT, WRONG)) for i in range(120)]
    routes = list(simulate(config(mode=mode, wave=60, delay=60, warm_up=5), cases))
    assert {route.phase for route in routes[:60]} == {Phase.WARM_UP}
    assert Counter(route.agents for route in routes[:60]) == {(0,): 20, (1,): 20, (2,): 20}
    assert {route.agents for route in routes[75:]} == {(1,)}


def test_warm_up_ends_even_where_nothing_can_be_learnt() -> None:
    cases = [RoutingCase(key_of(i), "a", (Signal(None, None, None),) * 2) for i in range(20)]
    phases = Counter(route.phase for route in simulate(config(warm_up=3), cases))
    assert phases == {Phase.WARM_UP: 6, Phase.SCORE: 14}


@QUICK
@given(st.data())
def test_warm_up_never_starves_an_agent(data: st.DataObject) -> None:
    settings, cases, _ = drawn(data, data.draw(st.sampled_from(["online", "delayed"])))
    asked = [0] * len(cases[0].signals)
    for route in simulate(settings, cases):
        if route.phase is not Phase.WARM_UP:
            assert min(asked) >= settings.warm_up
            break
        for agent in route.agents:
            asked[agent] += 1
        assert max(asked) - min(asked) <= 1


def test_a_state_learnt_before_needs_no_warm_up() -> None:
    cases = [RoutingCase(key_of(i), "a", (WRONG, RIGHT)) for i in range(10)]
    settings = config(warm_up=10)
    (route,) = simulate(settings, [RoutingCase(key_of(99), "a", (RIGHT, RIGHT))], learn(settings, cases))
    assert (route.phase, route.agents) == (Phase.SCORE, (1,))


def test_a_frozen_router_never_warms_up() -> None:
    (route,) = simulate(config(mode="calibrated", warm_up=10), [RoutingCase(key_of(0), "a", (RIGHT, RIGHT))])
    assert route.phase is Phase.SCORE


# Exploration


def test_exploration_takes_its_share_and_one_seat_of_it() -> None:
    lessons = ("a", [Signal(None, 1.0, float(cost)) for cost in range(5)])
    plain = frozen(config(k=2, weights=weights(0, 0, 1)), lessons)
    exploring = frozen(config(k=2, weights=weights(0, 0, 1), explore_every=10), lessons)
    found: Counter[tuple[int, ...]] = Counter()
    for number in range(5_000):
        route, usual = exploring.route(key_of(number), "a"), plain.route(key_of(number), "a")
        assert usual.agents == (0, 1)
        if route.phase is Phase.SCORE:
            assert route == usual
            continue
        assert route.phase is Phase.EXPLORE
        assert route.agents[0] == 0 and route.agents[1] in (2, 3, 4)
        found[route.agents] += 1
    # 5,000 keys, 1 in 10: 500 with standard deviation 21; each of the others a third, with 13.
    assert sum(found.values()) == pytest.approx(500, abs=4 * 21)
    assert [found[0, other] for other in (2, 3, 4)] == pytest.approx([167] * 3, abs=4 * 13)


@pytest.mark.parametrize(
    ("key", "asked"), [("0" * 16, 1), (f"{10:016x}", 2), (f"{20:016x}", 1), (f"{11:016x}", 0)]
)
def test_the_turn_is_told_by_the_key(key: str, asked: int) -> None:
    # 10 // 10 % 2 = 1: the second of the others.
    router = frozen(config(explore_every=10), ("a", [RIGHT, WRONG, WRONG]))
    assert router.route(key, "a").agents == (asked,)


def test_nobody_is_left_to_explore_where_all_are_asked() -> None:
    router = frozen(config(k=2, explore_every=1), ("a", [RIGHT, WRONG]))
    assert router.route("0" * 16, "a")[:2] == ((0, 1), Phase.SCORE)


def test_exploration_keeps_the_budget() -> None:
    signals = [
        Signal(True, 1.0, 4.0),
        Signal(None, 1.0, 6.0),
        Signal(False, 1.0, 7.0),
        Signal(False, 1.0, 5.0),
    ]
    router = frozen(config(budget=10, explore_every=1), ("a", signals))
    routes = [router.route(f"{number:016x}", "a") for number in range(10)]
    assert {(route.agents, route.phase) for route in routes} == {((0, 3), Phase.EXPLORE)}  # 7 is too much
    router = frozen(config(budget=3, explore_every=1), ("a", signals))
    assert router.route("0" * 16, "a")[:2] == ((0,), Phase.SCORE)


# What a route may depend on


@QUICK
@given(st.data())
def test_the_same_observations_give_the_same_routes(data: st.DataObject) -> None:
    settings, cases, start = drawn(data)
    before = start and json.dumps(start.to_dict())
    first = list(simulate(settings, cases, start))
    random.seed(data.draw(SEED))
    assert list(simulate(settings, [replace_signals(case) for case in cases], start)) == first
    assert (start and json.dumps(start.to_dict())) == before  # the state to begin with is nobody's to change


def replace_signals(case: RoutingCase) -> RoutingCase:
    return RoutingCase(case.key, case.category, tuple(Signal(*signal) for signal in case.signals))


@QUICK
@given(st.data())
def test_no_route_knows_what_has_not_come_back(data: st.DataObject) -> None:
    """Prequential: neither its own question's signals nor those of any question from its horizon on."""
    settings, cases, start = drawn(data)
    place = data.draw(st.integers(0, len(cases) - 1))
    known = horizon(settings, place)
    assert known <= place
    draw = random.Random(data.draw(SEED))
    changed = [
        case if number < known else case._replace(signals=signals_of(draw, len(case.signals)))
        for number, case in enumerate(cases)
    ]
    routes = list(simulate(settings, cases, start))
    assert list(simulate(settings, changed, start))[place] == routes[place]
    assert list(simulate(settings, cases[: place + 1], start)) == routes[: place + 1]


def test_a_route_knows_everything_up_to_its_horizon() -> None:
    """The opposite of the property above: the last question that came back does turn the route."""
    for options in (config(mode="online", wave=4), config(mode="delayed", delay=4)):
        for place in range(4, 12):
            known = horizon(options, place)
            cases = [
                RoutingCase(
                    key_of(i), "a", (WRONG, WRONG) if i + 1 == known else (Signal(None, 1.0, 1.0),) * 2
                )
                for i in range(place + 1)
            ]
            assert list(simulate(options, cases))[place].agents == (1,)


@pytest.mark.parametrize(
    ("settings", "expected", "at_once"),
    [
        (config(mode="online", wave=3), [0, 0, 0, 3, 3, 3, 6, 6], 3),
        (config(mode="online", wave=1), [0, 1, 2, 3, 4, 5, 6, 7], 1),
        (config(mode="delayed", delay=1), [0, 1, 2, 3, 4, 5, 6, 7], 1),
        (config(mode="delayed", delay=3), [0, 0, 0, 1, 2, 3, 4, 5], 3),
        (config(mode="calibrated"), [0] * 8, None),
    ],
)
def test_what_has_come_back_by_hand(settings: RouterConfig, expected: list[int], at_once: int | None) -> None:
    assert [horizon(settings, place) for place in range(8)] == expected
    assert block(settings) == at_once


@QUICK
@given(st.data(), st.integers(0, 1000))
def test_a_block_can_be_asked_at_once(data: st.DataObject, start: int) -> None:
    settings = data.draw(configs(3))
    size = block(settings)
    assert size is None or all(horizon(settings, start * size + i) <= start * size for i in range(size))


@QUICK
@given(st.data())
def test_waves_of_one_are_feedback_one_question_later(data: st.DataObject) -> None:
    settings, cases, start = drawn(data)
    online = settings.model_copy(update={"mode": "online", "wave": 1})
    delayed = settings.model_copy(update={"mode": "delayed", "delay": 1})
    assert list(simulate(online, cases, start)) == list(simulate(delayed, cases, start))


@QUICK
@given(st.data())
def test_a_frozen_route_follows_from_key_and_category(data: st.DataObject) -> None:
    """So shards agree: not the order, not the other questions, not what they bring."""
    settings, cases, start = drawn(data, "calibrated")
    routes = {
        (case.key, case.category): route
        for case, route in zip(cases, simulate(settings, cases, start), strict=True)
    }
    shuffled = data.draw(st.permutations(cases))
    shard = shuffled[: data.draw(st.integers(1, len(cases)))]
    for case, route in zip(shard, simulate(settings, shard, start), strict=True):
        assert route == routes[case.key, case.category]
    router = Router(settings, len(cases[0].signals), start)
    before = json.dumps(router.state.to_dict())
    for case in shard:
        router.route(case.key, case.category)
        router.observe(case.category, case.signals)
    assert json.dumps(router.state.to_dict()) == before


def test_what_came_back_is_of_those_who_were_asked() -> None:
    """Agent 1 would be right always, but is never asked: nothing is learnt of it."""
    cases = [RoutingCase(key_of(i), "a", (RIGHT, RIGHT)) for i in range(9)]
    last = list(simulate(config(), cases))[-1]
    assert last.agents == (0,)
    assert last.estimates[1] == (0.5, 10.0, 10.0, 0.5)  # unknown counts as the largest known


# The state


def chain(*lines: str) -> str:
    digest = ""
    for line in lines:
        digest = hashlib.sha256(line.replace("@", digest).encode("utf-8", "surrogatepass")).hexdigest()
    return digest


def test_the_digest_is_a_chain_over_all_that_came_back() -> None:
    router = taught(config(), ("a", [RIGHT, None]), ("\ud800", [None, Signal(None, None, 2.5)]))
    expected = chain('["@","a",[[true,10.0,10.0],null]]', '["@","\ud800",[null,[null,null,2.5]]]')
    assert router.state.digest == expected
    assert router.route(key_of(0), "a")[2:4] == (2, expected[:16])
    assert Router(config(), 2).route(key_of(0), "a")[2:4] == (0, "")


def test_a_number_has_one_digest_whatever_its_kind() -> None:
    numpy = pytest.importorskip("numpy")
    whole, real = (
        taught(config(), ("a", [Signal(True, 5, 7)])),
        taught(config(), ("a", [Signal(True, 5.0, 7.0)])),
    )
    arrays = taught(config(), ("a", [Signal(numpy.bool_(True), numpy.int64(5), numpy.float32(7))]))
    assert whole.state == real.state == arrays.state
    assert whole.state.digest == real.state.digest == arrays.state.digest


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        taught(config(), ("a", [Signal(True, value, 1.0)]))


@QUICK
@given(st.data())
def test_a_state_comes_back_from_json_as_it_was(data: st.DataObject) -> None:
    settings, cases, _ = drawn(data, "online")
    router = Router(settings, len(cases[0].signals))
    for case in cases:
        route = router.route(case.key, case.category)
        router.observe(case.category, [s if i in route.agents else None for i, s in enumerate(case.signals)])
    again = RouterState.from_dict(json.loads(json.dumps(router.state.to_dict())))
    assert again == router.state
    assert list(simulate(settings, cases, again)) == list(simulate(settings, cases, router.state))


def test_a_state_that_was_written_is_not_changed_by_going_on() -> None:
    router = taught(config(), ("a", [RIGHT, WRONG]))
    written = router.state.to_dict()
    before = json.dumps(written)
    router.route(key_of(0), "a")
    router.observe("a", [RIGHT, WRONG])
    assert json.dumps(written) == before


DAMAGED: list[dict[str, Any]] = [
    {"agents": 3},
    {"agents": "2"},
    {"asked": [1]},
    {"asked": ["x", "y"]},
    {"returned": []},
    {"tracks": []},
    {"tracks": {}},
    {"tracks": {"": [[[0, 0.5], [0, None], [0, None]]]}},
    {"tracks": {"": [[[0, 0.5]]] * 2}},
    {"tracks": {"": [[[0, 0.5], [0, None], [0, float("nan")]]] * 2}},
    {"tracks": {"": [[[-1, 0.5], [0, None], [0, None]]] * 2}},
    {"tracks": {"": [[[0, "x"], [0, None], [0, None]]] * 2}},
    {"tracks": {"": [[0, 0.5, None]] * 2}},
    {"unknown": 1},
]


@pytest.mark.parametrize("damage", DAMAGED, ids=str)
def test_a_damaged_state_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        RouterState.from_dict(RouterState(2, 0.5).to_dict() | damage)


@pytest.mark.parametrize("lacks", RouterState(2, 0.5).to_dict())
def test_a_state_with_a_part_missing_is_refused(lacks: str) -> None:
    values = RouterState(2, 0.5).to_dict()
    del values[lacks]
    with pytest.raises((KeyError, TypeError, ValueError)):
        RouterState.from_dict(values)


def test_a_state_of_other_agents_is_refused() -> None:
    with pytest.raises(ValueError, match="a state of 2 agents, where there are 3"):
        Router(config(), 3, RouterState(2, 0.5))


@QUICK
@given(st.data())
def test_learning_is_what_asking_everybody_teaches(data: st.DataObject) -> None:
    cases = data.draw(panels())
    agents = len(cases[0].signals)
    settings = data.draw(configs(agents, "online")).model_copy(
        update={"k": agents, "budget": None, "wave": 1}
    )
    router = Router(settings, agents)
    for case in cases:
        assert router.route(case.key, case.category).agents == tuple(range(agents))
        router.observe(case.category, case.signals)
    assert replace(learn(settings, cases), asked=router.state.asked) == router.state


def test_nothing_to_route_gives_no_routes() -> None:
    assert list(simulate(config(), [])) == []


@QUICK
@given(st.data())
def test_a_run_that_stops_and_goes_on_takes_the_same_routes(data: st.DataObject) -> None:
    """The state is all that is remembered: written after any question, another router goes on from it."""
    options, cases, start = drawn(data, "online")
    options = options.model_copy(update={"wave": 1})
    whole = list(simulate(options, cases, start))
    router, routes = Router(options, len(cases[0].signals), start), list[Route]()
    for case in cases:
        routes.append(router.route(case.key, case.category))
        asked = routes[-1].agents
        router.observe(case.category, [s if i in asked else None for i, s in enumerate(case.signals)])
        router = Router(options, len(cases[0].signals), RouterState.from_dict(router.state.to_dict()))
    assert routes == whole
