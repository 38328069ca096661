"""The form of the answer in words: small models copy an example of it, values included."""

from __future__ import annotations

from orch_local.config.answers import AnswerSchema


def answer_form(schema: AnswerSchema) -> str:
    """The keys of the reply in order, each described in words that are no value of it."""
    steps = "your reasoning" if schema.labels else "your solution, all steps with their calculations"
    answer = "the letter of the right choice" if schema.labels else "the number asked for, without its unit"
    descriptions = {
        "reasoning": f"{steps}, in at most {reasoning_words(schema)} words",
        "answer": answer,
        "eliminated": "a list with the letters of the choices that you ruled out",
        "confidence": "how probable it is that the answer is right, in whole per cent",
    }
    lines = [f'"{name}" holds {descriptions[name]}' for name in schema.fields]
    return f"Its key {lines[0]}." if len(lines) == 1 else "\n- ".join(["Its keys, in this order:", *lines])


def reasoning_words(schema: AnswerSchema) -> int:
    """How many words to ask for: 60 % of the bound, as a word of English with its space has 6 characters."""
    return schema.config.reasoning_chars // 10
