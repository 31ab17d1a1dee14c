"""The command `offramp` with one epoch in every recipe, forked from a process that has already loaded torch.

Other tests train the recipes as they are, in processes of their own.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import offramp.cli
from tests.deploy.hosts import process
from training.recipes.auto import Choice
from training.recipes.schema import Recipe

PRELOADED = (
    "training.auto_train",
    "exports.pipeline",
    "torch._dynamo",  # imported with the first optimiser
    "torch.export",
    "onnxscript",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "sklearn.datasets",
)
# The command: sends its arguments, directory, environment and streams, and ends with the exit code it gets.
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)])
    socket.send_fds(server, [request.encode()], [0, 1, 2])
    code = server.recv(1)
sys.exit(code[0] if code else 1)
"""
MAX_REQUEST_BYTES = 1 << 18


@contextlib.contextmanager
def command(place: Path) -> Iterator[Path]:
    """A new directory below `place` with the command `offramp`, for as long as the context lasts."""
    folder, address = place / "bin", place / "offramp.socket"
    folder.mkdir()
    script = folder / "offramp"
    script.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    script.chmod(0o755)
    log = place / "offramp.log"
    with process([sys.executable, "-m", __name__, address], log) as server:
        end = time.monotonic() + 120
        while not address.exists():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield folder


def shortened(recipe: Recipe) -> Recipe:
    """`recipe` with one epoch."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 1})})


def shorten_training() -> None:
    """Have `offramp train` use shortened recipes, shipped ones and those chosen for a folder."""
    import training.auto_train
    import training.recipes.files

    load, choose = training.recipes.files.load_recipe, training.auto_train.choose_recipes

    def choose_short(*arguments: Any, **options: Any) -> Choice:
        choice = choose(*arguments, **options)
        return Choice(tuple(shortened(recipe) for recipe in choice.recipes), choice.reasons)

    training.recipes.files.load_recipe = lambda source: shortened(load(source))
    training.auto_train.choose_recipes = choose_short


def serve(address: str) -> None:
    """Run the requested commands, each in a child of this process."""
    for name in PRELOADED:
        importlib.import_module(name)
    shorten_training()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                run(connection)
            connection.close()


def run(connection: socket.socket) -> NoReturn:
    """Run the command requested over `connection` and send its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, streams, _, _ = socket.recv_fds(connection, MAX_REQUEST_BYTES, 3)
    arguments, directory, environment = json.loads(request)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["offramp", *arguments]
    code: Any = None
    try:
        offramp.cli.main()
        code = 0
    except SystemExit as left:
        code = left.code or 0
    finally:
        if code is None:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([code]))
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
