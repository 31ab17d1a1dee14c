"""The formats of a manifest: which stages take the image, and what format 1 leaves out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exports.bundle.errors import BundleError
from exports.bundle.manifest import MAX_EXITS, Manifest, format_of
from exports.bundle.reader import load_bundle, read_manifest
from tests.exports.bundles import FP32, INT8
from tests.serving.tiny_bundle import EXITS, write_tiny_bundle
from training.recipes import network

Content = dict[str, Any]


@pytest.fixture(scope="module")
def content(bundle_path: Path) -> Content:
    found: Content = json.loads((bundle_path / "manifest.json").read_text())
    return found


def with_inputs(content: Content, inputs: list[str | None], features: list[bool]) -> Content:
    """`content` of format 2 with the `input` of every exit, and features where `features` says."""
    exits = []
    for k, (entry, input_, has) in enumerate(zip(content["exits"], inputs, features, strict=True)):
        shape = content["exits"][min(k, EXITS - 2)]["feature_shape"] if has else None
        exits.append(entry | {"feature_shape": shape} | ({"input": input_} if input_ else {}))
    return content | {"format": 2, "exits": exits}


@given(
    inputs=st.lists(st.sampled_from(["image", "features", None]), min_size=EXITS, max_size=EXITS),
    features=st.lists(st.booleans(), min_size=EXITS, max_size=EXITS),
)
def test_a_manifest_is_valid_if_each_stage_has_what_it_takes(
    content: Content, inputs: list[str | None], features: list[bool]
) -> None:
    taken = [input_ or ("image" if k == 0 else "features") for k, input_ in enumerate(inputs)]
    required = [input_ == "features" for input_ in [*taken[1:], "none"]]
    candidate = with_inputs(content, inputs, features)
    if taken[0] == "image" and features == required:
        manifest = Manifest.model_validate(candidate)
        assert [entry.input for entry in manifest.exits] == taken
        assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
        assert manifest.model_dump()["exits"][0]["input"] == "image"
    else:
        with pytest.raises(ValueError, match=r"must take the image|feature_shape"):
            Manifest.model_validate(candidate)


@pytest.mark.parametrize("bundle", [FP32, INT8], ids=["float32", "int8"])
def test_a_bundle_of_format_1_is_read_and_written_unchanged(bundle: Path) -> None:
    written = json.loads((bundle / "manifest.json").read_text())
    manifest = read_manifest(bundle)
    assert manifest.format == 1
    assert [entry.input for entry in manifest.exits] == ["image"] + ["features"] * 3
    assert json.loads(manifest.model_dump_json()) == written


def test_the_oldest_format_that_fits_is_written(tmp_path: Path) -> None:
    plain = load_bundle(write_tiny_bundle(tmp_path / "plain")).manifest
    cascade = load_bundle(write_tiny_bundle(tmp_path / "cascade", image_stages=(1, 3))).manifest
    assert [format_of(manifest.exits) for manifest in (plain, cascade)] == [1, 2]
    assert [manifest.format for manifest in (plain, cascade)] == [1, 2]


def exit_(number: int, **values: object) -> Callable[[Content], None]:
    return lambda manifest: manifest["exits"][number - 1].update(values)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (exit_(1, input="features"), "stage 1 must take the image"),
        (exit_(2, input="pixels"), r"exits\.1\.input"),
        (exit_(1, feature_shape=None), "exit 1 must have a feature_shape, since stage 2 takes its"),
        (exit_(2, feature_shape=[6, 2, 2]), "exit 2 has a feature_shape, but no stage takes its"),
        (exit_(3, feature_shape=[8, 1, 1]), "exit 3 has a feature_shape, but no stage takes its"),
        (lambda manifest: manifest.update(format=1), "only stage 1 takes the image in format 1"),
        (lambda manifest: manifest.update(exits=manifest["exits"] * 11), "at most 32 items"),
        (lambda manifest: manifest.update(format=3), "format 3 is not one this version reads"),
        (
            lambda manifest: manifest["provenance"].update(followers=["name"]),
            r"provenance\.followers\.0",
        ),
    ],
)
def test_an_inconsistent_manifest_is_refused_in_one_sentence(
    tmp_path: Path, change: Callable[[Content], None], says: str
) -> None:
    bundle = write_tiny_bundle(tmp_path / "cascade", image_stages=(1, 3))
    load_bundle(bundle)
    content = json.loads((bundle / "manifest.json").read_text())
    change(content)
    (bundle / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match=says) as caught:
        load_bundle(bundle)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_recipe_has_at_most_as_many_exits_as_a_bundle() -> None:
    assert network.MAX_EXITS == MAX_EXITS


def test_format_1_has_no_followers(content: Content) -> None:
    provenance = content["provenance"] | {"followers": [{"name": "other"}]}
    with pytest.raises(ValueError, match="format 1 has no followers"):
        Manifest.model_validate(content | {"provenance": provenance})


def with_division(content: Content, samples: int, **fields: int) -> Content:
    return content | {"calibration": content["calibration"] | {"samples": samples} | fields}


@pytest.mark.parametrize(("fields", "size"), [({}, 50), ({"chosen_on": 33}, 33)])
def test_half_of_the_samples_is_chosen_on_unless_the_manifest_says_a_third(
    content: Content, fields: dict[str, int], size: int
) -> None:
    manifest = Manifest.model_validate(with_division(content, 100, **fields))
    assert manifest.calibration.selection_size == size
    # Earlier versions read a manifest that does not say it.
    assert ("chosen_on" in manifest.model_dump()["calibration"]) == bool(fields)


@pytest.mark.parametrize("chosen_on", [0, 32, 34, 49, 99, 100])
def test_other_divisions_are_refused(content: Content, chosen_on: int) -> None:
    with pytest.raises(ValueError, match="must be half or a third of the 100 samples"):
        Manifest.model_validate(with_division(content, 100, chosen_on=chosen_on))
