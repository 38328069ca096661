"""Panels of specialist answers, and the training of the model that merges them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from orch_local.demo.benchmark import DOMAINS, LABELS, Problem, problems

from .calibration import as_confidence
from .fitting import Report, batches, encode, fit
from .lookup import lookup_batches
from .rollout import generate, is_right, replies_of
from .specialists import LOOKUP_RATE, LOOKUP_SHUFFLED, LOOKUP_STEPS
from .texts import (
    SPECIALISTS,
    Reply,
    chat_prompt,
    merge_block,
    merge_reply,
    parse_reply,
    specialist_reply,
)

IMAGINED_STEPS, IMAGINED_RATE = 280, 3e-3
STEPS, BATCH, RATE = 160, 24, 1.5e-3
VERSIONS = 4  # training texts made from each panel
UNUSABLE_SHARE = 0.02
LOUD_GUESS_SHARE = 0.15
IMAGINED_ERRORS = 0.1


@dataclass(frozen=True)
class Panel:
    """A question with the answer of each specialist, in the fixed order."""

    problem: Problem
    replies: tuple[Reply | None, ...]

    @property
    def loudest(self) -> int | None:
        """The usable specialist with the highest confidence (the first of several)."""
        usable = [index for index, reply in enumerate(self.replies) if reply is not None]
        return max(usable, key=lambda index: (self.confidence(index), -index)) if usable else None

    def confidence(self, index: int) -> int:
        """The confidence of a specialist, -1 where it is unusable."""
        reply = self.replies[index]
        return -1 if reply is None else reply.confidence

    @property
    def best(self) -> int | None:
        """The right specialist with the highest confidence; where none is right, the loudest."""
        right = [index for index, reply in enumerate(self.replies) if is_right(reply, self.problem)]
        return max(right, key=lambda index: (self.confidence(index), -index)) if right else self.loudest

    @property
    def majority(self) -> str | None:
        """The most frequent label; a tie is settled by a draw that depends on the question alone."""
        votes = Counter(reply.answer for reply in self.replies if reply is not None)
        top = sorted(label for label in votes if votes[label] == max(votes.values()))
        return random.Random(self.problem.key).choice(top) if top else None


def accuracy_by_loudness(panels: Sequence[Panel]) -> dict[int, int]:
    """For each ten of the highest confidence, how often the loudest specialist was right, in percent."""
    right: dict[int, list[bool]] = defaultdict(list)
    for panel in panels:
        if panel.loudest is not None:
            ten = panel.confidence(panel.loudest) // 10
            right[ten].append(is_right(panel.replies[panel.loudest], panel.problem))
    return {ten: as_confidence(sum(values), len(values)) for ten, values in right.items()}


def disturbed(panel: Panel, rng: random.Random) -> Panel:
    """Now and then one answer is missing, or a wrong guess is given with high confidence."""
    replies = list(panel.replies)
    if rng.random() < UNUSABLE_SHARE * len(replies):
        replies[rng.randrange(len(replies))] = None
    if rng.random() < LOUD_GUESS_SHARE:
        index = rng.randrange(len(replies))
        reply = replies[index]
        if reply is not None and reply.reasoning.startswith("a guess"):
            replies[index] = replace(reply, confidence=rng.randint(60, 99))
    return replace(panel, replies=tuple(replies))


def merge_pairs(panels: Sequence[Panel], seed: int, versions: int = VERSIONS) -> list[tuple[str, str]]:
    """Training texts: whom to trust, with the accuracy of such panels as confidence."""
    rng = random.Random(f"merge-{seed}")
    reliability = accuracy_by_loudness(panels)
    pairs = []
    for panel in panels:
        for _ in range(versions):
            seen = disturbed(panel, rng)
            chosen = seen.best
            reply = seen.replies[chosen] if chosen is not None else None
            if chosen is None or reply is None:
                continue
            confidence = reliability.get(reply.confidence // 10, reply.confidence)
            prompt = chat_prompt(merge_block(seen.problem, seen.replies))
            pairs.append((prompt, merge_reply(chosen + 1, reply.answer, confidence)))
    return pairs


def merge_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, panels: Sequence[Panel]
) -> list[Reply | None]:
    """What the merge model makes of each panel."""
    users = [merge_block(panel.problem, panel.replies) for panel in panels]
    texts = generate(model, tokenizer, users, size=128)
    return replies_of(texts, [panel.problem for panel in panels])


def merge_report(tokenizer: PreTrainedTokenizerBase, panels: Sequence[Panel]) -> Report:
    """What to print while the merge model trains: its accuracy beside that of the loudest specialist."""

    def report(model: PreTrainedModel) -> dict[str, object]:
        merged = merge_answers(model, tokenizer, panels)
        right = [is_right(reply, panel.problem) for reply, panel in zip(merged, panels, strict=True)]
        loudest = [
            panel.loudest is not None and is_right(panel.replies[panel.loudest], panel.problem)
            for panel in panels
        ]
        return {"merge": round(sum(right) / len(right), 4), "loudest": round(sum(loudest) / len(loudest), 4)}

    return report


def imagined_panel(problem: Problem, rng: random.Random) -> Panel:
    """A panel as the specialists may give it: mostly right and sure at home, guesses elsewhere."""
    replies: list[Reply | None] = []
    for role in SPECIALISTS:
        reply = parse_reply(specialist_reply(role, problem, rng), problem)
        assert reply is not None
        if problem.category not in DOMAINS[role]:
            reply = replace(reply, confidence=rng.randint(12, 30))
        elif rng.random() < IMAGINED_ERRORS:
            label = rng.choice([label for label in LABELS[: len(problem.choices)] if label != problem.answer])
            reasoning = f"{problem.steps}, so {problem.choices[LABELS.index(label)]} ({label})"
            reply = Reply(reasoning, label, rng.randint(40, 90))
        else:
            reply = replace(reply, confidence=rng.randint(60, 99))
        replies.append(reply)
    return Panel(problem, tuple(replies))


def start_merge(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
    """Look-ups first, then imagined panels: this needs no specialist yet."""
    lookups = lookup_batches(tokenizer, seed, LOOKUP_SHUFFLED)
    fit(model, lookups, LOOKUP_STEPS, LOOKUP_RATE, muon=False, name="merge look-up", every=60)
    rng = random.Random(f"imagined-{seed}")
    asked = problems("train", IMAGINED_STEPS * BATCH, seed=seed + 7000)
    panels = [imagined_panel(problem, rng) for problem in asked]
    watched = [imagined_panel(problem, rng) for problem in problems("dev", 90, seed=seed + 7000)]
    documents = encode(tokenizer, merge_pairs(panels, seed, versions=1))
    source = batches(documents, BATCH, tokenizer.pad_token_id, seed)
    report = merge_report(tokenizer, watched)
    fit(model, source, IMAGINED_STEPS, IMAGINED_RATE, name="merge imagined", report=report, every=80)


def finish_merge(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    panels: Sequence[Panel],
    watched: Sequence[Panel],
    seed: int,
) -> None:
    """Then the panels that the trained specialists really gave."""
    documents = encode(tokenizer, merge_pairs(panels, seed))
    source = batches(documents, BATCH, tokenizer.pad_token_id, seed)
    report = merge_report(tokenizer, watched)
    fit(model, source, STEPS, RATE, name="merge", report=report, every=80)
