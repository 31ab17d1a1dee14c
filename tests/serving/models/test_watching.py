"""Loading and unloading the bundles of a watched directory."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from exports.bundle.policy import Policy
from serving.reload import reload
from serving.settings import Settings
from tests.serving.conftest import Client, running
from tests.serving.models.bundles import damage, names, replace_bundle, version, wait_until
from tests.serving.requests import CLASSIFY, as_raw
from tests.serving.tiny_bundle import write_tiny_bundle


@pytest.fixture
def client(repository: Path) -> Iterator[Client]:
    with running(Settings(repository=repository, watch=True, workers=1)) as client:
        yield client


def test_the_models_follow_the_watched_directory(client: Client, repository: Path) -> None:
    replace_bundle(repository / "cat")
    wait_until(client, lambda: names(client) == ["ant", "bee", "cat"])
    replace_bundle(repository / "bee", version="2")
    wait_until(client, lambda: version(client, "bee") == "2")
    (repository / "ant").rename(repository / ".ant")
    wait_until(client, lambda: names(client) == ["bee", "cat"])


def test_a_bundle_copied_file_by_file_is_loaded_once_it_is_complete(
    client: Client, repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_tiny_bundle(tmp_path / "cat", name="cat")
    (repository / "cat").mkdir()
    for file in sorted(source.iterdir(), reverse=True):
        shutil.copy(file, repository / "cat" / file.name)
        client.runner.run(asyncio.sleep(0.1))
    wait_until(client, lambda: "cat" in names(client))
    assert "not loaded" not in caplog.text


def test_a_bad_bundle_is_logged_once_and_loaded_once_it_is_repaired(
    client: Client, repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    replace_bundle(repository / "ant", version="2", stages={1: b"no graph"})
    wait_until(client, lambda: "not an ONNX graph" in caplog.text)
    (repository / "bee" / "note.txt").write_text("another change")
    client.runner.run(asyncio.sleep(1))
    assert version(client, "ant") == "1"
    assert caplog.text.count("not an ONNX graph") == 1
    replace_bundle(repository / "ant", version="3")
    wait_until(client, lambda: version(client, "ant") == "3")


def test_a_bundle_with_the_same_sizes_and_times_is_noticed(
    client: Client, repository: Path
) -> None:
    new = write_tiny_bundle(repository / ".new", name="ant", version="2")
    for path in (repository / "ant", new):
        for file in path.iterdir():
            os.utime(file, (0, 0))
    client.runner.run(asyncio.sleep(1.5))
    (repository / "ant").rename(repository / ".old")
    new.rename(repository / "ant")
    wait_until(client, lambda: version(client, "ant") == "2")


def test_a_bundle_with_a_broken_link_is_loaded(client: Client, repository: Path) -> None:
    new = write_tiny_bundle(repository / ".new", name="cat")
    (new / ".#manifest.json").symlink_to("nobody@nowhere")
    new.rename(repository / "cat")
    wait_until(client, lambda: "cat" in names(client))


def test_a_policy_written_into_the_bundle_is_applied_without_a_swap(
    client: Client, repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "offramp.models")
    new = Policy(thresholds=(0.1, 0.2), max_exit=2)
    (repository / "ant" / "policy.json").write_text(new.model_dump_json())
    wait_until(client, lambda: client.get("/v1/models/ant/policy").json()["revision"] == 2)
    assert client.get("/v1/models/ant/policy").json()["policy"]["thresholds"] == [0.1, 0.2]
    policy = {"thresholds": [0.3, 0.3], "max_exit": 3}
    client.put("/v1/models/ant/policy", json=policy)
    (repository / "ant" / "note.txt").write_text("touches the directory, not the policy")
    client.runner.run(asyncio.sleep(1.2))
    assert client.get("/v1/models/ant/policy").json()["policy"]["thresholds"] == [0.3, 0.3]
    assert "loaded:" not in caplog.text


def test_a_directory_that_is_missing_for_a_while_unloads_nothing(
    client: Client, repository: Path
) -> None:
    repository.rename(repository.with_name("away"))
    client.runner.run(asyncio.sleep(1))
    assert names(client) == ["ant", "bee"]


def test_a_stage_that_is_damaged_or_deleted_on_disk_is_reported_and_still_served(
    client: Client, repository: Path, caplog: pytest.LogCaptureFixture, pngs: list[bytes]
) -> None:
    wait_until(client, lambda: names(client) == ["ant", "bee"])
    client.runner.run(asyncio.sleep(1))
    damage(repository / "ant")
    (repository / "bee" / "stage2.onnx").unlink()
    wait_until(client, lambda: caplog.text.count("is still served") == 2)
    for name, file in (("ant", "stage2.onnx is damaged"), ("bee", "stage2.onnx")):
        assert f"{repository / name}/{file}" in caplog.text
        answer = client.post(f"{CLASSIFY}?model={name}", **as_raw(pngs[0]))
        assert answer.status_code == 200


def test_a_manifest_that_is_deleted_on_disk_is_reported(
    client: Client, repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client.runner.run(asyncio.sleep(1))
    (repository / "ant" / "manifest.json").unlink()
    wait_until(client, lambda: "ant has no manifest.json any more" in caplog.text)
    assert names(client) == ["ant", "bee"]


def test_an_unloaded_model_stays_unloaded_until_its_bundle_changes(
    client: Client, repository: Path
) -> None:
    assert client.delete("/v1/models/ant").status_code == 204
    replace_bundle(repository / "bee", version="2")
    wait_until(client, lambda: version(client, "bee") == "2")
    client.runner.run(asyncio.sleep(0.5))
    assert names(client) == ["bee"]
    replace_bundle(repository / "ant", version="2")
    wait_until(client, lambda: "ant" in names(client))


def test_sighup_loads_no_unloaded_model_again(client: Client, repository: Path) -> None:
    service, key = client.app.state.service, client.app.state.admin_key
    write_tiny_bundle(repository / "other-ant", name="ant")
    assert client.delete("/v1/models/ant").status_code == 204
    client.runner.run(reload(service, key))
    assert names(client) == ["bee"]
    shutil.rmtree(repository / "other-ant")
    assert client.put("/v1/models/ant").status_code == 200
    client.runner.run(reload(service, key))
    assert sorted(names(client)) == ["ant", "bee"]
