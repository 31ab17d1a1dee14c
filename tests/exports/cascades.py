"""Two small networks, the second of which takes the image again, trained and exported for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exports.bundle.reader import Bundle, load_bundle
from tests.commands import call
from training.recipes.schema import validate_recipe
from training.run import run_recipe

FRONT = {"name": "resnet", "channels": [8, 16], "blocks": [1, 1]}
BIG = FRONT | {"channels": [8, 24], "side": 32}
EXITS = 4


def recipe(name: str, **fields: object) -> dict[str, object]:
    return {
        "name": name,
        "data": {"name": "digits", "held_out": 300, "padding": 1, "flip": False},
        "network": FRONT,
        "objective": {"method": "cross_entropy"},
        "train": {"epochs": 2, "batch_size": 16, "learning_rate": 0.05, "precision": "fp32"},
        **fields,
    }


@dataclass(frozen=True)
class Workshop:
    """The directory of runs with `front`, which is followed by `group/big`, and the bundles of both."""

    runs: Path
    fp32: Bundle
    int8: Bundle
    said: str


def build_workshop(place: Path) -> Workshop:
    """Train both networks below `place` and export them together, in float32 and int8."""
    for content in (recipe("front", followed_by="group/big"), recipe("group/big", network=BIG)):
        run_recipe(
            validate_recipe("test", content),
            runs=place / "runs",
            data_root=place,
            device="cpu",
            say=lambda _: None,
        )
    done = call("export", place / "runs" / "front", "-o", place / "fp32", "--graphs", "exits,maps")
    assert done.code == 0, done.err
    options = ("--precision", "int8", "--graphs", "exits,routed", "--allow-loss")
    converted = call("export", place / "fp32", "-o", place / "int8", *options)
    assert converted.code == 0, converted.err
    return Workshop(
        place / "runs", load_bundle(place / "fp32"), load_bundle(place / "int8"), done.out
    )
