"""The model repository, as raw HTTP against the real server."""

from __future__ import annotations

import httpx

from tests.serving.api.v2.helpers import (
    assert_error,
)
from tests.serving.server_command import API_KEY


def test_the_index_accepts_an_empty_body_or_a_filter(http: httpx.Client) -> None:
    for options in ({}, {"json": {}}, {"json": {"ready": True}}):
        answer = http.post("/v2/repository/index", **options)
        assert answer.status_code == 200
        assert [entry["name"] for entry in answer.json()] == ["tiny"]
    for wrong in (b"[]", b'{"ready": 1}', b"x"):
        assert_error(http.post("/v2/repository/index", content=wrong), 400)


ADMIN = {"X-API-Key": API_KEY}


REPOSITORY = "/v2/repository/models"


def test_loading_and_unloading_need_the_key(http: httpx.Client) -> None:
    for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}):
        for verb in ("load", "unload"):
            assert_error(http.post(f"{REPOSITORY}/tiny/{verb}", headers=headers), 401, "key")
    assert http.get("/v2/models/tiny/ready").status_code == 200


def test_a_model_is_unloaded_and_loaded_again(http: httpx.Client) -> None:
    assert http.post(f"{REPOSITORY}/tiny/unload", headers=ADMIN).status_code == 200
    assert_error(http.get("/v2/models/tiny/ready"), 503)
    (entry,) = http.post("/v2/repository/index").json()
    assert (entry["name"], entry["state"]) == ("tiny", "UNAVAILABLE")
    assert http.post("/v2/repository/index", json={"ready": True}).json() == []
    assert_error(http.post(f"{REPOSITORY}/tiny/unload", headers=ADMIN), 404)
    assert http.post(f"{REPOSITORY}/tiny/load", json={}, headers=ADMIN).status_code == 200
    assert http.get("/v2/models/tiny/ready").status_code == 200
    (entry,) = http.post("/v2/repository/index").json()
    assert (entry["name"], entry["version"], entry["state"]) == ("tiny", "1", "READY")


def test_a_client_cannot_supply_what_is_loaded(http: httpx.Client) -> None:
    for name in ("other", "..%2ftiny", "%2fetc%2fpasswd"):
        assert_error(http.post(f"{REPOSITORY}/{name}/load", headers=ADMIN), 404)
    for wrong in ({"file:1/model.onnx": "AA=="}, {"config": "{}"}):
        answer = http.post(f"{REPOSITORY}/tiny/load", json={"parameters": wrong}, headers=ADMIN)
        assert_error(answer, 501, "parameters")
    wrong = {"parameters": {"path": "/etc"}}
    assert_error(http.post(f"{REPOSITORY}/tiny/unload", json=wrong, headers=ADMIN), 400, "path")
