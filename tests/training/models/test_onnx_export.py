"""A module's ONNX graph gives the module's outputs, and the module stays as it is."""

from __future__ import annotations

import onnxruntime
import torch
from torch import nn

from training.models.onnx_export import to_onnx


def test_normalisation_is_part_of_the_convolution_and_the_module_is_unchanged() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean = torch.randn(4)
    norm.running_var = torch.rand(4) + 0.5
    module = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), norm, nn.ReLU6(inplace=True)).eval()
    images = torch.randn(2, 3, 8, 8)
    model = to_onnx(module, images, "images", ["features"])
    assert [node.op_type for node in model.graph.node] == ["Conv", "Clip"]

    session = onnxruntime.InferenceSession(model.SerializeToString())
    (features,) = session.run(None, {"images": images[:1].numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(features), module(images[:1]))
    assert module[1] is norm
    assert module[2].inplace
