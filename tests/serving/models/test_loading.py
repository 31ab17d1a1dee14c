"""Loading, swapping and unloading bundles, by order and by watching a directory."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import logging
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from exports.bundle.policy import Policy
from serving.settings import Settings
from tests.serving.conftest import Client, running
from tests.serving.requests import CLASSIFY, as_raw, assert_error, metrics
from tests.serving.tiny_bundle import CHANNELS, EXITS, stage_bytes, write_tiny_bundle


@pytest.fixture
def available(tmp_path: Path) -> Path:
    """A repository with the bundles `ant` and `bee`."""
    available = tmp_path / "shelf"
    for name in ("ant", "bee"):
        write_tiny_bundle(available / name, name=name)
    return available


@pytest.fixture
def served(available: Path) -> Iterator[Client]:
    with running(Settings(repository=available, workers=1)) as client:
        yield client


def names(client: Client) -> list[str]:
    return [model["name"] for model in client.get("/v1/models").json()["models"]]


def version(client: Client, name: str) -> str:
    return client.get(f"/v1/models/{name}").json()["version"]


def replace_bundle(path: Path, **manager: Any) -> None:
    """Put another bundle in the place of `path`, as an operator would: by renaming."""
    new = write_tiny_bundle(path.parent / ".new", name=path.name, **manager)
    if path.exists():
        path.rename(path.parent / ".old")
    new.rename(path)
    shutil.rmtree(path.parent / ".old", ignore_errors=True)


def damage(path: Path) -> None:
    """Change a byte of a bundle's stage."""
    content = bytearray((path / "stage2.onnx").read_bytes())
    content[100] ^= 1
    (path / "stage2.onnx").write_bytes(content)


# By order


def test_everything_in_the_repository_is_served_from_the_start(served: Client) -> None:
    assert names(served) == ["ant", "bee"]


def test_a_bundle_that_came_later_is_loaded_by_name(
    served: Client, available: Path, pngs: list[bytes]
) -> None:
    write_tiny_bundle(available / "directory", name="cat")
    assert_error(served.get("/v1/models/cat"), 404, "not_found")
    answer = served.put("/v1/models/cat")
    assert answer.status_code == 200
    assert answer.json() == served.get("/v1/models/cat").json()
    assert served.post(f"{CLASSIFY}?model=cat", **as_raw(pngs[0])).json()["model"] == "cat"
    assert names(served) == ["ant", "bee", "cat"]


def test_a_swap_keeps_the_place_and_counts_the_policys_revision_on(
    served: Client, available: Path, pngs: list[bytes]
) -> None:
    policy = Policy(thresholds=(2, 2), max_exit=2)
    replace_bundle(available / "ant", version="2", policy=policy)
    assert version(served, "ant") == "1"
    assert served.put("/v1/models/ant").json()["version"] == "2"
    assert names(served) == ["ant", "bee"]
    found = served.get("/v1/models/ant/policy").json()
    assert found == {"revision": 2, "policy": policy.model_dump(mode="json")}
    answer = served.post(CLASSIFY, **as_raw(pngs[0])).json()
    assert (answer["version"], answer["predictions"][0]["exit"]) == ("2", 2)
    shown = metrics(served)
    assert 'offramp_model_info{model="ant",precision="fp32"' in shown
    assert shown.count('offramp_model_info{model="ant"') == 1
    assert 'offramp_policy_revision{model="ant"} 2.0' in shown


def test_a_bundle_named_at_the_start_can_be_swapped_in_its_place(
    tmp_path: Path, pngs: list[bytes]
) -> None:
    path = write_tiny_bundle(tmp_path / "tiny")
    with running(Settings(bundles=(path,), workers=1)) as client:
        replace_bundle(path, version="2")
        assert client.put("/v1/models/tiny").json()["version"] == "2"
        client.delete("/v1/models/tiny")
        assert client.put("/v1/models/tiny").status_code == 200


def broken_graph(path: Path) -> None:
    shutil.rmtree(path)
    write_tiny_bundle(path, name=path.name, version="2", stages={2: b"no graph"})


def other_shapes(path: Path) -> None:
    shutil.rmtree(path)
    write_tiny_bundle(path, name=path.name, version="2", stages={3: stage_bytes(3, classes=6)})


def wrong_manifest(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "labels": ["one"]}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (damage, "stage2.onnx is damaged"),
        (broken_graph, "not an ONNX graph"),
        (other_shapes, "outputs of the shapes"),
        (wrong_manifest, "manifest.json is not valid"),
        (lambda path: (path / "policy.json").unlink(), "policy.json cannot be read"),
        (lambda path: (path / "calibration.npz").write_bytes(b""), "calibration.npz is damaged"),
    ],
)
def test_a_bad_bundle_changes_nothing(
    served: Client,
    available: Path,
    pngs: list[bytes],
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
    says: str,
) -> None:
    before = served.get("/v1/models").json()
    answer = served.post(CLASSIFY, **as_raw(pngs[0])).json()["predictions"]
    spoil(available / "ant")
    assert_error(served.put("/v1/models/ant"), 409, "bad_bundle", says)
    assert says in caplog.text
    assert served.get("/v1/models").json() == before
    assert served.post(CLASSIFY, **as_raw(pngs[0])).json()["predictions"] == answer


def test_two_bundles_of_one_name_are_not_guessed_between(served: Client, available: Path) -> None:
    write_tiny_bundle(available / "other", name="ant", version="2")
    assert_error(served.put("/v1/models/ant"), 409, "bad_bundle", "both called ant")
    assert version(served, "ant") == "1"


@pytest.mark.parametrize("name", ["cat", "..", "%2e%2e%2fshelf%2fant", "ant%00", "shelf", "%2Fetc"])
def test_only_names_of_bundles_can_be_loaded(served: Client, name: str) -> None:
    answer = served.put(f"/v1/models/{name}")
    assert answer.status_code in (404, 405), answer.text


def test_a_bundle_that_runs_for_one_size_of_batch_only_is_refused(
    served: Client, available: Path
) -> None:
    graph = onnx.load_from_string(stage_bytes(EXITS))
    (node,) = [node for node in graph.graph.node if node.op_type == "Flatten"]
    node.op_type = "Reshape"
    del node.attribute[:]
    node.input.append("shape")
    shape = np.array([2, CHANNELS[EXITS]], dtype=np.int64)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(shape, "shape"))
    write_tiny_bundle(available / "cat", name="cat", stages={EXITS: graph.SerializeToString()})
    assert_error(served.put("/v1/models/cat"), 409, "bad_bundle")
    assert names(served) == ["ant", "bee"]


def test_a_bundle_of_another_name_takes_the_place_it_lies_in(
    served: Client, available: Path
) -> None:
    shutil.rmtree(available / "ant")
    write_tiny_bundle(available / "ant", name="cat")
    assert served.put("/v1/models/cat").status_code == 200
    assert sorted(names(served)) == ["bee", "cat"]


def test_what_may_not_be_read_keeps_no_bundle_from_loading(
    served: Client,
    available: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (available / "lost+found").mkdir()
    exists = Path.exists

    def forbidden(path: Path) -> bool:
        # Tests may run as root, whom nothing is forbidden.
        if path.parent.name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied")
        return exists(path)

    monkeypatch.setattr(Path, "exists", forbidden)
    assert served.put("/v1/models/ant").status_code == 200
    assert "lost+found cannot be read: Permission denied" in caplog.text


def test_an_unloaded_model_is_gone_and_the_next_is_the_default(
    served: Client, pngs: list[bytes]
) -> None:
    assert served.delete("/v1/models/ant").status_code == 204
    assert_error(served.delete("/v1/models/ant"), 404, "not_found")
    assert_error(served.post(f"{CLASSIFY}?model=ant", **as_raw(pngs[0])), 404, "not_found")
    assert served.post(CLASSIFY, **as_raw(pngs[0])).json()["model"] == "bee"
    assert 'model_info{model="ant"' not in metrics(served)
    assert served.put("/v1/models/ant").json()["policy_revision"] == 2
    assert names(served) == ["bee", "ant"]


def test_without_any_model_the_server_is_not_ready(served: Client, pngs: list[bytes]) -> None:
    for name in ("ant", "bee"):
        served.delete(f"/v1/models/{name}")
    assert_error(served.get("/readyz"), 503, "not_ready")
    assert_error(served.post(CLASSIFY, **as_raw(pngs[0])), 503, "not_ready")
    assert_error(served.delete("/v1/models/ant"), 404, "not_found")
    assert served.put("/v1/models/bee").status_code == 200
    assert served.get("/readyz").status_code == 200


def test_a_bad_newcomer_does_not_keep_the_others_from_starting(
    available: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(available / "ant")
    (available / "notes").mkdir()
    (available / "README").write_text("not a bundle")
    with running(Settings(repository=available, workers=1)) as client:
        assert names(client) == ["bee"]
    assert caplog.text.count("stage2.onnx is damaged") == 1
    assert "notes" not in caplog.text


def test_of_two_bundles_of_one_name_the_second_is_neither_served_nor_kept(
    available: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiny_bundle(available / "other", name="ant", version="2")
    with running(Settings(repository=available, workers=1)) as client:
        assert version(client, "ant") == "1"
        assert "called ant already" in caplog.text
        lines = client.app.state.service.dispatcher._scheduler._selector.model_queues
        assert sorted(engine.manifest.name for engine in lines) == ["ant", "bee"]


def test_changes_of_the_same_moment_come_one_after_the_other(served: Client) -> None:
    async def scenario() -> None:
        answers = await asyncio.gather(
            *(served.http.put("/v1/models/ant") for _ in range(4)),
            *(
                served.http.put("/v1/models/bee/policy", json={"thresholds": [1, 1], "max_exit": 1})
                for _ in range(4)
            ),
        )
        assert {answer.status_code for answer in answers} == {200}
        found = await served.http.get("/v1/models/ant/policy")
        assert found.json()["revision"] == 5

    served.runner.run(scenario())


def test_a_swapped_engine_is_freed_at_once_and_not_by_the_collector(
    served: Client, pngs: list[bytes]
) -> None:
    old = weakref.ref(served.app.state.service.models.get("ant").engine)
    gc.disable()
    try:
        assert served.post(f"{CLASSIFY}?deadline_ms=5000", **as_raw(pngs[0])).status_code == 200
        served.put("/v1/models/ant")
        until(served, lambda: old() is None)
    finally:
        gc.enable()


# By watching


@pytest.fixture
def watched(available: Path) -> Iterator[Client]:
    with running(Settings(repository=available, watch=True, workers=1)) as client:
        yield client


def until(client: Client, condition: Callable[[], bool], within: float = 20) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, names(client)
        client.runner.run(asyncio.sleep(0.05))


def test_the_watched_directory_is_followed(watched: Client, available: Path) -> None:
    replace_bundle(available / "cat")
    until(watched, lambda: names(watched) == ["ant", "bee", "cat"])
    replace_bundle(available / "bee", version="2")
    until(watched, lambda: version(watched, "bee") == "2")
    (available / "ant").rename(available / ".ant")
    until(watched, lambda: names(watched) == ["bee", "cat"])


def test_a_bundle_copied_file_by_file_is_loaded_once_it_is_whole(
    watched: Client, available: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_tiny_bundle(tmp_path / "cat", name="cat")
    (available / "cat").mkdir()
    for file in sorted(source.iterdir(), reverse=True):
        shutil.copy(file, available / "cat" / file.name)
        watched.runner.run(asyncio.sleep(0.1))
    until(watched, lambda: "cat" in names(watched))
    assert "not loaded" not in caplog.text


def test_a_bad_bundle_is_logged_once_and_taken_once_it_is_mended(
    watched: Client, available: Path, caplog: pytest.LogCaptureFixture
) -> None:
    replace_bundle(available / "ant", version="2", stages={1: b"no graph"})
    until(watched, lambda: "not an ONNX graph" in caplog.text)
    (available / "bee" / "note.txt").write_text("another change")
    watched.runner.run(asyncio.sleep(1))
    assert version(watched, "ant") == "1"
    assert caplog.text.count("not an ONNX graph") == 1
    replace_bundle(available / "ant", version="3")
    until(watched, lambda: version(watched, "ant") == "3")


def test_a_bundle_with_the_same_sizes_and_times_is_noticed(
    watched: Client, available: Path
) -> None:
    new = write_tiny_bundle(available / ".new", name="ant", version="2")
    for path in (available / "ant", new):
        for file in path.iterdir():
            os.utime(file, (0, 0))
    watched.runner.run(asyncio.sleep(1.5))
    (available / "ant").rename(available / ".old")
    new.rename(available / "ant")
    until(watched, lambda: version(watched, "ant") == "2")


def test_a_link_that_leads_nowhere_hides_no_bundle(watched: Client, available: Path) -> None:
    new = write_tiny_bundle(available / ".new", name="cat")
    (new / ".#manifest.json").symlink_to("nobody@nowhere")
    new.rename(available / "cat")
    until(watched, lambda: "cat" in names(watched))


def test_a_policy_written_into_the_bundle_is_taken_without_a_swap(
    watched: Client, available: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "offramp.models")
    new = Policy(thresholds=(0.1, 0.2), max_exit=2)
    (available / "ant" / "policy.json").write_text(new.model_dump_json())
    until(watched, lambda: watched.get("/v1/models/ant/policy").json()["revision"] == 2)
    assert watched.get("/v1/models/ant/policy").json()["policy"]["thresholds"] == [0.1, 0.2]
    mine = {"thresholds": [0.3, 0.3], "max_exit": 3}
    watched.put("/v1/models/ant/policy", json=mine)
    (available / "ant" / "note.txt").write_text("touches the directory, not the policy")
    watched.runner.run(asyncio.sleep(1.2))
    assert watched.get("/v1/models/ant/policy").json()["policy"]["thresholds"] == [0.3, 0.3]
    assert "loaded:" not in caplog.text


def test_a_directory_that_is_away_for_a_while_unloads_nothing(
    watched: Client, available: Path
) -> None:
    available.rename(available.with_name("away"))
    watched.runner.run(asyncio.sleep(1))
    assert names(watched) == ["ant", "bee"]
