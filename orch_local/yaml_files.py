"""YAML files into validated models, with messages that name file, line, key and the nearest valid key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from orch_local.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, which plain YAML would silently overwrite."""


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


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


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

    Raises
    ------
    ConfigError
        With one line for each problem found.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        message = "; ".join(_problem(model, problem) for problem in problems[:5])
        hint = "docs/runs.md explains the keys of run files, model_configs/README.md those of models"
        raise ConfigError(message, where=where, hint=hint) from None


def _problem(model: type[BaseModel], problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key `{key}`{nearest(str(problem['loc'][-1]), _keys_at(model, problem['loc'][:-1]))}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"`{key}` is missing"
    return f"`{key}`: {message}" if key else message


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
