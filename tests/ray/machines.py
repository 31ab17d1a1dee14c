"""Two machines for Ray: network namespaces of this machine, joined by a bridge that it is on, too.

They share the file system and the memory, but no loopback, port or process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.debian import require
from tests.ray.conftest import wait_for

ROOT = Path(__file__).parents[2]
NETWORK = "10.177.53"
GCS = 6379
HTTP = 8000
# Logical cores of the head and of the other one: replicas that need more than the latter run on the head.
CORES = (16, 12)
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "RAY_USAGE_STATS_ENABLED": "0",
    # Nodes can join a cluster only with its token.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "a-token-for-tests-alone-0123456789",
}


@dataclass(frozen=True)
class Machine:
    """A network namespace, and its address."""

    name: str
    address: str

    @property
    def url(self) -> str:
        """The URL of its proxy."""
        return f"http://{self.address}:{HTTP}"

    def run(self, command: str, *arguments: str | Path) -> str:
        """Run one of Ray's commands there, and return its output; it must succeed."""
        tool = Path(sys.executable).with_name(command)
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, tool, *arguments],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, cores: int, *arguments: str) -> None:
        """Start Ray there, with logical `cores`."""
        options = (f"--num-cpus={cores}", "--object-store-memory=200000000")
        self.run("ray", "start", f"--node-ip-address={self.address}", *options, *arguments)

    def replicas(self) -> list[str]:
        """The deployment name of each replica that runs there, without the policy store, which may run
        anywhere."""
        deployments = []
        for process in self._processes():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                title = Path(f"/proc/{process}/cmdline").read_text().split("\0")[0]
                if title.startswith("ray::ServeReplica:"):
                    deployments.append(title.split(":")[4].split(".")[0].strip())
        return sorted(name for name in deployments if name != "policies")

    def ready(self) -> bool:
        """Whether the proxy there reaches a replica that is ready."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """Kill all processes there, as if the power was cut; its network still closes connections."""
        while processes := self._processes():
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.1)

    def vanish(self) -> None:
        """Disconnect it from the network: connections stay open, and requests get no answer."""
        _ip("-netns", self.name, "link", "set", "eth0", "down")

    def _processes(self) -> list[int]:
        return [int(line) for line in _ip("netns", "pids", self.name).split()]


@contextlib.contextmanager
def cluster() -> Iterator[tuple[Machine, Machine]]:
    """Ray on two machines; the first is the head."""
    require("iproute2", "ip")
    bridge = f"offramp{os.getpid()}"[:13]
    # Sockets are created below it, and their paths must be short.
    session = Path("/tmp") / bridge
    head, other = (Machine(f"{bridge}-{n}", f"{NETWORK}.{n}") for n in (1, 2))
    with contextlib.ExitStack() as undo:
        _ip("link", "add", bridge, "type", "bridge")
        undo.callback(_ip, "link", "delete", bridge)
        _ip("address", "add", f"{NETWORK}.254/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        undo.callback(shutil.rmtree, session, ignore_errors=True)
        for machine in (head, other):
            _ip("netns", "add", machine.name)
            undo.callback(_ip, "netns", "delete", machine.name)
            undo.callback(machine.kill)
            _connect(machine, bridge)
            undo.callback(_ip, "link", "delete", machine.name)
        options = ("--head", f"--port={GCS}", "--include-dashboard=false", f"--temp-dir={session}")
        head.start(CORES[0], *options)
        other.start(CORES[1], f"--address={head.address}:{GCS}")
        yield head, other


def deploy(
    machines: tuple[Machine, Machine], example: str, place: Path, args: dict[str, Any]
) -> None:
    """Serve the file `example` of examples/ray, changed by `args`, and wait until each machine's proxy
    answers."""
    head = machines[0]
    content = yaml.safe_load((ROOT / "examples" / "ray" / example).read_text("utf-8"))
    (application,) = content["applications"]
    application["args"].update(args)
    application["deployments"] = [
        {"name": "offramp", "user_config": {"bundles": args["bundles"], "policies": {}}}
    ]
    file = place / example
    file.write_text(yaml.safe_dump(content), "utf-8")
    head.run("serve", "run", "--non-blocking", "--address", f"{head.address}:{GCS}", file)
    wait_for(lambda: all(machine.ready() for machine in machines), within=120)


def _connect(machine: Machine, bridge: str) -> None:
    """Connect the machine to the bridge, as its only network interface."""
    peer = ("peer", "name", "eth0", "netns", machine.name)
    _ip("link", "add", machine.name, "type", "veth", *peer)
    _ip("link", "set", machine.name, "master", bridge, "up")
    inside = ("-netns", machine.name)
    _ip(*inside, "address", "add", f"{machine.address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        _ip(*inside, "link", "set", device, "up")


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout
