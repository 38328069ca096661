"""No network: the variables that keep libraries silent, and a guard that refuses what they try all the same.

The guard sees what goes through Python's own sockets. Native code does not: vLLM's ZeroMQ, Gloo and NCCL in
torch, gRPC, and Rust as in hf_xet. The variables are for that, and ``tests/engine/test_no_network.py``, which
watches a whole run from outside. It is a fence against what libraries do unasked, not against code that
wants out: a network namespace or a firewall is. Nor does it reach programs that are started, such as SLURM's.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import logging
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

log = logging.getLogger(__name__)

_HUBS = {
    # huggingface_hub/constants.py, which transformers, vLLM and `kernels` go by. Without it transformers asks
    # the hub even about the tokenizer of a local folder (tokenization_utils_tokenizers.py, is_base_mistral).
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",  # datasets/config.py
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets/load.py tells the hub of every load
    "HF_HUB_DISABLE_XET": "1",  # downloads in Rust, which the guard cannot see
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",  # no token is sent along
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",  # of its command line
    # transformers/modeling_utils.py asks a server to convert weights that are no safetensors.
    "DISABLE_SAFETENSORS_CONVERSION": "1",
}

_TELEMETRY = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",  # huggingface_hub, vLLM; consoledonottrack.com
    "VLLM_NO_USAGE_STATS": "1",  # vllm/usage/usage_lib.py posts to stats.vllm.ai
    "VLLM_DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",  # vLLM sets it too, but lets a 1 stand
    "OTEL_SDK_DISABLED": "true",  # opentelemetry/sdk; its exporters speak gRPC
}

_ADDRESSES = {
    # vllm/utils/network_utils.py, get_ip, opens a socket towards 8.8.8.8 to learn the machine's address.
    "VLLM_HOST_IP": "127.0.0.1",
    # Torch's Gloo else looks the machine's own name up, and listens at its address:
    # docs.pytorch.org/docs/stable/distributed.html, "Choosing the network interface to use".
    "GLOO_SOCKET_IFNAME": "lo",
    # NCCL takes `lo` only where it is named: docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html. GPUs
    # of one machine need it for their first meeting alone; their data goes through memory.
    "NCCL_SOCKET_IFNAME": "=lo",
    # A proxy on this machine would be a way out that looks like loopback.
    "NO_PROXY": "*",
    "no_proxy": "*",
}

SILENCE: Mapping[str, str] = {**_HUBS, **_TELEMETRY, **_ADDRESSES}
"""Set before anything is imported that reads them. None changes a byte of an answer, so none is in a spec.

Not here: USE_HUB_KERNELS, which chooses kernels, not whether to fetch them (offline they come from a cache or
not at all), and is in the spec. Nothing but the guard stops vLLM from asking NVIDIA's server for kernels
(vllm/utils/flashinfer.py, has_nvidia_artifactory): refused, it does without.
"""

_MACHINERY = frozenset(
    "socket ssl socketserver selectors http urllib ftplib smtplib poplib imaplib xmlrpc asyncio concurrent "
    "threading multiprocessing contextlib functools urllib3 requests httpx httpx2 httpcore httpcore2 h11 h2 "
    "anyio trio aiohttp aiohappyeyeballs uvloop websockets".split()
)
"""Packages that connect on behalf of others."""

_PORT_SEEKERS = ("vllm.utils.network_utils",)
"""Modules that bind to all interfaces for a moment, to be given a free port, and never listen."""

_LOCAL_FAMILIES = (socket.AF_UNIX, getattr(socket, "AF_NETLINK", socket.AF_UNIX))
_METHODS = {"connect": 0, "connect_ex": 0, "bind": 0, "sendto": -1, "sendmsg": 3}
"""Methods of a socket, and which of their arguments is the address."""

_NAMED = ("localhost", "127.0.0.1", "::1")
_LONGEST_NAME = 253
"""Of a host: RFC 1035."""

_refused: Counter[str] = Counter()
_installed = threading.Event()
_found: dict[str, str | None] = {}
"""The user's values of the variables."""


class NetworkRefusedError(ConnectionRefusedError):
    """A connection that orch-local does not open; to a library, one that the other side refused."""


def go_offline() -> None:
    """Set the variables, and refuse every connection but to this machine, for the life of the process."""
    if _installed.is_set():
        return
    _installed.set()
    _found.update((name, os.environ.get(name)) for name in SILENCE)
    os.environ.update(SILENCE)
    sys.addaudithook(_hook)
    for name, place in _METHODS.items():
        setattr(socket.socket, name, _asking_first(name, place))
    setattr(socket.socket, "listen", _listening(socket.socket.listen))  # noqa: B010 - mypy takes it for a method


def outside() -> dict[str, str]:
    """The user's own variables, for a program that he has sent to the network, as pip for a bundle."""
    ours = {name: value for name, value in os.environ.items() if name not in _found}
    return ours | {name: value for name, value in _found.items() if value is not None}


def may_connect(arguments: Sequence[str]) -> bool:
    """Whether a command line is the one that may use the network: ``fetch`` with ``--allow-network``."""
    return list(arguments[:1]) == ["fetch"] and "--allow-network" in arguments


def refusals() -> Mapping[str, int]:
    """What was refused in this process, and how often."""
    return dict(_refused)


def tell_refusals() -> None:
    """Log how often something was refused, if anything was; what it was is in the log already."""
    if _refused:
        log.warning("attempts to use the network, all refused: %d", sum(_refused.values()))


def is_here(host: object) -> bool:
    """Whether a host is this machine's loopback, and known to be so without asking anyone."""
    try:
        name = host.decode("ascii") if isinstance(host, bytes | bytearray) else host
        if not isinstance(name, str):
            return False
        if str.lower(name) == "localhost":
            return True
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _check_reach(sock: socket.socket, address: object) -> None:
    if not _passes(sock, address):
        _refuse("reach", _shown(address))


def _check_listen(sock: socket.socket, address: object) -> None:
    if not _passes(sock, address) and not _seeks_port():
        _refuse("listen at", _shown(address))


def _passes(sock: socket.socket, address: object) -> bool:
    """What is no address at all passes too: Python itself refuses it."""
    if sock.family in _LOCAL_FAMILIES or address is None:
        return True
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return not isinstance(address, tuple) or not address or is_here(address[0])


def _check_lookup(host: object, port: object = None, *_: object) -> None:
    """``None`` stands for this machine."""
    if host is not None and not is_here(host):
        _refuse("reach", _shown((host, port) if port is not None else (host,)))


def _check_name(address: object) -> None:
    """Of an address. Those that all machines have stand in files; for 127.9.9.9 a server is asked."""
    host = address[0] if isinstance(address, tuple) and address else address
    if host is not None and not (is_here(host) and _shown((host,)).strip("[]") in _NAMED):
        _refuse("look up", _shown(address))


_CHECKS: Mapping[str, Callable[..., None]] = {
    "socket.connect": _check_reach,
    "socket.sendto": _check_reach,
    "socket.sendmsg": _check_reach,
    "socket.bind": _check_listen,
    "socket.getaddrinfo": _check_lookup,
    "socket.gethostbyname": _check_lookup,
    "socket.gethostbyaddr": _check_name,
    "socket.getnameinfo": _check_name,
}
"""By audit event: docs.python.org/3/library/audit_events.html."""


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    check = _CHECKS.get(event)
    if check is not None:
        check(*arguments)


def _asking_first(name: str, place: int) -> Callable[..., Any]:
    """A method of sockets that checks its address first.

    Where that is a name, CPython asks a server for its number before it raises the audit event
    (Modules/socketmodule.c, getsockaddrarg).
    """
    plain = getattr(socket.socket, name)
    check = _check_listen if name == "bind" else _check_reach

    @functools.wraps(plain)
    def method(self: socket.socket, *arguments: Any) -> Any:
        if place < len(arguments):
            check(self, arguments[place])
        return plain(self, *arguments)

    return method


def _listening(plain: Callable[..., None]) -> Callable[..., None]:
    """`listen`, for which there is no audit event. Who has taken no address listens at all of them."""

    @functools.wraps(plain)
    def method(self: socket.socket, *arguments: Any) -> None:
        _check_listen(self, self.getsockname())
        plain(self, *arguments)

    return method


def _refuse(wish: str, target: str) -> NoReturn:
    message = f"{_caller()} wanted to {wish} {target}; orch-local opens no connection"
    _refused[message] += 1
    if _refused[message] == 1:  # before it is logged: a handler may itself want to connect
        log.warning("%s", message)
    raise NetworkRefusedError(errno.ECONNREFUSED, message)


def _shown(address: object) -> str:
    """An address for a message: printable, and not without end."""
    host, *rest = address if isinstance(address, tuple) and address else (address,)
    text = _printable(host) or "any address"
    return ":".join((f"[{text}]" if ":" in text else text, *map(_printable, rest[:1])))


def _printable(part: object) -> str:
    text = part.decode("latin-1") if isinstance(part, bytes | bytearray) else str(part)
    return ascii(text)[1:-1][:_LONGEST_NAME]


def _seeks_port() -> bool:
    return any(_module(frame) in _PORT_SEEKERS for frame in _frames(sys._getframe()))


def _caller() -> str:
    """``module:function:line`` of the caller: the innermost frame outside of ``_MACHINERY``.

    asyncio looks names up in threads of its own, which do not know the caller; then the main thread is named.
    """
    main = sys._current_frames().get(threading.main_thread().ident or 0)
    for start in (sys._getframe(), main):
        for frame in _frames(start):
            module = _module(frame)
            if module != __name__ and module.partition(".")[0] not in _MACHINERY:
                return f"{module}:{frame.f_code.co_name}:{frame.f_lineno}"
    return "a library"


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _module(frame: FrameType) -> str:
    name = str(frame.f_globals.get("__name__", ""))
    return os.path.basename(frame.f_code.co_filename) if name in ("", "__main__") else name  # noqa: PTH119
