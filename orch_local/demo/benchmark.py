"""The synthetic multiple-choice benchmark of the embedded demo.

Nine small families of questions, three for each specialist of the demo.  Everything is generated from
``(split, seed)`` with the standard library alone, so the same call gives the same questions anywhere.

Splits cannot overlap: every problem has a *semantic key* (its category and operands, without names, wording
or answer options), and the SHA-256 hash of that key alone decides the split it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

LABELS = "ABCDEFGHIJ"
SPLITS = ("train", "dev", "test")
DOMAINS: dict[str, tuple[str, ...]] = {
    "quant": ("addition", "subtraction", "extreme"),
    "chrono": ("weekday", "clock", "month"),
    "verbal": ("alphabet", "kind", "letters"),
}
CATEGORIES = tuple(category for categories in DOMAINS.values() for category in categories)

NAMES = (
    "Ann", "Ben", "Cara", "Dan", "Eve", "Finn", "Gus", "Hana",
    "Ivan", "Jill", "Karl", "Lena", "Mona", "Nils", "Omar", "Pia",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
WORDS: dict[str, tuple[str, ...]] = {
    "fruit": ("apple", "pear", "plum", "fig", "lemon", "grape", "melon", "kiwi"),
    "animals": ("cat", "dog", "cow", "horse", "goat", "duck", "fox", "hen"),
    "tools": ("hammer", "saw", "drill", "axe", "spade", "rake", "file", "wrench"),
    "colours": ("red", "blue", "green", "black", "white", "pink", "brown", "gray"),
}
KINDS = {**WORDS, "days": DAYS, "months": MONTHS}
MIN_CHOICES, MAX_CHOICES = 4, 6
_MAX_DRAWS = 20_000


@dataclass(frozen=True)
class Problem:
    """One question with its worked solution (the solution is used for training only)."""

    category: str
    key: str
    question: str
    choices: tuple[str, ...]
    gold: int
    steps: str

    @property
    def answer(self) -> str:
        """The label letter of the right choice."""
        return LABELS[self.gold]

    def row(self) -> dict[str, object]:
        """The row of the project's JSONL format."""
        return {
            "question": self.question,
            "choices": list(self.choices),
            "answer": self.answer,
            "category": self.category,
            "meta": {"key": self.key},
        }


@dataclass(frozen=True)
class _Draft:
    """A problem before its answer options are drawn."""

    operands: str
    question: str
    answer: str
    distractors: list[str]
    steps: str
    uses_all: bool = False  # the options are part of the operands: none may be left out


def split_of(key: str) -> str:
    """The split that a semantic key belongs to: 70 percent train, 15 percent dev, 15 percent test."""
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 20
    return "test" if bucket < 3 else "dev" if bucket < 6 else "train"


def _shuffled(rng: random.Random, items: list[str]) -> list[str]:
    return rng.sample(items, len(items))


def _near_numbers(rng: random.Random, answer: int) -> list[str]:
    """Wrong numbers that a slip in a digit would give."""
    offsets = (1, -1, 2, -2, 10, -10, 9, -9, 11, -11, 20, -20, 5, -5)
    return _shuffled(rng, [str(answer + offset) for offset in offsets if 0 <= answer + offset <= 99])


def _addition(rng: random.Random) -> _Draft:
    first = rng.randint(10, 89)
    second = rng.randint(10, 99 - first)
    total = first + second
    name = rng.choice(NAMES)
    question = rng.choice(
        (
            f"What is {first} + {second}?",
            f"First {name} has {first} coins and then finds {second} more. How many coins is that?",
        )
    )
    tens = f"tens {first // 10 * 10} + {second // 10 * 10} = {first // 10 * 10 + second // 10 * 10}"
    ones = f"ones {first % 10} + {second % 10} = {first % 10 + second % 10}"
    return _Draft(f"{first} {second}", question, str(total), _near_numbers(rng, total), f"{tens}, {ones}")


def _subtraction(rng: random.Random) -> _Draft:
    first = rng.randint(20, 99)
    second = rng.randint(10, first - 1)
    rest = first - second
    name = rng.choice(NAMES)
    question = rng.choice(
        (
            f"What is {first} - {second}?",
            f"First {name} has {first} coins and then spends {second}. How many coins are left?",
        )
    )
    ones_difference = first % 10 - second % 10
    sign = "- " if ones_difference < 0 else ""
    tens = f"tens {first // 10 * 10} - {second // 10 * 10} = {first // 10 * 10 - second // 10 * 10}"
    ones = f"ones {first % 10} - {second % 10} = {sign}{abs(ones_difference)}"
    return _Draft(f"{first} {second}", question, str(rest), _near_numbers(rng, rest), f"{tens}, {ones}")


def _extreme(rng: random.Random) -> _Draft:
    tens = rng.sample(range(1, 10), rng.randint(MIN_CHOICES, MAX_CHOICES))
    numbers = [10 * ten + rng.randint(0, 9) for ten in tens]
    word = rng.choice(("largest", "smallest"))
    answer = max(numbers) if word == "largest" else min(numbers)
    question = rng.choice((f"Which number is the {word}?", f"Which of these numbers is the {word}?"))
    others = _shuffled(rng, [str(number) for number in numbers if number != answer])
    steps = f"{word} tens {answer // 10 * 10}"
    return _Draft(f"{word} {sorted(numbers)}", question, str(answer), others, steps, uses_all=True)


def _three_steps(start: int, waits: list[int], names: list[str]) -> tuple[str, str]:
    """Go forward three times round a circle of names: where that ends, and the way there."""
    position, steps = start, []
    for wait in waits:
        after = (position + wait) % len(names)
        steps.append(f"{names[position]} + {wait} = {names[after]}")
        position = after
    return names[position], ", ".join(steps)


def _round_trip(
    rng: random.Random, unit: str, names: list[str], longest: int, texts: tuple[str, ...]
) -> _Draft:
    """A question about a circle of days, hours or months."""
    start, waits = rng.randrange(len(names)), [rng.randint(2, longest) for _ in range(3)]
    answer, steps = _three_steps(start, waits, names)
    question = rng.choice(texts).format(names[start], *waits)
    others = _shuffled(rng, [name for name in names if name != answer])
    operands = " ".join(str(number) for number in (start, *waits))
    return _Draft(operands, question, answer, others, f"{unit} {steps}")


def _weekday(rng: random.Random) -> _Draft:
    texts = (
        "Today is {}. A parcel waits {} days, travels {} days and waits {} more days. Which day is it then?",
        "Today is {}. A ship travels {} days, waits {} days and travels {} more days. Which day is it then?",
    )
    return _round_trip(rng, "day", list(DAYS), 8, texts)


def _clock(rng: random.Random) -> _Draft:
    trip = "A trip takes {} hours by train, {} by bus, {} by ship."
    texts = (f"A 12 hour clock shows {{}}. {trip} What is shown then?",)
    return _round_trip(rng, "clock", [str(hour) for hour in range(1, 13)], 7, texts)


def _month(rng: random.Random) -> _Draft:
    texts = (
        "It is {}. A course takes {} months, a rest {} months and a job {} months. Which month is it then?",
    )
    return _round_trip(rng, "month", list(MONTHS), 7, texts)


def _alphabet(rng: random.Random) -> _Draft:
    names = sorted(rng.sample(NAMES, rng.randint(MIN_CHOICES, MAX_CHOICES)))
    question = rng.choice(
        ("Which name comes first in the alphabet?", "Whose name is first in a list from A to Z?")
    )
    steps = "first of the names"
    return _Draft(" ".join(names), question, names[0], _shuffled(rng, names[1:]), steps, uses_all=True)


def _kind(rng: random.Random) -> _Draft:
    known, asked = rng.sample(sorted(KINDS), 2)
    first, second = rng.choice(KINDS[known]), rng.choice(KINDS[asked])
    question = f"The word {first} belongs to the {known}. To which of these does the word {second} belong?"
    others = [known, *_shuffled(rng, [kind for kind in sorted(KINDS) if kind not in (known, asked)])]
    return _Draft(f"{first} {second}", question, asked, others, f"the word {second} belongs to {asked}")


def _letters(rng: random.Random) -> _Draft:
    words = rng.sample([word for group in sorted(WORDS) for word in WORDS[group]], 3)
    first, second, third = (len(word) for word in words)
    total = first + second + third
    question = f"How many letters are in the words {words[0]}, {words[1]} and {words[2]}?"
    steps = f"first {first} + {second} = {first + second}, {first + second} + {third} = {total}"
    return _Draft(" ".join(words), question, str(total), _near_numbers(rng, total), steps)


_DRAFTERS: dict[str, Callable[[random.Random], _Draft]] = {
    "addition": _addition,
    "subtraction": _subtraction,
    "extreme": _extreme,
    "weekday": _weekday,
    "clock": _clock,
    "month": _month,
    "alphabet": _alphabet,
    "kind": _kind,
    "letters": _letters,
}


def draw(rng: random.Random, category: str, split: str, seen: set[str] | None = None) -> Problem:
    """Draw one problem of a category from a split; with ``seen``, one whose key is not in it yet."""
    for _ in range(_MAX_DRAWS):
        draft = _DRAFTERS[category](rng)
        key = f"{category}: {draft.operands}"
        if split_of(key) != split or (seen is not None and key in seen):
            continue
        if seen is not None:
            seen.add(key)
        wrong = draft.distractors
        if not draft.uses_all:
            wrong = wrong[: rng.randint(MIN_CHOICES, MAX_CHOICES) - 1]
        choices = _shuffled(rng, [draft.answer, *wrong])
        gold = choices.index(draft.answer)
        return Problem(category, key, draft.question, tuple(choices), gold, draft.steps)
    raise ValueError(f"no further {category} question in the {split} split")


def problems(
    split: str, n: int, seed: int = 0, categories: tuple[str, ...] = CATEGORIES
) -> Iterator[Problem]:
    """``n`` problems of a split, the categories in turn; no key twice in the test split."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    rng = random.Random(f"{split}-{seed}")
    seen: set[str] | None = set() if split == "test" else None
    for index in range(n):
        yield draw(rng, categories[index % len(categories)], split, seen)


def questions(split: str, n: int, seed: int = 0) -> Iterator[dict[str, object]]:
    """``n`` rows of the project's JSONL format from a split (about 2,700 at most from the test split)."""
    for problem in problems(split, n, seed):
        yield problem.row()


def write_jsonl(path: str | Path, split: str, n: int, seed: int = 0) -> None:
    """Write ``n`` questions of a split to a JSONL file."""
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in questions(split, n, seed))
