"""Mixed load on a server for a long time: answers stay right and memory stays flat.

    python -m benchmarks.soak --minutes 60

Starts `offramp serve` and sends all kinds of requests at once: images of all sizes as raw bodies and as JSON,
invalid images, requests given up half-way, unknown addresses, scrapes, policies, and swaps of the bundle.
Each answer's model and number of predictions are checked, and the server's resident memory is sampled. The
first third is warm-up. The result is the minimum of the last fifth less the minimum of the first fifth after
warm-up; minimum, because an allocator keeps freed memory until a swap returns it. Exit code 1 if that is
more than `--bound` MiB, if an answer was wrong, or if the server does not exit with 0.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from exports.bundle.reader import read_manifest
from exports.bundle.resolve import CIFAR100

SIDES = (8, 32, 33, 64, 200, 640)
WARM_UP_SHARE = 1 / 3
MIB = 1 << 20


@dataclass
class Soak:
    """The requests to one server, counted by kind, and what was wrong with answers."""

    address: tuple[str, int]
    model: str
    exits: int
    end: float
    files: list[bytes]
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def client(self, seed: int) -> None:
        """Send random requests on one connection, until the end."""
        rng = random.Random(seed)
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        requests = (
            self.single,
            self.single,
            self.single,
            self.several,
            self.nonsense,
            self.scrape,
        )
        while time.monotonic() < self.end and not self.wrong:
            try:
                if rng.random() < 0.05:
                    self.give_up(rng)
                else:
                    rng.choice(requests)(connection, rng)
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(repr(error))

    def administrator(self, seconds: float) -> None:
        """Swap the bundle and change the policy every `seconds`, until the end."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        url = f"/v1/models/{self.model}"
        while time.monotonic() < self.end and not self.wrong:
            self.ask(connection, "PUT", url, b"", {}, 200, "swap")
            threshold = random.random()
            policy = {"thresholds": [threshold] * (self.exits - 1), "max_exit": self.exits}
            body, kind = json.dumps(policy).encode(), {"Content-Type": "application/json"}
            self.ask(connection, "PUT", f"{url}/policy", body, kind, 200, "policy")
            self.ask(connection, "POST", f"{url}/policy/preview", body, kind, 200, "preview")
            time.sleep(max(0.0, min(seconds, self.end - time.monotonic())))

    def single(self, connection: http.client.HTTPConnection, rng: random.Random) -> None:
        body = rng.choice(self.files)
        self.classify(connection, body, {"Content-Type": "image/png"}, 1)

    def several(self, connection: http.client.HTTPConnection, rng: random.Random) -> None:
        count = rng.randint(2, 8)
        files = [base64.b64encode(rng.choice(self.files)).decode() for _ in range(count)]
        body = json.dumps({"images": files}).encode()
        self.classify(connection, body, {"Content-Type": "application/json"}, count)

    def nonsense(self, connection: http.client.HTTPConnection, rng: random.Random) -> None:
        body = rng.choice(self.files)[: rng.randint(0, 60)]
        kind = {"Content-Type": "image/png"}
        self.ask(connection, "POST", "/v1/classify", body, kind, 400, "bad image")
        self.ask(connection, "GET", f"/{rng.random()}", b"", {}, 404, "unknown address")

    def scrape(self, connection: http.client.HTTPConnection, rng: random.Random) -> None:
        self.ask(connection, "GET", "/metrics", b"", {}, 200, "scrape")

    def give_up(self, rng: random.Random) -> None:
        """Leave in the middle of a request, or after it and before its answer."""
        body = rng.choice(self.files)
        head = f"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        request = f"{head}Content-Type: image/png\r\n\r\n".encode() + body
        with socket.create_connection(self.address) as connection:
            connection.sendall(request[: rng.choice((40, len(request) // 2, len(request)))])
        self.counts["given up"] += 1

    def classify(
        self,
        connection: http.client.HTTPConnection,
        body: bytes,
        headers: dict[str, str],
        images: int,
    ) -> None:
        answer = json.loads(
            self.ask(connection, "POST", "/v1/classify", body, headers, 200, "classify")
        )
        if answer.get("model") != self.model or len(answer.get("predictions", ())) != images:
            self.wrong.append(f"a wrong answer: {answer}")

    def ask(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        url: str,
        body: bytes,
        headers: dict[str, str],
        status: int,
        what: str,
    ) -> bytes:
        """The body of an answer, which must have `status`; 429 is retried."""
        while True:
            connection.request(method, url, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 429:
                break
            self.counts["429"] += 1
            time.sleep(0.05)
        self.counts[what] += 1
        if answer.status != status:
            self.wrong.append(f"{method} {url}: {answer.status} {content.decode()}")
        return content


def main(argv: list[str] | None = None) -> int:
    """Run, print JSON, and return 1 if anything was wrong."""
    options = _options(argv)
    manifest = read_manifest(options.bundle)
    with tempfile.TemporaryDirectory() as place:
        repository = Path(place) / "repository"
        shutil.copytree(options.bundle, repository / "soaked")
        command = [*("-m", "offramp.cli", "serve", "--port", "0"), "--repository", str(repository)]
        with subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                result = _soak(server, manifest.name, len(manifest.exits), options)
                server.send_signal(signal.SIGTERM)
                result["exit_code"] = server.wait(60)
            finally:
                server.kill()
    print(json.dumps(result, indent=2))
    grown = result["rss_mib_end"] - result["rss_mib_after_warm_up"]
    return int(bool(result["wrong"]) or result["exit_code"] != 0 or grown > options.bound)


def _soak(
    server: subprocess.Popen[str], model: str, exits: int, options: argparse.Namespace
) -> dict[str, object]:
    assert server.stdout is not None
    port = re.search(r":(\d+)", server.stdout.readline().split(" at ")[1])
    assert port is not None
    seconds = 60 * options.minutes
    soak = Soak(
        ("127.0.0.1", int(port.group(1))), model, exits, time.monotonic() + seconds, _files()
    )
    threads = [
        threading.Thread(target=soak.client, args=(seed,)) for seed in range(options.connections)
    ]
    threads.append(threading.Thread(target=soak.administrator, args=(options.swap_seconds,)))
    for thread in threads:
        thread.start()
    memory = []
    while any(thread.is_alive() for thread in threads):
        memory.append(_resident(server.pid))
        time.sleep(max(0.05, seconds / 2000))
    after = memory[int(len(memory) * WARM_UP_SHARE) :]
    fifth = max(1, len(after) // 5)
    return {
        "model": model,
        "minutes": options.minutes,
        "requests": dict(sorted(soak.counts.items())),
        "wrong": soak.wrong[:10],
        "rss_mib_after_warm_up": round(min(after[:fifth]) / MIB, 1),
        "rss_mib_end": round(min(after[-fifth:]) / MIB, 1),
        "rss_mib_most": round(max(memory) / MIB, 1),
    }


def _resident(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def _files() -> list[bytes]:
    rng = np.random.default_rng(0)
    found = []
    for side in SIDES:
        for _ in range(3):
            content = io.BytesIO()
            noise = rng.integers(0, 256, (side, side, 3)) * rng.random()
            Image.fromarray(noise.astype(np.uint8)).save(content, "PNG", compress_level=1)
            found.append(content.getvalue())
    return found


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--bundle", type=Path, default=CIFAR100)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--swap-seconds", type=float, default=1)
    parser.add_argument("--bound", type=float, default=16, help="MiB (default: 16)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
