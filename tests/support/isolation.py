"""Programs in a network namespace of their own, and what they tried to reach, as the kernel saw it.

Only loopback is up there, and the machine has a name that nobody knows: who looks it up asks a server.
"""

from __future__ import annotations

import fcntl
import functools
import ipaddress
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

OWN_NAME = "node17.cluster.invalid"
DNS = 53
CALLS = "connect,sendto,sendmsg,sendmmsg,bind,io_uring_setup"
"""The last would be a way to connect without a call of its own."""

_NAMESPACES = (("--net", "--uts"), ("--user", "--map-root-user", "--net", "--uts"))
"""As root, and as anybody where the kernel lets him."""
_SET_FLAGS, _UP = 0x8914, 0x1 | 0x40  # SIOCSIFFLAGS; IFF_UP and IFF_RUNNING: netdevice(7)
_CALL = re.compile(r"^\d+ +(\w+)\(")
_ADDRESS = re.compile(
    r"sa_family=(?P<family>\w+)(?:"
    r", sin_port=htons\((?P<port4>\d+)\), sin_addr=inet_addr\(\"(?P<host4>[^\"]*)\"\)"
    r"|, sin6_port=htons\((?P<port6>\d+)\).*?inet_pton\(AF_INET6, \"(?P<host6>[^\"]*)\""
    r"|, sun_path=@?\"(?P<path>[^\"]*)\")?"
)


class Call(NamedTuple):
    """One system call with an address."""

    name: str
    family: str
    host: str
    """The path of an AF_UNIX socket."""
    port: int

    @property
    def outward(self) -> bool:
        """Whether it asks for more than this machine; a server for names may be here, and ask others."""
        if self.family == "AF_UNIX":
            return "systemd/resolve" in self.host
        if self.family in ("AF_NETLINK", "AF_UNSPEC"):  # the latter takes a connection back
            return False
        if self.family not in ("AF_INET", "AF_INET6"):
            return True
        address = ipaddress.ip_address(self.host)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return self.port == DNS or not (mapped or address).is_loopback


def read_trace(lines: Iterable[str]) -> Iterator[Call]:
    """The calls with addresses out of strace's output, and those that need none to be suspicious."""
    for line in lines:
        call = _CALL.match(line)
        if call is None:
            continue
        if call[1] == "io_uring_setup":
            yield Call(call[1], "AF_IO_URING", "", 0)
        for found in _ADDRESS.finditer(line):
            host = found["host4"] or found["host6"] or found["path"] or ""
            yield Call(call[1], found["family"], host, int(found["port4"] or found["port6"] or 0))


@functools.cache
def obstacle() -> str:
    """Why programs cannot be watched here; empty where they can."""
    missing = [tool for tool in ("unshare", "strace") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} missing"
    if not _namespace():
        return "this user may make no network namespace"
    return "" if _works([*_tracer(Path(os.devnull)), "true"]) else "strace may not trace here"


@functools.cache
def _namespace() -> tuple[str, ...]:
    inside = [sys.executable, __file__, "true"]
    return next((each for each in _NAMESPACES if _works(["unshare", *each, *inside])), ())


@functools.cache
def _quickly() -> tuple[str, ...]:
    """An option of strace 5.3 and later, with which other calls cost nothing."""
    quick = ("--seccomp-bpf",)
    return quick if _works(["strace", "-f", *quick, "-o", os.devnull, "true"]) else ()


def _tracer(trace: Path) -> list[str]:
    return ["strace", "-f", "-qq", *_quickly(), "-e", f"trace={CALLS}", "-o", str(trace)]


def _works(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=600).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def alone() -> list[str]:
    """Words before a command that leave it loopback and nothing else; none where that is not permitted."""
    return ["unshare", *_namespace(), sys.executable, __file__] if _namespace() else []


def watched(
    command: Sequence[str], trace: Path, env: Mapping[str, str], timeout_s: float
) -> tuple[subprocess.CompletedProcess[str], list[Call]]:
    """Run a command alone in the world; what it came to, and its calls with an address."""
    words = [*alone(), *_tracer(trace), *command]
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=timeout_s)
    with trace.open(encoding="utf-8", errors="replace") as lines:
        return done, list(read_trace(lines))


def main() -> None:
    """In the namespace: bring loopback up, take a name, and become the command."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))
    socket.sethostname(OWN_NAME)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
