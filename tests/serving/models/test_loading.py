"""Loading, swapping and unloading models by request."""

from __future__ import annotations

import asyncio
import gc
import shutil
import weakref
from pathlib import Path

import pytest

from exports.bundle.policy import Policy
from serving.settings import Settings
from tests.serving.conftest import Client, running
from tests.serving.models.bundles import names, replace_bundle, version, wait_until
from tests.serving.requests import CLASSIFY, as_raw, assert_error, metrics
from tests.serving.tiny_bundle import write_tiny_bundle


def test_everything_in_the_repository_is_served_from_the_start(client: Client) -> None:
    assert names(client) == ["ant", "bee"]


def test_a_bundle_added_later_is_loaded_by_name(
    client: Client, repository: Path, pngs: list[bytes]
) -> None:
    write_tiny_bundle(repository / "directory", name="cat")
    assert_error(client.get("/v1/models/cat"), 404, "not_found")
    answer = client.put("/v1/models/cat")
    assert answer.status_code == 200
    assert answer.json() == client.get("/v1/models/cat").json()
    assert client.post(f"{CLASSIFY}?model=cat", **as_raw(pngs[0])).json()["model"] == "cat"
    assert names(client) == ["ant", "bee", "cat"]


def test_a_swap_keeps_the_order_and_increments_the_policy_revision(
    client: Client, repository: Path, pngs: list[bytes]
) -> None:
    policy = Policy(thresholds=(2, 2), max_exit=2)
    replace_bundle(repository / "ant", version="2", policy=policy)
    assert version(client, "ant") == "1"
    assert client.put("/v1/models/ant").json()["version"] == "2"
    assert names(client) == ["ant", "bee"]
    found = client.get("/v1/models/ant/policy").json()
    assert found == {
        **{"revision": 2, "policy": policy.model_dump(mode="json")},
        "certificate_verified": None,
    }
    answer = client.post(CLASSIFY, **as_raw(pngs[0])).json()
    assert (answer["version"], answer["predictions"][0]["exit"]) == ("2", 2)
    exposed = metrics(client)
    assert 'offramp_model_info{model="ant",precision="fp32"' in exposed
    assert exposed.count('offramp_model_info{model="ant"') == 1
    assert 'offramp_policy_revision{model="ant"} 2.0' in exposed


def test_a_bundle_given_at_the_start_can_be_swapped(tmp_path: Path, pngs: list[bytes]) -> None:
    path = write_tiny_bundle(tmp_path / "tiny")
    with running(Settings(bundles=(path,), workers=1)) as client:
        replace_bundle(path, version="2")
        assert client.put("/v1/models/tiny").json()["version"] == "2"
        client.delete("/v1/models/tiny")
        assert client.put("/v1/models/tiny").status_code == 200


@pytest.mark.parametrize(
    "name", ["cat", "..", "%2e%2e%2frepository%2fant", "ant%00", "repository", "%2Fetc"]
)
def test_only_names_of_bundles_can_be_loaded(client: Client, name: str) -> None:
    answer = client.put(f"/v1/models/{name}")
    assert answer.status_code in (404, 405), answer.text


def test_a_bundle_of_another_name_in_the_same_path_replaces_the_old_one(
    client: Client, repository: Path
) -> None:
    shutil.rmtree(repository / "ant")
    write_tiny_bundle(repository / "ant", name="cat")
    assert client.put("/v1/models/cat").status_code == 200
    assert sorted(names(client)) == ["bee", "cat"]


def test_after_unloading_the_default_model_the_next_one_is_the_default(
    client: Client, pngs: list[bytes]
) -> None:
    assert client.delete("/v1/models/ant").status_code == 204
    assert_error(client.delete("/v1/models/ant"), 404, "not_found")
    assert_error(client.post(f"{CLASSIFY}?model=ant", **as_raw(pngs[0])), 404, "not_found")
    assert client.post(CLASSIFY, **as_raw(pngs[0])).json()["model"] == "bee"
    assert 'model_info{model="ant"' not in metrics(client)
    assert client.put("/v1/models/ant").json()["policy_revision"] == 2
    assert names(client) == ["bee", "ant"]


def test_a_server_without_models_is_not_ready(client: Client, pngs: list[bytes]) -> None:
    for name in ("ant", "bee"):
        client.delete(f"/v1/models/{name}")
    assert_error(client.get("/readyz"), 503, "not_ready")
    assert_error(client.post(CLASSIFY, **as_raw(pngs[0])), 503, "not_ready")
    assert_error(client.delete("/v1/models/ant"), 404, "not_found")
    assert client.put("/v1/models/bee").status_code == 200
    assert client.get("/readyz").status_code == 200


def test_concurrent_changes_are_made_one_after_the_other(client: Client) -> None:
    async def scenario() -> None:
        answers = await asyncio.gather(
            *(client.http.put("/v1/models/ant") for _ in range(4)),
            *(
                client.http.put("/v1/models/bee/policy", json={"thresholds": [1, 1], "max_exit": 1})
                for _ in range(4)
            ),
        )
        assert {answer.status_code for answer in answers} == {200}
        found = await client.http.get("/v1/models/ant/policy")
        assert found.json()["revision"] == 5

    client.runner.run(scenario())


def test_a_swapped_engine_is_freed_without_the_garbage_collector(
    client: Client, pngs: list[bytes]
) -> None:
    old = weakref.ref(client.app.state.service.models.get("ant").engine)
    gc.disable()
    try:
        assert client.post(f"{CLASSIFY}?deadline_ms=5000", **as_raw(pngs[0])).status_code == 200
        client.put("/v1/models/ant")
        wait_until(client, lambda: old() is None)
    finally:
        gc.enable()


def test_a_swap_says_which_unsaved_policy_it_ended(
    client: Client, repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = {"thresholds": [0.9, 0.9], "max_exit": 3}
    client.put("/v1/models/ant/policy", json=live)
    replace_bundle(repository / "ant", version="2")
    swapped = client.put("/v1/models/ant").json()
    assert swapped["unsaved_policy"]["thresholds"] == [0.9, 0.9]
    assert "the policy of revision 2 was not saved" in caplog.text
    assert client.get("/v1/models/ant/policy").json()["policy"]["thresholds"] != [0.9, 0.9]
    client.put("/v1/models/ant/policy?persist=true", json=live)
    assert client.put("/v1/models/ant").json()["unsaved_policy"] is None
    assert client.get("/v1/models/ant/policy").json()["policy"]["thresholds"] == [0.9, 0.9]
