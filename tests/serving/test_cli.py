from __future__ import annotations

import asyncio
import json
import shlex
import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer
import uvicorn
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from offramp.errors import OfframpError
from serving.bulk.cli import classify
from serving.cli import serve
from serving.errors import SettingsError
from serving.http.server import Server
from serving.run import run_server, startup_banner
from serving.settings import PILLOW_LIMIT, Settings, read_settings
from tests.serving.conftest import Client

app = typer.Typer()
app.command()(classify)
app.command()(serve)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def photos(tmp_path: Path, pngs: list[bytes]) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, content in zip(paths, pngs[::20] + pngs[:1], strict=True):
        path.write_bytes(content)
    return paths


def test_classify_predicts_as_the_server_does(
    client: Client, bundle_path: Path, photos: list[Path]
) -> None:
    done = run("classify", *photos, "--bundle", bundle_path, "--json", "--top-k", 2)
    assert done.exit_code == 0, done.output
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["file"] for answer in answers] == [str(photo) for photo in photos]
    for photo, answer in zip(photos, answers, strict=True):
        served = client.post(
            "/v1/classify?top_k=2",
            content=photo.read_bytes(),
            headers={"Content-Type": "image/png"},
        ).json()
        assert answer["predictions"] == served["predictions"]


def test_classify_prints_a_line_for_people(bundle_path: Path, photos: list[Path]) -> None:
    done = run("classify", photos[0], "--bundle", bundle_path, "--mode", "exit", "--max-exit", 2)
    first, *candidates = done.stdout.splitlines()
    assert first.startswith(f"{photos[0]}: ")
    assert first.endswith("exit 2 of 3)")
    assert len(candidates) == 5


def test_classify_says_when_it_is_unsure(bundle_path: Path, photos: list[Path]) -> None:
    options = ("--bundle", bundle_path, "--reject-below", 1)
    first = run("classify", photos[0], *options).stdout.splitlines()[0]
    assert first.startswith(f"{photos[0]}: unsure (confidence 0.")
    (prediction,) = json.loads(run("classify", photos[0], *options, "--json").stdout)["predictions"]
    assert (prediction["label"], prediction["index"], prediction["reason"]) == (
        *(None, None, "unsure"),
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.png"], "missing.png cannot be read: No such file or directory."),
        (
            [__file__],
            "The image is in an unknown format; it is not a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC",
        ),
        (["{photo}", "--top-k", "9"], "top_k must be between 1 and 7, not 9."),
        (["{photo}", "--max-exit", "9"], "max_exit must be between 1 and 3, not 9."),
        (["{photo}", "--threshold", "-1"], "threshold must be"),
        (["{photo}", "--reject-below", "2"], "reject_below must be between 0 and 1, not 2.0."),
    ],
)
def test_classify_reports_an_error_in_a_sentence(
    bundle_path: Path, photos: list[Path], arguments: list[str], says: str
) -> None:
    filled = [argument.format(photo=photos[0]) for argument in arguments]
    done = run("classify", *filled, "--bundle", bundle_path)
    assert isinstance(done.exception, OfframpError)
    assert done.exception.exit_code == 2
    assert says in str(done.exception)


def test_the_announced_command_works_as_pasted(client: Client) -> None:
    text = startup_banner("127.0.0.1", 8123, client.app.state.service)
    command = next(line for line in text.splitlines() if "application/json" in line)
    words = shlex.split(command)
    url = next(word for word in words if word.startswith("http"))
    assert urlsplit(url).netloc == "127.0.0.1:8123"
    answer = client.post(
        urlsplit(url).path,
        content=words[words.index("-d") + 1],
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 200
    assert len(command) < 600


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80"), ("::1", "http://[::1]:80")],
)
def test_the_announced_address_can_be_reached(client: Client, host: str, url: str) -> None:
    assert f"{url}/v1/classify" in startup_banner(host, 80, client.app.state.service)


@pytest.mark.parametrize(("present", "hint"), [(True, True), (False, False)])
def test_an_idle_gpu_is_pointed_out(
    client: Client, monkeypatch: pytest.MonkeyPatch, present: bool, hint: bool
) -> None:
    monkeypatch.setattr("serving.run.gpu_present", lambda: present)
    text = startup_banner("127.0.0.1", 80, client.app.state.service)
    assert ("offramp[gpu]" in text) is hint


def test_a_port_in_use_is_reported_in_a_sentence(bundle_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            SettingsError, match=rf"^Cannot listen on 127.0.0.1:{port}: address already in use\.$"
        ):
            run_server(Settings(bundles=(bundle_path,), port=port))


def test_a_broken_bundle_stops_serve_with_a_sentence(tmp_path: Path) -> None:
    done = run("serve", tmp_path / "nothing", "--port", 0)
    assert isinstance(done.exception, OfframpError)
    assert "there is no such directory" in str(done.exception)


def test_a_signal_ends_readiness_first_and_is_not_raised_again(client: Client) -> None:
    service = client.app.state.service
    server = Server(
        uvicorn.Config(client.app),
        service.settings,
        started=lambda *_: None,
        drain=service.drain,
        reload=lambda: asyncio.sleep(0),
    )
    server.handle_exit(signal.SIGTERM, None)
    assert service.phase == "draining"
    assert server.should_exit
    assert not server.force_exit
    assert server._captured_signals == []
    server.handle_exit(signal.SIGINT, None)
    assert server.force_exit


# Settings


def test_settings_come_from_flags_then_the_environment_then_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OFFRAMP_PORT", "9000")
    monkeypatch.setenv("OFFRAMP_WORKERS", "3")
    monkeypatch.setenv("OFFRAMP_BUNDLES", "a:b/c")
    settings = read_settings(port=9001, host=None)
    assert (settings.port, settings.workers, settings.host) == (9001, 3, "127.0.0.1")
    assert settings.bundles == ("a", "b/c")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"port": 70_000}, "port"),
        ({"workers": 0}, "workers"),
        ({"provider": "tpu"}, "provider"),
        ({"max_pixels": PILLOW_LIMIT + 1}, "max_pixels"),
        (
            {"max_body_bytes": 9, "max_queue_bytes": 8},
            "max_body_bytes must not be larger than max_queue_bytes",
        ),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        read_settings(**wrong)


def test_every_setting_gives_a_reason() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_models_of_one_name_are_refused(
    tmp_path: Path, bundle_path: Path, images: NDArray[Any]
) -> None:
    done = run("serve", bundle_path, bundle_path, "--port", 0)
    assert isinstance(done.exception, OfframpError)
    assert "called tiny already" in str(done.exception)
