"""What tries to reach something is seen, and the guard keeps it from the kernel."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from isolation import Call, obstacle, read_trace, watched
from paths import SUPPORT

needs_tracing = pytest.mark.skipif(bool(obstacle()), reason=f"nothing can be watched here: {obstacle()}")


def outward(calls: Sequence[Call]) -> Counter[Call]:
    """The calls that ask for more than this machine."""
    return Counter(call for call in calls if call.outward)


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
