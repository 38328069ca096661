"""Two thousand damaged run files: a clear error, or a plan that means exactly what the file says."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzzing import assert_clear, damaged, fuzz
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from orch_local.config.model_configs import ModelConfig
from orch_local.config.run_files import RunConfig, load_run
from orch_local.errors import InputError, ModelError
from orch_local.models.folders import open_model_folder
from orch_local.run.planning import check, plan_run

BLOCK = """\
# an agent and a merge agent
benchmark:
  name: jsonl
  path: questions.jsonl
  limit: 3
  categories: [all]
  shuffle_seed: 7
  skip_bad_rows: false
agents:
  - name: first
    model: models/first
    role: eliminate
    max_tokens: 200
    answer: {reasoning_chars: 20, eliminated: true, charset: ascii}
merge:
  policy: agent
  model: models/merge
  when: disagreement
  quorum: 1
  answer:
    reasoning_chars: 30
    eliminated: false
engine: {name: vllm, device: cpu, models_at_once: 2, stall_timeout_s: 60}
"""
SHARED = """\
benchmark: {name: jsonl, path: ./questions.jsonl}
answer: &short {reasoning_chars: 10, confidence: no}
agents: [{name: first, model: models/first, answer: *short}]
merge:
  policy: 'majority'
  answer: *short
"""
JSON = """\
{"benchmark": {"name": "jsonl", "path": "questions.jsonl"},
 "agents": [{"name": "first", "model": "./models/first", "role": "verify"},
            {"name": "second", "model": "models/second", "mode": "direct"}],
 "merge": {"policy": "probability", "quorum": 2, "max_tokens": null},
 "answer": {"reasoning_chars": 500, "eliminated": null},
 "engine": {"name": "transformers", "device": "auto", "stall_timeout_s": 1.5}}
"""
TEXTS = (BLOCK, SHARED, JSON)

RAW = (
    *"true false yes no on ~ null 0 1 2 -1 -0 1.0 2.5 '1' '1.0' 'true' 'null' 010 0o10 0x10 0b11 1_0".split(),
    *"1:30 1:30.5 .nan .inf -.inf 1e3 1e400 -1e400 99999999999999999999 2020-01-01 2020-99-99".split(),
    *("9" * 400, "9" * 5000, ":".join("1" * 300) + ".5", "1" + "0" * 400 + ".0", "''", "' '", "[]", "{}"),
    *("x" * 300, "x/" * 3000),
    *("!!binary Zm9v", "!!binary é", "!!set {a, b}", "!!set {[a]: 1}", "!!omap [a: 1]", "!!pairs [a: 1]"),
    *("!!python/name:os.system", "!!str 12", "!!int '7'", "!!int '010'", "!!float 3", "!!float 1:1.5"),
    *("!!bool 'true'", "!!bool perhaps", "!!timestamp soon", "!!null x", "!other x", "!!int {=: 1}"),
    *("*x", "&x [*x]", "&x {y: *x}", "&x y", "{<<: {name: x}}", "{<<: [], =: 1}"),
    *("[" * 60 + "]" * 60, "[" * 2000, "{a: " * 60 + "1" + "}" * 60, "&a [&b [&c [x]]]"),
    "[&a [x, x, x, x, x, x, x, x], &b [*a, *a, *a, *a, *a], &c [*b, *b, *b, *b], &d [*c, *c, *c, *c], "
    "&e [*d, *d, *d, *d], &f [*e, *e, *e, *e], &g [*f, *f, *f, *f], [*g, *g, *g, *g]]",
    *(
        r'"\uD800"',
        r'"\0"',
        r'"\a"',
        r'"\e[31m"',
        r'"\u202Eabc"',
        r'"\uFEFF"',
        r'"a\nhint: no"',
        r'"\U0001F600"',
    ),
    *(
        "\u0430nswer",
        "\uff11",
        "\u0661",
        "first",
        "second",
        "merge",
        "agent",
        "majority",
        "mmlu",
        "vllm",
        "cpu",
    ),
    *(
        "cuda",
        "jsonl",
        "models/first",
        "models/merge",
        "questions.jsonl",
        "all",
        "analyse",
        "unicode",
        "outlines",
    ),
    *(
        "/",
        ".",
        "..",
        "~",
        "~nobody-of-this-name/x",
        "models",
        "/dev/null",
        "qwen3-8b",
    ),
    *("run.yaml", "template.txt", "questions.jsonl/x", "./qwen3-8b", "x.yaml", "[a, b]", "[all, all]", "[1]"),
)
"""Pieces of YAML that stand where a value was."""
KEYS = (
    *"name model path limit answer merge agents benchmark engine reasoning_chars thinking split".split(),
    *(
        "<<",
        "=",
        "1",
        "~",
        "true",
        "''",
        "Name",
        "n\u0430me",
        "na\u0301me",
        "model ",
        '"na\\u006de"',
        "? name",
        "*x",
    ),
    *('"\\u202Ename"', "[a]", "&k name", "!!str name", "!!binary bmFtZQ==", "x" * 5000, '"\\uD800"', '"\\0"'),
    *(
        "few_shot",
        "few_shot_split",
        "shuffle_seed",
        "prompt",
        "role",
        "mode",
        "max_tokens",
        "thinking_tokens",
    ),
    *("candidates", "names", "policy", "eliminated", "confidence", "charset", "grammar", "models_at_once"),
)

Pairs = list[tuple[str, Any]]
"""A mapping as it may be written: a key can come twice, and key and value can be any text."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Path:
    """A folder with everything that the good run files name."""
    root = tmp_path_factory.mktemp("fuzz")
    rows = [{"question": f"Which {i}?", "choices": ["x", "y"], "answer": "B"} for i in range(3)]
    rows.append({"question": "How many?", "answer": 4})
    (root / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (root / "models").symlink_to(models_dir)
    (root / "template.txt").write_text("[user]\n{{ question }} {{ choices }} {{ answer_form }}\n")
    return root


@pytest.fixture(scope="module")
def plan(folder: Path) -> Any:
    """`orch-local plan` on the bytes of a run file, in this process; the config, or `None` if refused."""
    done: dict[str, bool] = {}

    def plan(content: bytes) -> RunConfig | None:
        file = folder / "run.yaml"
        file.write_bytes(content)
        try:
            config = load_run(file)
        except InputError as error:
            assert_clear(error, str(file))
            return None
        assert_says(config, content, folder)
        assert_lasts(config, folder)
        seen = config.model_dump_json()
        if seen not in done:
            done[seen] = planned(config)
        return config if done[seen] else None

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr("orch_local.placement.machine.free_memory_gib", lambda: 1000.0)
        yield plan


def planned(config: RunConfig) -> bool:
    """Whether the rest of `orch-local plan` accepts a config."""
    try:
        found = plan_run(config, Path("store").absolute())
        check(found.plan, found.questions)
    except InputError as error:
        assert_clear(error)
        return False
    assert 0 < len(found.questions) <= (config.benchmark.limit or 4)
    assert [agent.name for agent in found.plan.agents] == [agent.name for agent in config.agents]
    return True


def assert_lasts(config: RunConfig, folder: Path) -> None:
    """A config that was accepted is the same after it was written and read again."""
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    again = folder / "again.yaml"
    again.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    assert load_run(again) == config


def assert_says(config: RunConfig, content: bytes, folder: Path) -> None:
    """Compare a config with the nodes of its YAML, by rules of its own: nothing added, lost or converted."""

    def absolute(text: str) -> str:
        return os.path.abspath(folder / os.path.expanduser(text))  # noqa: PTH100, PTH111 - as a shell would

    def model(node: yaml.Node, value: BaseModel) -> None:
        assert isinstance(node, yaml.MappingNode)
        keys = [key.value for key, _ in node.value]
        assert len(set(keys)) == len(keys), f"a key twice: {keys}"
        fields = type(value).model_fields
        assert set(keys) <= set(fields), f"an unknown key: {keys}"
        for key, child in node.value:
            same(child, getattr(value, key.value))
        for name in set(fields) - set(keys):
            assert getattr(value, name) == fields[name].get_default(), f"{name} was not given"

    def same(node: yaml.Node, value: Any) -> None:
        if isinstance(value, BaseModel):
            model(node, value)
        elif isinstance(value, tuple):
            nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
            assert len(nodes) == len(value)
            for child, item in zip(nodes, value, strict=True):
                same(child, item)
        else:
            assert isinstance(node, yaml.ScalarNode)
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            assert _READ[type(value)](kind, node.value, value, absolute), f"{node.value!r} read as {value!r}"

    node = yaml.compose(content.decode("utf-8"), Loader=yaml.SafeLoader)
    assert node is not None
    model(node, config)


def _is_int(kind: str, text: str, value: int, absolute: Callable[[str], str]) -> bool:
    # With base 0, as in `0x10`; Python refuses `010`, which is 8 to some readers and 10 to others.
    return kind == "int" and int(text.replace("_", ""), 0) == value


def _is_float(kind: str, text: str, value: float, absolute: Callable[[str], str]) -> bool:
    plain = text.replace("_", "")
    number = float(int(plain, 0)) if kind == "int" else float(plain)
    return (
        kind in ("float", "int", "str") and number == value and abs(value) < 1e300
    )  # to PyYAML `1e3` is a text


def _is_bool(kind: str, text: str, value: bool, absolute: Callable[[str], str]) -> bool:
    return kind == "bool" and text.lower() in (("true", "yes", "on") if value else ("false", "no", "off"))


def _is_text(kind: str, text: str, value: str, absolute: Callable[[str], str]) -> bool:
    return kind == "str" and value in (text, absolute(text))


_READ: dict[type, Callable[..., bool]] = {
    int: _is_int,
    float: _is_float,
    bool: _is_bool,
    str: _is_text,
    type(Path()): lambda kind, text, value, absolute: kind == "str" and str(value) == absolute(text),
    type(None): lambda kind, text, value, absolute: kind == "null",
}


def written(value: Any) -> str:
    """Flow YAML; texts are written as they are."""
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return "{" + ", ".join(f"{key}: {written(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return str(value)


def as_pairs(value: Any) -> Any:
    """A loaded YAML value as pairs of texts."""
    if isinstance(value, dict):
        return [(key, as_pairs(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [as_pairs(item) for item in value]
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def places(value: Any) -> list[tuple[list[Any], int]]:
    """Every list below ``value``, with every index in it."""
    if not isinstance(value, list):
        return []
    below = [item[1] if isinstance(item, tuple) else item for item in value]
    return [(value, index) for index in range(len(value))] + [
        place for item in below for place in places(item)
    ]


@st.composite
def rebuilt(draw: st.DrawFn) -> bytes:
    """A good run file with one to three settings dropped, doubled, renamed, moved or set to something odd."""
    values = as_pairs(yaml.safe_load(draw(st.sampled_from(TEXTS))))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        container, index = draw(st.sampled_from(places(values) or [(values, 0)]))
        if index < len(container):
            draw(st.sampled_from(EDITS))(draw, container, index)
    return written(values).encode("utf-8", "surrogatepass")


def _set(draw: st.DrawFn, container: list[Any], index: int) -> None:
    value = draw(st.sampled_from(RAW))
    item = container[index]
    container[index] = (item[0], value) if isinstance(item, tuple) else value


def _drop(draw: st.DrawFn, container: list[Any], index: int) -> None:
    del container[index]


def _twice(draw: st.DrawFn, container: list[Any], index: int) -> None:
    container.append(container[index])


def _twice_otherwise(draw: st.DrawFn, container: list[Any], index: int) -> None:
    container.append(container[index])
    _set(draw, container, draw(st.sampled_from([index, len(container) - 1])))


def _rename(draw: st.DrawFn, container: list[Any], index: int) -> None:
    if isinstance(container[index], tuple):
        container[index] = (draw(st.sampled_from(KEYS)), container[index][1])


def _add(draw: st.DrawFn, container: list[Any], index: int) -> None:
    if isinstance(container[index], tuple):
        container.append((draw(st.sampled_from(KEYS)), draw(st.sampled_from(RAW))))


def _reverse(draw: st.DrawFn, container: list[Any], index: int) -> None:
    container.reverse()


EDITS = [_set, _set, _set, _set, _drop, _twice, _twice_otherwise, _rename, _add, _add, _reverse]


@pytest.mark.parametrize("text", TEXTS)
def test_the_good_run_files_are_planned(plan: Any, text: str) -> None:
    assert plan(text.encode()) is not None


def with_value(key: str, value: str) -> bytes:
    """A good run file with the first value of a key replaced."""
    return re.sub(rf"(\b{key}:) [^,}}\n]+", lambda found: f"{found[1]} {value}", BLOCK, count=1).encode()


@fuzz(1000)
@given(content=rebuilt())
@example(content=with_value("limit", "true"))
@example(content=with_value("limit", "010"))
@example(content=with_value("stall_timeout_s", "15:00"))
@example(content=with_value("stall_timeout_s", "1e3"))
@example(content=with_value("limit", ":".join("1" * 300) + ".5"))
@example(content=with_value("limit", "!!int {=: 1}"))
@example(content=with_value("skip_bad_rows", "0"))
@example(content=with_value("skip_bad_rows", "'no'"))
@example(content=with_value("categories", "!!set {all}"))
@example(content=with_value("categories", "!!binary YWxs"))
@example(content=with_value("path", r'"\uD800"'))
@example(content=with_value("path", "x" * 300))
@example(content=with_value("path", "models\n  split: ''"))
def test_a_rebuilt_run_file_is_refused_or_means_what_it_says(plan: Any, content: bytes) -> None:
    plan(content)


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000])
def test_a_model_name_longer_than_a_file_name_is_refused(plan: Any, name: str) -> None:
    assert plan(with_value("model", name)) is None


@fuzz(1000)
@given(content=st.sampled_from(TEXTS).flatmap(lambda text: damaged(text.encode())))
def test_a_damaged_run_file_is_refused_or_means_what_it_says(plan: Any, content: bytes) -> None:
    plan(content)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_position_embeddings", "x"),
        ("max_position_embeddings", [2048]),
        ("max_position_embeddings", float("nan")),
        ("max_position_embeddings", float("inf")),
        ("num_hidden_layers", "2x"),
        ("architectures", {"a": 1}),
        ("architectures", 5),
        ("text_config", {"num_hidden_layers": "many"}),
    ],
)
def test_odd_sizes_in_a_config_json_are_refused(
    tmp_path: Path, models_dir: Path, key: str, value: Any
) -> None:
    shutil.copytree(models_dir / "first", tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        open_model_folder(ModelConfig(name="m", path=tmp_path / "model"))
    assert_clear(caught.value, str(file))


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000])
def test_a_model_path_longer_than_paths_may_be_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        open_model_folder(ModelConfig(name="m", path=tmp_path / name))
    assert_clear(caught.value, str(tmp_path / name))
