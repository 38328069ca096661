"""How many examples a property draws, and what fuzz tests share: damage to bytes, how an error is printed.

A test names how many examples it is worth. Without ``ORCH_FUZZ`` it draws at most 10 of them, the same every
time in the fuzz tests. ``ORCH_FUZZ=1`` draws as many as the tests name, ``ORCH_FUZZ=20`` twenty times as
many, other ones in each run.
"""

from __future__ import annotations

import contextlib
import io
import os
import re

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from orch_local.cli import app as cli
from orch_local.errors import InputError

_TIMES = int(os.environ.get("ORCH_FUZZ", "0"))
_FEW = 10
_LONGEST_MESSAGE = 20_000


def examples(named: int) -> int:
    """How many examples a test draws that names ``named``."""
    return named * _TIMES if _TIMES else min(named, _FEW)


def fuzz(named: int) -> settings:
    """Settings of a fuzz test worth ``named`` examples; as to all tests, `conftest.py` applies `examples`."""
    return settings(
        max_examples=named,
        deadline=None,
        derandomize=_TIMES <= 1,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def assert_clear(error: InputError, where: str = "") -> None:
    """An error to act upon: exit code 2, prints cleanly, names a place, a value or a way out."""
    assert error.exit_code == 2
    assert where in error.where
    assert error.message.strip()
    assert error.where or error.hint or re.search(r"[`'\"0-9]", error.message), error.message
    printed = _printed(error)
    assert printed.startswith("error: ")
    assert all(character.isprintable() or character == "\n" for character in printed), repr(printed)
    assert len(printed) < _LONGEST_MESSAGE, printed[:500]


def _printed(error: InputError) -> str:
    """What the command line prints for an error that a command raised."""

    def failing(arguments: list[str]) -> None:
        raise error

    # A terminal of its own, since the one of the test runner may not be reconfigured.
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    err = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(cli, "run_command", failing)
        with pytest.raises(SystemExit) as left:
            cli.main()
    assert left.value.code == error.exit_code
    return err.getvalue()


_NOISE = st.sampled_from(
    [
        *(bytes([byte]) for byte in b"\x00\x07\t\n\r :-[]{}&*!|>'\"%@`#?,~<=0123eE.\\AB\x7f\x80\xc3\xff"),
        "\u202e".encode(),  # the text behind it is shown from right to left
        "\u0430".encode(),  # a Cyrillic letter that looks like an a
        "\uff21".encode(),  # a full-width A
        "\ufeff".encode(),
        "\u2028".encode(),
        "\x85".encode(),
        b"\xed\xa0\x80",  # half of a surrogate pair, which is not UTF-8
        b"\r\n",
        b"true",
        b"null",
        b"NaN",
    ]
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """``content`` with up to four accidents, as of a bad disk, a bad editor or a bad copy."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 1, 1, 2, 8, 40])))
        content = draw(st.sampled_from(_ACCIDENTS))(draw, content, start, end)
    return content


def _flip(draw: st.DrawFn, content: bytes, start: int, end: int) -> bytes:
    byte = content[start : start + 1]
    flipped = bytes([byte[0] ^ (1 << draw(st.integers(0, 7)))]) if byte else b""
    return content[:start] + flipped + content[start + 1 :]


def _put(draw: st.DrawFn, content: bytes, start: int, end: int) -> bytes:
    return content[:start] + draw(_NOISE) + content[start:]


def _overwrite(draw: st.DrawFn, content: bytes, start: int, end: int) -> bytes:
    return content[:start] + draw(_NOISE) + content[end:]


def _cut_out(draw: st.DrawFn, content: bytes, start: int, end: int) -> bytes:
    return content[:start] + content[end:]


def _double(draw: st.DrawFn, content: bytes, start: int, end: int) -> bytes:
    return content[:end] + content[start:end] + content[end:]


def _double_line(draw: st.DrawFn, content: bytes, start: int, end: int) -> bytes:
    begin = content.rfind(b"\n", 0, start) + 1
    after = content.find(b"\n", start) + 1 or len(content)
    return content[:after] + content[begin:after] + content[after:]


def _indent(draw: st.DrawFn, content: bytes, start: int, end: int) -> bytes:
    begin = content.rfind(b"\n", 0, start) + 1
    return content[:begin] + draw(st.sampled_from([b" ", b"  ", b"\t"])) + content[begin:]


def _truncate(draw: st.DrawFn, content: bytes, start: int, end: int) -> bytes:
    return content[:start]


def _recode(draw: st.DrawFn, content: bytes, start: int, end: int) -> bytes:
    """The whole file as another program would have written it."""
    kind = draw(st.sampled_from(["crlf", "bom", "utf-16", "latin-1", "cr", "binary", "empty"]))
    if kind == "crlf":
        return content.replace(b"\n", b"\r\n")
    if kind == "cr":
        return content.replace(b"\n", b"\r")
    if kind == "bom":
        return b"\xef\xbb\xbf" + content
    if kind in ("utf-16", "latin-1"):
        return content.decode("utf-8", "replace").encode(kind, "replace")
    return draw(st.binary(max_size=40)) if kind == "binary" else b""


_ACCIDENTS = [
    *(_flip, _flip, _put, _put, _overwrite, _overwrite, _cut_out, _cut_out),
    *(_double, _double_line, _indent, _truncate, _recode),
]
