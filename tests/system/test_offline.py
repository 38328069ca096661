"""The guard: nothing of Python's leaves this machine, who wanted it is named, and loopback works as ever.

It cannot be taken off again, so it is put on in processes of its own only; `attempts.py` is one of them.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attempts
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import Cli

from orch_local.engines.base import EngineSettings
from orch_local.engines.registry import environment
from orch_local.plan.fingerprint import fingerprint
from orch_local.util.offline import SILENCE, is_here, may_connect

CLOSED = "opens no connection"
ENGINES = ("vllm", "transformers")


def python(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    command = [sys.executable, "-c", code, *arguments]
    env = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=600, env=env)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What came of all attempts, and what was logged."""
    done = subprocess.run(
        [sys.executable, attempts.__file__], capture_output=True, text=True, check=True, timeout=600
    )
    values: dict[str, Any] = json.loads(done.stdout)
    return {**values, "log": done.stderr.splitlines()}


@pytest.mark.parametrize("attempt", attempts.REFUSED)
def test_nothing_gets_out(found: Mapping[str, Any], attempt: str) -> None:
    assert CLOSED in found["refused"][attempt]


@pytest.mark.parametrize("attempt", attempts.PASSES)
def test_this_machine_can_be_reached(found: Mapping[str, Any], attempt: str) -> None:
    if "IPv6" in attempt and "Errno 99" in found["passes"][attempt]:
        pytest.skip("this machine has no IPv6")
    assert not found["passes"][attempt]


def test_each_refusal_is_logged_once_and_counted(found: Mapping[str, Any]) -> None:
    logged = [line for line in found["log"] if CLOSED in line]
    assert set(found["told"]) < set(logged)  # that of the forked child besides
    assert len(logged) == len(set(logged)) == len(found["told"]) + 1
    assert set(found["told"].values()) == {1}


LIBRARY = """\
import socket, urllib.request

def phone_home():
    urllib.request.urlopen("http://192.0.2.1:8080/usage")

def resolve():
    socket.getaddrinfo("stats.invalid", 443)

def drop_packets():
    for _ in range(3):
        try:
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 8125))
        except OSError as error:
            print(error.errno, isinstance(error, ConnectionRefusedError))
"""
USER = """\
import logging, sys
import library
from orch_local.util import offline
offline.go_offline()
try:
    getattr(library, sys.argv[1])()
except Exception as error:
    print(error)
offline.tell_refusals()
"""


@pytest.fixture
def library(tmp_path: Path) -> str:
    """The folder of a package that has its own mind."""
    (tmp_path / "library.py").write_text(LIBRARY)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("phone_home", "library:phone_home:4 wanted to reach 192.0.2.1:8080; orch-local opens no connection"),
        ("resolve", "library:resolve:7 wanted to reach stats.invalid:443; orch-local opens no connection"),
    ],
)
def test_the_caller_is_named(library: str, function: str, said: str) -> None:
    done = python(USER, function, PYTHONPATH=library)
    assert said in done.stdout
    assert done.stderr.splitlines() == [said, "attempts to use the network, all refused: 1"]


def test_a_library_takes_it_for_a_connection_that_was_refused(library: str) -> None:
    done = python(USER, "drop_packets", PYTHONPATH=library)
    assert done.stdout == "111 True\n" * 3
    first, total = done.stderr.splitlines()
    assert first.startswith("library:drop_packets:12 wanted to reach 192.0.2.1:8125")
    assert total == "attempts to use the network, all refused: 3"


def test_a_log_handler_that_wants_out_does_not_go_round_in_circles() -> None:
    code = (
        "import logging.handlers, socket\n"
        "from orch_local.util import offline\noffline.go_offline()\n"
        "handler = logging.handlers.DatagramHandler('192.0.2.1', 9)\n"
        "logging.getLogger().addHandler(handler)\nlogging.raiseExceptions = False\n"
        "try:\n    socket.gethostbyname('a.invalid')\n"
        "except OSError:\n    print(sum(offline.refusals().values()))\n"
    )
    assert 1 < int(python(code).stdout) < 5


def test_hostile_names_cannot_write_into_the_log() -> None:
    code = (
        "import contextlib, socket\nfrom orch_local.util import offline\noffline.go_offline()\n"
        "with contextlib.suppress(OSError):\n"
        "    socket.socket().connect(('a\\x1b[2J\\n\\u202eb' + 'c' * 5000, 1))\n"
    )
    said = python(code).stderr
    assert "wanted to reach a\\x1b[2J\\n\\u202ebccc" in said
    assert len(said.splitlines()) == 1 and len(said) < 400


def test_a_process_that_an_engine_spawns_is_closed_as_well() -> None:
    # As multiprocessing.spawn does it for a worker, whose main module has a name.
    code = (
        "import runpy, socket\n"
        "runpy.run_module('orch_local.run.worker', run_name='__mp_main__', alter_sys=True)\n"
        "try:\n    socket.gethostbyname('a.invalid')\nexcept OSError as error:\n    print(error)\n"
    )
    assert CLOSED in python(code).stdout


def test_a_worker_is_closed_before_it_reads_its_order(tmp_path: Path) -> None:
    code = (
        "import socket\nfrom orch_local.run import worker as workers\n"
        "def order(line):\n    socket.gethostbyname('a.invalid')\n"
        "workers.Order.from_line = order\nworkers.main(['nowhere'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, input="{}\n", timeout=600
    )
    assert CLOSED in done.stderr and "NetworkRefusedError" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "open_"),
    [
        (["fetch", "--allow-network"], True),
        (["fetch", "model", "--allow-network", "--out", "x"], True),
        (["fetch"], False),
        (["run", "--allow-network"], False),
        (["run", "fetch", "--allow-network"], False),
        (["--allow-network", "fetch"], False),
        ([], False),
    ],
)
def test_one_command_line_alone_may_connect(arguments: list[str], open_: bool) -> None:
    assert may_connect(arguments) is open_
    code = (
        "import sys\nfrom orch_local.cli import app as cli, commands\n"
        "commands.app = lambda: None\ncli.go_offline = lambda: print('closed')\n"
        "sys.argv = ['orch-local', *sys.argv[1:]]\ncli.main()\n"
    )
    assert python(code, *arguments).stdout == ("" if open_ else "closed\n")


def test_no_command_takes_allow_network_but_fetch(cli: Cli) -> None:
    from orch_local.cli.commands import COMMANDS

    for name in {command.__name__.replace("_", "-") for command in COMMANDS} - {"fetch"}:
        assert "--allow-network" not in cli(name, "--help").out


def test_a_program_sent_to_the_network_has_the_variables_of_the_user() -> None:
    code = (
        "import os\nfrom orch_local.util import offline\nbefore = dict(os.environ)\n"
        "offline.go_offline()\noffline.go_offline()\n"
        "assert os.environ['NO_PROXY'] == '*' != before['NO_PROXY']\n"
        "os.environ['MINE'] = 'x'\nassert offline.outside() == {**before, 'MINE': 'x'}\n"
    )
    python(code, NO_PROXY="pypi.corp.invalid", HTTPS_PROXY="http://proxy.invalid:3128")


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_workers_are_started_with_all_variables(name: str, device: str) -> None:
    settings = EngineSettings(name, Path(), device, "guidance", "float32", 64)
    assert SILENCE.items() <= environment(settings).items()


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_silence_is_in_no_spec(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EngineSettings(name, Path(), device, "guidance", "float32", 64)
    for variable in SILENCE:
        monkeypatch.delenv(variable, raising=False)
    before = fingerprint(settings)
    for variable, value in SILENCE.items():
        monkeypatch.setenv(variable, value)
    assert fingerprint(settings) == before


def test_libraries_take_the_words() -> None:
    code = (
        "from huggingface_hub import constants as c, is_offline_mode\nfrom datasets import config as d\n"
        "assert c.HF_HUB_OFFLINE and c.HF_HUB_DISABLE_TELEMETRY and c.HF_HUB_DISABLE_XET\n"
        "assert c.HF_HUB_DISABLE_IMPLICIT_TOKEN and c.HF_HUB_DISABLE_UPDATE_CHECK and is_offline_mode()\n"
        "assert d.HF_HUB_OFFLINE and not d.HF_UPDATE_DOWNLOAD_COUNTS\n"
        "import urllib.request as u\nassert u.proxy_bypass('a.invalid')\n"
        "import sys; assert 'torch' not in sys.modules\n"
    )
    python(code, **SILENCE)


def test_every_variable_is_one_that_an_installed_library_reads() -> None:
    """A name misspelt would silence nobody."""
    texts = "".join(
        source.read_text(encoding="utf-8")
        for pattern in (
            "huggingface_hub/constants.py",
            "transformers/modeling_utils.py",
            "datasets/config.py",
            "opentelemetry/sdk/environment_variables/__init__.py",
            "vllm/envs.py",
            "vllm/v1/executor/ray_utils.py",
        )
        for folder in map(Path, sys.path)
        if (source := folder / pattern).is_file()
    )
    if "VLLM_HOST_IP" not in texts:
        pytest.skip("vLLM is not installed")
    native = {"GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NO_PROXY", "no_proxy"}
    native |= set() if "OTEL" in texts else {"OTEL_SDK_DISABLED"}  # a CPU's environment is without it
    assert not [name for name in SILENCE if name not in native and not re.search(rf"\b{name}\b", texts)]


@given(st.ip_addresses(v=4))
def test_of_ipv4_loopback_alone_is_here(address: ipaddress.IPv4Address) -> None:
    assert is_here(str(address)) is (address.packed[0] == 127)
    assert is_here(str(address).encode()) is (address.packed[0] == 127)
    assert is_here(f"::ffff:{address}") is (address.packed[0] == 127)


@given(st.integers(0, 2**24 - 1))
def test_all_of_loopback_is_here(low: int) -> None:
    assert is_here(str(ipaddress.IPv4Address((127 << 24) + low)))


@given(st.ip_addresses(v=6))
def test_of_ipv6_loopback_alone_is_here(address: ipaddress.IPv6Address) -> None:
    mapped = address.ipv4_mapped
    assert is_here(str(address)) is (int(address) == 1 or (mapped is not None and mapped.packed[0] == 127))


@given(st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.tuples(st.text()), st.floats()))
def test_whatever_is_no_address_of_loopback_is_not_here(host: object) -> None:
    text = host.decode("latin-1") if isinstance(host, bytes) else host
    if is_here(host):
        assert isinstance(text, str)
        assert text.lower() == "localhost" or ipaddress.ip_address(text).is_loopback


NOT_HERE = """
localhost. localhost.localdomain a.localhost 127.1 0x7f.0.0.1 2130706433 0.0.0.0 :: ::ffff:8.8.8.8 ::127.0.0.1
[::1] 127.0.0.1.invalid
"""


@pytest.mark.parametrize("host", [*NOT_HERE.split(), "", " 127.0.0.1", "127.0.0.1\n"])
def test_what_needs_an_interpreter_is_not_here(host: str) -> None:
    """The C library might ask a server about it, or take it for something else."""
    assert not is_here(host)


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", b"127.255.0.9", "::1", "::1%lo"])
def test_spellings_of_here(host: object) -> None:
    assert is_here(host)
