"""Class-activation maps follow Grad-CAM's equations 1 and 2."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from training.models.build import build_network
from training.models.multi_exit import MultiExit
from training.pictures.gradcam import class_activation
from training.recipes.network import HeadDesign

FEATURES = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[4.0, 0.0], [0.0, 1.0]]]])
# The weights of class 1's logit; their means over positions are 1 and -2.
CLASS_1 = torch.tensor([[[4.0, 0.0], [0.0, 0.0]], [[-2.0, -2.0], [-2.0, -2.0]]])
CLASS_0 = torch.full((2, 2, 2), -1.0)


def one_exit() -> MultiExit:
    """Features are the input itself; each logit is a weighted sum of them."""
    linear = nn.Linear(8, 2, bias=False)
    linear.weight.data = torch.stack([CLASS_0.flatten(), CLASS_1.flatten()])
    return MultiExit([nn.Identity()], [nn.Sequential(nn.Flatten(), linear)], (1,)).eval()


def of(*classes: int) -> Tensor:
    return torch.tensor(classes)


def test_a_map_computed_by_hand() -> None:
    # 1 x channel 1 - 2 x channel 2 = [[-7, 2], [3, 2]]; ReLU; divided by the peak, 3.
    (found,) = class_activation(one_exit(), FEATURES, 1, of(1))
    torch.testing.assert_close(found, torch.tensor([[0.0, 2 / 3], [1.0, 2 / 3]]))


def test_a_map_without_evidence_for_the_class_is_zero_not_nan() -> None:
    (found,) = class_activation(one_exit(), FEATURES, 1, of(0))
    assert torch.equal(found, torch.zeros(2, 2))


def test_an_images_map_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    network = build_network("resnet10", 4, 5, (1, 2, 3, 4)).eval()
    images = torch.randn(3, 3, 16, 16)
    together = class_activation(network, images, 2, of(4, 0, 2))
    for image, class_, found in zip(images, (4, 0, 2), together, strict=True):
        alone = class_activation(network, image[None], 2, of(class_))[0]
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("design", get_args(HeadDesign))
@pytest.mark.parametrize(
    ("name", "exits"), [("resnet10", (2, 4)), ("vgg8", (1, 4)), ("wrn-16-2", (1, 3))]
)
def test_maps_have_the_size_of_the_features_their_exit_reads(
    name: str, exits: tuple[int, ...], design: str
) -> None:
    network = build_network(name, 4, 5, exits, design).eval()
    images = torch.randn(2, 3, 32, 32)
    features = network.observe(images).features
    for exit_, stage in enumerate(exits, 1):
        maps = class_activation(network, images, exit_, of(0, 1))
        assert maps.shape[1:] == features[stage - 1].shape[2:]
        assert all(float(each.max()) in (0.0, 1.0) and float(each.min()) >= 0.0 for each in maps)
    assert all(parameter.grad is None for parameter in network.parameters())
