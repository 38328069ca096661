"""The process in which foreign templates and tokenizers are tried; run as a script, by `confined.py`.

It imports nothing of this package: so it starts in a tenth of a second. Its limits are set here, inside,
since a process with threads (that of an engine) must run no Python between fork and exec. Each line of
standard input is a job, and each gets one line of standard output::

    {"folders": [...], "kind": "template" or "tokenizer", "memory": bytes}      the first line, once
    {"seconds": s, "template": t, "values": {...}, "date": d, "characters": n}   -> {"text": ...}
    {"seconds": s, "template": t, "read": true}         -> {"text": JSON, see `template_reading.py`}
    {"seconds": s, "bytes": n, "added": [...], "texts": [...]}, and n bytes behind it -> {"text": ""}

Instead of a text the answer may be ``{"refused": message, "kind": class of the exception}`` or
``{"limit": "memory" or "characters"}``. The kernel ends a process that computes for too long.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import resource
import runpy
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what a child for tokenizers does not need
    import jinja2
    from jinja2.parser import Parser
    from jinja2.runtime import Macro
    from jinja2.sandbox import ImmutableSandboxedEnvironment

_LONGEST_REFUSAL = 500


class _TooLong(Exception):  # noqa: N818 - it is an answer
    """More was written than may be."""


def _limit(kind: int, most: int) -> None:
    """Lower a limit for good; one that is lower already stays."""
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    with contextlib.suppress(ValueError, OSError):  # not every system knows every limit
        resource.setrlimit(kind, (most, most))


def _limit_seconds(more: float) -> None:
    """From now on so many seconds of computing, whatever was used before; SIGXCPU ends the process then."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    # The limit has whole seconds; one more, so that a job never has less than it was promised.
    soft = int(used.ru_utime + used.ru_stime + more) + 1
    soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _confine(memory: int) -> None:
    """No file and no socket can be opened from here on, no process started, and memory has an end."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_AS, memory)
    _limit(resource.RLIMIT_NOFILE, 0)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _template_environment() -> ImmutableSandboxedEnvironment:
    """An environment after the contract that chat templates are written to.

    Source: huggingface.co/docs/transformers/chat_templating_writing: sandboxed Jinja2 without line breaks
    behind blocks and blanks before them, ``break`` and ``continue``, ``raise_exception``, ``strftime_now``, a
    ``tojson`` that leaves HTML alone, and a ``generation`` block, which writes what is in it.
    """
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - as Jinja2 wants it

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

        @staticmethod
        def _written(caller: Macro) -> str:
            return caller()

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = raise_exception
    return environment


def _import_what_rendering_needs() -> None:
    """Jinja2 and Python import these when they first need them, which would fail by then."""
    import html  # noqa: F401
    import pprint  # noqa: F401
    import textwrap  # noqa: F401
    import unicodedata  # noqa: F401

    import jinja2.constants
    import jinja2.debug  # noqa: F401

    for encoding in ("unicode-escape", "utf-16", "utf-32", "latin-1"):
        codecs.lookup(encoding)


def _template_renderer() -> Callable[[dict[str, Any]], str]:
    import random

    _import_what_rendering_needs()
    reading = runpy.run_path(str(Path(__file__).with_name("template_reading.py")))["reading"]
    environment = _template_environment()
    compiled: dict[str, jinja2.Template] = {}

    def render(job: dict[str, Any]) -> str:
        source = job["template"]
        if "read" in job:
            return json.dumps(reading(environment.parse(source)))
        if source not in compiled:
            compiled[source] = environment.from_string(source)
        values = {"strftime_now": datetime.fromisoformat(job["date"]).strftime, **job["values"]}
        random.seed(0)  # a prompt must not depend on chance
        pieces, left = [], int(job["characters"])
        for piece in compiled[source].generate(values):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise _TooLong
        return "".join(pieces)

    return render


def _tokenizer_prober() -> Callable[[dict[str, Any]], str]:
    from tokenizers import AddedToken, Tokenizer

    def probe(job: dict[str, Any]) -> str:
        tokenizer = Tokenizer.from_buffer(sys.stdin.buffer.read(job["bytes"]))
        tokenizer.add_tokens([AddedToken(**token) for token in job["added"]])
        _limit_seconds(job["seconds"])
        for text in job["texts"]:
            # A pattern that gives up on a text costs one question its answer, no more; hanging is the harm.
            with contextlib.suppress(BaseException):
                tokenizer.encode(text, add_special_tokens=False)
        return ""

    return probe


_KINDS = {"template": _template_renderer, "tokenizer": _tokenizer_prober}


def _answer(work: Callable[[dict[str, Any]], str], job: dict[str, Any]) -> dict[str, str]:
    try:
        return {"text": work(job)}
    except MemoryError:
        return {"limit": "memory"}
    except _TooLong:
        return {"limit": "characters"}
    except BaseException as error:  # noqa: BLE001 - foreign code may raise anything
        return {"refused": str(error)[:_LONGEST_REFUSAL], "kind": type(error).__name__}


def main() -> None:
    """Answer jobs until the input ends."""
    first = json.loads(sys.stdin.buffer.readline())
    sys.path[:0] = first["folders"]
    work = _KINDS[first["kind"]]()
    _confine(first["memory"])
    for line in sys.stdin.buffer:
        job = json.loads(line)
        _limit_seconds(job["seconds"])
        sys.stdout.buffer.write(json.dumps(_answer(work, job)).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
