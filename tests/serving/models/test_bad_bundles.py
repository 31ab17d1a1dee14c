"""Bundles that cannot be loaded change nothing."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from serving.settings import Settings
from tests.serving.conftest import Client, running
from tests.serving.models.bundles import damage, names, version
from tests.serving.requests import CLASSIFY, as_raw, assert_error
from tests.serving.tiny_bundle import CHANNELS, EXITS, stage_bytes, write_tiny_bundle


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
    ("break_bundle", "message"),
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
    client: Client,
    repository: Path,
    pngs: list[bytes],
    caplog: pytest.LogCaptureFixture,
    break_bundle: Callable[[Path], None],
    message: str,
) -> None:
    before = client.get("/v1/models").json()
    answer = client.post(CLASSIFY, **as_raw(pngs[0])).json()["predictions"]
    break_bundle(repository / "ant")
    assert_error(client.put("/v1/models/ant"), 409, "bad_bundle", message)
    assert message in caplog.text
    assert client.get("/v1/models").json() == before
    assert client.post(CLASSIFY, **as_raw(pngs[0])).json()["predictions"] == answer


def test_a_name_that_two_bundles_have_cannot_be_loaded(client: Client, repository: Path) -> None:
    write_tiny_bundle(repository / "other", name="ant", version="2")
    assert_error(client.put("/v1/models/ant"), 409, "bad_bundle", "both called ant")
    assert version(client, "ant") == "1"


def test_a_bundle_with_a_fixed_batch_size_is_refused(client: Client, repository: Path) -> None:
    graph = onnx.load_from_string(stage_bytes(EXITS))
    (node,) = [node for node in graph.graph.node if node.op_type == "Flatten"]
    node.op_type = "Reshape"
    del node.attribute[:]
    node.input.append("shape")
    shape = np.array([2, CHANNELS[EXITS]], dtype=np.int64)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(shape, "shape"))
    write_tiny_bundle(repository / "cat", name="cat", stages={EXITS: graph.SerializeToString()})
    assert_error(client.put("/v1/models/cat"), 409, "bad_bundle")
    assert names(client) == ["ant", "bee"]


def test_an_unreadable_directory_does_not_prevent_loading_others(
    client: Client,
    repository: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (repository / "lost+found").mkdir()
    exists = Path.exists

    def exists_or_forbidden(path: Path) -> bool:
        # Simulated: tests may run as root, who may read everything.
        if path.parent.name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied")
        return exists(path)

    monkeypatch.setattr(Path, "exists", exists_or_forbidden)
    assert client.put("/v1/models/ant").status_code == 200
    assert "lost+found cannot be read: Permission denied" in caplog.text


def test_a_bad_bundle_does_not_prevent_the_others_from_starting(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(repository / "ant")
    (repository / "notes").mkdir()
    (repository / "README").write_text("not a bundle")
    with running(Settings(repository=repository, workers=1)) as client:
        assert names(client) == ["bee"]
    assert caplog.text.count("stage2.onnx is damaged") == 1
    assert "notes" not in caplog.text


def test_of_two_bundles_of_one_name_only_the_first_is_opened(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiny_bundle(repository / "other", name="ant", version="2")
    with running(Settings(repository=repository, workers=1)) as client:
        assert version(client, "ant") == "1"
        assert "called ant already" in caplog.text
        queues = client.app.state.service.dispatcher._scheduler._selector.model_queues
        assert sorted(engine.manifest.name for engine in queues) == ["ant", "bee"]
