"""Plan, run, report, replay and verify, with vLLM, where there is no network: no attempt to reach any."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from isolation import Call, obstacle, read_trace, watched
from paths import SUPPORT

from orch_local.demo.benchmark import write_jsonl
from orch_local.demo.settings import RUN_FILE

DEMO = RUN_FILE.parent
needs_tracing = pytest.mark.skipif(bool(obstacle()), reason=f"nothing can be watched here: {obstacle()}")


def outward(calls: Sequence[Call]) -> Counter[Call]:
    """The calls that ask for more than this machine."""
    return Counter(call for call in calls if call.outward)


def without_advice() -> dict[str, str]:
    """The environment of a user who has silenced nothing."""
    words = ("OFFLINE", "TRACK", "TELEMETRY", "USAGE", "PROXY", "proxy", "IFNAME", "HOST_IP", "VLLM")
    return {name: value for name, value in os.environ.items() if not any(word in name for word in words)}


def write_run(folder: Path) -> Path:
    """One agent and the merge agent of the demo."""
    write_jsonl(folder / "questions.jsonl", "test", 4, seed=3)
    short = {"reasoning_chars": 120, "eliminated": False}
    agent, merge = ({"prompt": str(DEMO / "prompts" / f"{kind}.txt")} for kind in ("agent", "merge"))
    values = {
        "benchmark": {"name": "jsonl", "path": "questions.jsonl"},
        "agents": [{"name": "quant", "model": str(DEMO / "models" / "quant.yaml"), **agent}],
        "merge": {
            "policy": "agent",
            "when": "always",
            "model": str(DEMO / "models" / "merge.yaml"),
            "answer": short,
            **merge,
        },
        "answer": short,
        "engine": {"name": "vllm"},
    }
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


@needs_tracing
@pytest.mark.vllm
@pytest.mark.slow
def test_no_command_tries_to_reach_anything(tmp_path: Path) -> None:
    file, run = write_run(tmp_path), tmp_path / "runs" / "one"
    commands = (
        ("plan", file),
        ("run", file, "--out", run),
        ("report", run),
        ("replay", run),
        ("verify", run, "--sample", 2),
        ("show", run, "--timeline"),
    )
    orch_local = (sys.executable, "-m", "orch_local")
    script = " &&\n".join(shlex.join(map(str, (*orch_local, *command))) for command in commands)
    done, calls = watched(["sh", "-c", script], tmp_path / "trace", without_advice(), 280)
    logs = "".join(log.read_text(encoding="utf-8") for log in run.rglob("*.log"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    assert (run / "report.html").is_file()
    assert not outward(calls)
    # The engine was seen: Gloo takes an address for itself, that of loopback.
    assert any(call.name == "bind" and call.family == "AF_INET" for call in calls)
    # Nor did anything have to be refused: the variables were enough.
    assert "opens no connection" not in logs + done.stderr


TRIES = """\
import os, socket, subprocess, sys

def udp():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

def attempt(what):
    try:
        what()
    except OSError:
        pass

attempt(lambda: socket.create_connection(("192.0.2.1", 443)))
attempt(lambda: socket.create_connection(("2001:db8::1", 443)))
attempt(lambda: udp().sendto(b"x", ("192.0.2.2", 9)))
attempt(lambda: udp().sendmsg([b"x"], [], 0, ("192.0.2.3", 9)))
attempt(lambda: udp().connect(("127.0.0.53", 53)))
attempt(lambda: socket.create_server(("", 8080)))
attempt(lambda: socket.socket(socket.AF_UNIX).connect("/run/systemd/resolve/io.systemd.Resolve"))
child = "import socket; socket.socket().connect_ex(('192.0.2.4', 80))"
subprocess.run([sys.executable, "-c", child], check=True)
# What stays here.
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
attempt(lambda: socket.socket(socket.AF_UNIX).connect("/nowhere"))
"""


@needs_tracing
def test_what_tries_is_counted(tmp_path: Path) -> None:
    done, calls = watched([sys.executable, "-c", TRIES], tmp_path / "trace", os.environ, 60)
    assert done.returncode == 0, done.stderr
    assert outward(calls) == Counter(
        {
            Call("connect", "AF_INET", "192.0.2.1", 443): 1,
            Call("connect", "AF_INET6", "2001:db8::1", 443): 1,
            Call("sendto", "AF_INET", "192.0.2.2", 9): 1,
            Call("sendmsg", "AF_INET", "192.0.2.3", 9): 1,
            Call("connect", "AF_INET", "127.0.0.53", 53): 1,
            Call("bind", "AF_INET", "0.0.0.0", 8080): 1,
            Call("connect", "AF_UNIX", "/run/systemd/resolve/io.systemd.Resolve", 0): 1,
            Call("connect", "AF_INET", "192.0.2.4", 80): 1,
        }
    )
    assert any(call.name == "connect" and call.host == "127.0.0.1" for call in calls)


@needs_tracing
def test_the_guard_keeps_every_attempt_from_the_kernel(tmp_path: Path) -> None:
    program = SUPPORT / "attempts.py"
    done, calls = watched([sys.executable, str(program)], tmp_path / "trace", os.environ, 60)
    assert done.returncode == 0, done.stderr
    # But for the one that passes: as vLLM does, a port is taken for a moment to learn a free number.
    assert outward(calls) == Counter({Call("bind", "AF_INET", "0.0.0.0", 0): 1})


TRACE = """\
12 connect(6, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.1.2.3")}, 16) = 0
12 connect(6, {sa_family=AF_INET, sin_port=htons(8), sin_addr=inet_addr("192.0.2.9")}, 16 <unfinished ...>
13 <... connect resumed>)             = -1 EINPROGRESS (Operation now in progress)
13 sendmmsg(6, [{msg_hdr={msg_name=NULL, msg_namelen=0, msg_iov=[{iov_base="x"}]}}], 1, 0) = 1
13 connect(4, {sa_family=AF_PACKET, sll_protocol=htons(ETH_P_ALL), sll_ifindex=0}, 20) = -1 EINVAL
13 io_uring_setup(8, {flags=0}) = 5
13 connect(3, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT
13 connect(3, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, \
"::ffff:127.0.0.1", &sin6_addr), sin6_scope_id=0}, 28) = 0
13 --- SIGCHLD {si_signo=SIGCHLD} ---
"""


def test_a_trace_is_read() -> None:
    calls = list(read_trace(TRACE.splitlines()))
    assert [(call.family, call.host, call.port, call.outward) for call in calls] == [
        ("AF_INET", "10.1.2.3", 53, True),
        ("AF_INET", "192.0.2.9", 8, True),
        ("AF_PACKET", "", 0, True),
        ("AF_IO_URING", "", 0, True),
        ("AF_UNIX", "/var/run/nscd/socket", 0, False),
        ("AF_INET6", "::ffff:127.0.0.1", 80, False),
    ]
