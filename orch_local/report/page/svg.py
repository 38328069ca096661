"""A matplotlib figure as SVG that can stand inside a page: no inline styles, no fonts, no ids of its own.

Colours are drawn as marks (:data:`INKS`) and become variables of the style sheet, so that one drawing serves
the light and the dark theme. Styles become attributes, which the content policy of the page allows.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES = 8
"""Colours for curves; the next ones begin anew, with another dash."""
_NAMES = ("ink", "muted", "rule", "paper", "orch", "bar", *(f"s{number}" for number in range(1, SERIES + 1)))
INKS = {name: f"#0{number:x}fe0{number:x}" for number, name in enumerate(_NAMES)}
"""Name of a colour of the style sheet -> what to give to matplotlib for it."""
_VARIABLES = {mark: f"var(--{name})" for name, mark in INKS.items()}

SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "orch-local",
    "text.parse_math": False,
    "text.color": INKS["ink"],
    "axes.edgecolor": INKS["muted"],
    "axes.labelcolor": INKS["ink"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelsize": 11,
    "grid.color": INKS["rule"],
    "grid.linewidth": 0.8,
    "xtick.color": INKS["muted"],
    "ytick.color": INKS["muted"],
    "xtick.labelcolor": INKS["ink"],
    "ytick.labelcolor": INKS["ink"],
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "xtick.major.size": 0,
    "xtick.major.pad": 7,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "lines.linewidth": 1.8,
}

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_DROPPED = frozenset({"font-family"})
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_SIZE = re.compile(r"([\d.]+)px")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")


def inline(figure: Figure, key: str, title: str, described: str) -> Markup:
    """The figure as an SVG element.

    Parameters
    ----------
    key:
        Another one for each figure of a page; begins all ids.
    title, described:
        What a screen reader says of it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(buffer.getvalue())  # written just now, by matplotlib
    _drop(root, {f"{_SVG}metadata"})
    for element in root.iter():
        _clean(element, key)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "class": "figure", "aria-labelledby": f"{key}-t {key}-d"}
    for tag, content in (("desc", described), ("title", title)):
        element = ElementTree.Element(f"{_SVG}{tag}", {"id": f"{key}-{tag[0]}"})
        element.text = content
        root.insert(0, element)
    ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
    text = ElementTree.tostring(root, encoding="unicode")
    return Markup(re.sub(r">\s+<", "><", text).replace("\n", " "))  # serialised from a tree


def _drop(root: ElementTree.Element, tags: set[str]) -> None:
    """Remove elements with these tags, and the figure's style sheet: it would speak for the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in tags or any(one.tag == f"{_SVG}style" for one in child):
                parent.remove(child)


def _clean(element: ElementTree.Element, key: str) -> None:
    values = element.attrib
    for part in values.pop("style", "").split(";"):
        name, _, value = (text.strip() for text in part.partition(":"))
        if value and name not in _DROPPED:
            values[name] = _SIZE.sub(r"\1", value)
    if element.tag == f"{_SVG}g":
        values.pop("id", None)
    elif "id" in values:
        values["id"] = f"{key}-{values['id']}"
    if _LINK in values:
        values["href"] = f"#{key}-{values.pop(_LINK).removeprefix('#')}"
    for name, value in values.items():
        value = _REFERENCE.sub(rf"url(#{key}-\1)", _VARIABLES.get(value, value))
        values[name] = _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value)
