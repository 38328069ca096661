"""The frame of every page: head, navigation, sections, style, script, and a policy that forbids all else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from orch_local import __version__
from orch_local.report.page.wording import FILTERS, shown

_PACKAGE = "orch_local.report.page"
# What would end a script element early, or begin a comment that does not end (HTML standard, 4.12.1.3).
_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page, with its own entry in the navigation."""

    id: str
    title: str
    body: Markup


@dataclass(frozen=True, slots=True)
class Page:
    """What stands in a page."""

    title: str
    """Of the window; foreign text may be part of it."""
    lead: Markup
    """The first screen: it holds the ``h1``."""
    sections: Sequence[Section]
    data: Mapping[str, Markup] = field(default_factory=dict)
    """For the script, by id of its element: results of :func:`json_for_script`."""


def render(page: Page) -> str:
    """The whole page."""
    style, script = _resource("page.css"), _resource("page.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    html = _environment().get_template("base.html.j2")
    code = {"style": Markup(style), "script": Markup(script), "policy": policy}  # our own files
    return html.render(page=page, version=__version__, **code)


def body(template: str, **values: Any) -> Markup:
    """A part of a page from a template of this package; all values are escaped."""
    return Markup(_environment().get_template(template).render(**values))  # escaped by jinja2


def json_for_script(value: Any) -> Markup:
    """JSON that can stand inside a script element whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character, escape in _IN_SCRIPT.items():
        text = text.replace(character, escape)
    return Markup(text)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FunctionLoader(lambda name: _resource(f"templates/{name}")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    return made


def _finalized(value: Any) -> Any:
    """Every text that is no markup of ours loses what cannot be seen."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else shown(value)


def _resource(path: str) -> str:
    return resources.files(_PACKAGE).joinpath(path).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
