"""Trials: what a pair costs, which policy is certified, and what is said of the targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.embedded import interleaved_milliseconds
from benchmarks.trials.candidates import Candidate, Training, pairs, row
from benchmarks.trials.networks import exit_milliseconds, open_network, without_follower
from benchmarks.trials.picture import draw
from benchmarks.trials.section import section, undominated
from exports.bundle.reader import Table, sha256
from exports.tuning.certificate import divide
from exports.tuning.scaling import fit_scaling
from exports.tuning.select import default_policy
from exports.tuning.simulation import simulate
from tests.serving.tiny_bundle import write_tiny_bundle
from training.checkpoint import CONFIG, WEIGHTS, CheckpointConfig, read_config
from training.data.dataset import Split
from training.recipes.files import load_recipe

FOLDER = Path(__file__).parents[2] / "benchmarks" / "trials" / "recipes"
RECIPES = {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
CLASSES = 5
HELD_OUT, TEST = 4000, 1000


def table(samples: int, accuracy: float, seed: int) -> Table:
    """One exit that is right on the easiest samples, and the surer the easier they are."""
    rng = np.random.default_rng(seed)
    labels, difficulty = rng.integers(0, CLASSES, samples), rng.random(samples)
    answers = np.where(difficulty < accuracy, labels, (labels + 1) % CLASSES)
    logits = rng.normal(0, 0.1, (1, samples, CLASSES)).astype(np.float32)
    logits[0, np.arange(samples), answers] += 1 + 8 * np.abs(accuracy - difficulty) * (
        difficulty < accuracy
    )
    return Table(logits, labels)


def candidate(
    name: str,
    accuracy: float,
    macs: int,
    ms: float,
    side: int,
    training: Training = "short",
    held_out: int = HELD_OUT,
) -> Candidate:
    return Candidate(
        networks=(name,),
        sides=(side,),
        training=training,
        held_out=table(held_out, accuracy, 0),
        test=table(TEST, accuracy, 1),
        macs=(macs,),
        milliseconds=(ms,),
    )


SMALL = candidate("small", 0.7, 10_000_000, 0.5, 48)
LARGE = candidate("large", 0.9, 40_000_000, 2.0, 96)


@pytest.fixture(scope="module")
def judged() -> dict[str, Any]:
    return row(SMALL.before(LARGE))


def test_leaving_at_the_second_network_costs_both() -> None:
    pair = SMALL.before(LARGE)
    assert pair.networks == ("small", "large")
    assert pair.macs == (10_000_000, 50_000_000)
    assert pair.milliseconds == (0.5, 2.5)
    assert (pair.test.logits[0] == SMALL.test.logits[0]).all()
    assert (pair.test.logits[1] == LARGE.test.logits[0]).all()


def test_networks_on_other_samples_are_no_pair() -> None:
    with pytest.raises(ValueError, match="different samples"):
        SMALL.before(candidate("other", 0.9, 40_000_000, 2.0, 96, held_out=100))


def test_the_cheaper_network_is_first_and_has_another_side() -> None:
    same_side = candidate("wide", 0.8, 20_000_000, 1.0, 96, "long")
    found = {pair.networks: pair.training for pair in pairs([LARGE, SMALL, same_side])}
    assert found == {("small", "large"): "short", ("small", "wide"): "mixed"}


def test_the_policy_is_that_of_an_export(judged: dict[str, Any]) -> None:
    pair = SMALL.before(LARGE)
    scaling = fit_scaling(pair.held_out.take(divide(HELD_OUT)[0]))
    policy = default_policy(pair.held_out, scaling, pair.macs, "0" * 64).policy
    assert policy.certificate is not None
    assert policy.certificate.permitted_drop == 0.5
    outcome = simulate(policy, pair.test.logits, scaling)
    assert judged["certified"]["accuracy"] == pytest.approx(
        100 * outcome.accuracy(pair.test.labels), abs=0.005
    )
    assert judged["certified"]["exit_shares"] == pytest.approx(outcome.shares(2), abs=1e-4)


def test_mean_costs_are_of_the_shares_that_leave(judged: dict[str, Any]) -> None:
    first, last = judged["certified"]["exit_shares"]
    assert 0.1 < first < 0.9
    assert judged["certified"]["ms"] == pytest.approx(0.5 * first + 2.5 * last, abs=1e-3)
    assert judged["certified"]["of_full_depth"] == pytest.approx(0.2 * first + last, abs=1e-3)
    assert judged["full_depth"]["ms"] == 2.5
    assert judged["exits"] == pytest.approx([70, 90], abs=4)


def test_what_is_not_certified_has_no_point_but_a_reason() -> None:
    small = candidate("small", 0.3, 10_000_000, 0.5, 48, held_out=40)
    large = candidate("large", 0.9, 40_000_000, 2.0, 96, held_out=40)
    found = row(small.before(large))
    assert found["certified"] is None
    assert "confidence from 40 samples" in found["note"]
    alone = row(LARGE)
    assert alone["certified"] is None
    assert "no exit before the last" in alone["note"]


def test_calls_are_timed_in_turns() -> None:
    order: list[str] = []
    images = np.zeros((2, 4, 4, 3), np.uint8)
    found = interleaved_milliseconds(
        {name: lambda image, name=name: order.append(name) for name in "ab"}, images, repeats=2
    )
    assert "".join(order) == "aabb" + 2 * "aabb"  # the first ones warm up
    assert set(found) == {"a", "b"}


def finished_run(folder: Path, name: str) -> Path:
    """A run of the recipe `name` with the weights b"weights"."""
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(b"weights")
    config = CheckpointConfig(
        recipe=load_recipe(str(RECIPES.get(name, name))),
        classes=("a",),
        mean=(0, 0, 0),
        std=(1, 1, 1),
        image_size=(8, 8),
        teacher_test=None,
        held_out=None,
        test=None,
        seconds=1,
        tools={},
    )
    (folder / CONFIG).write_text(config.model_dump_json())
    return folder


def test_a_run_in_the_work_directory_is_timed_and_not_exported_again(tmp_path: Path) -> None:
    run, work = finished_run(tmp_path / "run", "trial-lite0-48"), tmp_path / "work"
    kept = work / f"trial-lite0-48-{sha256(b'weights')[:12]}"
    write_tiny_bundle(kept / "bundle")
    test = Split(np.zeros((3, 8, 8, 3), np.uint8), np.zeros(3, np.int64))
    network = open_network(run, work, tmp_path, test)
    assert network.test.logits.shape == (3, 3, 7)
    assert network.recipe_in_words == "3 epochs"
    images = np.zeros((2, 8, 8, 3), np.uint8)
    times = exit_milliseconds([network, network], images, repeats=1)
    assert [len(exits) for exits in times] == [3, 3]
    assert all(ms > 0 for exits in times for ms in exits)
    assert network.candidate(times[0]).macs == (1000, 2000, 3000)
    np.save(kept / "test.npy", network.test.logits + 1)
    again = open_network(run, work, tmp_path, test)
    assert (again.test.logits == network.test.logits + 1).all()


def test_a_run_is_exported_without_its_follower(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", "cifar100-lite0")
    alone = without_follower(run, tmp_path)
    before, after = read_config(run).recipe, read_config(alone).recipe
    assert before.followed_by == "cifar100-lite2"
    assert after == before.model_copy(update={"followed_by": None})
    assert (alone / WEIGHTS).read_bytes() == b"weights"
    unfollowed = finished_run(tmp_path / "other", "trial-lite0-48")
    assert without_follower(unfollowed, tmp_path) == unfollowed


def point(name: str, training: str, accuracy: float, ms: float) -> dict[str, Any]:
    return {
        "networks": [name],
        "training": training,
        "certified": {"accuracy": accuracy, "ms": ms},
    }


def test_dominated_pairs_are_left_out_by_training() -> None:
    rows = [
        point("a", "short", 75, 1.0),
        point("slower", "short", 74, 1.1),
        point("b", "short", 73, 0.8),
        point("c", "long", 80, 1.5),
    ]
    assert [found["networks"][0] for found in undominated(rows)] == ["c", "a", "b"]


def test_table_and_picture_say_how_near_the_targets_are(
    judged: dict[str, Any], tmp_path: Path
) -> None:
    result: dict[str, Any] = {
        "machine": "a machine",
        "load_average": 1.0,
        "command": "python -m benchmarks.trials",
        "images_timed": 10,
        "repeats": 3,
        "test_images": TEST,
        "permitted_drop": 0.5,
        "targets": {"accuracy": 80.0, "ms": 0.1},
        "networks": [row(one) | {"recipe": "3 epochs"} for one in (SMALL, LARGE)],
        "pairs": [judged],
    }
    text = section(json.loads(json.dumps(result)))
    assert "| `small`, then `large` | short |" in text
    assert "The fastest of at least 80 % takes" in text
    assert "No certified policy takes at most 0.1 ms." in text
    draw(result, tmp_path / "trials.png")
    assert (tmp_path / "trials.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_valid_and_named_after_their_file(name: str) -> None:
    assert load_recipe(str(RECIPES[name])).name == name
