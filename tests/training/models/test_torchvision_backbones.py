"""torchvision's networks, cut into stages, are torchvision's networks still."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from exports.graphs.stages import export_stages
from exports.stage_runner import StageRunner
from exports.verify import verify
from tests.training.models.settling import settle
from training.errors import RecipeError
from training.models.build import build_network
from training.models.cost import count_macs, count_parameters
from training.models.layers import Depthwise
from training.models.multi_exit import Normalize
from training.models.pretrained import load_pretrained
from training.models.torchvision_backbones import SPECS, load_state, torchvision_backbone

MOBILENET = "torchvision-mobilenet-v3"
CLASSIFIERS = ("fc", "classifier")


def random_network(name: str) -> nn.Module:
    """torchvision's own network, with weights and statistics unlike any other's."""
    torch.manual_seed(1)
    return settle(SPECS[name].build(), torch.randn(8, 3, 64, 64))


def last_feature_map(network: nn.Module, x: Tensor) -> Tensor:
    if hasattr(network, "features"):
        return network.features(x)
    children = [m for n, m in network.named_children() if n not in ("avgpool", "fc")]
    return nn.Sequential(*children)(x)


@pytest.mark.parametrize("name", SPECS)
def test_the_side_halves_from_a_quarter_on_and_the_channels_are_as_stated(name: str) -> None:
    backbone = torchvision_backbone(name)
    x = torch.zeros(1, 3, 64, 64)
    shapes = []
    for stage in backbone.stages:
        x = stage.eval()(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [
        (c, side, side) for c, side in zip(backbone.channels, (16, 8, 4, 2), strict=True)
    ]


@pytest.mark.parametrize("name", SPECS)
def test_parameters_and_macs_are_those_torchvision_states(name: str) -> None:
    with torch.device("meta"):
        stages = nn.Sequential(*torchvision_backbone(name).stages).eval()
        whole = SPECS[name].build()
        image = torch.zeros(1, 3, 224, 224)
    left_out = [m for n, m in whole.named_children() if n in CLASSIFIERS]
    linear = [m for part in left_out for m in part.modules() if isinstance(m, nn.Linear)]
    parameters = count_parameters(stages) + sum(map(count_parameters, left_out))
    macs = count_macs(stages, image) + sum(m.weight.numel() for m in linear)
    stated = SPECS[name].weights.meta
    assert parameters == stated["num_params"]
    assert macs / 1e9 == pytest.approx(stated["_ops"], abs=0.0006)


@pytest.mark.parametrize("name", SPECS)
def test_with_torchvisions_weights_the_features_are_torchvisions(name: str) -> None:
    theirs = random_network(name)
    stages = nn.Sequential(*torchvision_backbone(name).stages)
    load_state(nn.ModuleList(stages), name, theirs.state_dict())
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = last_feature_map(theirs, image)
        actual = stages.eval()(image)
    assert expected.std() > 0.1
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_weights_are_read_from_a_torch_file_from_safetensors_and_from_torchvisions_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = random_network(MOBILENET).state_dict()
    # Fine-tuned on other classes: the classifier does not matter.
    state["classifier.3.weight"] = torch.zeros(7, 1280)
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(state, cache / SPECS[MOBILENET].weights.url.rsplit("/", 1)[1])
    torch.save(state, tmp_path / "weights.pth")
    save_file(state, tmp_path / "weights.safetensors")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    expected = state["features.16.1.running_mean"]
    for source in (tmp_path / "weights.pth", tmp_path / "weights.safetensors", "torchvision"):
        network = build_network(MOBILENET, None, 5, [4])
        load_pretrained(network.stages, MOBILENET, str(source))
        assert torch.equal(network.stages[3][3][1].running_mean, expected), source


class Hacked:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    torch.save({"weight": Hacked(tmp_path / "hacked")}, tmp_path / "weights.pth")
    with pytest.raises(RecipeError, match="more than tensors"):
        load_pretrained(nn.ModuleList(), MOBILENET, str(tmp_path / "weights.pth"))
    assert not (tmp_path / "hacked").exists()


def test_weights_that_are_missing_damaged_or_another_networks_are_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "other.pth").read_bytes()[:300])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    network = build_network(MOBILENET, None, 5, [4])
    for name, says in (
        ("none.pth", "there is no file"),
        ("other.pth", f"not those of {MOBILENET}"),
        ("list.pth", "holds no state dict"),
        ("cut.pth", "cannot be read|damaged"),
        ("cut.safetensors", "cannot be read"),
    ):
        with pytest.raises(RecipeError, match=says) as caught:
            load_pretrained(network.stages, MOBILENET, str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_a_failed_download_says_what_to_fetch_and_what_to_do_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    with pytest.raises(RecipeError) as caught:
        load_pretrained(nn.ModuleList(), MOBILENET, "torchvision")
    for part in (SPECS[MOBILENET].weights.url, str(tmp_path), "--from-scratch", "not known"):
        assert part in str(caught.value)


def test_depthwise_convolutions_and_statistics_suit_short_runs_on_a_cpu() -> None:
    for name in SPECS:
        modules = [m for s in torchvision_backbone(name).stages for m in s.modules()]
        grouped = [m for m in modules if isinstance(m, nn.Conv2d) and m.groups > 1]
        assert all(isinstance(m, Depthwise) for m in grouped)
        assert bool(grouped) == ("resnet" not in name)
        assert {m.momentum for m in modules if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_preactivations_come_before_the_last_relu_where_a_stage_ends_in_one() -> None:
    image = torch.randn(1, 3, 32, 32)
    resnet = build_network("torchvision-resnet18", None, 5, [4]).eval()
    seen = resnet.observe(image, preactivations=True)
    for before, after in zip(seen.preactivations, seen.features, strict=True):
        assert before.min() < 0
        assert torch.equal(before.relu(), after)
    seen = build_network(MOBILENET, None, 5, [4]).eval().observe(image, preactivations=True)
    for before, after in zip(seen.preactivations, seen.features, strict=True):
        assert torch.equal(before, after)


def test_exported_stages_agree_with_torch() -> None:
    torch.manual_seed(0)
    network = build_network("torchvision-efficientnet-b0", None, 5, [2, 4])
    normalize = Normalize((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    images = torch.randint(0, 256, (14, 64, 64, 3), dtype=torch.uint8).numpy()
    inputs = normalize(torch.from_numpy(images))
    with torch.no_grad():
        logits = settle(network, inputs)(inputs)
    assert all(z.std(dim=0).mean() > 0.01 for z in logits)
    graphs = export_stages(network, normalize, (64, 64))
    assert verify(StageRunner([g.onnx for g in graphs]), network, normalize, images) < 1e-3
