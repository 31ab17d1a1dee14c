"""A run and the run that follows it at the image become one bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from exports.bundle.errors import ExportError
from exports.bundle.policy import Combine, Decision, Policy
from exports.bundle.reader import Bundle, read_graph
from exports.card.markup import markdown_text
from exports.cascade import load_cascade
from exports.graphs.routed import routed_graph
from exports.stage_runner import StageRunner
from exports.tuning.simulation import simulate
from exports.tuning.timing import exit_milliseconds
from serving.inference.engine import Engine
from tests.commands import call
from tests.exports.cascades import EXITS, Workshop, build_workshop
from tests.sessions import plain_session
from training.checkpoint import load_checkpoint
from training.data.dataset import Split
from training.data.load import load_dataset
from training.models.cost import network_cost
from training.models.multi_exit import Normalize
from training.recipes.schema import DataRecipe


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return build_workshop(tmp_path_factory.mktemp("cascade"))


@pytest.fixture(scope="module")
def test_split() -> Split:
    return load_dataset(DataRecipe(name="digits", held_out=300), Path("unused")).test


@pytest.fixture(params=["fp32", "int8"])
def bundle(request: pytest.FixtureRequest, workshop: Workshop) -> Bundle:
    found: Bundle = getattr(workshop, request.param)
    return found


def test_the_bundle_has_the_stages_of_both_networks_the_second_at_the_image(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.format == 2
    assert manifest.name == "front"
    assert [entry.input for entry in manifest.exits] == ["image", "features", "image", "features"]
    shapes = [entry.feature_shape for entry in manifest.exits]
    assert shapes == [(8, 16, 16), None, (8, 32, 32), None]
    assert [recipe["name"] for recipe in manifest.provenance.followers] == ["group/big"]
    assert manifest.provenance.recipe["name"] == "front"


def test_every_exit_has_the_logits_of_its_network(workshop: Workshop, test_split: Split) -> None:
    import torch

    images = test_split.images[:50]
    logits = StageRunner(workshop.fp32.stages).logits(images)
    expected = []
    for name in ("front", "group/big"):
        network, config = load_checkpoint(workshop.runs / name)
        with torch.no_grad():
            normalised = Normalize(config.mean, config.std)(torch.from_numpy(images))
            expected += [exit_logits.numpy() for exit_logits in network(normalised)]
    np.testing.assert_allclose(logits, np.stack(expected), atol=1e-3)


def test_costs_are_of_everything_that_runs_before_an_exit(workshop: Workshop) -> None:
    front, big = (
        network_cost(load_checkpoint(workshop.runs / name)[1].recipe.network, 16, 10)
        for name in ("front", "group/big")
    )
    exits = workshop.fp32.manifest.exits
    assert (exits[1].params, exits[1].macs) == front
    assert (exits[3].params, exits[3].macs) == (front[0] + big[0], front[1] + big[1])
    assert exits[1].macs < exits[2].macs < exits[3].macs


def test_the_manifest_has_the_accuracies_of_the_stages_as_written(
    bundle: Bundle, test_split: Split
) -> None:
    logits = StageRunner(bundle.stages).logits(test_split.images)
    for entry, exit_logits in zip(bundle.manifest.exits, logits, strict=True):
        accuracy = 100 * (exit_logits.argmax(1) == test_split.labels).mean()
        assert accuracy == pytest.approx(entry.test.single, abs=0.3)
    found = simulate(bundle.policy, logits, bundle.manifest.scaling)
    stated = bundle.manifest.provenance.test_default
    assert 100 * found.accuracy(test_split.labels) == pytest.approx(stated.accuracy, abs=0.3)


def test_int8_keeps_the_pixels_exact_and_quantises_the_features_between_stages(
    workshop: Workshop,
) -> None:
    exits = workshop.int8.manifest.exits
    assert exits[0].feature_type == exits[2].feature_type == "uint8"
    assert exits[1].feature_type == exits[3].feature_type == "float32"
    third = onnx.load_from_string(workshop.int8.stages[2])
    assert third.graph.input[0].name == "image"
    before = []
    for node in third.graph.node:
        if node.op_type == "QuantizeLinear":
            break
        before.append(node.op_type)
    assert {"Transpose", "Cast", "Mul", "Add"} <= set(before)


@pytest.mark.parametrize("exit_", range(1, EXITS + 1))
def test_the_graph_of_an_exit_has_its_logits_and_its_network_alone(
    bundle: Bundle, test_split: Split, exit_: int
) -> None:
    entry = next(graph for graph in bundle.manifest.graphs if graph.exit == exit_)
    content = read_graph(bundle.path, entry)
    images = test_split.images[:20]
    (logits,) = plain_session(content).run(None, {"image": images})
    expected = StageRunner(bundle.stages).logits(images)[exit_ - 1]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    graph = onnx.load_from_string(content).graph
    stages = {name.split(".")[0] for node in graph.node for name in node.output if "." in name}
    first = 1 if exit_ <= 2 else 3
    assert stages == {f"stage{k}" for k in range(first, exit_ + 1)}


@pytest.mark.parametrize("combine", ["single", "running"])
def test_the_routed_graph_answers_as_the_engine(
    workshop: Workshop, test_split: Split, combine: Combine
) -> None:
    bundle, images = workshop.int8, test_split.images[:64]
    logits = list(StageRunner(bundle.stages).logits(images))
    policy = Policy(combine=combine, thresholds=(1.0,) * (EXITS - 1), max_exit=EXITS)
    # At each exit about half of all samples are confident enough.
    medians = tuple(
        float(np.median(Decision(policy, k, logits[:k], bundle.manifest.scaling).measured))
        for k in range(1, EXITS)
    )
    policy = policy.model_copy(update={"thresholds": medians})
    routed = plain_session(routed_graph(bundle.stages, policy, bundle.manifest.scaling))
    expected = Engine(bundle).classify(images, policy)
    assert len({answer.exit for answer in expected}) > 2
    feeds = {"image": images, "thresholds": np.array(policy.thresholds, np.float32)}
    exits, confidence = routed.run(["exit", "confidence"], feeds)
    assert exits.tolist() == [answer.exit for answer in expected]
    np.testing.assert_allclose(confidence, [a.confidence for a in expected], atol=1e-4)


def test_maps_of_every_exit_average_to_its_logits(workshop: Workshop, test_split: Split) -> None:
    bundle = workshop.fp32
    entry = bundle.manifest.cam
    assert entry is not None
    images = test_split.images[:8]
    maps = plain_session(read_graph(bundle.path, entry)).run(None, {"image": images})
    logits = StageRunner(bundle.stages).logits(images)
    for own, expected in zip(maps, logits, strict=True):
        # The bias is the same for all images.
        rest = expected - own.mean(axis=(2, 3))
        np.testing.assert_allclose(rest, np.broadcast_to(rest[0], rest.shape), atol=1e-4)


def test_every_exit_is_timed(workshop: Workshop) -> None:
    times = exit_milliseconds(workshop.fp32.path)
    assert len(times) == EXITS
    assert list(times) == sorted(times)


def test_tune_inspect_pack_and_the_pictures_take_it(workshop: Workshop, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(workshop.fp32.path, bundle)
    packed = tmp_path / "packed.offramp.zip"
    for command in (
        ("inspect", bundle),
        ("inspect", workshop.int8.path),
        ("pack", bundle, "-o", packed),
        ("inspect", packed),
        ("picture", "exits", bundle, "-o", tmp_path / "exits.png"),
        ("picture", "calibration", bundle, "-o", tmp_path / "calibration.png"),
        ("tune", bundle, "--max-accuracy-drop", "5"),
    ):
        done = call(*command)
        assert done.code == 0, done.err
        if command[0] == "inspect":
            assert "format 2" in done.out
            assert "stage 3 takes the image" in " ".join(done.out.split())


def test_the_card_names_both_recipes(workshop: Workshop) -> None:
    card = (workshop.fp32.path / "README.md").read_text()
    assert "Stage 3 takes the image, not the features of the stage before." in card
    assert "- Recipe: front (resnet" in card
    assert f"- Recipe: {markdown_text('group/big')} (resnet" in card


@pytest.fixture
def runs(workshop: Workshop, tmp_path: Path) -> Path:
    """A copy of the runs to change."""
    return Path(shutil.copytree(workshop.runs, tmp_path / "runs"))


def edit(run: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads((run / "checkpoint.json").read_text())
    change(content)
    (run / "checkpoint.json").write_text(json.dumps(content))


def recipe_of(**fields: object) -> Callable[[dict[str, object]], object]:
    return lambda config: config["recipe"].update(fields)  # type: ignore[attr-defined]


def test_runs_follow_one_after_the_other(runs: Path) -> None:
    shutil.copytree(runs / "front", runs / "small")
    edit(runs / "front", recipe_of(name="front", followed_by="small"))
    edit(runs / "small", recipe_of(name="small", followed_by="group/big"))
    names = [run.config.recipe.name for run in load_cascade(runs / "front")]
    assert names == ["front", "small", "group/big"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda runs: edit(runs / "front", recipe_of(followed_by="group/none")),
            "group/none, which follows front, is not trained yet: run `offramp train group/none`",
        ),
        (
            lambda runs: edit(runs / "group" / "big", recipe_of(followed_by="front")),
            "group/big is followed by front, which comes before it",
        ),
        (
            lambda runs: edit(runs / "group" / "big", lambda c: c["classes"].reverse()),
            "group/big cannot follow front: it was trained with another set of classes",
        ),
        (
            lambda runs: edit(runs / "group" / "big", lambda c: c.update(image_size=[32, 32])),
            "another image size",
        ),
        (
            lambda runs: edit(
                runs / "group" / "big", lambda c: c["recipe"]["data"].update(held_out_seed=1)
            ),
            "another data set or held-out split",
        ),
        (
            lambda runs: [
                edit(runs / n, lambda c, n=n: c.update(fingerprint=n))
                for n in ("front", "group/big")
            ],
            "another version of the images",
        ),
    ],
)
def test_a_run_that_cannot_follow_is_refused_in_one_sentence(
    runs: Path, change: Callable[[Path], object], says: str
) -> None:
    change(runs)
    with pytest.raises(ExportError, match=says) as caught:
        load_cascade(runs / "front")
    assert "\n" not in str(caught.value)


def test_the_default_policy_is_for_all_exits(bundle: Bundle) -> None:
    assert bundle.policy.exits == EXITS
    assert len(bundle.manifest.provenance.test_default.exit_shares) == EXITS
