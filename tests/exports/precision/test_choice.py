"""Without `--precision` a network that is made for int8 is exported in it, unless that costs too much."""

from __future__ import annotations

from pathlib import Path

import pytest

from exports import source
from exports.bundle.errors import ExportError
from exports.options import ExportOptions, PrecisionChoice
from exports.pipeline import export_bundle
from exports.precision import convert
from training.recipes.auto import choose_recipes
from training.recipes.files import load_recipe


def export(
    workplace: Path, target: Path, precision: PrecisionChoice = "auto"
) -> tuple[str, list[str]]:
    """The precision of the digits bundle, and what was said."""
    said: list[str] = []
    options = ExportOptions(precision=precision)
    run = workplace / "runs" / "digits-oto"
    manifest = export_bundle(run, target, options, data_root=workplace, say=said.append)
    return manifest.precision, said


def test_networks_from_scratch_are_float32(workplace: Path, tmp_path: Path) -> None:
    assert export(workplace, tmp_path / "bundle")[0] == "fp32"
    assert not source.made_for_int8(load_recipe("digits-oto"))


def test_the_recipes_for_photographs_are_made_for_int8() -> None:
    chosen = choose_recipes("photos", "photos", {"a": 200, "b": 200}, 256)
    assert all(source.made_for_int8(recipe) for recipe in chosen.recipes)


def test_a_network_that_is_made_for_int8_is_exported_in_it(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "made_for_int8", lambda _: True)
    assert export(workplace, tmp_path / "bundle")[0] == "int8"
    assert export(workplace, tmp_path / "asked", "fp32")[0] == "fp32"


def test_where_int8_costs_too_much_the_bundle_is_float32_and_the_export_says_so(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "made_for_int8", lambda _: True)
    monkeypatch.setattr(convert, "MAX_LOST_POINTS", -101.0)
    monkeypatch.setattr(convert, "MIN_LOST_ANSWERS", -10_000)
    precision, said = export(workplace, tmp_path / "bundle")
    assert precision == "fp32"
    assert any(line.endswith(": the bundle is in fp32") for line in said)
    with pytest.raises(ExportError, match="no bundle was written"):
        export(workplace, tmp_path / "asked", "int8")
