"""Text of a model or data set made harmless to show: it moves no cursor, hides nothing, styles nothing."""

from __future__ import annotations

import unicodedata

from rich.style import StyleType
from rich.text import Text

# Controls (ESC among them), format characters (bidi, zero width), surrogates, line and paragraph separators.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible(text: str, *, newlines: bool = False) -> str:
    r"""Replace each character that cannot be seen by its escape, such as ``\x1b`` or ``\u202e``.

    ``newlines`` keeps line breaks. For a place that reads no markup; see :func:`safe` for one that does.
    """
    if newlines:
        text = text.replace("\r\n", "\n")
    return "".join(c if newlines and c == "\n" else _escaped(c) for c in text)


def safe(text: str, style: StyleType = "", *, newlines: bool = False) -> Text:
    """Make foreign text printable by rich: no controls, and markup such as ``[bold]`` stays as written."""
    return Text(visible(text, newlines=newlines), style)


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _UNSEEN:
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
