"""YAML files into validated models, with messages that name file, line, key and the nearest valid key."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from orch_local.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)


_AMBIGUOUS = re.compile(r"[-+]?0[0-9_]+|.*:.*")
"""To YAML 1.1 the number ``010`` is 8 and ``1:30`` is 90; to everyone else they are not."""
_MOST_VALUES = 10_000
_DEEPEST = 32
_LONGEST_SHOWN = 60


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses what plain YAML would silently read as something else.

    That is a key given twice, a number that readers of YAML do not agree upon, and a mapping as a scalar.
    """

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "expected a single value", node.start_mark)
        return super().construct_scalar(node)


def _unique_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is not text", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} given twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _plain_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    text = str(loader.construct_scalar(node))
    if _AMBIGUOUS.fullmatch(text):
        problem = (
            f"write the number {text[:_LONGEST_SHOWN]} in plain decimal digits, or in quotes, if it is a text"
        )
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    read = loader.construct_yaml_int if node.tag.endswith(":int") else loader.construct_yaml_float
    return read(node)


_FLOAT_TAG = "tag:yaml.org,2002:float"
_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:int", _plain_number)
_UniqueKeyLoader.add_constructor(_FLOAT_TAG, _plain_number)
# To PyYAML a number with an exponent but without a point is a text.
_UniqueKeyLoader.add_implicit_resolver(
    _FLOAT_TAG, re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises
    ------
    ConfigError
        If the file is missing, not UTF-8, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        value = yaml.load(text, Loader=_UniqueKeyLoader)
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path), hint="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        hint = "give the path of a YAML file that you may read"
        raise ConfigError(f"cannot be read: {error}", where=str(path), hint=hint) from None
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError) as error:
        # The last two are what PyYAML's own constructors raise for, e.g., `!!bool perhaps`.
        raise ConfigError(*_yaml_message(error), where=_yaml_place(path, error), hint=_YAML_HINT) from None
    if not isinstance(value, dict):
        raise ConfigError("holds no settings (the top level must be `key: value` lines)", where=str(path))
    return value


_YAML_HINT = "check the indentation and colons there; quote values that hold ': ' or '#'"


def _yaml_place(path: Path, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)


def _yaml_message(error: Exception) -> tuple[str]:
    return (f"is not valid YAML: {getattr(error, 'problem', None) or error}",)


def parse(model: type[Config], values: dict[str, Any], where: str) -> Config:
    """Validate ``values`` as ``model``; the message names key, value and the nearest valid key.

    Nothing is converted on the way: ``true`` is no number, ``1`` is no ``true``, ``"3"`` is a text.

    Raises
    ------
    ConfigError
        With one line for each problem found.
    """
    problem = next(_odd_values(values), None)
    if problem is not None:
        raise ConfigError(problem, where=where, hint=_HINT)
    try:
        config = model.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        message = "; ".join(_problem(model, problem) for problem in problems[:5])
        raise ConfigError(message, where=where, hint=_HINT) from None
    problem = next(_conversions(values, config, ()), None)
    if problem is not None:
        raise ConfigError(problem, where=where, hint=_HINT)
    return config


_HINT = "docs/runs.md explains the keys of run files, model_configs/README.md those of models"


def _odd_values(values: dict[str, Any]) -> Iterator[str]:
    """What no setting can be: YAML has more kinds of value than JSON, and aliases that multiply or recur."""
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), values)]
    count = 0
    while waiting:
        keys, value = waiting.pop()
        count += 1
        problem = _oddity(value)
        if count > _MOST_VALUES:
            problem = f"is one of more than {_MOST_VALUES:,} settings; aliases may repeat too much"
        elif len(keys) > _DEEPEST:
            problem = "is nested too deeply"
        if problem:
            yield f"`{_dotted(keys)}` {problem}"
        elif isinstance(value, dict):
            waiting += [((*keys, key), item) for key, item in value.items()]
            waiting += [((*keys, key), key) for key in value if not _is_unicode(key)]
        elif isinstance(value, list):
            waiting += [((*keys, index), item) for index, item in enumerate(value)]


def _oddity(value: Any) -> str:
    if isinstance(value, str):
        return "" if _is_unicode(value) else "holds half of a surrogate pair (\\ud800 to \\udfff)"
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, not a finite number"
    if value is None or isinstance(value, bool | int | float | dict | list):
        return ""
    return f"is a {type(value).__name__}, which no setting is; quote it to make it a text"


def _conversions(given: Any, read: Any, keys: tuple[Any, ...]) -> Iterator[str]:
    """Values that pydantic took for something else, such as ``true`` for 1 and ``"no"`` for false."""
    below: Iterable[tuple[Any, Any, Any]] = ()
    if isinstance(given, dict):
        of = read.get if isinstance(read, dict) else partial(getattr, read)
        below = ((key, item, of(key)) for key, item in given.items())
    elif isinstance(given, list):
        below = ((index, item, read[index]) for index, item in enumerate(given))
    elif type(given) is not type(read) and not _is_harmless(given, read):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(type(read), "a text")
        yield f"`{_dotted(keys)}`: {_json(given)} is not {wanted}"
    for key, item, result in below:
        yield from _conversions(item, result, (*keys, key))


def _is_harmless(given: Any, read: Any) -> bool:
    # `on` and `off` are true and false to PyYAML, and words to a setting that has a third one.
    words = {True: "on", False: "off"}
    return (type(given), type(read)) in _HARMLESS or (isinstance(given, bool) and words[given] == read)


_HARMLESS = {(int, float), (str, tuple), (str, type(Path()))}


def _json(value: Any) -> str:
    return _shown(json.dumps(value, ensure_ascii=False))


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _dotted(keys: Iterable[Any]) -> str:
    return ".".join(_shown(str(key)) for key in keys)


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."


def _problem(model: type[BaseModel], problem: Any) -> str:
    key = _dotted(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key `{key}`{nearest(str(problem['loc'][-1]), _keys_at(model, problem['loc'][:-1]))}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"`{key}` is missing"
    value = problem["input"]
    given = "" if isinstance(value, dict | list) else f", not {_json(value)}"
    return f"`{key}`: {message}{given}" if key else message


def nearest(key: str, valid: Iterable[str]) -> str:
    """A remark for a message: the valid name nearest to ``key``, or all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f" (did you mean `{close[0]}`?)" if close else f" (valid: {', '.join(names)})"


def _keys_at(model: type[BaseModel], loc: Iterable[int | str]) -> list[str]:
    """Names of the valid keys at a place of the file, found by walking the annotations."""
    current: type[BaseModel] = model
    for part in loc:
        if isinstance(part, str) and part in current.model_fields:
            current = _model_in(current.model_fields[part].annotation) or current
    return list(current.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model), None)
