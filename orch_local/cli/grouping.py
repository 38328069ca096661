"""Commands whose options are grouped in dataclasses: Typer sees each field as an option of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter
from typing import Any, get_type_hints

Command = Callable[..., None]


def grouped(command: Command) -> Command:
    """Replace each parameter that is a dataclass by its fields, in its place.

    The fields have the annotations and defaults that parameters of a Typer command have.
    """
    hints = get_type_hints(command, include_extras=True)
    options: list[Parameter] = []
    groups: dict[str, Any] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        hint: Any = hints[name]
        if is_dataclass(hint):
            groups[name] = hint
            options += _options(hint)
        else:
            options.append(_option(name, parameter.default, hint))

    @wraps(command)
    def expanded(**values: Any) -> None:
        made = {name: group(**_taken(values, group)) for name, group in groups.items()}
        command(**made, **values)

    expanded.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    expanded.__annotations__ = {option.name: option.annotation for option in options}
    return expanded


def _options(group: Any) -> list[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [_option(one.name, one.default, hints[one.name]) for one in fields(group)]


def _option(name: str, default: object, hint: object) -> Parameter:
    default = Parameter.empty if default is MISSING else default
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _taken(values: dict[str, Any], group: Any) -> dict[str, Any]:
    """The values of a group, which are then no longer among ``values``."""
    return {one.name: values.pop(one.name) for one in fields(group)}
