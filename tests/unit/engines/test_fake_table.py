"""The table of the fake engine: a file is a table or an error that names the line, and rows fit by rule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_tables import write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from orch_local.config.blocks import EngineConfig
from orch_local.engines.fake_table import LoadRow, TableRow, check_agents, read_table
from orch_local.errors import ConfigError, OrchError


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"answer": }', "is not JSON: Expecting value"),
        ("[1]", "is not a JSON object"),
        ('{"agnt": "quant"}', "unknown key `agnt` .did you mean `agent`"),
        ('{"answer": "A", "text": "x"}', "has answer and text"),
        ('{"answer": "A", "once": "f"}', "`once` needs `fail`"),
        ('{"confidence": 101, "answer": "A"}', "confidence"),
        ('{"fail": "explode"}', "fail"),
        ('{"load": "failed", "agent": "quant"}', "unknown key `agent`"),
        ('{"probabilities": {"A": 2}}', "from 0 to 1"),
        (r'{"text": "\ud800"}', "surrogates not allowed"),
        ("[" * 100_000, "is not JSON"),
        ('{"answer": "' + "x" * 1_000_001 + '"}', "more than 1,000,000 characters"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    table = write_table(tmp_path, {"answer": "A"}, line)
    with pytest.raises(ConfigError, match=said) as caught:
        read_table(table)
    assert caught.value.where == f"{table}:2"


def test_a_table_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        read_table(tmp_path / "nothing.jsonl")
    assert "an empty file will do" in str(caught.value.hint)
    (tmp_path / "table.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_table(tmp_path / "table.jsonl")


def test_an_agent_that_the_run_does_not_have_is_refused(tmp_path: Path) -> None:
    table = read_table(write_table(tmp_path, "", {"agent": "quan", "answer": "A"}))
    check_agents(table, ["quan"])
    with pytest.raises(ConfigError, match=r"no agent of the run is named 'quan'.*did you mean `quant`"):
        check_agents(table, ["quant", "merge"])


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"name": "fake"}, "needs a `table`"),
        ({"name": "vllm", "table": "t"}, "`table` is for `name: fake`"),
        ({"name": "fake", "table": "t", "device": "cuda"}, "computes nothing"),
        ({"name": "fake", "table": "t", "prefix_cache": "on"}, "fake has no prefix cache"),
    ],
)
def test_a_table_goes_with_the_fake_engine_alone(block: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EngineConfig(**block)


def test_the_files_of_other_runs_do_not_name_a_table() -> None:
    assert "table" not in EngineConfig().model_dump(mode="json")
    assert EngineConfig(name="fake", table=Path("t")).model_dump(mode="json")["table"] == "t"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from([*TableRow.model_fields, *LoadRow.model_fields, "other"])
LINES = st.dictionaries(KEYS, JSON, max_size=4).map(json.dumps) | st.text(max_size=20)


@settings(max_examples=150, deadline=None)
@given(lines=st.lists(LINES, max_size=4))
def test_every_file_is_a_table_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, lines: Sequence[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    try:
        table = read_table(path)
    except OrchError as error:
        assert str(path) in str(error.where)  # noqa: PT017 - some files are tables
        return
    assert len(table.rows) + len(table.loads) <= len(lines) + sum(line.count("\n") for line in lines)
    assert read_table(path) == table


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from(["0" * 16, "one", None])), max_size=8
    ),
    agent=st.sampled_from(["a", "b", "c"]),
    question=st.sampled_from(["0" * 16, "1" * 16]),
    prompt=st.sampled_from(["one", "someone", "x one"]),
)
def test_the_rows_that_fit_are_those_a_plain_search_finds(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], agent: str, question: str, prompt: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "plain.jsonl"
    path.write_text("".join(json.dumps({"agent": a, "question": q}) + "\n" for a, q in rows))
    found = [number for number, _ in read_table(path).fitting(agent, question, prompt)]
    assert found == [
        number
        for number, (named, about) in enumerate(rows, 1)
        if named in (None, agent) and (about in (None, question) or (about == "one" and prompt != "someone"))
    ]
