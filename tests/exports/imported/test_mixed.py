"""The first stages of a multi-exit network, then a large network on the image, as one bundle."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from PIL import Image

from exports.bundle.archive import pack_bundle
from exports.bundle.policy import softmax
from exports.bundle.reader import Bundle, load_bundle, load_table
from exports.imported.multi_exit.source import CHECKPOINT, read_multi_exit
from exports.photos import PhotoFolder
from exports.source import bundle_stages
from exports.stage_runner import StageRunner
from exports.tuning.simulation import simulate
from serving.settings import Settings
from tests.commands import call
from tests.exports.bundles import INT8
from tests.exports.imported.by_hand import large_logits, resized
from tests.exports.imported.classifiers import CLASSES, SIDE, coloured_images, write_classifier
from tests.exports.imported.conftest import OTHER_ORDER, Given
from tests.exports.imported.multi_exit_bundle import SIDE as FRONT_SIDE
from tests.exports.imported.multi_exit_bundle import write_multi_exit
from tests.serving.conftest import Client, encode, running
from training.data.load import load_dataset
from training.recipes.schema import DataRecipe

LABELS = OTHER_ORDER[1:]
ORDER = [CLASSES.index(label) for label in LABELS]


@dataclass(frozen=True)
class Mixed:
    """A multi-exit bundle, the mixed one that it begins, and what the command said."""

    front: Path
    bundle: Bundle
    said: str


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_multi_exit(tmp_path_factory.mktemp("front") / "front.bundle")


def options(given: Given, front: Path) -> tuple[object, ...]:
    return (
        *("cascade", front, given.large, "--labels", given.other_labels),
        *("--preprocess", "zero-one", "--exits", 2),
    )


@pytest.fixture(scope="module")
def mixed(given: Given, front: Path, tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    target = tmp_path_factory.mktemp("mixed") / "mixed"
    done = call(
        *options(given, front), "--calibrate", given.photos, "-o", target, "--graphs", "routed"
    )
    assert done.code == 0, done.err
    return Mixed(front, load_bundle(target), done.out)


def front_logits(front: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the multi-exit bundle itself returns for images that Pillow resized: [3, N, 4]."""
    small = [resized(p, FRONT_SIDE, Image.Resampling.BILINEAR) for p in images]
    pixels = np.clip(np.round(np.stack(small)), 0, 255).astype(np.uint8)
    logits: NDArray[np.float32] = StageRunner(load_bundle(front).stages).logits(pixels)
    return logits[..., ORDER]


def test_stages_take_features_and_the_last_one_takes_the_image(mixed: Mixed) -> None:
    manifest = mixed.bundle.manifest
    assert manifest.format == 2
    assert manifest.name == "front-large"
    assert manifest.labels == LABELS
    assert [entry.input for entry in manifest.exits] == ["image", "features", "image"]
    assert [entry.feature_shape for entry in manifest.exits] == [(4, 16, 16), None, None]
    assert manifest.input.height == SIDE
    origin = manifest.provenance
    assert (origin.recipe["name"], origin.seed) == ("colours", 7)
    assert origin.recipe["input"]["side"] == FRONT_SIDE
    assert [follower["name"] for follower in origin.followers] == ["large.onnx"]
    assert origin.imported


def test_its_logits_are_those_of_the_parts_run_by_hand(given: Given, mixed: Mixed) -> None:
    images = coloured_images(5, seed=1)
    logits = StageRunner(mixed.bundle.stages).logits(images)
    np.testing.assert_allclose(logits[:2], front_logits(mixed.front, images)[:2], atol=2e-3)
    np.testing.assert_allclose(logits[2], large_logits(given, images), atol=1e-3)


def test_the_resizing_counts_and_every_part_is_verified(mixed: Mixed) -> None:
    own = load_bundle(mixed.front).manifest.exits
    resizing = 3 * SIDE * FRONT_SIDE * SIDE + 3 * FRONT_SIDE * FRONT_SIDE * SIDE
    large = 64 * 3 * 9 * SIDE * SIDE + 64 * 5
    exits = mixed.bundle.manifest.exits
    assert [entry.macs for entry in exits] == [
        own[0].macs + resizing,
        own[1].macs + resizing,
        own[1].macs + resizing + large,
    ]
    assert "front.bundle: 2 stages for 16 x 16 pixels; they agree with it on 16" in mixed.said
    assert "which saves" in mixed.said


def test_it_is_certified_tuned_and_inspected(mixed: Mixed) -> None:
    certificate = mixed.bundle.policy.certificate
    assert certificate is not None
    assert certificate.target == "labels"
    inspected = " ".join(call("inspect", mixed.bundle.path).out.split())
    assert "recipe colours, seed 7, and importing large.onnx" in inspected
    assert "float32 4 x 16 x 16, stage 3 takes the image" in inspected
    assert "verified. With probability 95 %" in inspected
    tuned = call("tune", mixed.bundle.path, "--max-accuracy-drop", 1, "--dry-run")
    assert tuned.code == 0, tuned.err
    card = (mixed.bundle.path / "README.md").read_text()
    assert "Recipe: colours" in card
    assert "Stage 3 takes the image" in card
    assert "not trained by Offramp" in card


def test_the_routed_graph_answers_as_the_stages(mixed: Mixed) -> None:
    """The networks have opsets of their own, and one graph needs one."""
    images = coloured_images(5, seed=3)
    session = ort.InferenceSession(
        mixed.bundle.path / "routed.onnx", providers=["CPUExecutionProvider"]
    )
    never = np.full(2, 2, np.float32)
    logits = StageRunner(mixed.bundle.stages).logits(images)
    for thresholds in (never, 0 * never, np.float32(mixed.bundle.policy.thresholds)):
        probabilities, exits = session.run(
            ["probabilities", "exit"], {"image": images, "thresholds": thresholds}
        )
        policy = mixed.bundle.policy.model_copy(update={"thresholds": tuple(thresholds.tolist())})
        outcome = simulate(policy, logits, mixed.bundle.manifest.scaling)
        assert np.array_equal(exits, outcome.exits)
        assert np.array_equal(probabilities.argmax(axis=1), outcome.predictions)


def test_each_network_sees_its_own_pixels(mixed: Mixed, tmp_path: Path) -> None:
    pixels = coloured_images(1, seed=4)[0]
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    done = call(
        *("preprocess", tmp_path / "photo.png", "--bundle", mixed.bundle.path),
        *("-o", tmp_path / "seen.png"),
    )
    assert done.code == 0, done.err
    seen = np.asarray(Image.open(tmp_path / "seen-stage1.png"))
    assert np.abs(seen - resized(pixels, FRONT_SIDE, Image.Resampling.BILINEAR)).max() <= 0.51
    assert np.array_equal(np.asarray(Image.open(tmp_path / "seen-stage3.png")), pixels)


@pytest.fixture(scope="module")
def client(mixed: Mixed) -> Iterator[Client]:
    with running(Settings(bundles=(mixed.bundle.path,), workers=1)) as client:
        yield client


def test_served_answers_are_those_of_the_parts_run_by_hand(
    given: Given, mixed: Mixed, client: Client
) -> None:
    """Logits leave the server as calibrated probabilities, which determine them but for a constant."""
    images = coloured_images(2, seed=6)
    by_hand = [*front_logits(mixed.front, images)[:2], large_logits(given, images)]
    for k, (logits, entry) in enumerate(zip(by_hand, mixed.bundle.manifest.exits, strict=True), 1):
        expected = softmax(logits / np.float32(entry.temperature))
        for pixels, probabilities in zip(images, expected, strict=True):
            answer = client.post(
                f"/v1/classify?mode=exit&max_exit={k}&top_k={len(LABELS)}",
                content=encode(Image.fromarray(pixels)),
                headers={"Content-Type": "image/png"},
            )
            (prediction,) = answer.json()["predictions"]
            assert prediction["exit"] == k
            found = {one["label"]: one["probability"] for one in prediction["top_k"]}
            for label, probability in zip(LABELS, probabilities, strict=True):
                assert found[label] == pytest.approx(probability, abs=2e-3)


def test_streams_pixels_unsure_answers_the_page_and_metrics_work(
    mixed: Mixed, client: Client
) -> None:
    pixels = coloured_images(1, seed=8)[0]
    body: dict[str, Any] = {
        "content": encode(Image.fromarray(pixels)),
        "headers": {"Content-Type": "image/png"},
    }
    stream = client.post("/v1/classify/stream?run_all_exits=true", **body)
    assert stream.text.count("event: exit") == 3
    seen = client.post("/v1/preprocess?stage=3", **body)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(seen.content))), pixels)
    between = np.full((SIDE, SIDE, 3), (96, 96, 134), np.uint8)  # blue and grey
    body["content"] = encode(Image.fromarray(between))
    unsure = client.post("/v1/classify?reject_below=0.9", **body).json()["predictions"][0]
    assert (unsure["label"], unsure["reason"]) == (None, "unsure")
    assert client.get("/").status_code == 200
    assert client.get("/v1/models/front-large/tradeoff").json()["exit_accuracy"][-1] > 95
    assert 'offramp_unsure_total{exit="' in client.get("/metrics").text
    assert client.get("/v1/models/front-large").json()["certificate_verified"] is True


def test_without_labels_from_a_packed_bundle_in_int8(
    given: Given, front: Path, tmp_path: Path
) -> None:
    """All exits, classes from the bundle, the last network's answers in place of labels."""
    pack_bundle(front, tmp_path / "front.offramp.zip")
    wide = write_classifier(tmp_path / "wide.onnx", width=64)
    target = tmp_path / "int8"
    done = call(
        *("cascade", tmp_path / "front.offramp.zip", wide, "--preprocess", "imagenet"),
        *("--calibrate", given.unlabelled, "-o", target, "--allow-no-saving"),
        *("--precision", "int8", "--target", "u8s8"),
    )
    assert done.code == 0, done.err
    bundle = load_bundle(target)
    manifest = bundle.manifest
    assert (manifest.precision, manifest.labels) == ("int8", CLASSES)
    assert [entry.input for entry in manifest.exits] == ["image", "features", "features", "image"]
    assert manifest.exits[0].feature_type == "uint8"
    assert manifest.calibration.target == "agreement"
    assert manifest.conversion is not None
    assert min(manifest.conversion.agreement) > 95
    table = load_table(target, manifest)
    assert (table.logits[-1].argmax(axis=1) == table.labels).mean() > 0.95


def test_a_bundle_of_onnx_files_or_in_int8_is_refused(
    given: Given, mixed: Mixed, few: Path, tmp_path: Path
) -> None:
    def refused(*networks: object) -> str:
        done = call("cascade", *networks, "--calibrate", few, "-o", tmp_path / "out")
        assert done.refused_in_one_sentence, done.out + done.err
        return done.err

    assert "is made of ONNX files itself: name these" in refused(mixed.bundle.path, given.large)
    assert "a bundle or a run can only be the first" in refused(given.large, mixed.front)
    assert "alone is no cascade: name an ONNX file after it" in refused(mixed.front)
    assert "--exits is for a bundle or a run" in refused(given.small, given.large, "--exits", 1)
    zero_one = ("--preprocess", "zero-one", "--labels", given.other_labels)
    assert "has 3 exits, not 4" in refused(mixed.front, given.large, "--exits", 4, *zero_one)
    damaged = tmp_path / "damaged"
    shutil.copytree(mixed.front, damaged)
    (damaged / "stage2.onnx").write_bytes(b"")
    assert "stage2.onnx is damaged" in refused(damaged, given.large, *zero_one)
    (tmp_path / "empty").mkdir()
    neither = refused(tmp_path / "empty", given.large, *zero_one)
    assert "empty is neither a bundle nor a finished run" in neither
    assert "is in int8: name the float32 bundle" in refused(INT8, given.large, *zero_one)


def test_a_run_begins_a_cascade_as_its_bundle_does(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, bundle = workplace / "runs" / "digits-oto", load_bundle(workplace / "digits")
    graphs = bundle_stages(bundle)
    monkeypatch.setattr("exports.graphs.stages.export_stages", lambda *_: graphs)  # seconds faster
    assert (run / CHECKPOINT).is_file()
    images = load_dataset(DataRecipe(name="digits", held_out=1), tmp_path).test.images[:20]
    files = tuple(tmp_path / f"{number:02}.png" for number in range(len(images)))
    for file, pixels in zip(files, images, strict=True):
        Image.fromarray(pixels).save(file)
    said: list[str] = []
    network = read_multi_exit(run, 2, PhotoFolder(tmp_path, files, None), said.append)
    assert network.labels == bundle.manifest.labels
    assert (network.side, network.seed) == (bundle.manifest.input.height, 0)
    assert [recipe["name"] for recipe in network.recipes] == ["digits-oto"]
    assert [stage.feature_shape is None for stage in network.stages] == [False, True]
    assert "onnxruntime agrees with torch" in said[-1]
    logits = StageRunner([stage.onnx for stage in network.stages]).logits(images)
    np.testing.assert_allclose(logits, StageRunner(bundle.stages).logits(images)[:2], atol=1e-3)
