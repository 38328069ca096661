"""Run files and model configs: every mistake is told by file, key and place, and nothing else escapes."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orch_local.config.model_configs import ModelConfig, config_folders, load_model_config, model_config_files
from orch_local.config.run_files import RunConfig, load_run
from orch_local.errors import ConfigError

RUN = """\
benchmark:
  name: mmlu
  path: data/mmlu
  limit: 10
  categories: anatomy
agents:
  - {name: one, model: qwen3-8b}
  - name: two
    model: models/two.yaml
    role: verify
    prompt: prompts/two.txt
    answer: {reasoning_chars: 100}
merge:
  policy: agent
  model: ../merge
  quorum: 2
  answer: {eliminated: false}
engine: {name: transformers, device: cpu}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "run.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def with_value(dotted: str, value: Any) -> str:
    """The good run file with one value set; a number in the key is an index."""
    values = yaml.safe_load(RUN)
    *parents, last = (int(part) if part.isdigit() else part for part in dotted.split("."))
    target = values
    for parent in parents:
        target = target[parent]
    target[last] = value
    return yaml.safe_dump(values)


def test_a_good_run_file_is_read_with_paths_beside_it(write: Callable[[str], Path], tmp_path: Path) -> None:
    config = load_run(write(RUN))
    assert config.benchmark.path == tmp_path / "data/mmlu"
    assert config.benchmark.categories == ("anatomy",)
    assert [agent.model for agent in config.agents] == ["qwen3-8b", str(tmp_path / "models/two.yaml")]
    assert config.agents[1].prompt == tmp_path / "prompts/two.txt"
    assert config.merge.model == str(tmp_path.parent / "merge")
    assert config.merge.prompt is None
    assert config.agents[1].answer is not None
    assert config.agents[1].answer.confidence
    assert (config.engine.name, config.engine.grammar, config.engine.models_at_once) == (
        "transformers",
        "guidance",
        None,
    )


def test_relative_paths_do_not_depend_on_the_working_folder(
    write: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(RUN)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert load_run(Path("../run.yaml")).benchmark.path == tmp_path / "data/mmlu"


def test_absolute_and_home_paths_stay(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    text = with_value("benchmark.path", "~/data").replace("../merge", "/models/m")
    config = load_run(write(text))
    assert config.benchmark.path == Path("/home/someone/data")
    assert config.merge.model == "/models/m"


@pytest.mark.parametrize(
    "dotted",
    ["benchmark.path", "agents.0.model", "agents.0.prompt", "merge.model", "merge.prompt"],
)
def test_the_home_of_an_unknown_user_is_no_crash(write: Callable[[str], Path], dotted: str) -> None:
    config = load_run(write(with_value(dotted, "~nobody-of-this-name/x")))
    assert "~nobody-of-this-name/x" in str(config)


@pytest.mark.parametrize(
    ("dotted", "nearest"),
    [
        ("agnets", "agents"),
        ("benchmark.limt", "limit"),
        ("benchmark.few_shots", "few_shot"),
        ("agents.0.modell", "model"),
        ("agents.1.answer.reasoning_char", "reasoning_chars"),
        ("merge.polcy", "policy"),
        ("merge.answer.confidance", "confidence"),
        ("engine.divice", "device"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(
    write: Callable[[str], Path], dotted: str, nearest: str
) -> None:
    path = write(with_value(dotted, 1))
    with pytest.raises(ConfigError) as caught:
        load_run(path)
    assert caught.value.message == f"unknown key `{dotted}` (did you mean `{nearest}`?)"
    assert caught.value.where == str(path)


def test_an_unknown_key_like_no_other_gets_the_whole_list(write: Callable[[str], Path]) -> None:
    with pytest.raises(
        ConfigError, match=r"`merge\.answer\.zzz` \(valid: charset, confidence, eliminated, reasoning_chars\)"
    ):
        load_run(write(with_value("merge.answer.zzz", 1)))


@pytest.mark.parametrize(
    ("dotted", "value", "message"),
    [
        ("agents.1.name", "one", "two agents are named 'one'"),
        ("merge.quorum", 3, "quorum 3 is more than the 2 agents"),
        ("merge.quorum", 0, "`merge.quorum`: Input should be greater than or equal to 1"),
        ("merge.model", None, "policy 'agent' needs a `model`"),
        ("agents", [], "`agents`"),
        ("agents", "one", "`agents`"),
        ("agents.0.name", "../one", "`agents.0.name`"),
        ("agents.0.role", "guess", "`agents.0.role`: Input should be 'solve', 'eliminate' or 'verify'"),
        ("benchmark", None, "`benchmark`"),
        ("benchmark.name", "mmlu-pro", "`benchmark.name`: Input should be 'mmlu', 'mmlu_pro'"),
        ("engine.stall_timeout_s", float("inf"), "`engine.stall_timeout_s`"),
        ("engine.stall_timeout_s", float("nan"), "`engine.stall_timeout_s`"),
        ("engine.stall_timeout_s", 1e300, "`engine.stall_timeout_s`"),
    ],
)
def test_a_bad_value_is_named(write: Callable[[str], Path], dotted: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run(write(with_value(dotted, value)))
    assert message in caught.value.message


def test_a_missing_key_is_named(write: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=r"`benchmark\.path` is missing"):
        load_run(write(RUN.replace("  path: data/mmlu\n", "")))


def test_several_mistakes_are_told_at_once(write: Callable[[str], Path]) -> None:
    text = with_value("benchmark.limt", 1) + "extra: 1\n"
    with pytest.raises(ConfigError, match=r"benchmark\.limt.*; .*extra"):
        load_run(write(text))


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        pytest.param("a: 1\nb: [1, 2\nc: 3\n", "line 3, column 2", "expected ',' or ']'", id="open bracket"),
        pytest.param("a: 1\n\tb: 2\n", "line 2, column 1", "cannot start any token", id="tab"),
        pytest.param("a: b: c\n", "line 1, column 5", "mapping values are not allowed", id="two colons"),
        pytest.param("a: 1\nb: 2\na: 3\n", "line 3, column 1", "key 'a' given twice", id="key twice"),
        pytest.param("a:\n  b: 1\n  b: 2\n", "line 3, column 3", "key 'b' given twice", id="nested twice"),
        pytest.param("1: 2\n", "line 1, column 1", "key 1 is not text", id="number as key"),
        pytest.param("? [a]\n: 2\n", "line 1, column 3", "is not text", id="list as key"),
        pytest.param("a: *x\n", "line 1, column 4", "undefined alias", id="undefined alias"),
        pytest.param("a: !!python/name:os.system\n", "line 1, column 4", "constructor", id="python tag"),
    ],
)
def test_a_yaml_error_tells_line_and_column(
    write: Callable[[str], Path], content: str, place: str, message: str
) -> None:
    path = write(content)
    with pytest.raises(ConfigError) as caught:
        load_run(path)
    assert caught.value.where == f"{path}, {place}"
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "holds no settings", id="empty"),
        pytest.param(b"# only a comment\n", "holds no settings", id="comment"),
        pytest.param(b"- a\n- b\n", "holds no settings", id="list"),
        pytest.param(b"text\n", "holds no settings", id="scalar"),
        pytest.param(b"a: 1\n---\nb: 2\n", "is not valid YAML", id="two documents"),
        pytest.param(b"name: \xff\xfe\n", "cannot be read", id="not UTF-8"),
        pytest.param(RUN.encode("utf-16"), "cannot be read", id="UTF-16"),
        pytest.param(b"a: \x00\n", "is not valid YAML", id="NUL"),
        pytest.param(b"a: " + b"[" * 450, "is not valid YAML", id="deep"),
        pytest.param(b"a: " + b"9" * 5000, "is not valid YAML", id="long number"),
        pytest.param(b"a: !!int ''\n", "is not valid YAML", id="no int"),
        pytest.param(b"a: !!bool perhaps\n", "is not valid YAML", id="no bool"),
        pytest.param(b"a: !!float ''\n", "is not valid YAML", id="no float"),
        pytest.param(b"a: !!timestamp soon\n", "is not valid YAML", id="no time"),
        pytest.param(b"a: 2020-99-99\n", "is not valid YAML", id="no date"),
        pytest.param(b"&a a: [*a, &b [*b]]\n", "", id="recursive"),
    ],
)
def test_a_file_that_is_no_run_file(write: Callable[[bytes], Path], content: bytes, message: str) -> None:
    path = write(content)
    with pytest.raises(ConfigError) as caught:
        load_run(path)
    assert message in caught.value.message
    assert caught.value.where.startswith(str(path))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_run(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="directory"):
        load_run(tmp_path)
    with pytest.raises(ConfigError):
        load_run(tmp_path / "nul\0.yaml")


def test_overrides_from_the_command_line_win(write: Callable[[str], Path]) -> None:
    path = write(RUN.replace("engine: {name: transformers, device: cpu}\n", ""))
    config = load_run(path, {"benchmark.limit": 3, "engine.device": "cuda", "merge.answer.confidence": False})
    assert config.benchmark.limit == 3
    assert config.engine.device == "cuda"
    assert not config.merge.answer.confidence
    assert not config.merge.answer.eliminated


def test_overrides_are_checked_too(write: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.limit"):
        load_run(write(RUN), {"benchmark.limit": 0})
    with pytest.raises(ConfigError, match=r"unknown key `engine\.devise` \(did you mean `device`\?\)"):
        load_run(write(RUN), {"engine.devise": "cpu"})
    with pytest.raises(ConfigError, match="`engine` must be a block of settings"):
        load_run(
            write(RUN.replace("engine: {name: transformers, device: cpu}", "engine: fast")), {"engine.x": 1}
        )
    with pytest.raises(ConfigError, match="`engine` must be a block of settings"):
        load_run(write(RUN.replace("engine: {name: transformers, device: cpu}", "engine:")), {"engine.x": 1})


def model_file(folder: Path, name: str, text: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text or f"name: {name}\nnotes: {folder.name}\n", encoding="utf-8")
    return path


def test_model_configs_are_found_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, here = tmp_path / "named", tmp_path / "here"
    model_file(named, "both")
    model_file(here / "model_configs", "both")
    model_file(here / "model_configs", "qwen3-8b")
    monkeypatch.setenv("ORCH_MODEL_CONFIGS", str(named))
    monkeypatch.chdir(here)
    assert config_folders()[:2] == [named, here / "model_configs"]
    assert load_model_config("both").notes == "named"
    assert load_model_config("qwen3-8b").notes == "model_configs"
    assert load_model_config("phi-4").hub_id == "microsoft/phi-4"
    assert model_config_files()["both"] == named / "both.yaml"
    monkeypatch.delenv("ORCH_MODEL_CONFIGS")
    assert load_model_config("both").notes == "model_configs"


def test_an_unknown_model_is_refused_with_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="'qwen3-8bb'") as caught:
        load_model_config("qwen3-8bb")
    assert "did you mean `qwen3-8b`?" in caught.value.hint
    with pytest.raises(ConfigError, match="no such file"):
        load_model_config("./qwen3-8b")
    with pytest.raises(ConfigError, match="no such file"):
        load_model_config("~nobody-of-this-name/model")


def test_the_weights_are_looked_for_by_path_then_hub_id_then_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCH_MODELS_DIR", str(tmp_path / "weights"))
    file = model_file(tmp_path / "configs", "m", "name: m\nhub_id: org/Model\n")
    weights = tmp_path / "weights"
    assert load_model_config(str(file)).path == weights / "m"
    (weights / "Model").mkdir(parents=True)
    assert load_model_config(str(file)).path == weights / "Model"
    (weights / "org/Model").mkdir(parents=True)
    assert load_model_config(str(file)).path == weights / "org/Model"
    model_file(tmp_path / "configs", "m", "name: m\nhub_id: org/Model\npath: ../here\n")
    assert load_model_config(str(file)).path == tmp_path / "here"
    model_file(tmp_path / "configs", "m", "name: m\n")
    assert load_model_config(str(file)).path == weights / "m"


@pytest.mark.parametrize("name", ["Qwen3-8B", ".hidden", "with space", "ünï", "x" * 100, "---"])
def test_a_model_folder_needs_no_config(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    config = load_model_config(str(tmp_path / name))
    assert config.path == tmp_path / name
    # Whatever the folder is called, the name is one that a config may have.
    assert ModelConfig.model_validate(config.model_dump()).name == config.name


# --- mutated run files ----------------------------------------------------------------------------

SHORT_RUN = {
    "benchmark": {"name": "jsonl", "path": "q", "categories": ["a"]},
    "agents": [{"name": "one", "model": "./m", "answer": {"charset": "ascii"}}],
    "merge": {"policy": "agent", "model": "n"},
}
_WORDS = st.sampled_from(
    [
        "agents",
        "merge",
        "name",
        "model",
        "path",
        "~x/y",
        "/",
        "agent",
        "mmlu",
        "",
        "1",
        "\ud800",
        "\0",
        "é",
        "*",
    ]
)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | _WORDS | st.text(max_size=5)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below ``value``."""
    if not isinstance(value, (dict, list)):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]


@st.composite
def _restructured(draw: st.DrawFn) -> bytes:
    values = copy.deepcopy(SHORT_RUN)
    for _ in range(draw(st.integers(1, 3))):
        container, key = draw(st.sampled_from(_places(values) or [(values, "agents")]))
        action = draw(st.sampled_from(["set", "delete", "rename"]))
        if action == "set":
            container[key] = draw(_VALUES)
        elif action == "delete" or isinstance(container, list):
            del container[key]
        else:
            container[draw(_WORDS)] = container.pop(key)
    return json.dumps(values).encode()  # JSON is YAML too


@st.composite
def _scrambled(draw: st.DrawFn) -> bytes:
    content = bytearray(json.dumps(SHORT_RUN).replace('"', "").encode())
    noise = st.sampled_from(list(b"\x00\t\n :-[]{}&*!|>'\"%@`#?,~<=0\x80\xff"))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 4))
        content[start : start + length] = bytes(draw(st.lists(noise | st.integers(0, 255), max_size=4)))
    return bytes(content)


def _load(folder: Path, content: bytes) -> None:
    path = folder / "mutated.yaml"
    path.write_bytes(content)
    refusal = None
    try:
        config = load_run(path, {"benchmark.limit": 5})
    except ConfigError as error:
        refusal = error
    if refusal:
        assert str(path) in str(refusal)
        return
    assert config.benchmark.path.is_absolute()
    assert RunConfig.model_validate_json(config.model_dump_json()).merge == config.merge


MUTATIONS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@MUTATIONS
@given(content=_restructured())
def test_a_restructured_run_file_is_refused_or_valid(tmp_path: Path, content: bytes) -> None:
    _load(tmp_path, content)


@MUTATIONS
@given(content=_scrambled())
@example(content=RUN.encode())
def test_a_scrambled_run_file_is_refused_or_valid(tmp_path: Path, content: bytes) -> None:
    _load(tmp_path, content)


def _noise(generator: random.Random, content: bytes) -> bytes:
    """A few pieces cut out, doubled, moved, or overwritten with bytes that mean something to YAML."""
    for _ in range(generator.randint(1, 4)):
        start = generator.randrange(len(content) + 1)
        end = min(len(content), start + generator.choice([0, 1, 1, 2, 8, 40]))
        piece = bytes(
            generator.choices(b"\x00\t\n :-[]{}&*!|>'\"%@`#?,~<=09a\x80\xff", k=generator.randint(0, 3))
        )
        content = content[:start] + generator.choice([piece, content[start:end] * 2, b""]) + content[end:]
    return content


@pytest.mark.parametrize("seed", range(4))
def test_a_noisy_run_file_is_refused_or_valid(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    short = json.dumps(SHORT_RUN).encode()
    for _ in range(100):
        _load(tmp_path, _noise(generator, generator.choice([short, short.replace(b'"', b"")])))


def test_any_prefix_of_a_run_file_is_refused_or_valid(tmp_path: Path) -> None:
    content = RUN.encode()
    for end in random.Random(0).sample(range(len(content)), 30):
        _load(tmp_path, content[:end])
