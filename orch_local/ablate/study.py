"""The whole ablation of one run, and its files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orch_local.ablate.frozen import AS_RUN, Frozen, freeze
from orch_local.ablate.missing import Missing, Price, price
from orch_local.ablate.orders import AgentOrder, audit
from orch_local.ablate.routers import Choice, Choices, Setting, grid, sizes
from orch_local.ablate.scores import AblationRow, AblationSystem, adjusted, row_of
from orch_local.ablate.variants import Merges, Variant, Variants, wanted
from orch_local.ablate.votes import MOST_AGENTS, VOTES, Places, Votes, subsets
from orch_local.results.finished import read_decisions
from orch_local.run.context import Display, StopRequest
from orch_local.store.store import RunFolder, read_json

ALONE, FULL, LEFT_OUT, SUBSETS = (
    "one agent alone",
    "votes",
    "votes, one agent left out",
    "votes, other subsets",
)
RULES, ORDERS, ROUTER, CHOICES = "merge rules", "merge, other order", "router", "fixed, random, oracle"
ORCH = "ORCH as run"


@dataclass(frozen=True, slots=True)
class Ablation:
    """All of it; the first row is the run as it was."""

    title: str
    digest: str
    """Of the run."""
    agents: tuple[str, ...]
    questions: int
    gold: int
    tokens: int
    """Of the run's analyses and merges, whenever they were generated."""
    main_vote: str
    rows: tuple[AblationRow, ...]
    orders: tuple[AgentOrder, ...]
    """The order of the run first; empty where no other was tried."""
    left_out: tuple[Missing, ...]
    """Variants whose merges are not all stored, and were not generated."""
    notes: tuple[str, ...]
    """What was left out, and why."""

    def to_dict(self) -> dict[str, Any]:
        """The content of ``ablation.json``; but for what is left out it does not depend on what is stored."""
        return dataclasses.asdict(self)


class Ablating:
    """The ablation of a finished run: first what is missing, then its numbers.

    Parameters
    ----------
    merges:
        Which variants of the merge agent are looked at: a few, all, or none.
    orders:
        So many seeded orders of the agents instead of the reversed one and rotations.

    Raises
    ------
    InputError, StoreError
        If the run was routed or is not finished.
    """

    def __init__(self, folder: RunFolder, merges: Merges, orders: int | None = None) -> None:
        self._folder, self._merges, self._frozen = folder, merges, freeze(folder)
        self._variants = Variants(folder, self._frozen.plan, self._frozen.digest)
        self._chosen = {one: self._variants.lacking(one) for one in wanted(self._frozen.plan, merges, orders)}

    @property
    def missing(self) -> tuple[Missing, ...]:
        """The variants that the stored rows alone do not tell."""
        return tuple(Missing(one.family, one.label, count) for one, count in self._chosen.items() if count)

    def price(self) -> Price:
        """Roughly what generating all that is missing would take."""
        merger = self._frozen.plan.merger
        return price(self._folder, merger.name if merger else "", self.missing)

    def finish(
        self, display: Display, stop: StopRequest | None = None, *, generate: bool = False
    ) -> tuple[Ablation, int]:
        """The ablation, and how many merges were generated for it.

        Without ``generate`` no engine is started, and the variants that lack merges are left out.

        Raises
        ------
        StoreError
            If a file cannot be written, or somebody else changed the store.
        KeyboardInterrupt
            If ``stop`` asked to finish early; the same command continues.
        """
        chosen = [one for one, count in self._chosen.items() if generate or not count]
        self._variants.finish(chosen, display, stop)
        study = _Study(self._frozen, [(one, *_results(self._variants.folder(one))) for one in chosen])
        left_out = () if generate else self.missing
        notes = _notes(self._frozen, self._merges, left_out)
        return study.made(self._folder.root.name, left_out, notes), self._variants.generated


class _Study:
    """Puts the rows together, family by family."""

    def __init__(self, frozen: Frozen, variants: list[tuple[Variant, list[str | None], int]]) -> None:
        self._frozen, self._variants, self._votes = frozen, variants, Votes(frozen)
        self._gold = sum(gold is not None for gold in frozen.gold)
        self._reference = frozen.verdicts(frozen.replays[AS_RUN].answers)
        self._tokens = int(frozen.tokens.sum()) + frozen.replays[AS_RUN].tokens
        self._routes: dict[Setting, Choice] = {}
        """The routes do not depend on the vote, and telling them takes longest."""

    def made(self, title: str, left_out: tuple[Missing, ...], notes: tuple[str, ...]) -> Ablation:
        rows = [row_of(one, self._reference, self._gold, self._tokens) for one in self._systems()]
        return Ablation(
            title=title,
            digest=self._frozen.digest,
            agents=self._frozen.plan.names,
            questions=len(self._frozen),
            gold=self._gold,
            tokens=self._tokens,
            main_vote=self._votes.main,
            rows=tuple(adjusted(rows, CHOICES)),
            orders=tuple(self._orders()),
            left_out=left_out,
            notes=notes,
        )

    def _systems(self) -> Iterator[AblationSystem]:
        policy = self._frozen.plan.config.merge.policy
        yield AblationSystem(
            ORCH, ORCH, "merge" if policy == "agent" else policy, self._reference, self._tokens
        )
        yield from self._of_rules()
        yield from self._of_subsets()
        yield from self._of_variants()
        for k in sizes(self._frozen.agents):
            # All votes over one agent are its own answer.
            for vote in VOTES if k > 1 else (self._votes.main,):
                yield from self._of_routers(k, vote)

    def _of_rules(self) -> Iterator[AblationSystem]:
        for name, replay in self._frozen.replays.items():
            if name != AS_RUN:
                tokens = int(self._frozen.tokens.sum()) + replay.tokens
                yield AblationSystem(RULES, name, "merge", self._frozen.verdicts(replay.answers), tokens)

    def _of_subsets(self) -> Iterator[AblationSystem]:
        for places in subsets(self._frozen.agents):
            family, name = self._family(places), self._named(places)
            tokens = int(self._frozen.tokens[list(places)].sum())
            if family == ALONE:
                yield AblationSystem(ALONE, name, "agent", self._votes.verdicts("majority", places), tokens)
                continue
            for vote in VOTES:
                verdicts, main = (
                    self._votes.verdicts(vote, places),
                    family == FULL or vote == self._votes.main,
                )
                yield AblationSystem(family, name, vote, verdicts, tokens, main)

    def _family(self, places: Places) -> str:
        if len(places) == 1:
            return ALONE
        missing = self._frozen.agents - len(places)
        return {0: FULL, 1: LEFT_OUT}.get(missing, SUBSETS)

    def _named(self, places: Places) -> str:
        names = self._frozen.plan.names
        family = self._family(places)
        if family == FULL:
            return "all agents"
        if family == LEFT_OUT:
            return f"without {next(name for i, name in enumerate(names) if i not in places)}"
        return " + ".join(names[place] for place in places)

    def _of_variants(self) -> Iterator[AblationSystem]:
        for variant, answers, merged in self._variants:
            tokens = int(self._frozen.tokens[list(variant.places)].sum()) + merged
            yield AblationSystem(
                variant.family, variant.label, "merge", self._frozen.verdicts(answers), tokens
            )

    def _of_routers(self, k: int, vote: str) -> Iterator[AblationSystem]:
        choices, main = Choices(self._frozen, self._votes, k, vote), vote == self._votes.main
        fixed, oracle = choices.fixed(), choices.oracle()
        best, most = self._share(choices, fixed), self._share(choices, oracle)
        way = choices.ways[int(fixed[0])] if len(fixed) else ()
        bounds = {
            f"best fixed {k}: {self._places_named(way)}": (fixed, {}),
            f"random {k}": (choices.random(), {"expected": choices.expected()}),
            f"oracle {k}": (oracle, {}),
        }
        for name, (choice, facts) in bounds.items():
            figures = {"k": k, **facts, "saved": self._saved(choices, choice)}
            yield _Chosen(CHOICES, name, vote, main).of(choices, choice, figures)
        for setting in [one for one in grid(self._frozen.agents) if one.k == k]:
            choice = self._route(choices, setting)
            reached = self._share(choices, choice)
            figures = {**dataclasses.asdict(setting), "saved": self._saved(choices, choice)}
            figures |= {"regret_fixed": _less(best, reached), "regret_oracle": _less(most, reached)}
            yield _Chosen(ROUTER, _setting_label(setting), vote, main).of(choices, choice, figures)

    def _route(self, choices: Choices, setting: Setting) -> Choice:
        if setting not in self._routes:
            self._routes[setting] = choices.routed(setting)
        return self._routes[setting]

    def _share(self, choices: Choices, choice: Choice) -> float | None:
        return int((choices.chosen(choice) == 1).sum()) / self._gold if self._gold else None

    def _saved(self, choices: Choices, choice: Choice) -> float | None:
        total = int(self._frozen.tokens.sum())
        return 1 - choices.tokens(choice) / total if total else None

    def _places_named(self, places: Places) -> str:
        return " + ".join(self._frozen.plan.names[place] for place in places)

    def _orders(self) -> Iterator[AgentOrder]:
        before = self._frozen.replays[AS_RUN].answers
        others = [(one.places, answers) for one, answers, _ in self._variants if one.family == ORDERS]
        if others:
            yield audit(self._frozen, tuple(range(self._frozen.agents)), before, before)
        for places, answers in others:
            yield audit(self._frozen, places, before, answers)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Names of a row whose agents are chosen question by question."""

    family: str
    name: str
    vote: str
    main: bool

    def of(self, choices: Choices, choice: Choice, facts: dict[str, Any]) -> AblationSystem:
        verdicts, tokens = choices.chosen(choice), choices.tokens(choice)
        return AblationSystem(self.family, self.name, self.vote, verdicts, tokens, self.main, facts)


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _setting_label(setting: Setting) -> str:
    delayed = "" if setting.mode == "online" else f", {setting.mode}"
    return f"k {setting.k}, alpha {setting.alpha:g}, {setting.weights}{delayed}"


def _results(folder: RunFolder) -> tuple[list[str | None], int]:
    """Final answers of a finished variant, and the tokens of its merges."""
    answers = [decision.answer for decision in read_decisions(folder.decisions)]
    cost = read_json(folder.metrics)["cost"]
    usage = cost["merge"]["usage"] if "merge" in cost else {"prompt": 0, "generated": 0}
    return answers, usage["prompt"] + usage["generated"]


def _notes(frozen: Frozen, merges: Merges, left_out: tuple[Missing, ...]) -> tuple[str, ...]:
    notes = []
    if frozen.agents > MOST_AGENTS:
        notes.append(
            f"With more than {MOST_AGENTS} agents the subsets are those of one, of all but one, and of all."
        )
    left = sorted(set(range(1, frozen.agents)) - set(sizes(frozen.agents)))
    if left:
        text = ", ".join(map(str, left))
        notes.append(f"No router with k = {text}: there are too many ways to choose so many agents.")
    if frozen.plan.merger is None:
        notes.append("The run has no merge agent, so there is nothing to ask it.")
    elif merges != "all":
        what = "no variant" if merges == "none" else "some variants"
        notes.append(f"`--merges {merges}` looks at {what} of the merge agent; `--merges all` looks at more.")
    if left_out:
        count = sum(one.merges for one in left_out)
        text = "; ".join(f"{one.family}: {one.label}" for one in left_out)
        notes.append(f"Left out, since {count:,} of their merges are not stored: {text}. See `--generate`.")
    if not frozen.gold or all(gold is None for gold in frozen.gold):
        notes.append("No question has a gold answer, so nothing is scored.")
    return tuple(notes)
