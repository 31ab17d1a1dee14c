"""Both clients against the real server."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from offramp.client import (
    Answer,
    AsyncClient,
    Candidate,
    Client,
    ConnectionFailedError,
    ExitReached,
    ImageError,
    Measure,
    Prediction,
    ResponseError,
    RetryPolicy,
    Timing,
)
from serving.api import schemas
from serving.settings import Settings
from tests.serving.live import live
from tests.serving.stages import hold
from tests.serving.tiny_bundle import EXITS, LABELS

ONCE = RetryPolicy(attempts=1)
UNKNOWN_FORMAT = (
    "The image is in an unknown format; "
    "it is not a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC file."
)


class Blocking:
    """An AsyncClient with the interface of a Client, so that tests are written once."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*arguments, **options)

    def __enter__(self) -> Blocking:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            found = method(*arguments, **options)
            if isinstance(found, AsyncIterator):
                return iter(self._runner.run(collect(found)))
            return self._runner.run(found)

        return call


async def collect(found: AsyncIterator[Any]) -> list[Any]:
    return [entry async for entry in found]


@pytest.fixture(params=[Client, Blocking], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def client(kind: Any, url: str) -> Iterator[Any]:
    with kind(url) as client:
        yield client


def test_one_image_has_a_prediction(
    client: Any, url: str, pngs: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(pngs[0])
    found = client.classify(tmp_path / "a.png", top_k=2)
    headers = {"Content-Type": "image/png"}
    answer = httpx.post(f"{url}/v1/classify?top_k=2", content=pngs[0], headers=headers).json()
    (wanted,) = answer["predictions"]
    assert dataclasses.asdict(found) | {"top_k": list(map(dataclasses.asdict, found.top_k))} == (
        wanted
    )
    assert client.classify(pngs[0], mode="exit", max_exit=1).exit == 1
    assert client.classify(pngs[0], reject_below=1.0).label is None


def test_many_images_are_answered_in_order_whatever_fails(
    client: Any, pngs: list[bytes], tmp_path: Path
) -> None:
    images: list[Any] = [*pngs[:9], b"text", tmp_path / "gone.png", *pngs[9:]]
    found = list(client.classify_many(images, batch_images=4, threshold=0.0))
    assert [found[9], found[10]] == [
        ImageError(UNKNOWN_FORMAT, "invalid_image"),
        ImageError(
            f"{tmp_path / 'gone.png'} cannot be read: No such file or directory.", "unreadable"
        ),
    ]
    alone = [client.classify(png, threshold=0.0) for png in (pngs[0], pngs[8], pngs[9], pngs[-1])]
    assert [found[0], found[8], found[11], found[-1]] == alone
    assert len(found) == len(images)
    assert list(client.classify_many([])) == []


def test_a_batch_that_is_too_large_is_halved(client: Any, pngs: list[bytes]) -> None:
    found = list(client.classify_many([*pngs[:12], b"x" * 3000]))
    assert all(isinstance(entry, Prediction) for entry in found[:12])
    assert found[12].code == "too_large"


def test_a_batch_with_too_many_images_is_halved(
    bundle_path: Path, kind: Any, pngs: list[bytes]
) -> None:
    settings = Settings(bundles=(bundle_path,), workers=1, max_images=8)
    with live(settings) as (port, _), kind(f"http://127.0.0.1:{port}") as client:
        found = list(client.classify_many(pngs[:20], batch_images=20))
        assert all(isinstance(entry, Prediction) for entry in found)
        assert len(found) == 20


def test_a_path_that_no_file_can_have_is_an_error_in_its_place(
    client: Any, pngs: list[bytes]
) -> None:
    refused, answered = client.classify_many(["a\0b", pngs[0]])
    assert refused == ImageError("'a\\x00b' cannot be read: embedded null byte.", "unreadable")
    assert isinstance(answered, Prediction)


def test_an_option_that_is_none_is_not_given(client: Any, pngs: list[bytes]) -> None:
    found = client.classify(pngs[0], model=None, top_k=None, threshold=None)
    assert found == client.classify(pngs[0])


def test_a_lone_image_in_a_batch_has_its_error(client: Any) -> None:
    (found,) = client.classify_many([b"text"])
    assert found.code == "invalid_image"


def test_a_stream_has_every_exit_and_the_answer(client: Any, pngs: list[bytes]) -> None:
    events = list(client.stream(pngs[0], threshold=0.0, run_all_exits=True))
    exits = [event for event in events if isinstance(event, ExitReached)]
    assert [(event.exit, event.left) for event in exits] == [(1, True), (2, False), (3, False)]
    (answer,) = (event for event in events if isinstance(event, Answer))
    assert answer.predictions == (client.classify(pngs[0], threshold=0.0),)
    with pytest.raises(ResponseError, match="JPEG"):
        list(client.stream(b"text"))


def test_models_and_readiness(client: Any, kind: Any) -> None:
    (model,) = client.models()
    assert (model.name, model.classes, model.exits) == ("tiny", len(LABELS), EXITS)
    assert client.ready() is True
    with kind("http://127.0.0.1:9", retries=ONCE) as nobody:
        assert nobody.ready() is False


def test_an_error_has_sentence_status_and_code(client: Any, pngs: list[bytes]) -> None:
    with pytest.raises(ResponseError, match=r"There is no model of this name") as error:
        client.classify(pngs[0], model="other")
    assert (error.value.status, error.value.code) == (404, "not_found")
    with pytest.raises(ResponseError, match="top_k"):
        list(client.classify_many(pngs[:2], top_k=99))


def test_a_server_that_is_not_there_is_an_error_in_a_sentence(kind: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    policy = RetryPolicy(attempts=3, backoff_s=0.02)
    started = time.perf_counter()
    with (
        kind(f"http://127.0.0.1:{port}", retries=policy) as client,
        pytest.raises(ConnectionFailedError, match=rf"^http://127.0.0.1:{port} cannot be reached"),
    ):
        client.classify(b"")
    assert time.perf_counter() - started >= 0.02 + 0.04


def test_what_is_no_offramp_server_is_an_error_in_a_sentence(kind: Any) -> None:
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        with (
            kind(f"http://127.0.0.1:{listener.getsockname()[1]}", retries=ONCE) as client,
            pytest.raises(Exception, match="is it an Offramp server"),
        ):
            client.models()
        thread.join()


def test_a_busy_server_is_asked_again_after_retry_after(
    bundle_path: Path, kind: Any, pngs: list[bytes]
) -> None:
    settings = Settings(bundles=(bundle_path,), workers=1, max_queue_ms=1e-3)
    with live(settings) as (port, service):
        stage = hold(service, at=1)
        url = f"http://127.0.0.1:{port}"
        with kind(url) as client, Client(url) as other:
            first = threading.Thread(target=other.classify, args=(pngs[0],))
            first.start()
            assert stage.held.acquire(timeout=10)
            threading.Timer(0.2, stage.open.set).start()
            started = time.perf_counter()
            assert isinstance(client.classify(pngs[1]), Prediction)
            assert time.perf_counter() - started >= 1.0
            first.join()
            assert "over_capacity" in httpx.get(f"{url}/metrics").text


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Prediction, schemas.PredictionAnswer),
        (Candidate, schemas.Candidate),
        (Measure, schemas.MeasureAnswer),
        (Timing, schemas.Timing),
        (Answer, schemas.LimitedAnswer),
        (ImageError, schemas.ErrorAnswer),
    ],
)
def test_the_answers_have_the_servers_fields(ours: Any, theirs: Any) -> None:
    assert [f.name for f in dataclasses.fields(ours)] == [
        f.name for f in dataclasses.fields(theirs)
    ]


def test_both_clients_have_the_same_methods() -> None:
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_"):
            parameters = inspect.signature(getattr(AsyncClient, name)).parameters
            assert set(inspect.signature(method).parameters) <= set(parameters)


def test_without_httpx_the_import_names_the_extra() -> None:
    code = "import sys; sys.modules['httpx'] = None\nimport offramp.client"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'offramp[client]'" in done.stderr
