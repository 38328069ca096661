"""A real SLURM cluster of two nodes on the loopback interface, for tests; everything lies under one folder.

No systemd, no cgroups, no accounting database; as root or as any user. The GPUs are none: their device
files are ``/dev/null`` and ``/dev/zero``, which is enough for SLURM to hand them out.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

NODES = ("n1", "n2")
COMMANDS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
PACKAGES = "slurmctld slurmd slurm-client munge"
_SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")
_CLIENT_S = 30.0
_NODE = "CPUs=4 RealMemory=40000 Gres=gpu:2"

_CONFIG = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/run/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0,requeue_delay=0
ReturnToService=1
SlurmdTimeout=10
SlurmctldTimeout=10
InactiveLimit=0
KillWait=5
MinJobAge=300
MaxArraySize=10001
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
DefMemPerCPU=100
GresTypes=gpu
{nodes}
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=60 DefaultTime=10 PriorityTier=1 OverSubscribe=NO
PartitionName=urgent Nodes=n[1-2] MaxTime=60 DefaultTime=10 PriorityTier=10 PreemptMode=OFF
"""


class NoClusterError(Exception):
    """SLURM is not installed here, or does not start; the text says which."""


def missing() -> list[str]:
    """The SLURM commands that are not installed."""
    return [command for command in COMMANDS if _command(command) is None]


class Cluster:
    """Start and stop the cluster, and do to it what happens to clusters.

    Raises
    ------
    NoClusterError
        If it cannot be started here.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "slurm.conf"
        self.env = {**os.environ, "SLURM_CONF": str(self.config)}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all daemons and wait until both nodes are idle."""
        if missing():
            raise NoClusterError(f"not installed: {', '.join(missing())} (Debian packages {PACKAGES})")
        self._write_files()
        munge = ("socket", "key-file", "pid-file", "log-file", "seed-file")
        names = ("run/munge.sock", "munge.key", "run/munged.pid", "log/munged.log", "run/munged.seed")
        options = [f"--{key}={self.root / name}" for key, name in zip(munge, names, strict=True)]
        self._start("munged", "munged", "--foreground", "--num-threads=2", *options)
        self._until(lambda: (self.root / "run" / "munge.sock").exists(), "munged")
        self._start("slurmctld", "slurmctld", "-D", "-f", str(self.config))
        for node in NODES:
            self.start_node(node)
        self._until(self._idle, "nodes")

    def stop(self) -> None:
        """End every process of the cluster and of its jobs, whatever state they are in."""
        for _ in range(3):  # a daemon may start one more process while it is being ended
            for process in self.processes():
                with suppress(psutil.Error):
                    process.kill()
        for daemon in self._daemons.values():
            daemon.wait(timeout=10)
        self._daemons.clear()

    def processes(self) -> Iterator[psutil.Process]:
        """All processes that were started with the configuration of this cluster."""
        mark = f"SLURM_CONF={self.config}".encode()
        known = {daemon.pid for daemon in self._daemons.values()}
        for process in psutil.process_iter():
            with suppress(OSError):
                environ = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                if process.pid in known or mark in environ:
                    yield process

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._start(node, "slurmd", "-D", "-f", str(self.config), "-N", node)

    def kill_slurmd(self, node: str) -> None:
        """Kill the daemon of a node; its jobs go on, watched by nobody."""
        daemon = self._daemons.pop(node)
        daemon.kill()
        daemon.wait(timeout=10)

    def kill_daemons(self, node: str) -> None:
        """Kill the daemon of a node and those of its job steps; the jobs themselves go on as orphans."""
        steps = [process.parent() for process in self.jobs_on(node)]
        self.kill_slurmd(node)
        for step in steps:
            if step is not None and "slurmstepd" in step.name() + "".join(step.cmdline()):
                with suppress(psutil.Error):
                    step.kill()

    def jobs_on(self, node: str) -> list[psutil.Process]:
        """The processes of jobs on a node."""
        mark = f"SLURMD_NODENAME={node}".encode()
        found = []
        for process in self.processes():
            with suppress(OSError):
                if mark in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                    found.append(process)
        return found

    def set_node(self, node: str, state: str, check: bool = True) -> None:
        """Set a node ``down`` or let it ``resume``."""
        self.client("scontrol", "update", f"nodename={node}", f"state={state}", "reason=test", check=check)

    def clear(self) -> None:
        """Cancel all jobs, start what was killed, and wait until both nodes are idle."""
        for node in NODES:
            if node not in self._daemons:
                self.start_node(node)
        jobs = self.client("squeue", "-h", "-o", "%F").split()
        if jobs:
            self.client("scancel", *jobs, check=False)
        self._until(lambda: self._recovered() and not self.client("squeue", "-h"), "nodes")

    def _recovered(self) -> bool:
        """Whether both nodes are idle; one that is down is asked to resume."""
        for node in NODES:
            if self.node_state(node).startswith(("down", "drain")):
                self.set_node(node, "resume", check=False)  # refused where it came back just now
        return self._idle()

    def node_state(self, node: str) -> str:
        """Such as ``idle``, ``mixed``, ``down*``."""
        return self.client("sinfo", "-h", "-N", "-p", "main", "-n", node, "-o", "%T", check=False)

    def client(self, *command: str, check: bool = True) -> str:
        """Run a client of SLURM and return what it printed."""
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=_CLIENT_S, check=False
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def _idle(self) -> bool:
        return [self.node_state(node) for node in NODES] == ["idle", "idle"]

    def _start(self, name: str, command: str, *arguments: str) -> None:
        path = _command(command)
        assert path is not None
        with (self.root / "log" / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                [path, *arguments],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=_plain_signals,
            )

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            if time.monotonic() > deadline or any(one.poll() is not None for one in self._daemons.values()):
                told = [file.read_text(errors="replace")[-600:] for file in (self.root / "log").iterdir()]
                self.stop()
                raise NoClusterError(f"{what} did not start: " + "\n".join(told))
            time.sleep(0.05)

    def _write_files(self) -> None:
        for name in ("state", "log", "run", *(f"spool/{node}" for node in NODES)):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        key = self.root / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        host = socket.gethostname().split(".")[0]
        controller, *ports = _free_ports(1 + len(NODES))
        nodes = [
            f"NodeName={node} NodeAddr=127.0.0.1 NodeHostname={host} Port={port} {_NODE}"
            for node, port in zip(NODES, ports, strict=True)
        ]
        values = {"host": host, "user": getpass.getuser(), "root": self.root, "controller": controller}
        self.config.write_text(_CONFIG.format(**values, nodes="\n".join(nodes)))
        (self.root / "gres.conf").write_text("NodeName=n[1-2] Name=gpu File=/dev/null,/dev/zero\n")


def _plain_signals() -> None:
    """Daemons, and so the jobs, must not inherit what a test runner was told to ignore."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(one, signal.SIG_DFL)


def _command(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=":".join(_SBIN))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
