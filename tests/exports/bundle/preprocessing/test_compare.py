"""Tensors that clients make of a photograph, each with one mistake, and the report about it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from exports.bundle.errors import PreprocessingError
from exports.bundle.preprocessing.compare import Comparison, compare
from exports.bundle.preprocessing.inputs import StageInput
from exports.bundle.preprocessing.spec import Preprocessing
from exports.bundle.preprocessing.variants import variants
from offramp.images import ImageSpec, decode, decode_whole

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SIDE, RESIZED, IMAGE = 56, 64, 72
Array = NDArray[Any]


def photograph(exif: bytes = b"") -> bytes:
    """A file of 240 x 180 pixels with edges, fine lines and a gradient, other colours than grey."""
    ramp = np.linspace(0, 200, 240)[None].repeat(180, axis=0)
    canvas = Image.fromarray(np.dstack([ramp, 220 - ramp, ramp[:, ::-1] / 2]).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((30, 20, 110, 90), fill=(230, 60, 20))
    draw.ellipse((120, 60, 210, 150), fill=(20, 40, 200))
    for x in range(0, 240, 5):
        draw.line((x, 100, x + 20, 179), fill=(240, 240, 90))
    stream = io.BytesIO()
    canvas.save(stream, "PNG", exif=exif)
    return stream.getvalue()


PHOTO = photograph()


def stage(**changes: Any) -> StageInput:
    """A network as torchvision's, behind a bundle that decodes to 72 pixels."""
    fields: dict[str, Any] = {
        **{"side": SIDE, "resized": RESIZED, "interpolation": "bilinear"},
        **{"layout": "nchw", "channels": "rgb"},
        **{"mean": tuple(255 * MEAN), "std": tuple(255 * STD)},
    }
    return StageInput(1, "small.onnx", Preprocessing(**(fields | changes)), None)


def own_pixels(
    content: bytes = PHOTO,
    filter_: Image.Resampling = Image.Resampling.BILINEAR,
    resized: int = RESIZED,
    stretch: bool = False,
    upright: bool = True,
) -> Array:
    """What torchvision's Resize and CenterCrop make of the file, uint8 [56, 56, 3]."""
    opened = Image.open(io.BytesIO(content)).convert("RGB")
    if upright:
        opened = Image.fromarray(decode_whole(content, 10**6))
    scale = resized / min(opened.size)
    size = (resized,) * 2 if stretch else tuple(round(side * scale) for side in opened.size)
    opened = opened.resize(size, filter_)
    left, top = (round((side - SIDE) / 2) for side in opened.size)
    return np.asarray(opened.crop((left, top, left + SIDE, top + SIDE)))


def normalised(pixels: Array, mean: Array = MEAN, std: Array = STD) -> Array:
    """float32 [1, 3, H, W]."""
    return ((pixels / 255 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)


def compared(
    array: Array, content: bytes = PHOTO, own: StageInput | None = None, layout: Any = None
) -> Comparison:
    own = own or stage()
    image = decode(content, ImageSpec(IMAGE, IMAGE), 10**6)
    whole = decode_whole(content, 10**6)
    return compare(array, layout, own, variants(content, whole, image, "center_crop", own))


def test_the_tensor_that_the_network_takes_agrees() -> None:
    image = decode(PHOTO, ImageSpec(IMAGE, IMAGE), 10**6)
    for own in (stage(), stage(channels="bgr", layout="nhwc", half=True)):
        assert own.preprocessing is not None
        found = compared(own.preprocessing.apply(image[None]), own=own)
        assert found.agrees
        assert found.causes == ()
        assert found.largest is not None
        assert found.largest < 1e-2
        assert found.lines()[-1] == "this is what the network takes"


# The mistake, and what the report must name.
MISTAKES: dict[str, Callable[[], Array]] = {
    "channels are in the order BGR where RGB is expected": lambda: normalised(
        own_pixels()[..., ::-1], MEAN[::-1], STD[::-1]
    ),
    "channels are in the order BGR where RGB is expected; mean and deviation are in the reverse order of "
    "channels": lambda: normalised(own_pixels()[..., ::-1]),
    "values are 0 to 255 where ImageNet's normalisation is expected": lambda: normalised(
        own_pixels(), 0, 1 / 255
    ),
    "values are 0 to 1 where ImageNet's normalisation is expected": lambda: normalised(
        own_pixels(), 0, 1
    ),
    "values are -1 to 1 where ImageNet's normalisation is expected": lambda: normalised(
        own_pixels(), 0.5, 0.5
    ),
    "values are 0 to 255 less ImageNet's mean where": lambda: normalised(
        own_pixels(), MEAN, 1 / 255
    ),
    "values are ImageNet's normalisation without the division by 255 where": lambda: normalised(
        own_pixels() * 255.0
    ),
    "the mean is not subtracted": lambda: normalised(own_pixels(), 0, STD),
    "the values are not divided by the deviation": lambda: normalised(own_pixels(), MEAN, 1),
    "values are (x / 255 - [0.2, 0.3, 0.4]) / [0.3, 0.3, 0.3] where": lambda: normalised(
        own_pixels(), np.array([0.2, 0.3, 0.4]), 0.3
    ),
    "axes are in the order height, width, channels (NHWC) where NCHW": lambda: normalised(
        own_pixels()
    ).transpose(0, 2, 3, 1),
    "resized with another filter (nearest)": lambda: normalised(
        own_pixels(filter_=Image.Resampling.NEAREST)
    ),
    "resized with another filter (bicubic)": lambda: normalised(
        own_pixels(filter_=Image.Resampling.BICUBIC)
    ),
    "all of the image is kept where its central 88% are expected": lambda: normalised(
        own_pixels(resized=SIDE)
    ),
    "the image is stretched where it is cropped to its centre": lambda: normalised(
        own_pixels(stretch=True)
    ),
    "it is another image": lambda: normalised(own_pixels()[::-1, ::-1]),
    "all values are the same": lambda: np.zeros((3, SIDE, SIDE)),
}


@pytest.mark.parametrize("cause", MISTAKES)
def test_the_likeliest_cause_of_a_difference_is_named(cause: str) -> None:
    found = compared(MISTAKES[cause]())
    assert "; ".join(found.causes).startswith(cause)
    assert not found.agrees
    assert found.largest is not None
    assert found.mean is not None
    assert found.lines()[-1] == "this is not what the network takes"


def test_the_differences_are_of_the_values_themselves() -> None:
    image = decode(PHOTO, ImageSpec(IMAGE, IMAGE), 10**6)
    own = stage()
    assert own.preprocessing is not None
    right = own.preprocessing.apply(image[None])
    wrong = right + 0.5
    wrong[0, 1, 3, 4] += 1
    found = compared(wrong)
    assert found.largest == pytest.approx(1.5, abs=1e-3)
    assert found.mean == pytest.approx(0.5, abs=1e-3)
    assert found.levels == pytest.approx(0, abs=0.1)


def test_another_size_is_named_and_nothing_else_is_compared() -> None:
    found = compared(np.zeros((1, 3, 224, 224)))
    assert found.causes == ("it has 224 x 224 pixels where 56 x 56 are expected",)
    assert (found.largest, found.agrees) == (None, False)


def test_a_client_that_resizes_in_one_step_is_right() -> None:
    """The bundle decodes to 72 pixels, of which the network sees 64: two steps."""
    found = compared(normalised(own_pixels()))
    assert found.agrees
    assert found.causes == ("resized in other steps",)
    assert found.levels == pytest.approx(0, abs=0.1)
    assert found.lines()[-1] == "this is what the network takes but for that"


def test_an_ignored_orientation_is_named() -> None:
    turned = photograph(
        exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    )
    found = compared(normalised(own_pixels(turned, upright=False)), turned)
    assert found.causes[0] == "the EXIF orientation is ignored"


def test_a_network_that_takes_the_image_itself_takes_pixels() -> None:
    plain = StageInput(1, "mine", None, 48)
    image = decode(PHOTO, ImageSpec(IMAGE, IMAGE), 10**6)
    assert compared(image, own=plain).agrees
    unit = compared(image / 255, own=plain)
    assert unit.causes == ("values are 0 to 1 where 0 to 255 is expected",)
    assert plain.pixels(image).shape == (48, 48, 3)


def test_a_network_that_shrinks_with_antialiasing_sees_what_pillow_makes() -> None:
    image = decode(PHOTO, ImageSpec(IMAGE, IMAGE), 10**6)
    shrinks = StageInput(1, "mine", None, IMAGE // 2, antialias=True)
    expected = Image.fromarray(image).resize((IMAGE // 2,) * 2, Image.Resampling.BILINEAR)
    # Pillow rounds twice.
    assert np.abs(shrinks.pixels(image) - np.asarray(expected)).max() <= 1.01


@pytest.mark.parametrize(
    ("array", "layout", "reason"),
    [
        (np.zeros((2, 3, 8, 8)), None, "a batch of 2; one image is compared"),
        (np.zeros((8, 8)), None, "no image of three colours"),
        (np.zeros((4, 8, 8)), None, "no image of three colours"),
        (np.zeros((3, 8, 8)), "nhwc", "which is not NHWC"),
        (np.full((3, 8, 8), np.nan), None, "NaN or infinite"),
        (np.array(["a"]), None, "holds <U1, not numbers"),
        (np.zeros((3, 0, 8)), None, "no image of three colours"),
    ],
)
def test_an_array_that_is_no_image_is_refused(array: Array, layout: Any, reason: str) -> None:
    with pytest.raises(PreprocessingError, match=reason):
        compared(array, layout=layout)
