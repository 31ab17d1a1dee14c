"""An export gives the same answers as its network, or is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from exports.bundle.errors import ExportError
from exports.bundle.reader import load_bundle, load_table
from exports.bundle.resolve import CIFAR100
from exports.graphs.stages import StageGraph, export_stages
from exports.pipeline import export_bundle
from exports.stage_runner import StageRunner
from exports.tuning.certificate import divide
from exports.tuning.scaling import fit_scaling
from exports.tuning.select import default_policy
from exports.tuning.simulation import simulate
from exports.verify import verify
from offramp.errors import WriteError
from training.checkpoint import load_checkpoint
from training.data.dataset import Split
from training.data.load import load_dataset
from training.models.build import build_network
from training.models.multi_exit import Normalize
from training.recipes.schema import DataRecipe


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    test: Split = load_dataset(DataRecipe(name="digits", held_out=1), Path("unused")).test
    return test.images[:140]


def test_the_stages_agree_with_torch_in_batches_of_one_and_seven(
    workplace: Path, images: np.ndarray
) -> None:
    network, config = load_checkpoint(workplace / "runs" / "digits-oto")
    runner = StageRunner(load_bundle(workplace / "digits").stages)
    assert verify(runner, network, Normalize(config.mean, config.std), images) < 1e-3


def test_a_vgg_for_64_pixels_agrees_with_torch(images: np.ndarray) -> None:
    network = build_network("vgg8", 4, 10, exits=[3, 4], heads="conv").eval()
    normalize = Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    large = images[:14].repeat(4, axis=1).repeat(4, axis=2)
    graphs = export_stages(network, normalize, (64, 64))
    assert [graph.feature_shape for graph in graphs] == [(16, 16, 16), None]
    assert verify(StageRunner([g.onnx for g in graphs]), network, normalize, large) < 1e-3


@pytest.mark.parametrize("exit_", [1, 2, 3, 4])
def test_a_difference_at_any_exit_is_refused(
    workplace: Path, images: np.ndarray, exit_: int
) -> None:
    network, config = load_checkpoint(workplace / "runs" / "digits-oto")
    runner = StageRunner(load_bundle(workplace / "digits").stages)
    with torch.no_grad():
        next(network.heads[exit_ - 1].parameters()).mul_(1.5)
    with pytest.raises(ExportError, match=f"exit {exit_} .* no bundle was written"):
        verify(runner, network, Normalize(config.mean, config.std), images)


def test_a_flipped_class_within_the_tolerance_is_refused(images: np.ndarray) -> None:
    class TiedLogits(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [torch.tensor([[0.0, 1e-4]]).repeat(len(x), 1)]

    class OtherClass(StageRunner):
        def __init__(self) -> None:
            pass

        def logits(self, images: np.ndarray, batch_size: int = 100) -> np.ndarray:
            return np.tile(np.float32([1e-4, 0.0]), (1, len(images), 1))

    # The network's only exit is the third of the bundle.
    with pytest.raises(ExportError, match="exit 3 predicts another class"):
        verify(OtherClass(), TiedLogits(), Normalize((0, 0, 0), (1, 1, 1)), images, first=3)  # type: ignore[arg-type]


def test_an_existing_target_is_not_overwritten(workplace: Path, tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    (target / "mine.txt").write_text("keep")
    with pytest.raises(WriteError, match="exists already"):
        export_bundle(workplace / "runs" / "digits-oto", target, data_root=tmp_path)
    assert (target / "mine.txt").read_text() == "keep"


def test_a_failed_export_leaves_nothing(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    bundle = load_bundle(workplace / "digits")
    graphs = [
        StageGraph(onnx, entry.input, entry.macs, entry.params, entry.feature_shape)
        for onnx, entry in zip(bundle.stages, bundle.manifest.exits, strict=True)
    ]
    monkeypatch.setattr("exports.graphs.stages.export_stages", lambda *_: graphs)  # seconds faster
    monkeypatch.setattr("exports.pipeline.model_card", full)
    with pytest.raises(OSError, match="No space"):
        export_bundle(workplace / "runs" / "digits-oto", tmp_path / "b", data_root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_card_shows_every_exit(digits_bundle: Path) -> None:
    manifest = load_bundle(digits_bundle).manifest
    card = (digits_bundle / "README.md").read_text()
    for entry in manifest.exits:
        assert f"{entry.test.single:.2f}" in card
    assert f"{manifest.provenance.test_default.accuracy:.2f} %" in card


def test_a_split_too_small_for_a_certificate_gives_an_uncertified_policy(workplace: Path) -> None:
    """The digits' held-out split is too small for a promise of half a point."""
    bundle = load_bundle(workplace / "digits")
    manifest = bundle.manifest
    assert bundle.policy.certificate is None
    table = load_table(bundle.path, manifest)
    costs = [entry.macs for entry in manifest.exits]
    choice = default_policy(table, manifest.scaling, costs, manifest.calibration.sha256)
    assert choice.policy == bundle.policy
    assert choice.notes[0].startswith("It is not certified")
    card = (bundle.path / "README.md").read_text("utf-8").replace("\\", "")
    assert choice.promise in card


def test_temperatures_and_weights_are_fitted_on_the_samples_chosen_on_alone(
    workplace: Path,
) -> None:
    bundle = load_bundle(workplace / "digits")
    table = load_table(bundle.path, bundle.manifest)
    first, _ = divide(len(table.labels))
    assert fit_scaling(table.take(first)) == bundle.manifest.scaling


def test_the_files_contain_no_path_of_the_machine_that_wrote_them(digits_bundle: Path) -> None:
    repository = str(Path(__file__).parents[2]).encode()
    for file in digits_bundle.iterdir():
        content = file.read_bytes()
        assert repository not in content, file
        assert b"site-packages" not in content, file


def test_the_embedded_bundle_has_the_accuracy_in_its_manifest(
    cifar_test: tuple[NDArray[np.uint8], NDArray[np.int64]],
) -> None:
    """Every fourth test image through the embedded stages, with three standard errors of what the manifest
    reports of all. `python -m benchmarks.embedded` runs all."""
    bundle = load_bundle(CIFAR100)
    images, labels = (part[::4] for part in cifar_test)
    logits = StageRunner(bundle.stages).logits(images)
    stated = bundle.manifest.provenance.test_default
    outcome = simulate(bundle.policy, logits, bundle.manifest.scaling)
    # Each accuracy is near 80 %; a fourth is drawn from all without replacement.
    within = 3 * 100 * (0.8 * 0.2 / len(labels) * 0.75) ** 0.5
    for entry, exit_logits in zip(bundle.manifest.exits, logits, strict=True):
        accuracy = 100 * (exit_logits.argmax(1) == labels).mean()
        assert accuracy == pytest.approx(entry.test.single, abs=within)
    assert 100 * outcome.accuracy(labels) == pytest.approx(stated.accuracy, abs=within)
    costs = [entry.macs for entry in bundle.manifest.exits]
    assert outcome.mean_cost(costs) == pytest.approx(stated.mean_macs, rel=0.05)
