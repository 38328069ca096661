"""What one generation is about: the data for its prompt, the schema of its answer, the key of its row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orch_local.config.answers import AnswerSchema, schema_for
from orch_local.config.blocks import AnswerConfig
from orch_local.prompts.data import Data, example_data, question_data
from orch_local.records import Question


@dataclass(frozen=True, slots=True)
class Task:
    """One row to be generated, for an agent or for the merge agent."""

    key: str
    """Key of the row in the store."""
    data: Mapping[str, Data]
    schema: AnswerSchema


def analysis_schema(question: Question, answer: AnswerConfig) -> AnswerSchema:
    """The answer that an agent gives to a question."""
    return schema_for(question.labels, answer, texts=question.texts)


def analysis_task(question: Question, answer: AnswerConfig) -> Task:
    """The request to an agent."""
    schema = analysis_schema(question, answer)
    return Task(question.key, question_data(question) | example_data(question.examples, schema), schema)
