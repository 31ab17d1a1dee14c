"""`offramp preprocess`: the pixels that the networks of a cascade see, and arrays beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

from exports.bundle.preprocessing.inputs import stage_inputs
from tests.commands import CommandResult, call
from tests.exports.bundles import INT8
from tests.exports.imported.by_hand import normalised, resized
from tests.exports.imported.classifiers import IMAGENET, ZERO_ONE, coloured_images
from tests.exports.imported.conftest import SMALL_SIDE, Made

PIXELS = coloured_images(1, seed=9)[0]
START = (24 - SMALL_SIDE) // 2
KEPT = slice(START, START + SMALL_SIDE)
SMALL = resized(PIXELS, 24, Image.Resampling.BILINEAR)[KEPT, KEPT]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def preprocess(photo: Path, made: Made, *options: object) -> CommandResult:
    return call("preprocess", photo, "--bundle", made.bundle.path, *options)


def saved(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "array.npy", array)
    return folder / "array.npy"


def test_stages_that_see_different_pixels_get_an_image_each(photo: Path, made: Made) -> None:
    done = preprocess(photo, made, "-o", photo.parent / "seen.png")
    assert done.code == 0, done.err
    assert "seen-stage1.png: 20 x 20 pixels, as seen by stage 1 (small.onnx)" in done.out
    assert "seen-stage2.png: 32 x 32 pixels, as seen by stage 2 (large.onnx)" in done.out
    small = np.asarray(Image.open(photo.parent / "seen-stage1.png"))
    assert np.abs(small - SMALL).max() <= 0.51
    assert np.array_equal(np.asarray(Image.open(photo.parent / "seen-stage2.png")), PIXELS)


def test_the_choice_of_a_stage_gives_the_file_its_own_name(photo: Path, made: Made) -> None:
    done = preprocess(photo, made, "-o", photo.parent / "seen.png", "--stage", 2)
    assert done.code == 0, done.err
    assert np.array_equal(np.asarray(Image.open(photo.parent / "seen.png")), PIXELS)


def test_the_pixels_are_those_in_the_graph_of_the_stage(made: Made) -> None:
    """The tensor before the network's first own node, read out of the bundle's graph."""
    for one, content in zip(stage_inputs(made.bundle.manifest), made.bundle.stages, strict=True):
        model = onnx.load_from_string(content)
        model.graph.output.append(onnx.ValueInfoProto(name="network/pixels"))
        session = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        (inside,) = session.run(["network/pixels"], {"image": PIXELS[None]})
        assert one.preprocessing is not None
        np.testing.assert_allclose(one.preprocessing.apply(PIXELS[None]), inside, atol=1e-5)
        seen = inside[0].transpose(1, 2, 0) if one.layout == "nchw" else inside[0]
        pixels = seen * np.array(one.std) + np.array(one.mean)
        np.testing.assert_allclose(one.pixels(PIXELS), pixels, atol=1e-2)


def test_a_tensor_of_ones_own_is_compared_with_the_stage_of_its_size(
    photo: Path, made: Made
) -> None:
    array = normalised(SMALL, IMAGENET).transpose(2, 0, 1)
    done = preprocess(photo, made, "--against", saved(photo.parent, array))
    assert done.code == 0, done.out + done.err
    assert "array.npy against stage 1 (small.onnx):" in done.out
    assert "this is what the network takes" in done.out
    done = preprocess(photo, made, "--against", saved(photo.parent, PIXELS[None]))
    assert done.code == 1
    assert "against stage 2 (large.onnx):" in done.out
    assert "values differ by" in done.out
    assert "most likely cause: values are 0 to 255 where 0 to 1 is expected" in done.out
    array = normalised(PIXELS[..., ::-1], ZERO_ONE).transpose(2, 0, 1)
    done = preprocess(photo, made, "--against", saved(photo.parent, array), "--layout", "nchw")
    assert done.code == 1
    assert (
        "most likely causes: axes are in the order channels, height, width (NCHW) where NHWC is "
        "expected; channels are in the order BGR where RGB is expected" in done.out
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "there is nothing to do: give -o for an image, or --against"),
        (("-o", "x.png", "--layout", "nchw"), "--layout is the order of an array's axes"),
        (("-o", "x.png", "--stage", 3), "there is no stage 3; the stages are 1 to 2"),
        (("--against", "missing.npy"), "missing.npy cannot be read: No such file"),
        (("--against", "photo.png"), "photo.png is no .npy file"),
        (("--against", "other.npy"), "stages 1, 2 see the image differently: choose one"),
        (("--against", "objects.npy"), "objects.npy is no .npy file with an array of numbers"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    options: tuple[object, ...],
    reason: str,
    photo: Path,
    made: Made,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(photo.parent)
    np.save("other.npy", np.zeros((3, 7, 7)))
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    done = preprocess(photo, made, *options)
    assert done.refused_in_one_sentence, done.err
    assert reason in done.err


def test_a_network_with_exits_inside_sees_the_whole_image(photo: Path, tmp_path: Path) -> None:
    bundle = ("--bundle", INT8, "-o", tmp_path / "seen.png")
    done = call("preprocess", photo, *bundle)
    assert done.code == 0, done.err
    assert np.array_equal(np.asarray(Image.open(tmp_path / "seen.png")), PIXELS)
    refused = call("preprocess", photo, *bundle, "--stage", 2)
    assert "stage 2 takes the features of stage 1, not an image" in refused.err
