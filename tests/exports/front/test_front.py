"""A stock ONNX classifier gets a front that learns from its answers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from exports.bundle.reader import load_bundle, load_table
from exports.card.markup import markdown_text
from exports.front.answers import AnswerCache
from exports.stage_runner import StageRunner
from exports.tuning.certificate import divide
from exports.tuning.simulation import simulate
from serving.inference.engine import Engine
from tests.commands import call
from tests.exports.front.conftest import LARGE_SIDE, PROMISED, Made, Stock
from tests.exports.imported.classifiers import CLASSES, IMAGENET, write_images
from tests.training.runs import Killed, empty_curves
from training import report
from training.checkpoint import read_config
from training.data.answers import read_answers
from training.data.image_files import read_images
from training.report import Report


@pytest.fixture(autouse=True)
def _curves_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "draw_curves", empty_curves)


def test_the_students_stages_come_before_the_network_which_takes_the_image(made: Made) -> None:
    manifest = made.bundle.manifest
    assert manifest.format == 2
    assert manifest.name == "large-front"
    assert manifest.labels == CLASSES
    assert [entry.input for entry in manifest.exits] == ["image", "features", "features", "image"]
    assert (manifest.input.width, manifest.input.height) == (LARGE_SIDE, LARGE_SIDE)
    recipe, (follower,) = manifest.provenance.recipe, manifest.provenance.followers
    assert recipe["name"] == "large-front"
    assert follower["onnx"]["file"] == "large.onnx"
    assert str(made.runs) not in manifest.model_dump_json()


def test_the_last_exit_has_the_logits_of_the_given_file(stock: Stock, made: Made) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, LARGE_SIDE, LARGE_SIDE, 3), dtype=np.uint8)
    mean, std = (np.array(values) for values in IMAGENET)
    inputs = ((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(stock.large).run(None, {"pixels": inputs})
    logits = StageRunner(made.bundle.stages).logits(images)
    np.testing.assert_allclose(logits[-1], expected, atol=1e-3)


def test_the_student_learns_from_the_networks_answers_alone(stock: Stock, made: Made) -> None:
    recipe = read_config(made.runs / "large-front").recipe
    assert recipe.objective.method == "mskd"
    assert recipe.objective.alpha == 1  # none of the labels' cross-entropy
    assert recipe.teacher is not None
    assert recipe.teacher.onnx is not None
    assert (made.runs / "large-front.toml").is_file()
    answers = read_answers(Path(recipe.data.path))
    stage = Path(recipe.teacher.onnx[0]).read_bytes()
    assert stage == made.bundle.stages[-1]
    cache = AnswerCache(made.runs / "again", stock.large, stage, LARGE_SIDE, "center_crop")
    asked = cache.ask(answers.paths(range(40)))
    assert asked.tolist() == list(answers.answers[:40])


def test_agreement_with_the_network_is_certified(made: Made) -> None:
    manifest, certificate = made.bundle.manifest, made.bundle.policy.certificate
    assert manifest.calibration.target == "agreement"
    table = load_table(made.bundle.path, manifest)
    assert np.array_equal(table.labels, table.logits[-1].argmax(axis=1))
    assert manifest.provenance.splits == {"train": 400, "held_out": 200, "test": 0}
    assert certificate is not None
    assert certificate.permitted_drop == 5
    assert certificate.samples == 100
    assert (
        f"Certified: the same answer as large.onnx in at least {100 * PROMISED:g} % of cases, with 95 % "
        "confidence"
    ) in made.said
    inspected = " ".join(call("inspect", made.bundle.path).out.split())
    assert "verified. With probability 95 %, at most 5 % of the answers" in inspected
    assert "by recipe large-front, seed 0, and importing large.onnx" in inspected


def test_it_saves_compute_and_says_how_much_and_what_that_takes_in_memory(made: Made) -> None:
    exits, provenance = made.bundle.manifest.exits, made.bundle.manifest.provenance
    alone = exits[-1].macs - exits[-2].macs
    assert exits[-2].macs < 0.25 * alone
    assert provenance.test_default.mean_macs < 0.95 * alone
    assert re.search(r"large\.onnx alone .* which saves \d+%", made.said)
    assert re.search(r"takes 0\.0\d+ MB of memory beside its 2\.9\d MB", made.said)


def test_labels_give_accuracy_too(stock: Stock, made: Made) -> None:
    stated = re.search(
        r"on 100 held-out images: ([\d.]+) % by the default policy, ([\d.]+) % by large\.onnx alone",
        made.said,
    )
    assert stated is not None
    recipe = read_config(made.runs / "large-front").recipe
    answers = read_answers(Path(recipe.data.path))
    rng = np.random.default_rng(recipe.data.held_out_seed)
    held_out = np.sort(rng.permutation(len(answers.images))[:200])
    _, unused = divide(200)
    labels = np.array([CLASSES.index(answers.images[n].split("/")[0]) for n in held_out[unused]])
    table = load_table(made.bundle.path, made.bundle.manifest).take(unused)
    policy, scaling = made.bundle.policy, made.bundle.manifest.scaling
    by_policy = simulate(policy, table.logits, scaling).accuracy(labels)
    alone = (table.logits[-1].argmax(axis=1) == labels).mean()
    assert [float(value) for value in stated.groups()] == [
        round(100 * by_policy, 2),
        round(100 * float(alone), 2),
    ]


def test_the_engine_answers_easy_images_early_and_as_the_network(made: Made) -> None:
    recipe = read_config(made.runs / "large-front").recipe
    answers = read_answers(Path(recipe.data.path))
    shown = list(range(0, 600, 10))
    images = read_images(answers.paths(shown), LARGE_SIDE, "").pixels
    predictions = Engine(made.bundle).classify(images, made.bundle.policy)
    exits = {prediction.exit for prediction in predictions}
    assert 4 in exits
    assert len(exits) > 1
    same = [
        prediction.index == answers.answers[n]
        for n, prediction in zip(shown, predictions, strict=True)
    ]
    assert np.mean(same) >= PROMISED


def test_the_card_names_the_student_and_the_file(made: Made) -> None:
    card = (made.bundle.path / "README.md").read_text()
    assert f"Recipe: {markdown_text('large-front')}" in card
    assert f"teacher: {markdown_text('large.onnx')}" in card
    assert "not trained by Offramp" in card
    assert "knowledge-distillation" in card


def test_other_images_calibrate_without_another_training(
    stock: Stock, made: Made, tmp_path: Path
) -> None:
    others = write_images(tmp_path / "others", 60, seed=5)
    options = ("--runs", made.runs, "--epochs", 7, "--agreement", 0.9, "--calibrate", others)
    done = call(*stock.options, "--data", stock.photos, "-o", tmp_path / "bundle", *options)
    assert done.code == 0, done.err
    assert "large-front: finished already" in done.out
    assert f"240 images in {others} set temperatures and thresholds and certify" in done.out
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.stages == made.bundle.stages
    assert bundle.manifest.provenance.splits == {"train": 400, "held_out": 240, "test": 0}
    files = sorted(others.glob("*/*.png"))
    images = read_images(files, LARGE_SIDE, "").pixels
    table = load_table(bundle.path, bundle.manifest)
    logits = StageRunner(bundle.stages).logits(images)
    logits -= logits.max(axis=-1, keepdims=True)
    np.testing.assert_allclose(table.logits, logits, atol=0.05)
    assert np.array_equal(table.labels, table.logits[-1].argmax(axis=1))
    assert "% by the default policy" in done.out
    assert "on 120 held-out images" in done.out


def test_it_is_converted_by_the_command_that_made_it(made: Made, tmp_path: Path) -> None:
    done = call("export", made.bundle.path, "-o", tmp_path / "int8", "--precision", "int8")
    assert done.code == 2
    assert "offramp front --precision" in done.err


def test_a_dry_run_prints_the_choice_and_a_forecast_and_writes_nothing(
    stock: Stock, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    done = call(*stock.options, "--data", stock.photos, "--runs", runs, "--dry-run")
    assert done.code == 0, done.err
    assert "- resnet of channels 4-8-16 and blocks 1-1-1" in done.out
    assert "200 of 600 images are held out" in done.out
    assert "forecast: the answers of large.onnx to 600 images take about 0:00:" in done.out
    assert re.search(r"forecast: about \d+:\d\d:\d\d on this cpu \(large-front", done.out)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_command_goes_on_and_one_that_saves_nothing_says_no(
    stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With images in folders that mean nothing, one of which is no image."""
    photos = write_images(tmp_path / "tree", 40, labelled=False)
    (photos / "2026" / "a").mkdir(parents=True)
    for number in range(60):
        shutil.move(photos / f"{number:05}.png", photos / "2026" / "a")
    (photos / "2026" / "broken.png").write_bytes(b"no image")
    target, runs = tmp_path / "bundle", tmp_path / "runs"
    command = (
        *(*stock.options, "--data", photos, "--unlabelled", "-o", target, "--runs", runs),
        *("--epochs", 2, "--agreement", 0.999),
    )
    with monkeypatch.context() as patch:
        patch.setattr(Report, "epoch", killed)
        with pytest.raises(Killed):
            call(*command)
    assert not target.exists()

    def first_epoch_only(self: Report, metrics: report.EpochMetrics) -> None:
        if metrics.epoch == 2:
            raise KeyboardInterrupt
        epoch(self, metrics)

    epoch = Report.epoch
    with monkeypatch.context() as patch:
        patch.setattr(Report, "epoch", first_epoch_only)
        patch.setattr(AnswerCache, "_compute", killed)  # the answers are kept
        stopped = call(*command)
    assert stopped.code == 130
    assert "add --resume to the same command" in stopped.err
    refused = call(*command)
    assert refused.code == 2
    assert "stopped after epoch 1: add --resume" in refused.err

    no = call(*command, "--resume")
    assert no.code == 2
    assert "1 files that cannot be read are passed over" in no.out
    assert "the front saves less than 5%: the default policy takes" in no.err
    assert "MB of memory beside its 2.9" in no.err
    assert "--allow-no-saving" in no.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "tree"]

    yes = call(*command, "--allow-no-saving")  # which is not trained again
    assert yes.code == 0, yes.err
    assert "large-front: finished already" in yes.out
    assert "Not certified: the same answer as large.onnx in at least 99.9 %" in yes.out
    assert "accuracy by the folders' names" not in yes.out
    assert load_bundle(target).manifest.provenance.splits["held_out"] == 53


def killed(*_: object) -> None:
    raise Killed
