"""What can be started as a canary, who may, and a canary that begins with the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exports.bundle.errors import BundleError
from serving.errors import SettingsError
from serving.settings import read_settings
from tests.serving.canary.conftest import CANARY, answer_of, settings_of, start
from tests.serving.conftest import Client, running
from tests.serving.requests import assert_error
from tests.serving.tiny_bundle import write_tiny_bundle


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"bundle": "none"}, 404, "not_found", "no bundle in a subdirectory"),
        ({"bundle": "../tiny-2"}, 404, "not_found", "no bundle in a subdirectory"),
        ({"bundle": "bee"}, 409, "bad_bundle", "called bee, not tiny"),
        ({"bundle": "broken"}, 409, "bad_bundle", "stage2.onnx"),
        ({"bundle": "tiny-2", "share": 1.5}, 400, "invalid_request", "share"),
        ({"bundle": "tiny-2", "header": "no header"}, 400, "invalid_request", "header"),
        ({"bundle": "tiny-2", "bounds": {"max_latency_ratio": 0.5}}, 400, "invalid_request", ""),
        ({}, 400, "invalid_request", "bundle"),
    ],
)
def test_a_canary_that_cannot_be_started_changes_nothing(
    tmp_path: Path, body: Any, status: int, code: str, says: str
) -> None:
    write_tiny_bundle(tmp_path / "a-tiny")
    write_tiny_bundle(tmp_path / "tiny-2", version="2")
    write_tiny_bundle(tmp_path / "bee", name="bee")
    write_tiny_bundle(tmp_path / "broken", version="3")
    (tmp_path / "broken" / "stage2.onnx").write_bytes(b"no graph")
    with running(settings_of(tmp_path)) as client:
        assert_error(client.post(CANARY, json=body), status, code, says)
        assert client.get(CANARY).json()["running"] is None


def test_a_model_has_one_canary(client: Client) -> None:
    start(client)
    again = client.post(CANARY, json={"bundle": "tiny-3"})
    assert_error(again, 409, "canary_conflict", "has a canary already")


def test_changing_a_canary_needs_the_key(repository: Path) -> None:
    settings = settings_of(repository, api_key="a-key-of-sixteen-characters", host="0.0.0.0")
    with running(settings) as client:
        assert client.get(CANARY).status_code == 200
        for answer in (
            client.post(CANARY, json={"bundle": "tiny-2"}),
            client.post(f"{CANARY}/promote"),
            client.delete(CANARY),
            client.runner.run(client.http.patch(CANARY, json={"share": 1.0})),
        ):
            assert answer.status_code == 401


def test_a_canary_may_begin_with_the_server(repository: Path, pngs: list[bytes]) -> None:
    canary = {"canary": str(repository / "tiny-2"), "canary_share": 1.0, "canary_header": "X-User"}
    with running(settings_of(repository, **canary)) as client:
        plan = client.get(CANARY).json()["running"]["plan"]
        assert (plan["share"], plan["header"]) == (1.0, "X-User")
        assert answer_of(client, pngs[0])["version"] == "2"


def test_a_canary_of_no_model_is_refused_at_the_start(repository: Path, tmp_path: Path) -> None:
    bee = write_tiny_bundle(tmp_path / "bee", name="bee")
    with (
        pytest.raises(BundleError, match="no model is called bee"),
        running(settings_of(repository, canary=str(bee))),
    ):
        pass


def test_a_latency_target_and_a_canary_do_not_go_together() -> None:
    with pytest.raises(SettingsError, match="do not go together"):
        read_settings(target_p99_ms=100.0, accuracy_floor=60.0, canary="cifar100-lite0")
