"""What a chat template reads, by its syntax tree; loaded by `child.py`, so it imports nothing of ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from jinja2 import meta, nodes

CONTENT = "content"
_ASKING = ("defined", "undefined", "default", "d")
"""Tests and filters that say what happens where a variable is not given."""


def reading(tree: nodes.Template) -> dict[str, Any]:
    """What the template takes from outside, JSON-able.

    ``names`` are all variables that it looks up, ``options`` those that it does not set itself, or asks
    whether they are set; ``called`` holds those that it calls, and how it writes that; ``parts`` is
    :func:`takes_parts`.
    """
    names = meta.find_undeclared_variables(tree)
    set_here = {one.name for one in tree.find_all(nodes.Name) if one.ctx == "store"}
    asked = {
        one.node.name
        for one in tree.find_all((nodes.Test, nodes.Filter))
        if one.name in _ASKING and isinstance(one.node, nodes.Name)
    }
    called = dict(filter(None, (_called(call.node) for call in tree.find_all(nodes.Call))))
    return {
        "names": sorted(names),
        "options": sorted(names - (set_here - asked)),
        "called": {name: text for name, text in sorted(called.items()) if name in names},
        "parts": takes_parts(tree),
    }


def _called(node: nodes.Node) -> tuple[str, str] | None:
    """The variable of a call, and the call as it is written: ``now()`` or ``datetime.now()``."""
    if isinstance(node, nodes.Name):
        return node.name, f"{node.name}()"
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        return node.node.name, f"{node.node.name}.{node.attr}()"
    return None


def takes_parts(tree: nodes.Template) -> bool:
    """Whether the template loops over the content of a message: it is then a list of parts, not a text.

    The decision is that of vLLM 0.32 (vllm/renderers/hf.py), so that a prompt is the one that it would serve.
    A loop counts over ``message.content``, over a parameter of a macro that is given it, and outside of
    macros over anything named ``content``.
    """
    messages = _aliases(tree, "messages")
    items = {
        name for loop in tree.find_all(nodes.For) if _is_name(loop.iter, messages) for name in _target(loop)
    }
    inside: set[int] = set()
    for macro in tree.find_all(nodes.Macro):
        loops = list(macro.find_all(nodes.For))
        inside |= {id(loop) for loop in loops}
        given = set(_given_content(tree, macro, items))
        if any(isinstance(loop.iter, nodes.Name) and loop.iter.name in given for loop in loops):
            return True
    return any(
        _is_content(loop.iter, items)
        or (id(loop) not in inside and isinstance(loop.iter, nodes.Name) and loop.iter.name == CONTENT)
        for loop in tree.find_all(nodes.For)
    )


def _aliases(tree: nodes.Template, name: str) -> set[str]:
    """The name and all that are assigned from it, or from a slice or filter of it."""
    known = {name}
    assigned = [
        (one.target.name, one.node)
        for one in tree.find_all(nodes.Assign)
        if isinstance(one.target, nodes.Name)
    ]
    while more := {target for target, value in assigned if _is_name(value, known)} - known:
        known |= more
    return known


def _given_content(tree: nodes.Template, macro: nodes.Macro, items: set[str]) -> Iterator[str]:
    """Parameters of a macro that some call gives the content of a message."""
    parameters = [argument.name for argument in macro.args]
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == macro.name:
            placed = zip(parameters, call.args, strict=False)
            named = ((keyword.key, keyword.value) for keyword in call.kwargs)
            yield from (name for name, value in (*placed, *named) if _is_content(value, items))


def _target(loop: nodes.For) -> Iterable[str]:
    return (loop.target.name,) if isinstance(loop.target, nodes.Name) else ()


def _is_name(node: nodes.Node | None, names: set[str]) -> bool:
    bare = _bare(node)
    return isinstance(bare, nodes.Name) and bare.name in names


def _is_content(node: nodes.Node | None, items: set[str]) -> bool:
    bare = _bare(node)
    if isinstance(bare, nodes.Getattr):
        return bare.attr == CONTENT and _is_plain(bare.node, items)
    if isinstance(bare, nodes.Getitem):
        key = bare.arg
        return isinstance(key, nodes.Const) and key.value == CONTENT and _is_plain(bare.node, items)
    return False


def _is_plain(node: nodes.Node, names: set[str]) -> bool:
    return isinstance(node, nodes.Name) and node.name in names


def _bare(node: nodes.Node | None) -> nodes.Node | None:
    """What a filter, a test or a slice is taken of."""
    while isinstance(node, nodes.Filter | nodes.Test) or (
        isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
    ):
        node = node.node
    return node
