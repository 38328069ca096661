"""Chat templates that attack whoever renders them: the child ends within its limits, and knows nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orch_local.errors import PromptError
from orch_local.prompts import chat_template, confined
from orch_local.prompts.chat_template import render_chat
from orch_local.prompts.confined import Child
from orch_local.prompts.template import Message

NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


HELLO = [Message("system", "Be brief."), Message("user", " Hello\n")]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """No child of another test, and none left behind."""
    yield
    for renderer in chat_template._renderers.values():
        renderer.close()
    chat_template._renderers.clear()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template gets one second of computing, not five."""
    monkeypatch.setattr(chat_template, "_KIND", chat_template._KIND._replace(seconds=0.4))


ATTACKS = {
    "two loops": ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "longer"),
    "power tower": ("{{ 10**(10**10) }}", "longer|memory"),
    "power at run time": ("{{ (messages | length + 8) ** (10 ** 9) }}", "longer|memory"),
    "long division": ("{{ (10 ** 300000) ** 30 // 7 ** 100000 % 3 }}", "longer"),
    "a long text": ("{{ 'a' * 10**10 }}", "memory"),
    "a long list": ("{{ [0] * 10**10 }}", "memory"),
    "a wide format": ("{{ '%1000000000d' % 1 }}", "memory"),
    "a wide new format": ("{{ '{:>3000000000}'.format(1) }}", "memory"),
    "center": ("{{ 'x'.center(10**10) }}", "memory"),
    "zeros": ("{{ 'x'.zfill(10**10) }}", "memory"),
    "doubling": (
        "{% set n = namespace(s='ab') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "longer|memory",  # whichever end comes first: new pages of memory take the kernel's time, too
    ),
    "lists of lists": (
        "{% set n = namespace(l=[0]) %}{% for i in range(99) %}{% set n.l = n.l + n.l %}{% endfor %}",
        "longer|memory",
    ),
    "replace": ("{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}", "memory"),
    "batches": ("{{ range(99999) | batch(10**9, 0) | list }}", "longer|memory"),
    "five million": ("{{ 'a' * 5000000 }}", "writes more than 4,000,000 characters"),
    "bit by bit": (
        "{% for i in range(9999) %}{% for j in range(9999) %}0123456789abcdef{% endfor %}{% endfor %}",
        "writes more than 4,000,000 characters",
    ),
    "lipsum": ("{{ lipsum(n=100000, max=10000) }}", "longer|writes|memory"),
    "wordwrap": ("{{ ('a-' * 10**7) | wordwrap(1) }}", "longer|memory"),
    "urlize": ("{{ (('(' * 10**6) ~ 'www.a.de') | urlize * 100 }}", "longer|memory|writes"),
    "macros that call twice": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "longer",
    ),
}


@pytest.mark.parametrize(
    ("template", "limit"), [pytest.param(*case, id=name) for name, case in ATTACKS.items()]
)
@pytest.mark.usefixtures("hasty")
def test_an_attack_ends_within_its_limits(template: str, limit: str) -> None:
    started = time.monotonic()
    with pytest.raises(PromptError, match=limit) as caught:
        render_chat(template, HELLO, NAMES, {})
    assert caught.value.message.startswith("the chat template ")
    assert "fails" not in caught.value.message
    assert time.monotonic() - started < 200


DEEP = {
    "parentheses": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "lists": "{{ " + "[" * 20_000 + "1" + "]" * 20_000 + " }}",
    "blocks": "{% if 1 %}" * 2_000 + "{% endif %}" * 2_000,
    "macros": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
}


@pytest.mark.parametrize("template", [pytest.param(text, id=name) for name, text in DEEP.items()])
def test_depth_is_an_error_and_no_more(template: str) -> None:
    with pytest.raises(PromptError, match="the chat template"):
        render_chat(template, HELLO, NAMES, {})


@pytest.mark.usefixtures("hasty")
def test_a_template_that_went_too_far_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    template = ATTACKS["two loops"][0]
    with pytest.raises(PromptError, match="longer"):
        render_chat(template, HELLO, NAMES, {})
    with monkeypatch.context() as patch:
        patch.setattr(Child, "ask", lambda *args: pytest.fail("it was tried again"))
        with pytest.raises(PromptError, match="longer"):
            render_chat(template, HELLO[1:], NAMES, {})
    assert render_chat("ok", HELLO, NAMES, {}) == "ok"


def test_a_killed_child_costs_one_prompt() -> None:
    assert render_chat("a", HELLO, NAMES, {}) == "a"
    child = chat_template._renderers["a"]._child
    assert child is not None
    os.kill(child._process.pid, signal.SIGKILL)
    child._process.wait(60.0)
    with pytest.raises(PromptError, match="killed"):
        render_chat("a", HELLO, NAMES, {})
    assert render_chat("a", HELLO, NAMES, {}) == "a"


def test_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    assert render_chat("a", HELLO, NAMES, {}) == "a"
    child = chat_template._renderers["a"]._child
    assert child is not None
    monkeypatch.setattr(confined, "_WALL_SECONDS", 0.3)
    os.kill(child._process.pid, signal.SIGSTOP)
    with pytest.raises(PromptError, match="takes longer than 0 s"):
        render_chat("a", HELLO, NAMES, {})


def test_few_children_for_many_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []

    class Counted(confined.Child):
        def __init__(self, kind: confined.Kind) -> None:
            started.append(self)
            super().__init__(kind)

    monkeypatch.setattr(chat_template, "Child", Counted)
    for number in range(300):
        render_chat("{{ messages[0].content }}", [Message("user", str(number))], NAMES, {})
    assert len(started) == 1
    for number in range(chat_template._ALIVE + 1):
        render_chat(f"{number}", HELLO, NAMES, {})
    alive = [one for one in started if isinstance(one, confined.Child) and one._process.alive]
    assert len(alive) == chat_template._ALIVE


CONFINED = """
import json, os, socket, sys
sys.path.insert(0, {folder!r})
import child
json.dump(dict(os.environ), sys.stderr)
child._confine(512 * 2**20)
def tried(what):
    try:
        what()
    except (OSError, ImportError, MemoryError) as error:
        return type(error).__name__
    return "done"
print(json.dumps({{
    "open": tried(lambda: open("/etc/passwd")),
    "write": tried(lambda: open("/tmp/orch-canary", "w")),
    "socket": tried(socket.socket),
    "pipe": tried(os.pipe),
    "memory": tried(lambda: bytes(2**30)),
    "listing": tried(lambda: os.listdir("/")),
}}))
"""


def test_whoever_leaves_the_sandbox_is_confined_still() -> None:
    script = CONFINED.format(folder=str(Path(chat_template.__file__).parent))
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, check=True, env={})
    tried = json.loads(done.stdout)
    assert set(tried.values()) <= {"OSError", "MemoryError", "FileNotFoundError"}, tried


def test_the_child_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary")
    assert render_chat("a", HELLO, NAMES, {}) == "a"
    child = chat_template._renderers["a"]._child
    assert child is not None
    environment = Path(f"/proc/{child._process.pid}/environ")
    if not environment.exists():
        pytest.skip("needs /proc")
    names = {entry.split(b"=")[0].decode() for entry in environment.read_bytes().split(b"\0") if entry}
    assert names <= {"TZ", "TOKENIZERS_PARALLELISM", "LD_LIBRARY_PATH"}
    assert b"canary" not in environment.read_bytes()
    files = {str(file.readlink()) for file in Path(f"/proc/{child._process.pid}/fd").iterdir()}
    assert len(files) <= 3, files  # its three pipes, and nothing of ours
