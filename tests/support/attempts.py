"""A program that wants out in every way it knows, behind the guard; what came of it goes to standard output.

``python attempts.py`` prints one JSON object: attempt -> what stopped it, empty where nothing did.
"""

from __future__ import annotations

import _socket
import asyncio
import http.client
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

FOUR, SIX = "192.0.2.1", "2001:db8::1"
"""Of the blocks for documentation (RFC 5737, RFC 3849): were they let through, they would reach nobody."""
NAME = "hub.invalid"
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


def four(kind: int = TCP) -> socket.socket:
    return closing_soon(socket.socket(socket.AF_INET, kind))


def six(kind: int = TCP) -> socket.socket:
    return closing_soon(socket.socket(socket.AF_INET6, kind))


def closing_soon(sock: socket.socket) -> socket.socket:
    sock.settimeout(2)
    return sock


async def datagram(address: tuple[str, int]) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=address)


def read(url: str) -> None:
    urllib.request.urlopen(url, timeout=2).read()


def lower(address: tuple[str, int]) -> None:
    _socket.socket(socket.AF_INET, TCP).connect(address)


def in_a_child() -> None:
    """A forked process is behind the guard as well."""
    child = os.fork()
    if child == 0:
        os._exit(four().connect_ex((FOUR, 80)) if not refused(lambda: four().connect((FOUR, 80))) else 7)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7:
        raise ConnectionRefusedError("opens no connection")


REFUSED: dict[str, Callable[[], object]] = {
    "connect": lambda: four().connect((FOUR, 443)),
    "connect_ex": lambda: four().connect_ex((FOUR, 443)),
    "IPv6": lambda: six().connect((SIX, 443)),
    "IPv6 with scope": lambda: six().connect((SIX, 443, 0, 0)),
    "mapped": lambda: six().connect((f"::ffff:{FOUR}", 443)),
    "name": lambda: four().connect((NAME, 443)),
    "name by connect_ex": lambda: four().connect_ex((NAME, 443)),
    "bytes": lambda: four().connect((FOUR.encode(), 443)),
    "bytearray": lambda: four().connect((bytearray(NAME, "ascii"), 443)),
    "any interface": lambda: four().connect(("0.0.0.0", 443)),
    "empty": lambda: four().connect(("", 443)),
    "other spelling": lambda: four().connect(("127.1.invalid", 443)),
    "below socket.py": lambda: lower((FOUR, 443)),
    "UDP connect": lambda: four(UDP).connect((FOUR, 53)),
    "UDP sendto": lambda: four(UDP).sendto(b"x", (FOUR, 53)),
    "UDP sendto a name": lambda: four(UDP).sendto(b"x", (NAME, 53)),
    "UDP sendto with flags": lambda: four(UDP).sendto(b"x", 0, (FOUR, 53)),
    "UDP sendmsg": lambda: four(UDP).sendmsg([b"x"], [], 0, (FOUR, 53)),
    "broadcast": lambda: four(UDP).sendto(b"x", ("<broadcast>", 9)),
    "multicast": lambda: four(UDP).sendto(b"x", ("224.0.0.1", 9)),
    "getaddrinfo": lambda: socket.getaddrinfo(NAME, 443),
    "getaddrinfo of bytes": lambda: socket.getaddrinfo(NAME.encode(), "https"),
    "getaddrinfo of a number": lambda: socket.getaddrinfo(FOUR, 443),
    "gethostbyname": lambda: socket.gethostbyname(NAME),
    "gethostbyname_ex": lambda: socket.gethostbyname_ex(NAME),
    "gethostbyaddr": lambda: socket.gethostbyaddr(FOUR),
    "getnameinfo": lambda: socket.getnameinfo((FOUR, 443), 0),
    "own name": lambda: socket.gethostbyname("node17.cluster.invalid"),
    "create_connection": lambda: socket.create_connection((NAME, 443), timeout=2),
    "listen": lambda: four().bind(("0.0.0.0", 0)),
    "listen at all": lambda: four().bind(("", 0)),
    "listen at all by IPv6": lambda: six().bind(("::", 0)),
    "listen at a name": lambda: four().bind((NAME, 0)),
    "listen without an address": lambda: four().listen(),
    "listen by IPv6 without one": lambda: six().listen(),
    "name of an address of loopback": lambda: socket.gethostbyaddr("127.9.9.9"),
    "getnameinfo of one": lambda: socket.getnameinfo(("127.9.9.9", 80), 0),
    "http.client": lambda: http.client.HTTPSConnection(NAME, timeout=2).request("GET", "/"),
    "urllib": lambda: read(f"http://{NAME}/"),
    "urllib to a number": lambda: read(f"http://{FOUR}/"),
    "urllib by a proxy here": lambda: read("http://proxied.invalid/"),
    "asyncio": lambda: asyncio.run(asyncio.open_connection(FOUR, 443)),
    "asyncio to a name": lambda: asyncio.run(asyncio.open_connection(NAME, 443)),
    "asyncio datagram": lambda: asyncio.run(datagram((FOUR, 53))),
    "fork": in_a_child,
}


def tcp(family: int, host: str) -> None:
    """A word to a server in this process, and back."""
    with socket.socket(family, TCP) as server:
        server.bind((host, 0))
        server.listen()
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        with socket.create_connection(server.getsockname()[:2], timeout=5) as client:
            client.sendall(b"hello")
            assert client.recv(10) == b"HELLO"
        thread.join()


def answer(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(connection.recv(10).upper())


def udp() -> None:
    with socket.socket(socket.AF_INET, UDP) as one, socket.socket(socket.AF_INET, UDP) as other:
        one.bind(("localhost", 0))
        other.sendto(b"hello", one.getsockname())
        other.sendmsg([b"again"], [], 0, one.getsockname())
        assert (one.recv(10), one.recv(10)) == (b"hello", b"again")


def unix() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, TCP) as server:
        server.bind(f"{folder}/s")
        server.listen()
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        with socket.socket(socket.AF_UNIX, TCP) as client:
            client.connect(f"{folder}/s")
            client.sendall(b"hello")
            assert client.recv(10) == b"HELLO"
        thread.join()


def netlink() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as sock:
        sock.bind((0, 0))


async def loop_here() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read(10)).upper())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "localhost", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(b"hello")
        assert await reader.read(10) == b"HELLO"
        writer.close()


def pair() -> None:
    one, other = socket.socketpair()
    one.sendmsg([b"x"])
    assert other.recv(1) == b"x"


def pipe() -> None:
    one, other = multiprocessing.Pipe()
    one.send(3)
    assert other.recv() == 3


def free_port() -> None:
    """As vLLM looks for one (vllm/utils/network_utils.py): it does not listen there."""
    code = "with socket.socket() as sock:\n    sock.bind(('', 0))"
    exec(code, {"__name__": "vllm.utils.network_utils", "socket": socket})


PASSES: dict[str, Callable[[], object]] = {
    "TCP": lambda: tcp(socket.AF_INET, "127.0.0.1"),
    "TCP at another address of loopback": lambda: tcp(socket.AF_INET, "127.3.2.1"),
    "TCP by name": lambda: tcp(socket.AF_INET, "localhost"),
    "IPv6": lambda: tcp(socket.AF_INET6, "::1"),
    "mapped": lambda: tcp(socket.AF_INET6, "::ffff:127.0.0.1"),
    "UDP": udp,
    "unix": unix,
    "netlink": netlink,
    "a free port": free_port,
    "asyncio": lambda: asyncio.run(loop_here()),
    "socketpair": pair,
    "pipe": pipe,
    "getaddrinfo of localhost": lambda: socket.getaddrinfo("localhost", 80),
    "getaddrinfo of nothing": lambda: socket.getaddrinfo(None, 80),
    "gethostbyname": lambda: socket.gethostbyname("LOCALHOST"),
    "getnameinfo": lambda: socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST),
    "gethostname": socket.gethostname,
}


def refused(attempt: Callable[[], object]) -> str:
    """What stopped an attempt."""
    try:
        attempt()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    from orch_local.util import offline

    proxy = socket.create_server(("127.0.0.1", 0))
    os.environ["http_proxy"] = f"http://127.0.0.1:{proxy.getsockname()[1]}"
    offline.go_offline()
    offline.go_offline()  # a second time changes nothing
    found = {
        "refused": {name: refused(attempt) for name, attempt in REFUSED.items()},
        "passes": {name: refused(attempt) for name, attempt in PASSES.items()},
        "told": offline.refusals(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
