"""Makes a run of a stage of an int8 bundle again, so that training can go on from it.

    python -m benchmarks.teaching.dequantised BUNDLE/stage1.onnx RECIPE runs/cifar100-lite0-clean --data data

RECIPE is that of the stage's network: a pretrained one with one exit, at its end. Its run starts from the
dequantised weights. `--followed-by` names the run beside it whose network comes next, so that `offramp
export` makes one float32 bundle of both. An exported convolution has its batch norm inside; here batch norm
gets the mean and variance that its input has on training images, and the scale and shift that take them away
again. Weights get the norm, channel by channel, of the pretrained ones: before a batch norm, a step changes
small weights more than large ones. Prints the accuracy of both on test images.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from exports.stage_runner import StageRunner
from training.checkpoint import CheckpointConfig, save_checkpoint
from training.data.load import load_dataset
from training.models.build import network_from_recipe
from training.models.multi_exit import MultiExit, Normalize
from training.models.pretrained import load_pretrained, pixel_statistics
from training.recipes.files import load_recipe

FITTED_ON, TESTED_ON = 1024, 1000


Values = dict[str, NDArray[np.generic]]


def dequantise(stage: bytes, network: MultiExit, images: Tensor) -> None:
    """Fill the pretrained `network`, which has one exit, from the int8 graph `stage`, with batch norm fitted
    to normalised `images`, float32 [N, 3, H, W]. Raises ValueError if their layers differ."""
    graph = onnx.load_from_string(stage).graph
    values = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    given = [
        [_value(name.removesuffix("_DequantizeLinear_Output"), values) for name in node.input[1:]]
        for node in graph.node
        if node.op_type in ("Conv", "Gemm")
    ]
    layers = [x for x in network.modules() if isinstance(x, nn.Conv2d | nn.Linear)]
    norms = [x for x in network.modules() if isinstance(x, nn.BatchNorm2d)]
    if [weight.shape for weight, _ in given] != [tuple(x.weight.shape) for x in layers]:
        raise ValueError("the stage's layers are not those of the network")
    *folded, (weight, bias) = [(torch.from_numpy(w), torch.from_numpy(b)) for w, b in given]
    *convolutions, head = layers
    handles = []
    with torch.no_grad():
        for conv, norm, (w, b) in zip(convolutions, norms, folded, strict=True):
            scale = _scale(conv.weight, w)
            conv.weight.copy_(w * scale.view(-1, 1, 1, 1))
            handles.append(norm.register_forward_pre_hook(_fitting(b, scale)))
        head.weight.copy_(weight)
        assert head.bias is not None
        head.bias.copy_(bias)
        network.eval()(images)
    for handle in handles:
        handle.remove()


def _value(name: str, values: Values) -> NDArray[np.float32]:
    if name in values:
        return values[name].astype(np.float32)
    quantised = values[f"{name}_quantized"].astype(np.float32)
    scale, zero = (
        values.get(f"{name}_{part}", values.get(f"{name}_quantized_{part}"))
        for part in ("scale", "zero_point")
    )
    assert scale is not None
    assert zero is not None
    each = (-1, *(1,) * (quantised.ndim - 1)) if scale.size > 1 else ()
    return (quantised - zero.astype(np.float32).reshape(each)) * scale.reshape(each)


def _scale(like: Tensor, weight: Tensor) -> Tensor:
    """What gives each output channel of `weight` the norm that it has in `like`; 1 where one of them is 0."""
    wanted, found = (w.flatten(1).norm(dim=1) for w in (like, weight))
    return torch.where((wanted > 0) & (found > 0), wanted / found, 1.0)


def _fitting(bias: Tensor, scale: Tensor) -> Callable[[nn.BatchNorm2d, tuple[Tensor]], None]:
    """A hook that makes a batch norm divide what it is given by `scale` and add `bias`, and keep the
    statistics of what it is given."""

    def fit(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        (x,) = inputs
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt() / scale)
        norm.bias.copy_(mean / scale + bias)

    return fit


def main(argv: Sequence[str] | None = None) -> None:
    """Write the run and print what the stage and its network answer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", type=Path)
    parser.add_argument("recipe", help="name or file of the recipe of the stage's network")
    parser.add_argument("run", type=Path, help="the directory to write; its name is the run's")
    parser.add_argument("--followed-by", help="the run of the next network, in the same directory")
    parser.add_argument("--data", type=Path, default=Path("data"))
    arguments = parser.parse_args(argv)
    recipe = load_recipe(arguments.recipe)
    recipe = recipe.model_copy(
        update={"name": arguments.run.name, "followed_by": arguments.followed_by, "refit": False}
    )
    data = load_dataset(recipe.data, arguments.data)
    network = network_from_recipe(recipe.network, len(data.classes))
    load_pretrained(network.stages, recipe.network.name, "imagenet")
    chosen = np.random.default_rng(0).permutation(len(data.train.images))[:FITTED_ON]
    stage = arguments.stage.read_bytes()
    mean, std = pixel_statistics(recipe.network.name)
    normalize = Normalize(mean, std)
    dequantise(stage, network, normalize(torch.from_numpy(data.train.images[chosen])))
    images, labels = data.test.images[:TESTED_ON], data.test.labels[:TESTED_ON]
    with torch.no_grad():
        answers = {
            "stage": StageRunner([stage]).logits(images)[0],
            "network": network(normalize(torch.from_numpy(images)))[0].numpy(),
        }
    for name, logits in answers.items():
        print(f"{name}: {100 * (logits.argmax(axis=1) == labels).mean():.2f} %")
    config = CheckpointConfig(
        recipe=recipe,
        classes=data.classes,
        mean=mean,
        std=std,
        image_size=(images.shape[1], images.shape[2]),
        fingerprint=data.fingerprint,
        teacher_test=None,
        held_out=None,
        test=None,
        seconds=0.0,
        tools={"python": platform.python_version(), "torch": torch.__version__},
    )
    arguments.run.mkdir(parents=True)
    save_checkpoint(arguments.run, network, config)


if __name__ == "__main__":
    main()
