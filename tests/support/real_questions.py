"""Questions of our own making, in the layouts of ARC and GSM8K, for the tests with real models."""

from __future__ import annotations

import json
from pathlib import Path

# The right choice comes first here; `_arc` puts it at each place in turn.
_CHOICES = (
    ("Which of these is a mammal?", "a whale", "a trout", "a lizard", "a sparrow"),
    ("What do plants take in from the air to make sugar?", "carbon dioxide", "nitrogen", "helium", "neon"),
    ("Which tool measures temperature?", "a thermometer", "a ruler", "a scale", "a compass"),
    ("What force pulls objects towards Earth?", "gravity", "friction", "magnetism", "tension"),
    ("Which planet is closest to the Sun?", "Mercury", "Mars", "Jupiter", "Neptune"),
    ("What happens to water at 0 degrees Celsius?", "It freezes.", "It boils.", "It burns.", "It rusts."),
    ("Which organ pumps blood?", "the heart", "the liver", "the lung", "the kidney"),
    ("Which material conducts electricity best?", "copper", "wood", "rubber", "glass"),
    ("What do bees collect from flowers?", "nectar", "sand", "leaves", "bark"),
    ("Which of these is a source of renewable energy?", "wind", "coal", "oil", "natural gas"),
    ("What causes day and night?", "Earth turns.", "The Moon moves.", "Clouds pass.", "The Sun turns off."),
    ("Which state of matter has a fixed shape?", "a solid", "a liquid", "a gas", "a plasma"),
    ("Which animal lays eggs?", "a hen", "a cow", "a dog", "a horse"),
    ("What do roots do for a plant?", "They take in water.", "They make seeds.", "They flower.", "They fly."),
    ("Which sense uses the ears?", "hearing", "sight", "taste", "smell"),
    ("What is the largest ocean?", "the Pacific", "the Arctic", "the Indian", "the Atlantic"),
)
_NUMBERS = (
    ("A box holds 12 eggs. How many eggs are in 5 boxes?", "12 * 5 = <<12*5=60>>60 eggs.", "60"),
    ("Tom has 25 coins and gives 7 away. How many are left?", "25 - 7 = <<25-7=18>>18 coins.", "18"),
    ("A train goes 60 km in an hour. How far in 3 hours?", "60 * 3 = <<60*3=180>>180 km.", "180"),
    ("A hall has 45 rows of 80 seats. How many seats?", "45 * 80 = <<45*80=3600>>3600 seats.", "3,600"),
    ("Eva reads 15 pages a day. How many in a week?", "15 * 7 = <<15*7=105>>105 pages.", "105"),
    ("A farm has 9 cows and 14 hens. How many animals?", "9 + 14 = <<9+14=23>>23 animals.", "23"),
)


def write_arc(folder: Path) -> Path:
    """Write ``test.jsonl`` in the columns of `allenai/ai2_arc`."""
    rows = [_arc(number, *one) for number, one in enumerate(_CHOICES)]
    return _write(folder, rows)


def write_gsm8k(folder: Path) -> Path:
    """Write ``test.jsonl`` in the columns of `openai/gsm8k`."""
    return _write(folder, [{"question": q, "answer": f"{how}\n#### {gold}"} for q, how, gold in _NUMBERS])


def _arc(number: int, question: str, right: str, *wrong: str) -> dict[str, object]:
    place = number % 4
    texts = [*wrong[:place], right, *wrong[place:]]
    return {
        "id": f"own-{number}",
        "question": question,
        "choices": {"text": texts, "label": list("ABCD")},
        "answerKey": "ABCD"[place],
    }


def _write(folder: Path, rows: list[dict[str, object]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "test.jsonl").write_text(text, encoding="utf-8")
    return folder
