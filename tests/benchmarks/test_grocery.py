"""The arithmetic of the benchmark of a large network alone, behind a front, and in a cascade."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from benchmarks.grocery import bundles, divide
from benchmarks.grocery.classifier import write_classifier
from benchmarks.grocery.divisions import over_divisions
from benchmarks.grocery.images import ImageFiles, random_halves
from benchmarks.grocery.logits import logits_of, networks
from benchmarks.grocery.policies import calibration_table, choose, in_hindsight, judge
from benchmarks.grocery.section import verdict
from benchmarks.grocery.times import mean_milliseconds, stage_milliseconds
from benchmarks.grocery.tuned import write_tuned
from exports.bundle.policy import Policy, Scaling
from exports.bundle.reader import Bundle, Table, load_bundle
from exports.imported.config import find_config
from exports.stage_runner import StageRunner
from tests.serving.tiny_bundle import LABELS, SIZE
from training.checkpoint import load_checkpoint
from training.errors import CheckpointError
from training.recipes.files import load_recipe

COSTS = [20, 120]  # the small network, then the large one, which alone costs 100
EVEN = Scaling((1.0, 1.0), (1.0, 1.0), (1.0, 1.0))


def table(small: list[tuple[int, float]], large: list[int], labels: list[int]) -> Table:
    """Two exits over two classes. The small network names a class with a margin of logits, the large one with
    a margin of 9."""
    logits = np.zeros((2, len(labels), 2), np.float32)
    for n, ((answer, margin), sure) in enumerate(zip(small, large, strict=True)):
        logits[0, n, answer], logits[1, n, sure] = margin, 9
    return Table(logits, np.array(labels))


FIVE = table(
    small=[(0, 8), (1, 8), (0, 8), (1, 8), (0, 1)],
    large=[0, 0, 1, 1, 1],
    labels=[0, 0, 0, 1, 0],
)
SURE = Policy(combine="single", thresholds=(0.99,), max_exit=2)


def test_a_policy_is_judged_beside_the_large_network_alone() -> None:
    found = judge(SURE, EVEN, FIVE, COSTS)
    assert found == {
        "accuracy": 60.0,  # images 1, 3 and 4
        "agreement": 60.0,  # images 1, 4 and 5
        "lost": 1,  # image 2
        "gained": 1,  # image 3
        "cost": 0.4,  # (4 x 20 + 120) / 5 of 100
        "shares": [0.8, 0.2],
    }


def test_in_hindsight_the_cheapest_threshold_within_the_limits_is_known() -> None:
    sure = table([(0, 8)] * 6 + [(0, 1)] * 4, [0] * 6 + [1] * 4, [0] * 6 + [1] * 4)
    found = in_hindsight(EVEN, sure, COSTS)
    assert found["cost_at_agreement"] == found["cost_at_accuracy"] == 0.6
    # At half of the cost at most 7 in 10 images leave early, and no threshold is between 6 and 10.
    assert found["agreement_at_half"] == 60.0
    assert found["loss_at_half"] == 40.0


def some_logits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """A small network that is right more often the surer it is, and a large one that is nearly always."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    logits = rng.normal(0, 1, (2, count, 3)).astype(np.float32)
    logits[0, np.arange(count), labels] += rng.uniform(0, 8, count)
    logits[1, np.arange(count), labels] += 6
    return logits, labels


def test_agreement_is_with_the_large_network_and_accuracy_with_the_labels() -> None:
    logits, labels = some_logits(50)
    assert calibration_table(logits, labels, "accuracy").labels is labels
    agreement = calibration_table(logits, labels, "agreement")
    assert np.array_equal(agreement.labels, agreement.logits[-1].argmax(axis=1))


def test_half_the_cost_is_kept_and_agreement_is_certified_where_images_support_it() -> None:
    logits, labels = some_logits(3000)
    half = choose(calibration_table(logits, labels, "half"), COSTS, "half")
    assert judge(half.policy, half.scaling, Table(logits, labels), COSTS)["cost"] <= 0.5
    agreeing = choose(calibration_table(logits, labels, "agreement"), COSTS, "agreement")
    assert agreeing.policy.certificate is not None
    found = judge(agreeing.policy, agreeing.scaling, Table(logits, labels), COSTS)
    assert found["agreement"] >= 99
    assert found["cost"] < 1


def test_divisions_are_judged_on_the_images_that_were_not_chosen_on() -> None:
    val, test = Table(*some_logits(100)), Table(*some_logits(600))
    found = over_divisions(val, test, COSTS, "half", divisions=2)
    single = []
    for seed in (0, 1):
        chosen_on, judged_on = (test.take(part) for part in random_halves(600, seed))
        logits = np.concatenate([val.logits, chosen_on.logits], axis=1)
        labels = np.concatenate([val.labels, chosen_on.labels])
        chosen = choose(calibration_table(logits, labels, "half"), COSTS, "half")
        single.append(judge(chosen.policy, chosen.scaling, judged_on, COSTS))
    losses = [100 * (one["lost"] - one["gained"]) / 300 for one in single]
    assert found["divisions"] == 2
    assert found["points_lost"] == pytest.approx(np.mean(losses), abs=1e-3)
    assert found["points_lost_range"] == [round(min(losses), 2), round(max(losses), 2)]
    assert found["cost"] == pytest.approx(np.mean([one["cost"] for one in single]), abs=1e-3)


def test_one_network_alone_costs_what_it_costs() -> None:
    logits, labels = some_logits(200)
    alone = choose(calibration_table(logits[1:], labels, "accuracy"), [100], "accuracy")
    found = judge(alone.policy, alone.scaling, Table(logits[1:], labels), [100])
    assert (found["cost"], found["agreement"], found["lost"]) == (1.0, 100.0, 0)


def test_the_halves_of_the_test_split_are_disjoint_and_known_by_their_seed() -> None:
    chosen_on, judged_on = random_halves(101, 0)
    assert sorted([*chosen_on, *judged_on]) == list(range(101))
    assert len(chosen_on) == 50
    assert np.array_equal(random_halves(101, 0)[0], chosen_on)
    assert not np.array_equal(random_halves(101, 1)[0], chosen_on)


def test_the_mean_time_counts_a_stage_for_those_who_reach_it() -> None:
    assert mean_milliseconds([2.0, 3.0, 10.0], [0.5, 0.25, 0.25]) == 2 + 1.5 + 2.5


def test_every_stage_of_every_bundle_is_timed(bundle: Bundle, images: np.ndarray) -> None:
    found = stage_milliseconds({"a": bundle, "b": bundle}, images[:1])
    assert [len(found[name]) for name in ("a", "b")] == [3, 3]
    assert all(0 <= ms < 100 for stages in found.values() for ms in stages)


@pytest.mark.parametrize("bundle_with_image_stages", [(1, 3)], indirect=True)
def test_the_logits_of_a_network_are_kept(
    bundle_with_image_stages: Bundle,
    images: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [len(stages) for stages in networks(bundle_with_image_stages)] == [2, 1]
    files = ImageFiles("tiny", (Path("a"),), np.zeros(len(images), np.int64), SIZE)
    files.__dict__["pixels"] = images
    found = logits_of(bundle_with_image_stages, files, tmp_path)
    whole = StageRunner(bundle_with_image_stages.stages).logits(images)
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-5)
    monkeypatch.delattr(StageRunner, "logits")
    assert np.array_equal(logits_of(bundle_with_image_stages, files, tmp_path), found)


def test_a_bundle_is_written_with_the_policy_of_other_images(
    bundle: Bundle, images: np.ndarray, tmp_path: Path
) -> None:
    logits = StageRunner(bundle.stages).logits(images)
    calibration = Table(logits, np.arange(len(images)) % len(LABELS))
    chosen = write_tuned(bundle, calibration, "accuracy", tmp_path / "tuned")
    written = load_bundle(tmp_path / "tuned")
    assert written.policy == chosen.policy
    assert written.manifest.scaling == chosen.scaling
    assert written.manifest.calibration.samples == len(images)
    assert written.stages == bundle.stages


def test_photographs_are_divided_into_those_to_calibrate_on_and_those_to_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    for split, count in (("train", 20), ("val", 20), ("test", 40)):
        for label in LABELS:
            folder = photos / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}.png").touch()
    monkeypatch.chdir(tmp_path)
    divide.main([str(photos), "--work", "divided"])

    def sources(part: str) -> set[Path]:
        links = (tmp_path / "divided" / part).glob("*/*.png")
        files = {link.resolve().relative_to(photos): link.parent.name for link in links}
        assert all(file.parts[1] == label for file, label in files.items())
        return set(files)

    calibrate, judged = sources("calibrate"), sources("judged")
    assert not calibrate & judged
    assert {file.parts[0] for file in judged} == {"test"}
    assert len(judged) == 20 * len(LABELS)
    assert len(calibrate) == 40 * len(LABELS)


def test_the_last_exit_of_a_run_becomes_a_plain_classifier(workplace: Path, tmp_path: Path) -> None:
    run = workplace / "runs" / "digits-oto"
    file = write_classifier(run, tmp_path / "small")
    assert file == tmp_path / "small" / "small.onnx"
    network, config = load_checkpoint(run)
    images = np.random.default_rng(0).normal(0, 1, (3, 3, *config.image_size)).astype(np.float32)
    (logits,) = onnxruntime.InferenceSession(file).run(["logits"], {"images": images})
    with torch.no_grad():
        expected = network(torch.from_numpy(images))[-1].numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    labels = (tmp_path / "small" / "labels.txt").read_text().splitlines()
    assert labels == list(config.classes)
    described = find_config(file, None)
    assert described.mean == pytest.approx([255 * value for value in config.mean], abs=1e-3)
    assert described.side == config.image_size[0]


def test_a_cascade_of_another_small_network_is_another_bundle(tmp_path: Path) -> None:
    place = bundles.Workplace(tmp_path / "work", tmp_path / "runs", tmp_path)
    made = tmp_path / "work" / "cascade-lite2-front-fp32"
    made.mkdir(parents=True)
    (made / "manifest.json").touch()
    assert place.bundle(bundles.CASCADE, "fp32") == made
    trained = tmp_path / "runs" / bundles.SMALL
    trained.mkdir(parents=True)
    (trained / "checkpoint.json").touch()
    assert place.small_run == bundles.SMALL
    with pytest.raises(CheckpointError, match="grocery-lite2"):  # it is not taken for the other
        place.bundle(bundles.CASCADE, "fp32")


def test_the_recipes_can_be_trained() -> None:
    for name in ("lite2", "lite0"):
        recipe = load_recipe(str(Path(bundles.__file__).with_name(f"{name}.toml")))
        assert recipe.name == f"grocery-{name}"


def test_the_verdict_names_what_is_cheap_and_as_good() -> None:
    row = {"configuration": "front", "precision": "int8", "agreement": 97.0, "cost": 0.49}
    rows = [
        row | {"lost": 15, "gained": 10},
        row | {"precision": "fp32", "lost": 16, "gained": 10},
        row | {"configuration": "cascade", "cost": 0.51, "lost": 0, "gained": 0},
    ]
    found = verdict({"rows": rows, "pictures": {"judged_on": 1000}})
    assert json.dumps(found).count("front, Lite2 in int8 (0.49)") == 1
    assert "fp32" not in found
    assert found.endswith("agreement: none.")
